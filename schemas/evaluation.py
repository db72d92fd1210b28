"""What is measured of one policy: how good, how far from the reference, what it has forgotten, how safe."""

from schemas.record import Interval, Record

SHOWN_SAMPLES = 96
"""Rows of a policy's samples that a report shows, token by token."""


class CurvePoint(Record):
    """One iteration of an online aligner, judged afterwards."""

    iteration: int
    kl: float
    """Mean KL from the reference per response, in nats."""
    score: float
    """Mean normalised reward-model score."""
    gold: float | None = None
    """Mean hidden utility, where it is known; no training stage sees it."""


class Wording(Record):
    """How a policy writes, over all its sampled responses: a collapse shows here first."""

    distinct_1: float
    """Different words / words (Li et al. 2016)."""
    distinct_2: float
    """Different pairs of neighbouring words / such pairs."""
    self_repetition: float
    """Mean share of a response's 4-grams of words that it has said before (Welleck et al. 2019, seq-rep-4)."""
    entropy: float
    """Mean entropy of a token's distribution, in nats: the mean of -log p over the policy's own tokens."""
    length_p10: float
    """Tenth percentile of the response lengths, in tokens."""
    length_p50: float
    length_p90: float


class Forgetting(Record):
    """What aligning has cost on text that no stage has trained on; lower is better throughout."""

    perplexity_text: Interval | None = None
    """Of held-out raw text."""
    perplexity_demonstrations: Interval | None = None
    """Of held-out demonstrations' responses, given their prompts."""
    alignment_tax: Interval
    """Nats per token by which the same text and responses became less likely than under the SFT policy; 0 for itself."""


class Safety(Record):
    """Behaviour on prompts that ask for trouble, and on harmless ones that only look like it."""

    harm: Interval | None = None
    """Share of harmful responses to red-team prompts."""
    refusal: Interval | None = None
    """Share of red-team prompts that were refused."""
    over_refusal: Interval | None = None
    """Share of harmless prompts that were refused."""
    red_team_prompts: int = 0
    benign_prompts: int = 0


class TaskScore(Record):
    """One metric of one lm-eval task."""

    task: str
    metric: str
    value: float
    stderr: float | None = None
    """Standard error, where the harness knows one."""
    documents: int


class Judging(Record):
    """What an LLM judge cost, and how far it contradicts itself."""

    calls: int
    """Requests, retries included."""
    retries: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None = None
    """In the currency of the recipe's prices; None where it names none."""
    unjudged: int
    """Pairs without a verdict."""
    first_preferred: float | None = None
    """Share of verdicts for the response that stood first; 0.5 without position bias."""
    consistent: float | None = None
    """Share of pairs with the same verdict in both orders."""


class PolicyEvaluation(Record):
    """One policy on the held-out prompts; None where the judge does not know."""

    name: str
    win_rate: float | None = None
    """Share of prompts on which the judge prefers it to the SFT policy; ties count half; None for SFT itself."""
    win_rate_low: float | None = None
    win_rate_high: float | None = None
    length_controlled: Interval | None = None
    """The win rate had both written equally long (Dubois et al. 2024)."""
    kl: float = 0.0
    """Mean KL from the SFT policy per response, in nats (k1 estimate over own samples)."""
    kl_per_token: float = 0.0
    """The same per token."""
    score: Interval | None = None
    """Mean normalised reward-model score, where a reward model was given."""
    gold: Interval | None = None
    right: Interval | None = None
    """Share of right answers."""
    rude: Interval | None = None
    """Share of rude answers."""
    length: float
    """Mean response length in tokens."""
    eos_rate: float
    """Share of responses that ended by themselves."""
    num_prompts: int = 0
    """Held-out prompts that were judged."""
    judging: Judging | None = None
    """What the judge cost, where it is a language model."""
    wording: Wording | None = None
    forgetting: Forgetting | None = None
    safety: Safety | None = None
    tasks: tuple[TaskScore, ...] = ()
    """Of the lm-eval harness, where the recipe names some."""
