"""A run in Markdown, for the description of its MLflow page: what came of it, what it took, how to repeat it."""

from rlhf.report.content import ReportContent, percent, summary, verdict
from rlhf.report.cost import cost, estimate_said
from schemas.evaluation import PolicyEvaluation
from schemas.units import duration


def note(content: ReportContent) -> str:
    """Return the description of the whole run."""
    spent = cost(content)
    took = f"{duration(spent.seconds)} on one device"
    saved = f", {duration(spent.saved)} saved by stages that were re-used" if spent.saved else ""
    parts = [
        f"**{verdict(content)}**",
        *summary(content),
        _policies(content),
        " ".join(filter(None, (f"It took {took}{saved}.", estimate_said(spent)))),
        f"The page is the artifact `report.html`, the answers are `responses.json`. Repeat it:\n\n```sh\n{content.command}\n```",
    ]
    return "\n\n".join(parts)


def _policies(content: ReportContent) -> str:
    rows = ["| policy | win rate over SFT | KL | right | rude | tokens |", "|---|---|---|---|---|---|"]
    rows += [_row(found) for found in (content.sft, *content.evaluations.values())]
    return "\n".join(rows)


def _row(found: PolicyEvaluation) -> str:
    win = (
        "the baseline"
        if found.win_rate is None
        else f"{percent(found.win_rate)} ({percent(found.win_rate_low)} to {percent(found.win_rate_high)})"
    )
    right, rude = ("" if one is None else percent(one.value) for one in (found.right, found.rude))
    return f"| {found.name} | {win} | {found.kl:.1f} | {right} | {rude} | {found.length:.1f} |"
