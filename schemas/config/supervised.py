"""What the stages that learn from fixed examples share, and the section of SFT."""

from typing import Self

from pydantic import Field, model_validator

from schemas.config.tuning import TuningSection


class OptimiserConfig(TuningSection):
    """AdamW with linear warm-up and cosine decay, shared by SFT, reward and DPO."""

    learning_rate: float = Field(gt=0)
    batch_size: int = Field(32, ge=1)
    """Examples (or pairs) per optimizer step."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples per forward pass; default: the whole batch."""
    steps: int = Field(ge=1)
    """Optimizer steps; the data is passed over as often as they need."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int = Field(192, ge=8)
    """Longest prompt + response in tokens; longer ones are cut at the end and counted."""

    @model_validator(mode="after")
    def _micro_batches_tile_the_batch(self) -> Self:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of micro_batch_size={self.micro_batch_size}"
            )
        return self


class SFTConfig(OptimiserConfig):
    """Supervised fine-tuning on demonstrations; the loss counts response tokens only."""

    learning_rate: float = Field(1e-3, gt=0)
    steps: int = Field(300, ge=1)
