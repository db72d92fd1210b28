"""The picture of `rlhf compare`: every policy against every measure and cost, best first."""

from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import escape

from rlhf.report.chart import CHARACTER, Area, cut, line, span, standalone, svg, text, ticks
from schemas.standings import Standing, Standings

WIDTH, ROW, COLUMNS = 250, 24, 3
"""Pixels of a panel and of a policy's row in it, and panels side by side."""
TOP, BOTTOM = 40, 34

Panel = tuple[str, Callable[[Standing], float | None]]
"""Its title, and what it shows of a policy."""


def picture(report: Standings) -> str:
    """Return a panel for each measure and cost, as a file of its own."""
    panels = [panel for panel in _panels(report) if any(panel[1](one) is not None for one in report.policies)]
    names = max(len(cut(one.name, 20)) for one in report.policies) * CHARACTER + 16
    height = TOP + ROW * len(report.policies) + BOTTOM
    parts: list[str] = []
    for place, panel in enumerate(panels):
        left = (place % COLUMNS) * (WIDTH + names)
        parts += _panel(report, panel, left + names, (place // COLUMNS) * height)
    rows = -(-len(panels) // COLUMNS)
    drawn = svg(
        parts,
        width=COLUMNS * (WIDTH + names),
        height=rows * height,
        label=f"{len(report.policies)} policies of the recipe {report.recipe}, by {report.measure}",
    )
    style = (Path(__file__).parent / "chart.css").read_text(encoding="utf-8")
    return standalone(drawn, style)


def _panels(report: Standings) -> Sequence[Panel]:
    def measure(name: str) -> Callable[[Standing], float | None]:
        return lambda one: one.measures.get(name)

    return (
        (f"{report.measure}, with {report.confidence:.0%} interval", lambda one: one.value.value),
        ("win rate over SFT", measure("win_rate")),
        ("KL from SFT, nats", measure("kl")),
        ("length, tokens", measure("length")),
        ("right answers", measure("right")),
        ("rude answers", measure("rude")),
        ("tokens sampled to train", lambda one: one.spent.sampled_tokens),
        ("tokens learnt from", lambda one: one.spent.gradient_tokens),
        ("seconds of training", lambda one: one.spent.seconds),
        ("tokens drawn per answer", lambda one: one.tokens_per_answer),
    )


def _panel(report: Standings, panel: Panel, left: float, top: float) -> list[str]:
    title, value = panel
    first = title.startswith(report.measure)
    known = [
        (row, one, found) for row, one in enumerate(report.policies) if (found := value(one)) is not None
    ]
    shown = [found for _, _, found in known]
    if first:
        shown += [bound for one in report.policies for bound in (one.value.low, one.value.high)]
    low, high = span(shown, margin=0.08)
    area = Area(
        left=left, right=left + WIDTH - 24, top=top + TOP, bottom=top + TOP + ROW * len(report.policies),
        low_x=low, high_x=high, low_y=0.0, high_y=1.0,
    )  # fmt: skip
    parts = [text("title", area.left, top + 20, title)]
    for number, written in ticks(low, high, 4):
        parts.append(line("grid", area.x(number), area.top, area.x(number), area.bottom))
        parts.append(text("tick", area.x(number), area.bottom + 16, written, anchor="middle"))
    for row, one, found in known:
        y = area.top + ROW * (row + 0.5)
        parts.append(text("tick", area.left - 8, y + 4, cut(one.name, 20), anchor="end", full=one.name))
        if first:
            parts.append(line("stroke one", area.x(one.value.low), y, area.x(one.value.high), y))
        note = f"{one.name}: {found:,.3f}" + (f" (group {one.letters})" if first else "")
        parts.append(
            f'<circle class="dot one" cx="{area.x(found):.1f}" cy="{y:.1f}" r="4"><title>{escape(note)}</title></circle>'
        )
    return parts
