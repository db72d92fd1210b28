"""`rlhf validate`: what would a run say to this file?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from flows.commands_run import Json
from flows.terminal import say, show, show_json
from schemas.errors import ConfigError, NotFound, UserError
from schemas.suggest import did_you_mean
from schemas.validation import Finding, ValidationReport

if TYPE_CHECKING:
    from schemas.config.data import DataChecks

KINDS = ("corpus", "demonstrations", "prompts", "preferences", "rankings", "feedback")
EXIT_CODES = {"accept": 0, "warn": 0, "quarantine_rows": 3, "reject_file": 2}
SHOWN_PER_KIND = 5


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(validate)


def validate(
    file: Annotated[
        str, typer.Argument(help="A file, a glob, a folder, s3://... or hf://dataset@revision/file")
    ],
    kind: Annotated[str, typer.Option("--as", metavar="KIND", help=", ".join(KINDS))],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[a.b=c ...]", help="Keys of a recipe's data section, such as rules.pii.level=quarantine."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for KIND.parquet, quarantine.jsonl and manifest.json.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="WANTED=FOUND", help="The column that holds a field; repeatable."),
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Its prompts must not occur here; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Check a data file, and write its canonical table when --out names a folder."""
    if kind not in KINDS:
        meant = did_you_mean(kind, KINDS)
        raise NotFound(
            f"No kind {kind!r}; wanted one of {', '.join(KINDS)}" + (f"; {meant}" if meant else ".")
        )
    from rlhf.data.validation import validate_files

    report = validate_files(
        local_files(file),
        kind=kind,
        out=out,
        config=_checks(overrides or []),
        columns=dict(_split(pair) for pair in column or []),
        against=[path for other in against or [] for path in local_files(other)],
        name=file,
    )
    code = EXIT_CODES[report.verdict]
    written = str(out / f"{kind}.parquet") if out and code != UserError.exit_code else None
    if json:
        show_json(report, output=written)
    else:
        _show(report, written)
    raise typer.Exit(code)


def local_files(source: str) -> list[Path]:
    """Return the files that a command line names; what a person types is meant, wherever it lies."""
    from rlhf.data.fetch import resolve
    from schemas.settings import Settings

    remote = source.startswith(("s3://", "hf://"))
    return resolve(
        source if remote else str(Path(source).expanduser().absolute()), Path.cwd(), Settings().cache
    )


def _checks(overrides: list[str]) -> "DataChecks":
    from pydantic import ValidationError

    from schemas.config.data import DataChecks

    tree: dict[str, Any] = {}
    for override in overrides:
        path, value = _split(override)
        *sections, key = path.removeprefix("data.").split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = yaml.safe_load(value)
    try:
        return DataChecks.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{where}: {first['msg']} (found {first['input']!r:.80}). Correct the override."
        ) from None


def _split(pair: str) -> tuple[str, str]:
    name, separator, value = pair.partition("=")
    if not separator or not name or not value:
        raise ConfigError(f"{pair!r} is not NAME=VALUE.")
    return name, value


def _show(report: ValidationReport, written: str | None) -> None:
    show(f"{report.source}: {report.verdict}")
    show(f"read as {report.format}")
    dropped = ", ".join(f"{count} {reason}" for reason, count in report.reasons.items())
    show(
        f"{report.rows} rows: {report.kept} kept, {report.quarantined} quarantined, {report.dropped} dropped"
        + (f" ({dropped})" if dropped else "")
    )
    shown: dict[str, int] = {}
    for finding in report.findings:
        shown[finding.kind] = shown.get(finding.kind, 0) + 1
        if shown[finding.kind] <= SHOWN_PER_KIND:
            show(f"  {_where(finding)}{finding.kind}: {finding.message}")
    for kind, count in shown.items():
        if count > SHOWN_PER_KIND:
            show(
                f"  {kind} in {report.counts.get(kind, count)} rows; --json and the quarantine file name them"
            )
    for name, value in report.statistics.items():
        show(f"  {name}: {value:.4g}")
    if written:
        say(f"wrote {written}")


def _where(finding: Finding) -> str:
    line = f"line {finding.line}" if finding.line is not None else ""
    if finding.line is None and finding.row is not None:
        line = f"row {finding.row}"
    return "".join(f"{part}: " for part in (finding.file or "", line, finding.field or "") if part)
