"""Where the data comes from (the embedded world, or files that the user names), and how strictly it is checked."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.config.rules import DEFAULT_RULES, Rules
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


class ReadingLimits(Section):
    """How much of a file is taken in before it is refused."""

    row_bytes: int = Field(1_000_000, gt=0)
    """A larger row goes to quarantine."""
    nesting: int = Field(100, gt=0)
    """Levels of lists and objects in a row."""
    digits: int = Field(400, gt=0)
    """Digits of one number."""
    decompressed_bytes: int = Field(2_000_000_000, gt=0)
    compression_ratio: int = Field(200, gt=1)


class DataChecks(Section):
    """How strictly files are checked; the defaults fire on no data that people use with success."""

    rules: Rules = Field(default_factory=lambda: dict(DEFAULT_RULES))
    """Level and thresholds by kind of finding; what a recipe leaves out keeps its default."""
    limits: ReadingLimits = ReadingLimits()
    votes: Literal["drop", "count"] = "drop"
    """A pair that occurs several times: `drop` the repeats, or `count` them as votes in the pair's weight."""
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes of the languages that the data is in; empty: any."""
    repair: tuple[Literal["template_token_in_content", "pii", "secret"], ...] = ()
    """Kinds that are rewritten instead of quarantined: control tokens are split, personal data and secrets masked."""
    near_duplicates: bool = True
    """Look for rows that are nearly the same (MinHash)."""
    max_quarantined: float = Field(0.05, ge=0, le=1)
    """The run stops when a larger share of a file's rows had to be quarantined."""


Table = Literal[
    "corpus", "demonstrations", "preferences", "feedback", "prompts", "evaluation", "red_team", "benign"
]


class FilesData(DataChecks):
    """Files: a path, folder, glob, `s3://...` or `hf://dataset@revision/file-or-split` each."""

    source: Literal["files"] = "files"
    folder: str = "."
    """Folder that relative paths start from."""
    corpus: tuple[str, ...] = ()
    """Raw text for pre-training; needed when the recipe names no base."""
    demonstrations: tuple[str, ...] = ()
    """Question and answer data for SFT; default: the chosen responses of the preferences."""
    preferences: tuple[str, ...] = ()
    """Pairs of a chosen and a rejected response, or rankings, of which every pair is taken."""
    feedback: tuple[str, ...] = ()
    """Single responses that somebody called good or bad, for kto."""
    prompts: tuple[str, ...] = ()
    """Prompts for sampling and PPO; default: the prompts of the preferences."""
    evaluation: tuple[str, ...] = ()
    """Prompts to evaluate on; default: a share of all prompts, see `held_out_fraction`."""
    red_team: tuple[str, ...] = ()
    """Prompts that ask for harm, to measure what the policies do. `FILE#column=value` takes those rows only."""
    benign: tuple[str, ...] = ()
    """Harmless prompts that look harmful, to measure over-refusal; `prompts/xstest_prompts.csv#label=safe`."""
    columns: dict[Table, dict[str, str]] = Field(default_factory=dict)
    """By table: the name that is wanted, and the column (or dotted path) that holds it in the files."""
    held_out_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of the prompts (with all their rows, and all that are nearly the same) kept for evaluation."""
    drop_leaked: bool = False
    """Rows for training whose prompt is among those of `evaluation`: leave them out; otherwise more than 0.1 % stop the run."""


DataConfig = Annotated[HelpdeskData | FilesData, Field(discriminator="source")]
