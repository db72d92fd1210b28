"""`rlhf validate`: what would a run say to this file?"""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands_run import Json
from flows.terminal import say, show, show_json
from schemas.errors import NotFound, UserError
from schemas.reports import Finding, ValidationReport

KINDS = ("corpus", "demonstrations", "prompts", "preferences", "rankings", "feedback")
EXIT_CODES = {"accept": 0, "warn": 0, "quarantine_rows": 3, "reject_file": 2}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(validate)


def validate(
    file: Annotated[str, typer.Argument(help="A file, a glob, a folder or s3://...")],
    kind: Annotated[str, typer.Option("--as", metavar="KIND", help=", ".join(KINDS))],
    out: Annotated[Path | None, typer.Option(help="Folder for KIND.parquet and quarantine.jsonl.")] = None,
    json: Json = False,
) -> None:
    """Check a data file, and write its canonical table when --out names a folder."""
    if kind not in KINDS:
        raise NotFound(f"No kind {kind!r}; wanted one of {', '.join(KINDS)}.")
    from rlhf.data.validation import validate_file

    report = validate_file(file, kind=kind, out=out)
    code = EXIT_CODES[report.verdict]
    written = str(out / f"{kind}.parquet") if out and code != UserError.exit_code else None
    if json:
        show_json(report, output=written)
    else:
        _show(report, written)
    raise typer.Exit(code)


def _show(report: ValidationReport, written: str | None) -> None:
    show(f"{report.source}: {report.verdict}")
    show(f"read as {report.format}")
    show(
        f"{report.rows} rows: {report.kept} kept, {report.quarantined} quarantined, {report.dropped} dropped"
    )
    for finding in report.findings:
        show(f"  {_where(finding)}{finding.kind}: {finding.message}")
    for name, value in report.statistics.items():
        show(f"  {name}: {value:.4g}")
    if written:
        say(f"wrote {written}")


def _where(finding: Finding) -> str:
    parts = [f"line {finding.line}" if finding.line is not None else "", finding.field or ""]
    if finding.line is None and finding.row is not None:
        parts[0] = f"row {finding.row}"
    return "".join(f"{part}: " for part in parts if part)
