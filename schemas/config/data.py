"""Where the data comes from: the embedded world, or files that the user names."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.config.section import Section


class HelpdeskData(Section):
    """The embedded helpdesk world, generated from the run's seed."""

    source: Literal["helpdesk"] = "helpdesk"
    documents: int = Field(20_000, ge=100)
    """Raw documents for pre-training."""
    demonstrations: int = Field(4_000, ge=10)
    """Question and answer pairs for SFT."""
    prompts: int = Field(4_096, ge=16)
    """Prompts for sampling and PPO."""
    held_out_prompts: int = Field(512, ge=16)
    """Prompts for evaluation, disjoint from all others."""


class FilesData(Section):
    """Files: a path, a glob, `s3://...` or `hf://dataset@revision/file` each."""

    source: Literal["files"] = "files"
    folder: str = "."
    """Folder that relative paths start from."""
    corpus: tuple[str, ...] = ()
    """Raw text for pre-training; needed when the recipe names no base."""
    demonstrations: tuple[str, ...] = ()
    """Question and answer data for SFT; default: the chosen responses of the preferences."""
    preferences: tuple[str, ...] = ()
    """Pairs of a chosen and a rejected response."""
    prompts: tuple[str, ...] = ()
    """Prompts for sampling and PPO; default: the prompts of the preferences."""
    held_out_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of the prompts (with all their rows) kept for evaluation."""
    max_quarantined: float = Field(0.05, ge=0, le=1)
    """The run stops when a larger share of a file's rows had to be quarantined."""


DataConfig = Annotated[HelpdeskData | FilesData, Field(discriminator="source")]
