"""What the aligners that sample while they learn share, and the small sections inside theirs."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.config.aligners.section import AlignerSection
from schemas.config.reward import EnsembleScoring
from schemas.config.section import Section
from schemas.config.tuning import TuningSection


class KLConfig(Section):
    """How the tether to the reference policy is computed; its weight is `kl_coef`."""

    estimator: Literal["k1", "k2", "k3", "k3+"] = "k1"
    """Schulman (2020), "Approximating KL divergence"; k3+ has the value of k3 and the gradient of k2."""
    place: Literal["reward", "loss"] = "reward"
    """Subtracted from each token's reward, or added to the policy's loss."""
    target: float | None = Field(None, gt=0)
    """Nats per response that the coefficient is adapted to hold (Ziegler et al. 2019); default: it is fixed."""
    horizon: int = Field(10_000, ge=1)
    """Responses over which an adapted coefficient follows."""

    @model_validator(mode="after")
    def _the_gradient_is_that_of_the_kl(self) -> Self:
        right = {"reward": ("k1",), "loss": ("k2", "k3+")}[self.place]
        if self.estimator not in right:
            raise ValueError(
                f"estimator={self.estimator} with place={self.place} does not descend KL(policy || reference): "
                f"{_WHY[self.place, self.estimator]}. Use {' or '.join(right)} in the {self.place}."
            )
        return self


class AlarmConfig(Section):
    """A limit, and what happens in an iteration that passes it."""

    limit: float = Field(ge=0)
    action: Literal["warn", "stop", "raise_kl"] = "warn"
    """Log a warning; also end the training; also raise the KL coefficient by half."""


class GuardConfig(Section):
    """What the trainer watches itself for; an alarm that is null is off."""

    kl_above: AlarmConfig | None = None
    """Nats per response from the reference policy."""
    entropy_below: AlarmConfig | None = None
    """Nats per token."""
    eos_below: AlarmConfig | None = None
    """Share of responses that a stop id ends."""
    identical_above: AlarmConfig | None = None
    """Share of responses that repeat another one of their iteration."""
    length_drift: AlarmConfig | None = None
    """Factor by which the mean length may leave that of the first iteration, either way."""
    agreement_falls: AlarmConfig | None = AlarmConfig(limit=2.0, action="warn")
    """Standard errors by which the agreement with held-out preferences may fall from its best: the score goes on
    rising then only because the reward model is wrong where the policy has gone (Gao et al. 2023)."""
    agreement_stalls: AlarmConfig | None = None
    """Standard errors by which it must have risen over the last two evaluations: where it does not rise any more, what
    the score still gains is not what people asked for. 1.64 asks for a rise that is significant at 5 %."""
    evaluate_every: int = Field(5, ge=1)
    """Iterations between two measurements of that agreement; the last one is always measured."""
    num_pairs: int = Field(1_000, ge=1)
    """Held-out pairs that are looked at, at most."""
    keep: Literal["best", "last"] = "best"
    """Return the policy that agreed best with the held-out preferences, or that of the last iteration."""


_WHY = {
    ("reward", "k2"): "in the reward no gradient flows through the estimate, and k2 is biased",
    ("reward", "k3"): "in the reward no gradient flows through the estimate, and without it k3 is biased",
    ("reward", "k3+"): "in the reward no gradient flows, so k3+ is k3 there, and biased",
    ("loss", "k1"): "the expected gradient of k1 is zero",
    ("loss", "k3"): "the expected gradient of k3 is that of KL(reference || policy)",
}


class OnlineSection(AlignerSection, TuningSection):
    """Sample responses, score them with the reward model, update the policy on them; again and again."""

    iterations: int = Field(30, ge=1)
    """Rollout + update, so many times."""
    batch_size: int = Field(128, ge=2)
    """Responses per iteration."""
    minibatch_size: int = Field(32, ge=1)
    """Responses per optimizer step."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Responses per forward pass; default: the whole minibatch."""
    micro_batch_tokens: int | None = Field(None, ge=1)
    """Tokens per forward pass, padding included: short responses then share a pass with more others."""
    epochs: int = Field(2, ge=1)
    """Passes over each rollout."""
    learning_rate: float = Field(7e-5, gt=0)
    warmup_iterations: int = Field(2, ge=0)
    """Iterations over which the learning rate rises from zero."""
    max_grad_norm: float = Field(1.0, gt=0)
    kl_coef: float = Field(0.1, ge=0)
    """Weight of the KL penalty against the reference policy."""
    kl: KLConfig = KLConfig()
    target_kl: float | None = Field(0.05, gt=0)
    """Skip the rest of an iteration's updates once the mean KL from the rollout policy exceeds this."""
    clip_range: float = Field(0.2, gt=0)
    dual_clip: float | None = Field(None, gt=1)
    """Bound of the ratio where the advantage is negative (Ye et al. 2020)."""
    importance_cap: float | None = Field(None, ge=1)
    """Weigh by policy over sampler, at most this, where their arithmetic differs (Yao et al. 2025)."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of the entropy bonus in the policy's loss."""
    vllm_url: str | None = Field(None, pattern=r"^https?://")
    """A vLLM server that draws the responses; default: this process draws them."""
    temperature: float = Field(1.0, gt=0)
    """Used for sampling and for scoring alike."""
    max_new_tokens: int = Field(64, ge=1)
    missing_eos_penalty: float = Field(1.0, ge=0)
    """Subtracted from the score of a response that no stop id ends."""
    length_penalty: float = Field(0.0, ge=0)
    """Subtracted from the score for each token of the response."""
    score_clip: float = Field(5.0, gt=0)
    """Normalised scores are clipped to plus and minus this; KL terms never are."""
    ensemble: EnsembleScoring = EnsembleScoring()
    """Which score is optimised where the reward model is an ensemble; of a single one it is the same."""
    guard: GuardConfig = GuardConfig()
    checkpoint_every: int = Field(1, ge=1)
    """Iterations between two checkpoints; a stopped run repeats at most so many."""

    @model_validator(mode="after")
    def _batches_tile(self) -> Self:
        if self.batch_size % self.minibatch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of minibatch_size={self.minibatch_size}"
            )
        if self.micro_batch_size is not None and self.minibatch_size % self.micro_batch_size:
            raise ValueError(
                f"minibatch_size={self.minibatch_size} is not a multiple of "
                f"micro_batch_size={self.micro_batch_size}"
            )
        if self.micro_batch_size is not None and self.micro_batch_tokens is not None:
            raise ValueError(
                "micro_batch_size and micro_batch_tokens both cut the minibatch; set one of them"
            )
        return self
