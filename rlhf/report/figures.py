"""The charts of the page as inline SVG: drawn without a plotting library, whose import alone took a second."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from rlhf.report.chart import CHARACTER, Area, axes, curve, cut, line, span, svg, text, tick_room
from rlhf.report.content import History
from schemas.evaluation import CurvePoint, PolicyEvaluation
from schemas.record import Interval
from schemas.reports import Probe

POINTS = 240
"""Points of a curve at most; longer histories show evenly spaced ones, the last included."""
NOISY = 40
"""From this many values on, a running mean is drawn over them."""
LABEL = 20
"""Characters of a row's label."""


def metric_curve(stage: str, metric: str, history: History) -> Markup:
    """Draw one logged metric over its steps; a long one faintly, with its running mean on top."""
    mean = running_mean(history)
    low, high = span([value for _, value in history], margin=0.05)
    first, last = span([step for step, _ in history])
    area = Area(
        left=tick_room(low, high), right=320, top=34, bottom=172, low_x=first, high_x=last, low_y=low, high_y=high,
    )  # fmt: skip
    name = metric.replace("_", " ")
    title = f"{stage} · {name}"
    parts = axes(area, label="step", whole=True)
    if len(history) >= NOISY:
        parts.append(curve("raw", thin(history), area))
    parts.append(curve("stroke one", thin(mean), area))
    parts.append(text("title", 4, 16, cut(title, 32), full=title))
    parts.append(text("value", 336, 16, f"{mean[-1][1]:.3g}", anchor="end", full="at the end"))
    return svg(parts, width=340, height=212, label=f"{name} of {stage} by step", plot=area)


def frontier(name: str, points: Sequence[CurvePoint]) -> tuple[Markup, Markup]:
    """Draw score and gold against KL: a score that rises while gold falls is over-optimised."""
    score = _against_kl(name, points, [point.score for point in points], "score: what was optimised", "one")
    gold = [point.gold for point in points if point.gold is not None]
    if len(gold) < len(points):
        note = text("tick", 200, 130, "gold is not known here", anchor="middle")
        return score, svg([note], width=400, height=270, label=f"gold of {name} is not known")
    return score, _against_kl(name, points, gold, "gold: what was meant", "two")


def _against_kl(
    name: str, points: Sequence[CurvePoint], values: Sequence[float], title: str, kind: str
) -> Markup:
    low, high = span(values, margin=0.08)
    first, last = span([point.kl for point in points], margin=0.04)
    area = Area(
        left=tick_room(low, high), right=388, top=36, bottom=228, low_x=first, high_x=last, low_y=low, high_y=high,
    )  # fmt: skip
    path = [(point.kl, value) for point, value in zip(points, values, strict=True)]
    parts = [*axes(area, label="KL from SFT per response, nats"), curve(f"path {kind}", path, area)]
    for number, (point, (kl, value)) in enumerate(zip(points, path, strict=True), start=1):
        radius = 2 + 3 * number / len(path)
        parts.append(
            f'<circle class="dot {kind}" cx="{area.x(kl):.1f}" cy="{area.y(value):.1f}" r="{radius:.1f}">'
            f"<title>iteration {point.iteration}: KL {kl:.2f}, {value:.2f}</title></circle>"
        )
    parts.append(text("title", 4, 16, title))
    ends = f"{values[0]:.2f} → {values[-1]:.2f}"
    parts.append(text(f"value {kind}", 392, 16, ends, anchor="end", full="first and last iteration"))
    label = f"{title}, against KL, for {name}"
    return svg(parts, width=400, height=270, label=label, plot=area, x="KL")


def win_rates(evaluations: Mapping[str, PolicyEvaluation], wanted_low: float) -> Markup:
    """Draw each aligner's win rate over SFT with its interval (forest plot)."""
    judged = {
        name.upper(): Interval(value=found.win_rate, low=found.win_rate_low, high=found.win_rate_high)
        for name, found in evaluations.items()
        if found.win_rate is not None and found.win_rate_low is not None and found.win_rate_high is not None
    }
    wanted = wanted_low if wanted_low != 0.5 else None
    return forest("win rate over the SFT model", judged, wanted=wanted)


def probe_accuracies(probes: Sequence[Probe]) -> Markup:
    """Draw the reward model's accuracy on pairs that differ in one flaw, weakest first."""
    ordered = sorted(probes, key=lambda probe: probe.accuracy.value)
    rows = {probe.flaw.replace("_", " "): probe.accuracy for probe in ordered}
    return forest("accuracy on pairs that differ in one flaw", rows)


def forest(title: str, rows: Mapping[str, Interval], *, wanted: float | None = None) -> Markup:
    """Draw shares with their intervals, one per row, beside the line of chance."""
    label = 10 + CHARACTER * max((len(cut(name, LABEL)) for name in rows), default=0)
    bottom = 40 + 28 * max(1, len(rows))
    lowest = min((found.low for found in rows.values()), default=0.4)
    area = Area(
        left=label, right=256, top=30, bottom=bottom, low_x=max(0.0, min(0.4, lowest - 0.05)), high_x=1.0,
        low_y=0, high_y=1,
    )  # fmt: skip
    parts = [text("title", 4, 16, title)]
    for share in (value / 4 for value in range(5)):
        if share >= area.low_x:
            x = area.x(share)
            parts += [line("grid", x, area.top, x, area.bottom)]
            parts += [text("tick", x, bottom + 16, f"{share:.0%}", anchor="middle")]
    parts.append(line("chance", area.x(0.5), area.top, area.x(0.5), bottom))
    if wanted is not None:
        parts.append(line("wanted", area.x(wanted), area.top, area.x(wanted), bottom))
    for number, (name, found) in enumerate(rows.items()):
        y = 50.0 + 28 * number
        parts += [
            text("label", 4, y + 4, cut(name, LABEL), full=name),
            line("range", area.x(found.low), y, area.x(found.high), y),
            f'<circle class="dot one" cx="{area.x(found.value):.1f}" cy="{y:.1f}" r="4.5"/>',
            text("label", 400, y + 4, _with_interval(found), anchor="end"),
        ]
    return svg(parts, width=404, height=bottom + 24, label=title)


def _with_interval(found: Interval) -> str:
    return f"{found.value:.1%} ({100 * found.low:.1f}\N{EN DASH}{100 * found.high:.1f})"


def running_mean(history: History) -> History:
    """Return the mean of each value's neighbours, a short history as it is."""
    width = len(history) // 25 if len(history) >= NOISY else 0
    values = [value for _, value in history]
    return tuple(
        (step, sum(near := values[index - min(width, index) : index + min(width, index) + 1]) / len(near))
        for index, (step, _) in enumerate(history)
    )


def thin(history: History) -> History:
    """Return at most `POINTS` evenly spaced values, the last included."""
    stride = -(-len(history) // POINTS)
    return history if stride < 2 else history[(len(history) - 1) % stride :: stride]
