"""The picture of `rlhf frontier`: proxy and gold against the distance from the reference, with their fitted curves."""

import math
from pathlib import Path

import numpy as np
from markupsafe import escape

from rlhf.evaluation.over_optimisation import predict
from rlhf.report.chart import Area, axes, curve, line, span, standalone, svg, text, tick_room
from schemas.frontier import FrontierFit, FrontierReport, MethodFrontier

WIDTH, HEIGHT = 400, 300
"""Pixels of a panel."""
STEPS = 80
"""Points of a fitted curve."""


def picture(report: FrontierReport) -> str:
    """Return one panel per method side by side, as a file of its own."""
    parts = [part for place, method in enumerate(report.methods) for part in _panel(method, place * WIDTH)]
    drawn = svg(
        parts,
        width=WIDTH * len(report.methods),
        height=HEIGHT,
        label=f"score of the reward model and {report.gold} against the square root of KL, run {report.run_id}",
    )
    style = (Path(__file__).parent / "chart.css").read_text(encoding="utf-8")
    return standalone(drawn, style)


def _panel(method: MethodFrontier, left: float) -> list[str]:
    """Draw the points of both values, the curves through them, and the budget."""
    values = [value for point in method.points for value in (point.score, point.gold)]
    low, high = span(values, margin=0.1)
    distances = [math.sqrt(max(0.0, point.kl)) for point in method.points]
    _, farthest = span([0.0, *distances], margin=0.04)
    area = Area(
        left=left + tick_room(low, high), right=left + WIDTH - 12, top=56, bottom=HEIGHT - 46, low_x=0.0,
        high_x=farthest, low_y=low, high_y=high,
    )  # fmt: skip
    budget = area.x(math.sqrt(method.budget_kl))
    late = budget > (area.left + area.right) / 2
    parts = [
        text("title", left + 4, 16, method.method),
        text("value one", left + 4, 34, "proxy: score of the reward model"),
        text("value two", left + WIDTH - 12, 34, "gold: what was meant", anchor="end"),
        *axes(area, label="square root of KL from SFT per response, nats"),
        line("chance", budget, area.top, budget, area.bottom),
        text(
            "tick",
            budget + (-4 if late else 4),
            area.top + 10,
            _budget(method),
            anchor="end" if late else "start",
        ),
    ]
    for kind, fit, ys in (
        ("one", method.score_fit, [point.score for point in method.points]),
        ("two", method.gold_fit, [point.gold for point in method.points]),
    ):
        parts.append(_fitted(kind, fit, max(distances), area))
        for point, d, y in zip(method.points, distances, ys, strict=True):
            parts.append(
                f'<circle class="dot {kind}" cx="{area.x(d):.1f}" cy="{area.y(y):.1f}" r="3.2">'
                f"<title>{escape(point.label)}: KL {point.kl:.2f}, {y:.2f}</title></circle>"
            )
    return parts


def _fitted(kind: str, fit: FrontierFit, farthest: float, area: Area) -> str:
    grid = np.linspace(0, farthest, STEPS)
    found = predict(fit.form, (fit.start.value, fit.alpha.value, fit.beta.value), grid)
    inside = [
        (float(d), float(value))
        for d, value in zip(grid, found, strict=True)
        if area.low_y <= value <= area.high_y
    ]
    return curve(f"stroke {kind}", inside, area) if len(inside) > 1 else ""


def _budget(method: MethodFrontier) -> str:
    return f"gold peaks: {method.budget_kl:.1f} nats" if method.turned else "no turn measured"
