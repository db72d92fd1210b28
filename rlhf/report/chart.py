"""The parts of a chart as SVG: plot area, axes with round ticks, lines and text. Colours are classes of chart.css."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

CHARACTER = 6.6
"""Width of a character of 12 px, at most, on average: SVG does not measure text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """The rectangle that is plotted in, and the values at its edges."""

    left: float
    right: float
    top: float
    bottom: float
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    @property
    def scales(self) -> str:
        """Edges in pixels, then the values at them."""
        edges = (self.left, self.right, self.top, self.bottom)
        return " ".join(f"{n:.6g}" for n in (*edges, self.low_x, self.high_x, self.low_y, self.high_y))

    def x(self, value: float) -> float:
        """Return the pixel of a value."""
        return _place(value, self.low_x, self.high_x, self.left, self.right)

    def y(self, value: float) -> float:
        """Return the pixel of a value; larger ones are higher up."""
        return _place(value, self.low_y, self.high_y, self.bottom, self.top)


def svg(
    parts: Sequence[str],
    *,
    width: float,
    height: float,
    label: str,
    plot: Area | None = None,
    x: str = "step",
) -> Markup:
    """Return a picture that fills its column, up to a third more than its own size.

    With `plot`, the page's script can tell the values of its lines under the pointer; `x` names that axis.
    """
    told = "" if plot is None else f'data-plot="{plot.scales}" data-x="{escape(x)}" '
    return Markup(  # noqa: S704 - every text among the parts went through escape
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" {told}'
        f'style="max-width: {width * 4 / 3:.0f}px" '
        f'role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def standalone(picture: Markup, style: str) -> str:
    """Return a picture as a file of its own, with its colours and a background."""
    # As plain text: what is added to Markup gets escaped.
    head, _, body = str(picture).partition(">")
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f'{head}><style>{style}</style><rect width="100%" height="100%" fill="var(--card)"/>{body}'


def text(kind: str, x: float, y: float, content: str, *, anchor: str = "start", full: str = "") -> str:
    """Write text; `full` appears when the pointer rests on it."""
    title = f"<title>{escape(full)}</title>" if full else ""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}{title}</text>'
    )


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Draw a straight line."""
    return f'<path class="{kind}" d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}"/>'


def curve(kind: str, points: Sequence[tuple[float, float]], area: Area, *, name: str = "") -> str:
    """Draw a line through the values; the name tells it from others in the same picture."""
    path = "L".join(f"{area.x(x):.1f},{area.y(y):.1f}" for x, y in points)
    named = f' data-name="{escape(name)}"' if name else ""
    return f'<path class="{kind}"{named} d="M{path}"/>'


def axes(area: Area, *, label: str, whole: bool = False) -> list[str]:
    """Draw grid, ticks and the name of the x axis; `whole`: that axis counts."""
    parts = []
    for value, written in ticks(area.low_y, area.high_y, 5):
        y = area.y(value)
        parts += [line("grid", area.left, y, area.right, y)]
        parts += [text("tick", area.left - 6, y + 4, written, anchor="end")]
    for value, written in ticks(area.low_x, area.high_x, 5, whole=whole):
        x = area.x(value)
        parts += [line("grid", x, area.top, x, area.bottom)]
        parts += [text("tick", x, area.bottom + 16, written, anchor="middle")]
    middle = (area.left + area.right) / 2
    return [*parts, text("tick", middle, area.bottom + 33, label, anchor="middle")]


def ticks(low: float, high: float, wanted: int, *, whole: bool = False) -> list[tuple[float, str]]:
    """Return at most `wanted` + 1 round values within the range, and how they are written."""
    rough = max((high - low) / wanted, 1.0 if whole else 0.0)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, _written(number * step, decimals)) for number in numbers]


def span(values: Sequence[float], *, margin: float = 0.0) -> tuple[float, float]:
    """Return the range of the values, widened by a share; never empty."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        wide = abs(low) / 2 or 0.5
        return low - wide, high + wide
    extra = (high - low) * margin
    return low - extra, high + extra


def tick_room(low: float, high: float) -> float:
    """Return the pixels that the numbers on a y axis need."""
    return 12 + CHARACTER * max((len(written) for _, written in ticks(low, high, 5)), default=1)


def cut(content: str, length: int) -> str:
    """Shorten a label."""
    return content if len(content) <= length else f"{content[: length - 1]}…"


def _written(value: float, decimals: int) -> str:
    if decimals > 4 or abs(value) >= 1e6:
        return f"{value:g}"
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start)
