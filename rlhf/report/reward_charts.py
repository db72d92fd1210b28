"""The charts and sentences about the reward model: on which pairs it is right, how sure it is, and what it overlooks."""

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from rlhf.report.chart import Area, axes, curve, line, svg, text, tick_room
from rlhf.report.figures import forest
from schemas.reward_quality import ReliabilityBin, RewardQuality

_LIMIT_SLICES = 14
"""Slices drawn; a benchmark may have many more subsets."""


def charts(quality: RewardQuality) -> dict[str, Markup]:
    """Return the charts by name."""
    return {
        "reward-slices": slices(quality),
        "reward-reliability": reliability(quality),
        "reward-scores": distributions(quality),
    }


def slices(quality: RewardQuality) -> Markup:
    """Draw the accuracy on all pairs, the baseline's, and those on some of the pairs."""
    rows = {"all pairs": quality.accuracy, "longer one wins": quality.longer_baseline}
    for found in quality.slices[:_LIMIT_SLICES]:
        rows[f"{found.by} {found.name}" if found.by != "subset" else found.name] = found.accuracy
    return forest("accuracy by kind of pair", rows)


def reliability(quality: RewardQuality) -> Markup:
    """Draw the share of right pairs against the model's confidence; on the diagonal it is as sure as it is right."""
    area = Area(left=44, right=388, top=36, bottom=228, low_x=0.5, high_x=1, low_y=0, high_y=1)
    found = quality.calibration
    parts = axes(area, label="probability that the model gives to the response it prefers")
    parts.append(line("chance", area.x(0.5), area.y(0.5), area.x(1), area.y(1)))
    parts += _bins(found.bins, area, "one")
    parts += _bins(found.fitted_bins, area, "two")
    parts.append(text("title", 4, 16, "how often it is right"))
    parts.append(text("value one", 300, 16, "as trained", anchor="end"))
    parts.append(text("value two", 392, 16, "temperature", anchor="end"))
    return svg(parts, width=400, height=270, label="reliability of the reward model's confidence")


def _bins(bins: Sequence[ReliabilityBin], area: Area, kind: str) -> list[str]:
    points = [(found.confidence, found.accuracy) for found in bins]
    dots = [
        f'<circle class="dot {kind}" cx="{area.x(found.confidence):.1f}" cy="{area.y(found.accuracy):.1f}" r="4">'
        f"<title>{found.pairs} pairs: confidence {found.confidence:.2f}, right {found.accuracy:.2f}</title></circle>"
        for found in bins
    ]
    return [curve(f"stroke {kind}", points, area), *dots]


def distributions(quality: RewardQuality) -> Markup:
    """Draw how the scores of chosen and of rejected responses are spread."""
    middles = [(left + right) / 2 for left, right in pairwise(quality.score_edges)]
    total = sum(quality.chosen_counts) or 1.0
    sides = {
        kind: [(middle, count / total) for middle, count in zip(middles, counts, strict=True)]
        for kind, counts in (("one", quality.chosen_counts), ("two", quality.rejected_counts))
    }
    highest = 1.05 * max(share for points in sides.values() for _, share in points)
    area = Area(
        left=tick_room(0, highest), right=388, top=36, bottom=192, low_x=quality.score_edges[0],
        high_x=quality.score_edges[-1], low_y=0, high_y=highest,
    )  # fmt: skip
    parts = axes(area, label="normalised score")
    parts += [
        curve(f"stroke {kind}", points, area, name={"one": "chosen", "two": "rejected"}[kind])
        for kind, points in sides.items()
    ]
    parts.append(text("title", 4, 16, "scores of the responses"))
    parts.append(text("value one", 322, 16, "chosen", anchor="end"))
    parts.append(text("value two", 392, 16, "rejected", anchor="end"))
    return svg(
        parts, width=400, height=232, label="scores of chosen and rejected responses", plot=area, x="score"
    )


def sentences(quality: RewardQuality) -> list[str]:
    """Say what the charts do not: calibration, length, and how far an ensemble agrees."""
    found = quality.calibration
    said = [
        f"It is {'too sure' if found.temperature > 1 else 'not sure enough'} by a factor of {found.temperature:.2f} "
        f"(fitted temperature): its calibration error is {found.error:.1%}, and {found.fitted_error:.1%} with a temperature "
        "fitted on other prompts.",
        f"Score and length correlate by {quality.length_correlation:.2f}, and by {quality.partial_length_correlation:.2f} "
        "among responses of equal preference.",
    ]
    if matched := quality.slice("length", "matched"):
        said.append(
            f"On the {matched.pairs} pairs of about equal length it is right in {matched.accuracy.value:.1%} "
            f"({matched.accuracy.low:.1%} to {matched.accuracy.high:.1%})."
        )
    if among := quality.disagreement:
        said.append(
            f"Its members disagree by {among.when_right:.2f} on pairs that they rank right and by {among.when_wrong:.2f} on "
            f"the others; a wrong pair has the larger disagreement of two with probability {among.finds_mistakes:.2f}."
        )
    return said
