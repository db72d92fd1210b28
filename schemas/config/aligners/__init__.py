"""Sections of the aligners, one file each: a discriminated union on `method`."""

from typing import Annotated

from pydantic import Field

from schemas.config.aligners.best_of_n import BestOfNConfig
from schemas.config.aligners.cpo import CPOConfig
from schemas.config.aligners.dpo import DPOConfig
from schemas.config.aligners.grpo import GRPOConfig
from schemas.config.aligners.kto import KTOConfig
from schemas.config.aligners.orpo import ORPOConfig
from schemas.config.aligners.ppo import PPOConfig
from schemas.config.aligners.rejection_sampling import RejectionSamplingConfig
from schemas.config.aligners.rloo import RLOOConfig
from schemas.config.aligners.section import AlignerSection
from schemas.config.aligners.simpo import SimPOConfig

__all__ = [
    "AlignerConfig",
    "AlignerSection",
    "BestOfNConfig",
    "CPOConfig",
    "DPOConfig",
    "GRPOConfig",
    "KTOConfig",
    "ORPOConfig",
    "PPOConfig",
    "RLOOConfig",
    "RejectionSamplingConfig",
    "SimPOConfig",
]

AlignerConfig = Annotated[
    PPOConfig
    | RLOOConfig
    | GRPOConfig
    | RejectionSamplingConfig
    | BestOfNConfig
    | DPOConfig
    | KTOConfig
    | ORPOConfig
    | CPOConfig
    | SimPOConfig,
    Field(discriminator="method"),
]
