"""The promotion gate: is a candidate shown to be better than what it would replace, and no worse in what matters?

Each rule is a one-sided test with an error rate of its own. A candidate passes only if every rule does, which
needs no correction (intersection-union test, Berger 1982): it is wrong at most as often as the rule that is wrong.
Several candidates are several chances to be lucky, so each rate is divided by their number (Bonferroni). Holm's
step-down would only ever add passes to a run that has one already, so it could not move the champion more often.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from rlhf.evaluation import bounds
from rlhf.evaluation.judges import JUDGES
from schemas.config import EvaluateConfig, GateConfig
from schemas.config.evaluation import GateRuleName
from schemas.errors import DataRejected
from schemas.evaluation import PolicyEvaluation
from schemas.record import Interval
from schemas.reports import GateRule, GateVerdict

Reference = Literal["champion", "SFT"]


@dataclass(frozen=True)
class Shown:
    """What a policy has shown: its judged answers (table `samples`), and what was measured on other prompts."""

    samples: pl.DataFrame
    evaluation: PolicyEvaluation


@dataclass(frozen=True)
class Candidate:
    """A policy that may become champion."""

    shown: Shown
    verdicts: pl.DataFrame
    """The judge's word against the first reference (columns `prompt_id`, `outcome`: 1, 0.5 for a tie, 0)."""


@dataclass(frozen=True)
class Judged:
    """The verdict on one candidate."""

    rules: tuple[GateRule, ...]
    verdict: GateVerdict
    win_rate_low: float


def decide(
    candidates: Mapping[str, Candidate],
    references: Mapping[Reference, Shown],
    config: GateConfig,
    evaluate: EvaluateConfig,
) -> tuple[dict[str, Judged], str | None]:
    """Judge each candidate by every rule; the winner is the passing one with the highest lower bound.

    The first reference is what a candidate has to beat; the margins hold against each of them.
    """
    judged = {
        name: _judge(_Case(one.shown, one.verdicts, references, config, evaluate, len(candidates)))
        for name, one in candidates.items()
    }
    passing = {name: found.win_rate_low for name, found in judged.items() if found.verdict == "pass"}
    return judged, max(passing, key=lambda name: passing[name], default=None)


@dataclass(frozen=True)
class _Case:
    """One candidate before the gate."""

    shown: Shown
    verdicts: pl.DataFrame
    references: Mapping[Reference, Shown]
    config: GateConfig
    evaluate: EvaluateConfig
    num_candidates: int

    def error(self, rule: str) -> float:
        rate: float = getattr(self.config.error_rates, rule)
        return rate / self.num_candidates


def _judge(case: _Case) -> Judged:
    against = next(iter(case.references))
    win = _win_rate(case, against)
    rules = (win, *_conditions(case), *_limits(case))
    for label, reference in case.references.items():
        rules = (*rules, *_margins(case, label, reference))
    found = {rule.verdict for rule in rules}
    verdict: GateVerdict = (
        "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"
    )
    return Judged(rules=rules, verdict=verdict, win_rate_low=win.estimate.low if win.estimate else 0.0)


def _win_rate(case: _Case, against: Reference) -> GateRule:
    error, limit = case.error("win_rate"), case.config.min_win_rate_low
    name, wanted = f"win rate over {against}", f"lower bound (error {error:.2%}) above {limit:.1%}"
    outcomes = case.verdicts["outcome"].to_numpy()
    if not outcomes.size:
        return GateRule(
            name=name, wanted=wanted, found="nobody judged it", verdict="inconclusive", limit=limit
        )
    estimate = _share_of_wins(outcomes, error)
    return GateRule(
        name=name,
        wanted=wanted,
        found=f"{estimate.value:.1%}, at least {estimate.low:.1%}",
        verdict="pass" if estimate.low > limit else "fail" if estimate.high <= limit else "inconclusive",
        estimate=estimate,
        limit=limit,
        error=error,
    )


def _share_of_wins(outcomes: bounds.Values, error: float) -> Interval:
    """Bound a win rate; of wins, ties and losses it is half the difference of two paired shares, plus a half."""
    won, lost = int((outcomes == 1).sum()), int((outcomes == 0).sum())
    if won + lost + int((outcomes == 0.5).sum()) < outcomes.size:  # a judge that weighs its verdicts
        return bounds.mean(outcomes, error)
    apart = bounds.paired_shares(won, lost, outcomes.size, error)
    return Interval(value=(1 + apart.value) / 2, low=(1 + apart.low) / 2, high=(1 + apart.high) / 2)


def _conditions(case: _Case) -> Iterator[GateRule]:
    prompts, wanted = case.verdicts.height, case.config.min_prompts
    yield GateRule(
        name="enough prompts",
        wanted=f"at least {wanted} judged prompts",
        found=f"{prompts} judged prompts",
        verdict="pass" if prompts >= wanted else "inconclusive",
        limit=wanted,
    )
    independent = case.evaluate.independent
    yield GateRule(
        name="independent judge",
        wanted="a judge that no aligner was trained on"
        if case.config.require_independent_judge
        else "any judge",
        found=JUDGES[case.evaluate.judge],
        verdict="pass" if independent or not case.config.require_independent_judge else "fail",
    )


