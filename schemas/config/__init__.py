"""The one configuration tree of a pipeline run: sections, recipe loading, dotted overrides."""

from schemas.config.aligners import (
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
from schemas.config.aligners.groups import GroupSection
from schemas.config.aligners.online import AlarmConfig, GuardConfig, KLConfig, OnlineSection
from schemas.config.aligners.ppo import PTXConfig
from schemas.config.cost import CostConfig
from schemas.config.data import DataConfig, FilesData, HelpdeskData
from schemas.config.evaluation import EvaluateConfig, GateConfig, HarnessConfig
from schemas.config.labelling import LabellingConfig
from schemas.config.models import BaseModelConfig, LoraConfig, ModelShape, PretrainConfig
from schemas.config.preferences import PreferencesConfig, SampleConfig
from schemas.config.reward import EnsembleConfig, EnsembleScoring, RewardConfig
from schemas.config.run import ComputeConfig, RunConfig
from schemas.config.section import Section
from schemas.config.supervised import OptimiserConfig, SFTConfig

__all__ = [
    "AlarmConfig",
    "AlignerConfig",
    "AlignerSection",
    "BaseModelConfig",
    "BestOfNConfig",
    "CPOConfig",
    "ComputeConfig",
    "CostConfig",
    "DPOConfig",
    "DataConfig",
    "EnsembleConfig",
    "EnsembleScoring",
    "EvaluateConfig",
    "FilesData",
    "GRPOConfig",
    "GateConfig",
    "GroupSection",
    "GuardConfig",
    "HarnessConfig",
    "HelpdeskData",
    "KLConfig",
    "KTOConfig",
    "LabellingConfig",
    "LoraConfig",
    "ModelShape",
    "ORPOConfig",
    "OnlineSection",
    "OptimiserConfig",
    "PPOConfig",
    "PTXConfig",
    "PreferencesConfig",
    "PretrainConfig",
    "RLOOConfig",
    "RejectionSamplingConfig",
    "RewardConfig",
    "RunConfig",
    "SFTConfig",
    "SampleConfig",
    "Section",
    "SimPOConfig",
]
