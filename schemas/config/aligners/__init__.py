"""Sections of the aligners, one file each: a discriminated union on `method`."""

from typing import Annotated

from pydantic import Field

from schemas.config.aligners.dpo import DPOConfig
from schemas.config.aligners.ppo import PPOConfig
from schemas.config.aligners.section import AlignerSection

__all__ = ["AlignerConfig", "AlignerSection", "DPOConfig", "PPOConfig"]

AlignerConfig = Annotated[PPOConfig | DPOConfig, Field(discriminator="method")]
