"""Read files, name everything that is wrong with them, keep every good row, and prove that the books balance."""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from rlhf.data import agreement, baseline, bias, detection, language, leakage, repeats
from rlhf.data.batches import Batch, Checks, process
from rlhf.data.detection import Plan
from rlhf.data.layouts import LAYOUTS
from rlhf.data.ledger import Ledger
from rlhf.data.output import digest, report_of, write_manifest, write_quarantine, write_table
from rlhf.data.parallel import cores, in_order
from rlhf.data.parsing import Parser, read_row
from rlhf.data.readers import open_source
from rlhf.data.readers_lines import Lines
from rlhf.data.records import Found, Limits, Records, Refused, refuse
from schemas.config.data import DataChecks
from schemas.errors import ConfigError, NotFound
from schemas.tables import Kind
from schemas.validation import ValidationReport

_SAMPLE = 1_000
_BATCH = 8_192
_LARGE = 64_000_000
"""Bytes from which on several processes are worth their start."""


def validate_file(
    source: str,
    *,
    kind: str,
    out: Path | None = None,
    config: DataChecks | None = None,
    max_quarantined: float | None = None,
    columns: Mapping[str, str] | None = None,
    against: Sequence[str] = (),
) -> ValidationReport:
    """Validate one file (or saved dataset) as a table of a kind, see `validate_files`."""
    return validate_files(
        [Path(source)],
        kind=kind,
        out=out,
        config=config,
        max_quarantined=max_quarantined,
        columns=columns,
        against=[Path(other) for other in against],
        name=source,
    )


def validate_files(
    paths: Sequence[Path],
    *,
    kind: str,
    out: Path | None = None,
    config: DataChecks | None = None,
    max_quarantined: float | None = None,
    columns: Mapping[str, str] | None = None,
    against: Sequence[Path] = (),
    name: str | None = None,
) -> ValidationReport:
    """Validate files as one table of a kind; write `<kind>.parquet`, `quarantine.jsonl` and `manifest.json` into `out`.

    `against` names files whose prompts must not occur in these; with more than the share `max_quarantined` in
    quarantine the report carries the finding `too_many_quarantined`.
    """
    config = config or DataChecks()
    allowed = config.max_quarantined if max_quarantined is None else max_quarantined
    mapping = tuple(sorted((columns or {}).items()))
    table = _table(kind)
    with tempfile.TemporaryDirectory(prefix="rlhf-validate-") as scratch, ThreadPoolExecutor(1) as beside:
        if sum(path.stat().st_size for path in paths if path.is_file()) > _LARGE:
            beside.submit(_prepare, table)
        staging = Path(scratch) if out is not None or against else None
        ledger = _read_all(paths, table, config, mapping, staging)
        # Hashing holds no interpreter lock, and the checks leave cores free.
        digests = [beside.submit(digest, path) for path in paths] if out is not None else []
        if not ledger.rejected:
            for check in _checks(config):
                check(ledger)
            if against:
                leakage.check_leakage(ledger, _questions(against, table, config, mapping))
        _check_whole(ledger, allowed)
        report = report_of(ledger, name or ", ".join(map(str, paths)))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_quarantine(out / "quarantine.jsonl", ledger)
            if not ledger.rejected:
                rows = write_table(out / f"{kind}.parquet", ledger)
                write_manifest(out, ledger, paths, rows, [found.result() for found in digests])
    return report


def _prepare(kind: Kind) -> None:
    """Import what the checks of a large file need, while the processes are at work."""
    language.identifier()
    if kind == "preferences":
        baseline.prepare()


def _table(kind: str) -> Kind:
    for known in LAYOUTS:
        if kind == known:
            return known
    raise ConfigError(f"the kind is {kind!r}; wanted one of {', '.join(LAYOUTS)}")


def _checks(config: DataChecks) -> tuple[Callable[[Ledger], None], ...]:
    """Return the rules over the whole file, in order."""
    return (
        lambda ledger: repeats.resolve_repeats(ledger, config.votes),
        repeats.note_near_duplicates,
        lambda ledger: bias.check_pairs(ledger) if ledger.kind == "preferences" else None,
        bias.check_ties,
        bias.check_constants,
        agreement.check_agreement,
        lambda ledger: language.check_language(ledger, config.languages),
        _check_classes,
    )


