"""Read a file, name everything that is wrong with it, keep every good row, and prove that the books balance."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rlhf.data import checks, duplicates
from rlhf.data.checks import Checked
from rlhf.data.layouts import LAYOUTS
from rlhf.data.records import Limits
from rlhf.data.rules import WARN_ABOVE
from schemas.errors import ConfigError, NotFound
from schemas.reports import Finding, ValidationReport
from schemas.tables import Kind


def validate_file(
    source: str,
    *,
    kind: str,
    out: Path | None,
    max_quarantined: float = 0.05,
    limits: Limits | None = None,
    votes: Literal["drop", "count"] = "drop",
    against: Sequence[str] = (),
    allow_constant: bool = False,
) -> ValidationReport:
    """Validate one file as a table of a kind; write `<kind>.parquet` and `quarantine.jsonl` into `out`.

    `votes` says whether repeated pairs weigh more; `against` names files whose prompts must not occur in this one;
    a file with more than the share `max_quarantined` in quarantine carries the finding `too_many_quarantined`.
    """
    path, limits = Path(source), limits or Limits()
    checked = _check(path, _table(kind), limits)
    if not checked.rejected:
        checks.check_repeats(checked, votes)
        for other in against:
            known = _check(Path(other), _table(kind), limits).frame
            checks.check_leakage(checked, duplicates.first_question(known))
        checks.check_contract(checked)
        checks.check_file(checked, allow_constant=allow_constant)
    report = _report(checked, source, max_quarantined)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _write_quarantine(out / "quarantine.jsonl", path.name, checked)
        if not checked.rejected:
            checked.public().write_parquet(out / f"{kind}.parquet", compression="zstd")
    return report


def _table(kind: str) -> Kind:
    for known in LAYOUTS:
        if kind == known:
            return known
    raise ConfigError(f"the kind is {kind!r}; wanted one of {', '.join(LAYOUTS)}")


def _check(path: Path, kind: Kind, limits: Limits) -> Checked:
    if not path.is_file():
        raise NotFound(f"no file at {str(path)!r}; check the name")
    return checks.check_rows(path, kind, limits)


def _report(checked: Checked, source: str, max_quarantined: float) -> ValidationReport:
    bad = len(checked.quarantine)
    notes = list(checked.notes)
    if not checked.rejected and bad > max_quarantined * checked.rows:
        message = f"{bad} of {checked.rows} rows are in quarantine; the limit is {max_quarantined:.1%}"
        notes.append(Finding(kind="too_many_quarantined", message=message))
    lost = [finding for row in sorted(checked.quarantine) for finding in checked.quarantine[row].findings]
    verdict: Literal["accept", "warn", "quarantine_rows", "reject_file"] = "accept"
    if checked.rejected:
        verdict = "reject_file"
    elif bad:
        verdict = "quarantine_rows"
    elif _warns(notes, checked.rows):
        verdict = "warn"
    return ValidationReport(
        kind=checked.kind,
        source=source,
        format=checked.layout,
        verdict=verdict,
        rows=checked.rows,
        kept=0 if checked.rejected else checked.frame["_row"].n_unique(),
        quarantined=checked.rows if checked.rejected else bad,
        dropped=0 if checked.rejected else checked.dropped,
        findings=(*sorted(notes, key=lambda finding: -1 if finding.row is None else finding.row), *lost),
        statistics=checked.statistics,
    )


def _warns(notes: list[Finding], rows: int) -> bool:
    """Tell whether a finding that costs no row is frequent enough to be a warning."""
    counts = Counter(kind for kind, _ in {(finding.kind, finding.row) for finding in notes})
    return any(count > WARN_ABOVE.get(kind, 0.0) * rows for kind, count in counts.items())


def _write_quarantine(path: Path, name: str, checked: Checked) -> None:
    """Write one JSON line per row in quarantine: where it stood, why, its digest, its beginning (escaped, capped)."""
    with path.open("w", encoding="ascii", newline="\n") as file:
        for row in sorted(checked.quarantine):
            refusal = checked.quarantine[row]
            first = refusal.findings[0]
            line = {
                "file": name, "row": row, "line": first.line, "field": first.field, "kind": first.kind,
                "message": first.message, "all": [f"{f.kind} in {f.field}" for f in refusal.findings],
                "sha1": refusal.sha1, "text": refusal.text,
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
