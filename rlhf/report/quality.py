"""The charts and sentences about the data: lengths, shortcuts, what was found, what tokenisation does."""

import math
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from rlhf.report.chart import CHARACTER, Area, axes, curve, cut, line, span, svg, text, tick_room
from rlhf.report.figures import forest
from schemas.record import Interval
from schemas.validation import TokenCheck, ValidationReport

SIDES = (("chosen", "one"), ("rejected", "two"))
SHOWN_KINDS = 12
_SHORTCUTS = {"longer_wins": "longer one wins", "first_wins": "first one wins"}


def charts(report: ValidationReport) -> list[Markup]:
    """Return what can be drawn of one table."""
    drawn = (lengths(report), shortcuts(report), findings(report))
    return [picture for picture in drawn if picture is not None]


def lengths(report: ValidationReport) -> Markup | None:
    """Draw how long the responses are; those of pairs by side."""
    sides = [side for side in (*SIDES, ("response", "one")) if f"length_counts_{side[0]}" in report.figures]
    histograms = [(kind, _shares(report, name)) for name, kind in sides]
    if not histograms:
        return None
    points = [point for _, histogram in histograms for point in histogram]
    low_x, high_x = span([x for x, _ in points])
    _, high_y = span([y for _, y in points], margin=0.05)
    area = Area(
        left=tick_room(0, high_y), right=388, top=36, bottom=192, low_x=low_x, high_x=high_x, low_y=0, high_y=high_y,
    )  # fmt: skip
    parts = axes(area, label="characters of a response, as a power of ten")
    parts += [
        curve(f"stroke {kind}", histogram, area, name=name)
        for (name, _), (kind, histogram) in zip(sides, histograms, strict=True)
    ]
    parts.append(text("title", 4, 16, cut(f"lengths of {report.kind}", 30)))
    for place, (name, kind) in enumerate(reversed(sides)):
        parts.append(text(f"value {kind}", 392 - 70 * place, 16, name, anchor="end"))
    return svg(
        parts, width=400, height=232, label=f"lengths of the responses in {report.kind}", plot=area, x="10^"
    )


def _shares(report: ValidationReport, name: str) -> list[tuple[float, float]]:
    edges, counts = report.figures[f"length_edges_{name}"], report.figures[f"length_counts_{name}"]
    total = sum(counts) or 1.0
    middles = [math.log10(math.sqrt(left * right)) for left, right in pairwise(edges)]
    return [(middle, count / total) for middle, count in zip(middles, counts, strict=True)]


def shortcuts(report: ValidationReport) -> Markup | None:
    """Draw how often rules without understanding are right: what a reward model must beat."""
    found = report.statistics
    rows = {
        label: Interval(value=found[name], low=found[f"{name}_low"], high=found[f"{name}_high"])
        for name, label in _SHORTCUTS.items()
        if name in found
    }
    if "bag_of_words" in found:
        value, spread = found["bag_of_words"], 1.96 * found["bag_of_words_error"]
        rows["words without order"] = Interval(
            value=value, low=max(0.0, value - spread), high=min(1.0, value + spread)
        )
    return forest("what guesses without understanding reach", rows) if rows else None


def findings(report: ValidationReport) -> Markup | None:
    """Draw in how many rows each kind was found, the most frequent first."""
    counts = sorted(report.counts.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_KINDS]
    if not counts:
        return None
    left, right, most = 10 + CHARACTER * max(len(cut(kind, 24)) for kind, _ in counts), 340.0, counts[0][1]
    parts = [text("title", 4, 16, f"{report.kind}: rows in which each kind was found")]
    for number, (kind, count) in enumerate(counts):
        y = 40.0 + 20 * number
        written = f"{count:,} ({count / max(report.rows, 1):.1%})"
        parts += [
            text("label", 4, y + 4, cut(kind.replace("_", " "), 24), full=kind),
            line("range", left, y, left + (right - left) * count / most, y),
            text("label", 436, y + 4, written, anchor="end"),
        ]
    return svg(parts, width=440, height=52 + 20 * len(counts), label=f"findings in {report.kind}")


def agreement(report: ValidationReport) -> str:
    """Say how far raters agree, where there are several."""
    found = report.statistics
    if "alpha" not in found:
        return ""
    return (
        f"{report.kind.capitalize()}: raters agree with Krippendorff's alpha {found['alpha']:.2f} "
        f"({found['alpha_low']:.2f} to {found['alpha_high']:.2f}) on {found['items_rated_twice']:,.0f} items; 0 is chance, 1 perfect."
    )


def token_sentences(check: TokenCheck) -> Sequence[str]:
    """Say what tokenisation does, and what is wrong with it if anything is."""
    share = check.cut / max(check.looked_at, 1)
    said = [f"{share:.1%} of {check.looked_at:,} sequences are cut at the maximal length."]
    wrong = {
        "start with BOS twice": check.double_bos,
        "lack their one EOS": check.eos_wrong,
        "do not learn EOS": check.eos_not_learnt,
        "are rendered with another prompt by the chat template": check.prompt_not_prefix,
        "hold a special token in a text": check.special_in_content,
        "have no response left": check.cut_to_nothing,
        "are equal on both sides once cut": check.equal_after_cut,
    }
    found = [f"{count:,} {what}." for what, count in wrong.items() if count]
    return [*said, *found] if found else [*said, "Nothing is wrong with their tokens."]
