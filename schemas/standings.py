"""Frozen records of a head-to-head: the aligners of one run, or of several that differ in the seed only."""

from typing import Literal

from schemas.record import Interval, Record


class Spent(Record):
    """What computing took, on average over the runs."""

    seconds: float = 0.0
    sampled_tokens: float = 0.0
    """Response tokens drawn from a policy."""
    gradient_tokens: float = 0.0
    """Tokens, prompts included, that a model learnt from; each pass over them counts."""


class Standing(Record):
    """One policy."""

    name: str
    method: str
    rank: int
    """1 is the best by the mean; only what has no letter in common is told apart."""
    letters: str
    """Policies that share a letter cannot be told apart."""
    value: Interval
    """Of what is compared, over the units; its own interval, not corrected for the number of policies."""
    measures: dict[str, float]
    """Means over the runs, where known: gold, win_rate, kl, length, right, rude."""
    spent: Spent
    """By the aligner's own stage; the stages that several share are apart."""
    tokens_per_answer: float
    """Tokens that are drawn for one answer; best-of-n draws n."""


class PairStanding(Record):
    """Two policies on the same units."""

    first: str
    second: str
    difference: Interval
    """First less second; all pairs' intervals hold together."""
    p_value: float
    """Adjusted for the number of pairs (Holm 1979)."""
    apart: bool


class Standings(Record):
    """What `rlhf compare --json` prints."""

    recipe: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    measure: Literal["gold", "win_rate"]
    unit: Literal["prompt", "seed"]
    """What is paired: the prompts of one run, or the seeds of several. Prompts say nothing of another training run."""
    units: int
    confidence: float
    policies: tuple[Standing, ...]
    """Best first."""
    pairs: tuple[PairStanding, ...]
    shared: dict[str, Spent]
    """Stages before the aligners: what all or some of them are built on."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say what the data show, and what they do not."""
        level = f"{self.confidence:.0%}"
        over = f"{self.units} prompts of one run" if self.unit == "prompt" else f"{self.units} seeds"
        open_ = [pair for pair in self.pairs if not pair.apart]
        found = [
            f"{self.measure} over {over}; {len(self.pairs)} pairs, paired t-tests, Holm's correction: the chance of any false "
            f"difference is at most {1 - self.confidence:.0%}, the {level} intervals of all differences hold together."
        ]
        if self.unit == "prompt":
            found.append("One run: another seed may order them otherwise; rlhf sweep RECIPE --seeds 4 tells.")
        found += [
            f"{pair.first} and {pair.second} cannot be told apart: {_signed(pair.difference)}"
            for pair in open_
        ]
        return (*found, *([] if open_ else ["All are told apart."]))


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
