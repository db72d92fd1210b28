"""Train the aligner that a section asks for; each has a file of its own, and one line here."""

from collections.abc import Mapping
from inspect import signature

from schemas.config import (
    AlignerConfig,
    AlignerSection,
    BestOfNConfig,
    CPOConfig,
    DPOConfig,
    GRPOConfig,
    KTOConfig,
    ORPOConfig,
    PPOConfig,
    RejectionSamplingConfig,
    RLOOConfig,
    SimPOConfig,
)
from schemas.pipeline import AlignerInputs, PipelineRun
from schemas.reports import PolicyResult
from tasks.best_of_n import build_best_of_n
from tasks.cpo import train_cpo
from tasks.dpo import train_dpo
from tasks.grpo import train_grpo
from tasks.kto import train_kto
from tasks.orpo import train_orpo
from tasks.ppo import train_ppo
from tasks.rejection_sampling import train_rejection_sampling
from tasks.rloo import train_rloo
from tasks.simpo import train_simpo
from tasks.stage import Stage

STAGES: Mapping[type[AlignerSection], Stage[..., PolicyResult]] = {
    PPOConfig: train_ppo,
    RLOOConfig: train_rloo,
    GRPOConfig: train_grpo,
    RejectionSamplingConfig: train_rejection_sampling,
    BestOfNConfig: build_best_of_n,
    DPOConfig: train_dpo,
    KTOConfig: train_kto,
    ORPOConfig: train_orpo,
    CPOConfig: train_cpo,
    SimPOConfig: train_simpo,
}


def align(run: PipelineRun, given: AlignerInputs, config: AlignerConfig) -> PolicyResult:
    """Train one aligner from the SFT policy on what its stage's parameters name; the stage has the aligner's name."""
    stage = STAGES[type(config)].named(config.name)
    wanted = signature(stage.body).parameters.keys() & AlignerInputs.model_fields.keys()
    return stage(run, **{name: getattr(given, name) for name in wanted}, config=config)
