"""The pipeline as an SVG picture: four panels that read like figure 2 of Ouyang et al. (2022)."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from schemas.reports import StageRecord
from schemas.units import duration

PANELS = (
    ("1 · Demonstrate", ("validate", "pretrain", "sft")),
    (
        "2 · Compare",
        ("sample", "select", "preferences", "reward-base", "reward", "probe", "reference", "judge"),
    ),
    ("3 · Reinforce", ()),
    ("4 · Decide", ("evaluate", "gate", "register", "report")),
)
"""Panel titles and their stages; whatever is named nowhere is an aligner."""
MEANING = {
    "validate": "check the data",
    "pretrain": "learn language from raw text",
    "sft": "imitate demonstrations",
    "sample": "several answers per prompt",
    "select": "where rewards disagree",
    "preferences": "rank the answers",
    "reward-base": "what it starts from",
    "reward": "learn what people prefer",
    "probe": "which flaws does it see?",
    "reference": "what SFT says of the pairs",
    "judge": "another one, to judge with",
    "evaluate": "judge on held-out prompts",
    "gate": "better, and no worse?",
    "register": "versions and aliases",
    "report": "this page",
}
WIDTH, NODE, GAP, HEAD, PAD = 244, 58, 18, 40, 12
"""Pixels: panel width, node height, gap between nodes, panel head, panel padding."""


def pipeline(stages: Sequence[StageRecord], *, vertical: bool) -> Markup:
    """Draw the stages with their times; panels stand side by side, or below each other for a phone."""
    panels = _panels(stages)
    heights = [HEAD + len(nodes) * (NODE + GAP) - GAP + PAD for _, nodes in panels]
    slowest = max((stage.seconds for stage in stages), default=0.0) or 1.0
    parts, x, y = [], 0, 0
    between = 30
    for index, ((title, nodes), own) in enumerate(zip(panels, heights, strict=True)):
        height = own if vertical else max(heights)
        parts.append(_panel(title, nodes, x, y, height, slowest))
        if vertical:
            y += height + between
        else:
            x += WIDTH + between
        if index + 1 < len(panels):
            parts.append(
                _arrow(WIDTH / 2, y - between + 4, WIDTH / 2, y - 4)
                if vertical
                else _arrow(x - between + 4, max(heights) / 2, x - 4, max(heights) / 2)
            )
    width, height = (WIDTH, y - between) if vertical else (x - between, max(heights, default=0))
    return Markup(  # noqa: S704 - every text in it went through escape
        f'<svg class="pipeline {"tall" if vertical else "wide"}" viewBox="-1 -1 {width + 2} {height + 2}" '
        f'role="img" aria-label="The stages of the run with their times">{"".join(parts)}</svg>'
    )


def _panels(stages: Sequence[StageRecord]) -> list[tuple[str, list[StageRecord]]]:
    named = [stem for _, stems in PANELS for stem in stems]
    panels = []
    for title, stems in PANELS:
        nodes = [stage for stage in stages if (_stem(stage) in stems if stems else _stem(stage) not in named)]
        if nodes:
            panels.append((title, nodes))
    return panels


def _stem(stage: StageRecord) -> str:
    # An evaluation per policy may be called evaluate-ppo, evaluate_ppo or evaluate/ppo.
    return "evaluate" if stage.stage.startswith("evaluate") else stage.stage


def _panel(title: str, nodes: list[StageRecord], x: int, y: int, height: int, slowest: float) -> str:
    parallel = _stem(nodes[0]) not in MEANING
    parts = [
        f'<rect class="panel" x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="14"/>'
        f'<text class="panel-title" x="{x + PAD + 2}" y="{y + 26}">{escape(title)}</text>'
    ]
    for index, stage in enumerate(nodes):
        top = y + HEAD + index * (NODE + GAP)
        parts.append(_node(stage, x + PAD, top, slowest))
        siblings = index + 1 < len(nodes) and _stem(nodes[index + 1]) == _stem(stage)
        if index + 1 < len(nodes) and not parallel and not siblings:
            parts.append(_arrow(x + WIDTH / 2, top + NODE + 2, x + WIDTH / 2, top + NODE + GAP - 2))
    return "".join(parts)


def _node(stage: StageRecord, x: int, y: int, slowest: float) -> str:
    width = WIDTH - 2 * PAD
    meaning = MEANING.get(_stem(stage), "align, tethered to SFT by KL")
    when = {"ran": duration(stage.seconds), "reused": "re-used", "failed": "failed"}[stage.status]
    # The bar compares the times of this run; a re-used stage cost nothing.
    bar = 0 if stage.status == "reused" else max(2.0, (width - 24) * stage.seconds / slowest)
    return (
        f'<g class="node {stage.status}">'
        f"<title>{escape(stage.name)}: {stage.status}, {duration(stage.seconds)}</title>"
        f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{NODE}" rx="9"/>'
        f'<text class="name" x="{x + 12}" y="{y + 22}">{escape(stage.name)}</text>'
        f'<text class="when" x="{x + width - 12}" y="{y + 22}" text-anchor="end">{when}</text>'
        f'<text class="meaning" x="{x + 12}" y="{y + 40}">{escape(meaning)}</text>'
        f'<rect class="bar" x="{x + 12}" y="{y + NODE - 10}" width="{bar:.1f}" height="3" rx="1.5"/></g>'
    )


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    down = x1 == x2
    head = (
        f"M{x2 - 4},{y2 - 5} L{x2},{y2} L{x2 + 4},{y2 - 5}"
        if down
        else f"M{x2 - 5},{y2 - 4} L{x2},{y2} L{x2 - 5},{y2 + 4}"
    )
    return f'<path class="arrow" d="M{x1},{y1} L{x2},{y2} {head}"/>'
