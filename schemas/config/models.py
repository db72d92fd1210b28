"""Sections that say which base model a run starts from."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.config.section import Section


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021) instead of full fine-tuning; merged in fp32 when published."""

    rank: int = Field(8, ge=1, le=1024)
    """Rank of the update matrices."""
    alpha: float = Field(16.0, gt=0)
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input while training (never while scoring)."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the linear layers that get an adapter."""
    bias: Literal["none"] = "none"
    """Only `none`: with trained biases, disabling the adapter would not give back the reference."""


class ModelShape(Section):
    """The shape of the tiny Llama that `pretrain` builds."""

    hidden_size: int = Field(128, ge=8)
    num_layers: int = Field(4, ge=1)
    num_heads: int = Field(4, ge=1)
    intermediate_size: int = Field(352, ge=8)
    vocab_size: int = Field(512, ge=300)
    """Size of the byte-level BPE vocabulary, special tokens included."""
    max_positions: int = Field(256, ge=16)

    @model_validator(mode="after")
    def _heads_tile_the_hidden_size(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_heads={self.num_heads}"
            )
        return self


class PretrainConfig(Section):
    """Language modelling of the corpus from random weights; skipped when the recipe names a `base`."""

    shape: ModelShape = ModelShape()
    steps: int = Field(850, ge=1)
    batch_size: int = Field(32, ge=1)
    """Blocks per optimizer step."""
    block_size: int = Field(96, ge=8)
    """Tokens per block; documents are packed end to end with EOS between them."""
    learning_rate: float = Field(3e-3, gt=0)
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)


class BaseModelConfig(Section):
    """An existing base model to start from instead of pre-training one."""

    source: str
    """A local folder, `s3://bucket/prefix`, or a Hugging Face hub id."""
    revision: str | None = None
    """Commit, tag or branch; required for a hub id, so that the run can be repeated."""
    tokenizer: str | None = None
    """Where the tokenizer is, if not with the model: like `source`."""
    tokenizer_revision: str | None = None
    """Like `revision`, for a tokenizer from the hub."""
    chat_template: str | None = None
    """Jinja template, for a tokenizer that has none; `chatml` names the built-in one."""
    pad_token: str | None = None
    """An existing token to pad with, for a tokenizer that has none; it must not be EOS."""

    @model_validator(mode="after")
    def _revision_of_something(self) -> Self:
        if self.tokenizer_revision is not None and self.tokenizer is None:
            raise ValueError(
                "tokenizer_revision is set and tokenizer is not; name the tokenizer, or set revision for one that "
                "comes with the model"
            )
        return self