def _read_all(
    paths: Sequence[Path],
    kind: Kind,
    config: DataChecks,
    columns: tuple[tuple[str, str], ...],
    staging: Path | None,
) -> Ledger:
    """Read all rows of all files and apply the row rules; if one file cannot be used, none is."""
    ledger = Ledger(kind, config.rules)
    limits = Limits(**config.limits.model_dump())
    checks = Checks(
        rules=dict(config.rules), limits=limits, repair=config.repair, near_duplicates=config.near_duplicates
    )
    for path in paths:
        if not path.exists():
            raise NotFound(f"no file at {str(path)!r}; check the name")
        try:
            _read_file(path, ledger, checks, columns, staging)
        except Refused as refused:
            ledger.rejected = True
            ledger.notes += [
                found if found.row is None else found._replace(row=ledger.sources[-1][0] + found.row)
                for found in refused.findings
            ]
    ledger.close_reading()
    return ledger


def _read_file(
    path: Path, ledger: Ledger, checks: Checks, columns: tuple[tuple[str, str], ...], staging: Path | None
) -> None:
    start = ledger.rows
    ledger.sources.append((start, path.name))
    begun = open_source(path, checks.limits, _SAMPLE)
    ledger.formats.append(begun.format)
    sample = list(itertools.islice(begun.records, _SAMPLE))
    if not sample:
        raise refuse("no_rows", "the file is readable and holds no data row")
    parser = Parser(checks.limits)
    rows = [read_row(i, raw, parser, array_is_fatal=i == 0) for i, raw in enumerate(sample)]
    plan = detection.detect(rows, ledger.kind, columns, csv=begun.format.startswith("CSV"))
    del rows, sample, begun
    source = open_source(path, checks.limits, _BATCH)
    ledger.formats[-1] = f"{plan.reader.name}, {source.format}"
    large = path.is_file() and path.stat().st_size * (1 if "," not in source.format else 4) > _LARGE
    tasks = _tasks(source.batches, plan, checks, start, staging)
    for done in in_order(process, tasks, cores() if large else 1):
        ledger.take(done)
        if len(ledger.quarantine) > checks.limits.unusable_rows:
            raise refuse(
                "too_many_quarantined", f"more than {checks.limits.unusable_rows:,} rows cannot be used"
            )
    for note in source.notes:
        ledger.notes.append(note)
        ledger.warned.add(note.kind)


def _tasks(
    batches: Iterator[Records | Lines], plan: Plan, checks: Checks, start: int, staging: Path | None
) -> Iterator[Batch]:
    """Yield what is to be done with each batch of a file whose first record has the number `start`."""
    first = start
    for records in batches:
        staged = staging and staging / f"{first:012}.arrow"
        yield Batch(plan, checks, first, records, staged, first == start)
        first += len(records)


def _questions(
    paths: Sequence[Path], kind: Kind, config: DataChecks, columns: tuple[tuple[str, str], ...]
) -> pl.Series:
    """Return the first questions of other files."""
    with tempfile.TemporaryDirectory(prefix="rlhf-validate-") as scratch:
        ledger = _read_all(paths, kind, config, columns, Path(scratch))
        return leakage.staged_questions(ledger)


def _check_classes(ledger: Ledger) -> None:
    if ledger.kind != "feedback" or ledger.index.height < 2:
        return
    labels, scores = (ledger.index[name].drop_nulls() for name in ("label", "score"))
    if scores.is_empty() and labels.n_unique() == 1:
        message = "all labels are the same: nothing can be learnt from them"
        ledger.measure("single_class", 1.0, message, "label")


def _check_whole(ledger: Ledger, allowed: float) -> None:
    """Apply the rules on shares of the rows, and on what is left."""
    ledger.weigh_shares()
    bad = len(ledger.quarantine)
    if ledger.rows and not ledger.kept and not ledger.rejected:
        ledger.notes.append(Found("no_rows", "no row is left after the row rules"))
        ledger.rejected = True
    elif not ledger.rejected and bad > allowed * ledger.rows:
        message = f"{bad} of {ledger.rows} rows are in quarantine; the limit is {allowed:.1%}"
        ledger.notes.append(Found("too_many_quarantined", message))
