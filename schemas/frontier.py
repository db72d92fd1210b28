"""Records of over-optimisation: how proxy and gold change with the distance from the reference."""

from typing import Literal

from schemas.record import Interval, Record

Form = Literal["rl", "best_of_n"]


class FrontierPoint(Record):
    """A policy at some distance from the reference."""

    label: str
    """`iteration 7` or `best of 16`."""
    kl: float
    """From the reference per response, in nats."""
    score: float
    """Mean normalised score of the reward model that was optimised."""
    gold: float
    """Mean of what was meant: the hidden utility, or the score of the evaluation's reward model."""


class FrontierFit(Record):
    """Gao et al. 2023, with d = sqrt(KL): start + d (alpha - beta log d), or for best-of-n start + d (alpha - beta d)."""

    form: Form
    start: Interval
    """Value at the reference, d = 0."""
    alpha: Interval
    """What the first steps gain per unit of d."""
    beta: Interval
    """How fast that wears off."""
    residual: float
    """Root mean square distance of the points from the curve."""
    peak_kl: Interval | None = None
    """KL at which the curve is highest, in nats; None where it never turns (beta not above 0)."""


class MethodFrontier(Record):
    """One way of optimising, from the reference outwards."""

    method: str
    points: tuple[FrontierPoint, ...]
    score_fit: FrontierFit
    gold_fit: FrontierFit
    budget_kl: float
    """Recommended KL in nats: the peak of gold where it lies among the points, else the largest KL that was measured."""
    turned: bool
    """Whether the fitted peak of gold lies among the points, its interval's lower end of beta above 0."""


class FrontierReport(Record):
    """What `rlhf frontier` measured of a run."""

    run_id: str
    gold: str
    """What stands for gold, in words."""
    num_prompts: int
    """Prompts behind best-of-n."""
    num_samples: int
    """Responses per prompt behind best-of-n."""
    confidence: float
    methods: tuple[MethodFrontier, ...]
