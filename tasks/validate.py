"""Stage `validate`: read what people have, refuse what cannot be used, keep evaluation prompts apart."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from schemas.config import DataConfig, FilesData, HelpdeskData
from schemas.config.data import DataChecks
from schemas.errors import DataRejected
from schemas.refs import DatasetRef, FileRef
from schemas.reports import ValidatedData
from schemas.settings import Settings
from schemas.validation import ValidationReport
from tasks.stage import stage
from tasks.work import StageWork

logger = logging.getLogger(__name__)

FEWEST_PAIRS = 100
TRAINED = ("demonstrations", "preferences", "feedback", "prompts")
MAX_LEAKED = 0.001
"""Share of the evaluation prompts that may occur in the data for training before a run stops."""


KINDS = {
    "held_out": "prompts", "red_team": "prompts", "benign": "prompts",
    "held_out_text": "corpus", "held_out_demonstrations": "demonstrations",
}  # fmt: skip
"""Kinds of the tables that are not called like theirs."""


class Given(NamedTuple):
    """The files of one table."""

    table: str
    kind: str
    paths: list[Path]
    columns: dict[str, str]
    chosen: dict[Path, str] = {}  # noqa: RUF012 - never changed
    """The condition `column=value` on the rows of a file, where the recipe sets one."""


def fingerprint(config: DataConfig) -> str:
    """Return the digest of the files that the section names, so that a changed file is noticed."""
    digest = hashlib.sha256()
    for given, path, file in _read_files(config):
        content = file.digest.removeprefix("sha256:")
        digest.update(f"{given.table} {content} {given.chosen.get(path, '')}\n".encode())
    return digest.hexdigest()


def _read_files(config: DataConfig) -> Iterator[tuple[Given, Path, FileRef]]:
    """Give the files that the section names as they are now, each with its table and the path that led to it."""
    for given in _files(config) if isinstance(config, FilesData) else ():
        for path in given.paths:
            for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if part.is_file():
                    with part.open("rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                    yield given, path, FileRef(uri=part.absolute().as_uri(), digest=f"sha256:{digest}")


@stage("validate", fingerprint=fingerprint)
def validate(work: StageWork, config: DataConfig) -> ValidatedData:
    """Validate every file, and publish canonical tables; held-out prompts occur in no training table."""
    from rlhf.data.assemble import assemble
    from rlhf.data.chosen_rows import keep_rows
    from rlhf.data.validation import validate_files

    generated = isinstance(config, HelpdeskData)
    checks = DataChecks(max_quarantined=0.0) if isinstance(config, HelpdeskData) else config
    reports: list[ValidationReport] = []
    tables: dict[str, pl.DataFrame] = {}
    for given in _generated(work, config) if isinstance(config, HelpdeskData) else _files(config):
        out = work.folder / given.table
        paths = [
            keep_rows(path, given.chosen[path], work.folder / f"{given.table}-{number}.jsonl")
            if path in given.chosen
            else path
            for number, path in enumerate(given.paths)
        ]
        report = validate_files(paths, kind=given.kind, out=out, config=checks, columns=given.columns)
        reports.append(report)
        work.tracked.log_text(report.model_dump_json(indent=2), f"validation/{given.table}.json")
        _require(report, checks.max_quarantined)
        work.tracked.log_file(out / "manifest.json", f"validation/{given.table}")
        work.tracked.log_file(out / "quarantine.jsonl", f"validation/{given.table}")
        tables[given.table] = pl.read_parquet(out / f"{given.kind}.parquet")
    assembled, left = assemble(
        tables,
        held_out_fraction=config.held_out_fraction if isinstance(config, FilesData) else 0.0,
        seed=work.run.seed,
        similar=not generated,
    )
    if isinstance(config, FilesData) and config.evaluation and not config.drop_leaked:
        _require_no_leak(tables, left)
    pairs = assembled.get("preferences")
    if pairs is not None and pairs.height < FEWEST_PAIRS:
        logger.warning(
            "only %d preference pairs are left for training; a reward model needs hundreds", pairs.height
        )
    refs: dict[str, DatasetRef] = {}
    for name, frame in assembled.items():
        refs[name] = work.publish_table(frame, KINDS.get(name, name))
    return ValidatedData(
        **refs,
        reports=tuple(reports),
        files=tuple(file for _, _, file in _read_files(config)),
        metrics={
            **{
                name: float(sum(getattr(r, name) for r in reports))
                for name in ("rows", "kept", "quarantined", "dropped")
            },
            "held_out_rows": float(sum(left.values())),
        },
    )


def _generated(work: StageWork, config: HelpdeskData) -> Iterator[Given]:
    from rlhf.data.helpdesk.files import write_files
    from rlhf.data.helpdesk.world import World

    for name, path in write_files(World(work.run.seed), config, work.folder).items():
        yield Given(name, KINDS.get(name, name), [path], {})


def _files(config: FilesData) -> Iterator[Given]:
    from rlhf.data.fetch import resolve

    for name, kind, sources in (
        ("corpus", "corpus", config.corpus),
        ("demonstrations", "demonstrations", config.demonstrations),
        ("preferences", "preferences", config.preferences),
        ("feedback", "feedback", config.feedback),
        ("prompts", "prompts", config.prompts),
        ("evaluation", "prompts", config.evaluation),
        ("red_team", "prompts", config.red_team),
        ("benign", "prompts", config.benign),
    ):
        paths: list[Path] = []
        chosen: dict[Path, str] = {}
        for source in sources:
            wanted, _, condition = source.partition("#")
            files = resolve(wanted, Path(config.folder), Settings().cache)
            paths += files
            chosen |= dict.fromkeys(files, condition) if condition else {}
        if paths:
            columns = {str(table): names for table, names in config.columns.items()}.get(name, {})
            yield Given("held_out" if name == "evaluation" else name, kind, paths, columns, chosen)


def _require(report: ValidationReport, allowed: float) -> None:
    """Stop the run when a file is rejected or too much of it had to be quarantined."""
    first = "; ".join(finding.message for finding in report.findings[:3])
    if report.verdict == "reject_file":
        raise DataRejected(
            f"{report.source} was rejected as {report.kind}: {first}. `rlhf validate {report.source} --as {report.kind}` shows all findings."
        )
    if report.quarantined > allowed * report.rows:
        raise DataRejected(
            f"{report.source}: {report.quarantined} of {report.rows} rows had to be quarantined; allowed are "
            f"{allowed:.1%} (data.max_quarantined). First findings: {first}."
        )


def _require_no_leak(tables: dict[str, pl.DataFrame], left: dict[str, int]) -> None:
    """Stop the run when prompts for evaluation occur in the data for training."""
    from rlhf.data.leakage import leaked
    from rlhf.data.questions import first_questions

    asked = first_questions(tables["held_out"])
    trained = [
        first_questions(frame)
        for name, frame in tables.items()
        if name in TRAINED and "prompt" in frame.columns
    ]
    found = int(leaked(pl.concat(trained), asked).sum()) if trained else 0
    if found > MAX_LEAKED * asked.len():
        where = ", ".join(f"{count} rows of {name}" for name, count in left.items() if count)
        raise DataRejected(
            f"leakage: {found} of {asked.len()} evaluation prompts are also asked in the data for training ({where}); "
            "set data.drop_leaked=true to leave those rows out, or choose other prompts."
        )
