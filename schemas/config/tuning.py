"""Which weights are trained, and what is kept in memory meanwhile: the switches that all trained models share."""

from typing import Self

from pydantic import model_validator

from schemas.config.models import LoraConfig
from schemas.config.section import Section


class TuningSection(Section):
    """All weights or adapters, and what is given for memory."""

    lora: LoraConfig | None = None
    """Train adapters instead of all weights."""
    gradient_checkpointing: bool = False
    """Trade time for memory: activations are computed again on the way back."""
    load_in_4bit: bool = False
    """Keep the frozen weights under the adapters in 4 bits (NF4, Dettmers et al. 2023); on a GPU, for aligners."""

    @model_validator(mode="after")
    def _four_bits_are_frozen(self) -> Self:
        if self.load_in_4bit and self.lora is None:
            raise ValueError(
                "load_in_4bit=true needs adapters, for weights of 4 bits cannot be trained; set lora.rank, such as lora.rank=16, "
                "or load_in_4bit=false"
            )
        return self
