"""Refs: where some bytes are, and what they are. Stages exchange these and nothing else."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Ref(BaseModel):
    """Where some bytes are (`file:///...` or `s3://...`), and what they are.

    The digest of a file is its sha256; that of a folder is the sha256 of its manifest, which lists
    path, size and sha256 of every file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    uri: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class DatasetRef(Ref):
    """A canonical Parquet table of one kind (see `schemas.tables`)."""

    kind: Literal[
        "corpus",
        "demonstrations",
        "prompts",
        "candidates",
        "rankings",
        "preferences",
        "rollouts",
        "samples",
        "verdicts",
        "reference",
    ]
    rows: int = Field(ge=0)


class ModelRef(Ref):
    """A folder in the Hugging Face layout: config, tokenizer, safetensors."""

    role: Literal["policy", "reward", "best_of_n"]
    """`best_of_n`: a policy beside the reward model that chooses among its responses, a folder each."""


class FileRef(Ref):
    """Any other file: a plot, a page, a JSON record."""


class Checkpoint(Ref):
    """A folder that a trainer goes on from."""

    name: str = Field(pattern=r"^[a-z]+-[0-9]+$")
    """Such as `iteration-000007`; a later one sorts after an earlier one."""
