"""Stage `validate`: read what people have, refuse what cannot be used, keep evaluation prompts apart."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from schemas.config import DataConfig, FilesData, HelpdeskData
from schemas.errors import DataRejected
from schemas.refs import DatasetRef
from schemas.reports import ValidatedData, ValidationReport
from schemas.settings import Settings
from tasks.stage import stage
from tasks.work import StageWork


def fingerprint(config: DataConfig) -> str:
    """Return the digest of the files that the section names, so that a changed file is noticed."""
    digest = hashlib.sha256()
    if isinstance(config, FilesData):
        for name, _, path in _files(config):
            with path.open("rb") as file:
                digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


@stage("validate", fingerprint=fingerprint)
def validate(work: StageWork, config: DataConfig) -> ValidatedData:
    """Validate every file, and publish canonical tables; held-out prompts occur in no training table."""
    from rlhf.data.assemble import assemble
    from rlhf.data.validation import validate_file

    reports: list[ValidationReport] = []
    tables: dict[str, list[pl.DataFrame]] = {}
    given = _generated(work, config) if isinstance(config, HelpdeskData) else _files(config)
    allowed = config.max_quarantined if isinstance(config, FilesData) else 0.0
    for number, (table, kind, path) in enumerate(given):
        out = work.folder / f"{number}-{table}"
        report = validate_file(str(path), kind=kind, out=out, max_quarantined=allowed)
        reports.append(report)
        work.tracked.log_text(report.model_dump_json(indent=2), f"validation/{number}-{table}.json")
        _require(report, allowed)
        tables.setdefault(table, []).append(pl.read_parquet(out / f"{kind}.parquet"))
    held_out_fraction = config.held_out_fraction if isinstance(config, FilesData) else 0.0
    assembled = assemble(
        {name: pl.concat(frames) for name, frames in tables.items()},
        held_out_fraction=held_out_fraction,
        seed=work.run.seed,
    )
    refs: dict[str, DatasetRef] = {}
    for name, frame in assembled.items():
        refs[name] = work.publish_table(frame, "prompts" if name == "held_out" else name)
    return ValidatedData(
        **refs,
        reports=tuple(reports),
        metrics={
            name: float(sum(getattr(r, name) for r in reports))
            for name in ("rows", "kept", "quarantined", "dropped")
        },
    )


def _generated(work: StageWork, config: HelpdeskData) -> Iterator[tuple[str, str, Path]]:
    from rlhf.data.helpdesk.files import write_files
    from rlhf.data.helpdesk.world import World

    for name, path in write_files(World(work.run.seed), config, work.folder).items():
        yield name, "prompts" if name == "held_out" else name, path


def _files(config: FilesData) -> Iterator[tuple[str, str, Path]]:
    from rlhf.data.fetch import resolve

    for table in ("corpus", "demonstrations", "preferences", "prompts"):
        for source in getattr(config, table):
            for path in resolve(source, Path(config.folder), Settings().cache):
                yield table, table, path


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
