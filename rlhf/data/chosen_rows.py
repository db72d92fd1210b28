"""Take some rows of a file: those in which a column has the value that a recipe names (`FILE#column=value`)."""

from pathlib import Path

import orjson

from rlhf.data.readers import open_source
from rlhf.data.records import Json, Limits, Raw, Refused
from schemas.errors import DataRejected


def keep_rows(path: Path, condition: str, out: Path) -> Path:
    """Write the rows that meet `column=value` as JSON Lines and return that file."""
    column, found, value = condition.partition("=")
    if not column or not found:
        raise DataRejected(
            f"{path.name}#{condition} is no condition on rows; wanted {path.name}#column=value."
        )
    try:
        records = [_value(raw) for raw in open_source(path, Limits()).records]
    except Refused as refused:
        raise DataRejected(f"{path.name} cannot be read: {refused.findings[0].message}") from None
    kept = [record for record in records if str(record.get(column)) == value]
    if not kept:
        values = sorted({str(record.get(column)) for record in records})[:5]
        raise DataRejected(
            f"No row of {path.name} has {column}={value}; its {len(records)} rows have {column} in {', '.join(values)}."
        )
    out.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in kept))
    return out


def _value(raw: Raw) -> dict[str, Json]:
    """Return a record's values; a row that is none counts as one without columns, and is not kept."""
    if raw.value is not None:
        return raw.value
    try:
        value = orjson.loads(raw.data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
