"""Sections that decide what a model has to show: evaluation and gate."""

from typing import Literal

from pydantic import Field

from schemas.config.section import Section


class EvaluateConfig(Section):
    """Every policy answers the same held-out prompts; responses are judged pairwise against the SFT policy's."""

    judge: Literal["utility", "evaluation_reward", "people", "llm", "reward"] = "utility"
    """`utility`: the helpdesk world's hidden utility; `evaluation_reward`: a reward model trained on preferences that
    nothing else learns from (`preferences.judging_fraction`); `people`: on the labelling page; `llm`: a language model
    behind an endpoint (`RLHF_JUDGE_URL`); `reward`: the reward model that was optimised, which is not independent."""
    num_prompts: int = Field(512, ge=8)
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(256, ge=1)
    """Sequences decoded together."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    bootstrap_samples: int = Field(2_000, ge=100)
    """Resamples of the prompts behind each interval."""

    @property
    def independent(self) -> bool:
        """Whether no aligner was trained on what the judge says."""
        return self.judge != "reward"


class GateConfig(Section):
    """What a candidate must show before the alias `champion` moves to it."""

    min_win_rate_low: float = Field(0.5, ge=0, le=1)
    """Lower bound of the win-rate interval over the SFT policy must exceed this."""
    max_right_drop: float = Field(0.05, ge=0, le=1)
    """Share of right answers may fall by so much at most (only where the judge knows right answers)."""
    max_rude: float = Field(0.02, ge=0, le=1)
    """Largest share of rude answers (only where the judge knows rudeness)."""
    max_kl: float = Field(30.0, gt=0)
    """Largest mean KL from the SFT policy per response, in nats."""
    min_prompts: int = Field(100, ge=8)
    """Fewer judged prompts give no verdict but `refused`."""
    require_independent_judge: bool = True
    """Refuse when the judge is the reward model that was optimised."""