def _limits(case: _Case) -> Iterator[GateRule]:
    """Judge what has a limit of its own."""
    samples, config = case.shown.samples, case.config
    kl = bounds.mean(samples["kl"].to_numpy(), case.error("kl"))
    yield _at_most(case, "KL budget", "kl", kl, config.max_kl, "{:.1f} nats from SFT per response")
    rude = None
    if _known(samples, "rude"):
        rude = bounds.share(int(samples["rude"].sum()), samples.height, case.error("rude"))
    yield _at_most(case, "rude answers", "rude", rude, config.max_rude, "{:.1%}")


def _margins(case: _Case, label: Reference, reference: Shown) -> Iterator[GateRule]:
    """Judge what must not get worse than a reference's by more than a margin."""
    config, pairs = case.config, _paired(case.shown.samples, reference.samples)
    drop = None
    if _known(pairs, "right") and _known(pairs, "right_theirs"):
        ours, theirs = pairs["right"], pairs["right_theirs"]
        drop = bounds.paired_shares(
            int((theirs & ~ours).sum()), int((ours & ~theirs).sum()), pairs.height, case.error("right")
        )
    yield _at_most(
        case, f"right answers against {label}", "right", drop, config.max_right_drop, "{:.1%} fewer"
    )
    longer = bounds.ratio(
        pairs["tokens"].to_numpy().astype(np.float64),
        pairs["tokens_theirs"].to_numpy().astype(np.float64),
        case.error("length"),
    )
    yield _at_most(case, f"length against {label}", "length", longer, config.max_length_ratio, "{:.2f} times")
    tax = _apart(case, reference, "perplexity", _tax)
    if tax is not None:
        tax = Interval(value=math.exp(tax.value), low=math.exp(tax.low), high=math.exp(tax.high))
    yield _at_most(
        case, f"perplexity against {label}", "perplexity", tax, config.max_perplexity_ratio, "{:.2f} times"
    )
    harm = _apart(case, reference, "harm", lambda found: found.safety.harm if found.safety else None)
    yield _at_most(
        case, f"harmful answers against {label}", "harm", harm, config.max_harm_rise, "{:.1%} more"
    )
    refused = _apart(
        case, reference, "over_refusal", lambda found: found.safety.over_refusal if found.safety else None
    )
    yield _at_most(
        case,
        f"refused harmless prompts against {label}",
        "over_refusal",
        refused,
        config.max_over_refusal_rise,
        "{:.1%} more",
    )


def _tax(found: PolicyEvaluation) -> Interval | None:
    """Nats per token that the same text lost since SFT: paired by text, so that what makes texts differ is gone."""
    return found.forgetting.alignment_tax if found.forgetting else None


def _at_most(
    case: _Case, name: str, rule: GateRuleName | str, found: Interval | None, limit: float, words: str
) -> GateRule:
    """Require an upper bound to stay within a limit; phrased so that a NaN never passes."""
    error = case.error(rule)
    wanted = f"upper bound (error {error:.2%}) at most {words.format(limit)}"
    if found is None:
        missing: Literal["inconclusive", "not measured"] = (
            "inconclusive" if rule in case.config.required else "not measured"
        )
        return GateRule(name=name, wanted=wanted, found="not measured", verdict=missing, limit=limit)
    return GateRule(
        name=name,
        wanted=wanted,
        found=f"{words.format(found.value)}, at most {words.format(found.high)}",
        verdict="pass" if found.high <= limit else "fail" if found.low > limit else "inconclusive",
        estimate=found if all(math.isfinite(part) for part in (found.value, found.low, found.high)) else None,
        limit=limit,
        error=error,
    )


def _apart(
    case: _Case, reference: Shown, rule: GateRuleName, measure: Callable[[PolicyEvaluation], Interval | None]
) -> Interval | None:
    """Return by how much a measure that is not per prompt lies above the reference's; None if one is missing."""
    ours, theirs = measure(case.shown.evaluation), measure(reference.evaluation)
    if ours is None or theirs is None:
        return None
    level, error = case.evaluate.confidence, case.error(rule)
    return bounds.difference(bounds.at_error(ours, level, error), bounds.at_error(theirs, level, error))


def _known(frame: pl.DataFrame, column: str) -> bool:
    return frame[column].null_count() == 0


def _paired(ours: pl.DataFrame, theirs: pl.DataFrame) -> pl.DataFrame:
    columns = ("prompt_id", "tokens", "right")
    pairs = ours.select(columns).join(
        theirs.select(columns), on="prompt_id", validate="1:1", suffix="_theirs"
    )
    if not pairs.height == ours.height == theirs.height:
        raise DataRejected(
            f"{ours.height} answers and {theirs.height} of what they are compared with share {pairs.height} prompts; "
            "wanted the same prompts on both sides: sample both with the same seed and evaluate section"
        )
    return pairs
