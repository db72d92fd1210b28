"""The one configuration tree of a pipeline run: sections, recipe loading, dotted overrides."""

from schemas.config.aligners import AlignerConfig, AlignerSection, DPOConfig, PPOConfig
from schemas.config.aligners.ppo import AlarmConfig, GuardConfig, KLConfig
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
    "ComputeConfig",
    "CostConfig",
    "DPOConfig",
    "DataConfig",
    "EnsembleConfig",
    "EnsembleScoring",
    "EvaluateConfig",
    "FilesData",
    "GateConfig",
    "GuardConfig",
    "HarnessConfig",
    "HelpdeskData",
    "KLConfig",
    "LabellingConfig",
    "LoraConfig",
    "ModelShape",
    "OptimiserConfig",
    "PPOConfig",
    "PreferencesConfig",
    "PretrainConfig",
    "RewardConfig",
    "RunConfig",
    "SFTConfig",
    "SampleConfig",
    "Section",
]
