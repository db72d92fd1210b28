"""Charts as inline SVG: deterministic, light and dark through the page's CSS variables, text kept as text."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from rlhf.report.content import History
from schemas.reports import CurvePoint, Interval, PolicyEvaluation, Probe, RewardResult

INK, MUTED, GRID = "#010101", "#010102", "#010103"
SERIES = ("#010111", "#010112", "#010113", "#010114")
"""Stand-ins that become CSS variables, so that one picture serves light and dark."""
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line"} | {
    colour: f"series-{index}" for index, colour in enumerate(SERIES, start=1)
}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
POINTS = 160
"""Points of a curve at most; longer histories show evenly spaced ones, the last included."""


def metric_curve(stage: str, metric: str, history: History) -> Markup:
    """Draw one logged metric over its steps."""
    with _style(f"{stage}/{metric}"):
        figure, axes = _figure(3.5, 2.1)
        shown = _thin(history)
        axes.plot([step for step, _ in shown], [value for _, value in shown], color=SERIES[0])
        axes.set_title(metric.replace("_", " "))
        axes.set_xlabel("step")
        return _svg(figure, f"{metric} of {stage} by step")


def frontier(name: str, curve: Sequence[CurvePoint]) -> Markup:
    """Draw score and, beside it, gold against KL: a score that rises while gold falls is over-optimised."""
    with _style(f"frontier/{name}"):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        _frontier_panel(
            left, curve, [point.score for point in curve], SERIES[0], "score (what was optimised)"
        )
        gold = [point.gold for point in curve if point.gold is not None]
        if len(gold) == len(curve):
            _frontier_panel(right, curve, gold, SERIES[1], "gold: what was meant")
        else:
            right.set_axis_off()
            right.text(
                0.5, 0.5, "gold is not known here", ha="center", color=MUTED, transform=right.transAxes
            )
        return _svg(figure, f"Score and gold of {name} against KL from the SFT policy")


def _frontier_panel(
    axes: Axes, curve: Sequence[CurvePoint], values: Sequence[float], colour: str, title: str
) -> None:
    kl = [point.kl for point in curve]
    axes.plot(kl, values, color=colour, alpha=0.45, linewidth=1.2)
    axes.scatter(
        kl, values, s=[10 + 20 * index / len(kl) for index in range(len(kl))], color=colour, linewidths=0
    )
    axes.set_title(title)
    axes.set_xlabel("KL from SFT per response, nats")
    for index, where in ((0, "first"), (len(kl) - 1, "last")):
        axes.annotate(
            f"{where}: {values[index]:.2f}", (kl[index], values[index]),
            xytext=(0, 8), textcoords="offset points", ha="left" if where == "first" else "right", fontsize=8,
        )  # fmt: skip
    axes.margins(0.08, 0.18)


def win_rates(evaluations: Mapping[str, PolicyEvaluation], wanted_low: float) -> Markup:
    """Draw each aligner's win rate over SFT with its interval (forest plot)."""
    judged = {
        name.upper(): Interval(value=found.win_rate, low=found.win_rate_low, high=found.win_rate_high)
        for name, found in evaluations.items()
        if found.win_rate is not None and found.win_rate_low is not None and found.win_rate_high is not None
    }
    with _style("win_rates"):
        figure, axes = _figure(5.6, 1.0 + 0.42 * len(judged))
        _forest(axes, judged, chance=0.5)
        if wanted_low != 0.5:
            axes.axvline(wanted_low, color=SERIES[1], linewidth=1, linestyle=":")
        axes.set_title("win rate over the SFT model")
        return _svg(figure, "Win rate of each aligner over the SFT model with its interval")


def reward_model(reward: RewardResult) -> Markup:
    """Draw held-out accuracy beside the baseline that always picks the longer response."""
    with _style("reward"):
        figure, axes = _figure(5.6, 1.8)
        _forest(
            axes, {"reward model": reward.accuracy, "longer one wins": reward.longer_baseline}, chance=0.5
        )
        axes.set_title("accuracy on held-out pairs")
        return _svg(figure, "Accuracy of the reward model and of the longer-response baseline")


def probe_accuracies(probes: Sequence[Probe]) -> Markup:
    """Draw the reward model's accuracy on pairs that differ in one flaw, weakest first."""
    with _style("probes"):
        figure, axes = _figure(5.6, 1.0 + 0.36 * len(probes))
        ordered = sorted(probes, key=lambda probe: probe.accuracy.value)
        _forest(axes, {probe.flaw.replace("_", " "): probe.accuracy for probe in ordered}, chance=0.5)
        axes.set_title("accuracy by flaw, weakest first")
        return _svg(figure, "Accuracy of the reward model by kind of flaw")


def _forest(axes: Axes, rows: Mapping[str, Interval], *, chance: float) -> None:
    for row, found in enumerate(rows.values()):
        axes.plot([found.low, found.high], [row, row], color=SERIES[0], linewidth=2.2, solid_capstyle="round")
        axes.plot([found.value], [row], "o", color=SERIES[0], markersize=6)
        axes.annotate(
            f"{found.value:.1%}", (found.value, row), xytext=(0, 7), textcoords="offset points",
            ha="center", fontsize=8,
        )  # fmt: skip
    axes.axvline(chance, color=MUTED, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.7)
    lowest = min((found.low for found in rows.values()), default=0.0)
    axes.set_xlim(max(0.0, min(0.4, lowest - 0.05)), 1.02)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(visible=False, axis="y")


def _style(name: str) -> "mpl.RcContext":  # type: ignore[name-defined]
    return mpl.rc_context(STYLE | {"svg.hashsalt": name})


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _thin(history: History) -> History:
    stride = -(-len(history) // POINTS)
    return history if stride < 2 else history[(len(history) - 1) % stride :: stride]


def _svg(figure: Figure, label: str) -> Markup:
    buffer = io.StringIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    FigureCanvasSVG(figure).print_svg(
        buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    # Several pictures share the page: names of groups would collide, and the page sets the size.
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    width, height = (inches * 72 for inches in figure.get_size_inches())
    head = (
        f'<svg class="chart" style="max-width: {width * 1.45:.0f}px" viewBox="0 0 {width:g} {height:g}" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(label)}">'
    )
    drawn = re.sub(r"^<svg [^>]*>", lambda _: head, drawn)
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    return Markup(drawn)  # noqa: S704 - matplotlib escapes the text that it draws
