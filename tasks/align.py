"""Train the aligner that a section asks for; each has a file of its own, and one line here."""

from collections.abc import Mapping
from inspect import signature

from schemas.config import AlignerConfig, AlignerSection, DPOConfig, PPOConfig
from schemas.pipeline import AlignerInputs, PipelineRun
from schemas.reports import PolicyResult
from tasks.dpo import train_dpo
from tasks.ppo import train_ppo
from tasks.stage import Stage

STAGES: Mapping[type[AlignerSection], Stage[..., PolicyResult]] = {
    PPOConfig: train_ppo,
    DPOConfig: train_dpo,
}


def align(run: PipelineRun, given: AlignerInputs, config: AlignerConfig) -> PolicyResult:
    """Train one aligner from the SFT policy on what its stage's parameters name; the stage has the aligner's name."""
    stage = STAGES[type(config)].named(config.name)
    wanted = signature(stage.body).parameters.keys() & AlignerInputs.model_fields.keys()
    return stage(run, **{name: getattr(given, name) for name in wanted}, config=config)
