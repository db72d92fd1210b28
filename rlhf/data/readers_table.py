"""CSV and Parquet."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from rlhf.data.records import Json, Limits, Row, refuse, shown

_SEPARATORS = (";", "\t", "|", ",")
_BATCH = 4096


def csv_rows(content: bytes, limits: Limits, separator: str) -> Iterator[Row]:
    """Yield the records of a CSV file with a header; cells may hold newlines, and every value is a string."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise refuse("encoding_error", f"not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    if not text.strip():
        raise refuse("no_rows", "the file holds only white space")
    csv.field_size_limit(max(limits.row_bytes, 131_072))
    lines = io.StringIO(text, newline="\n")
    taken: list[str] = []

    def recorded() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line.removesuffix("\r\n") + "\n" if line.endswith("\r\n") else line

    reader = csv.reader(recorded(), delimiter=separator, strict=True)
    try:
        header = next(reader)
    except csv.Error as error:
        raise refuse("csv_unclosed_quote", f"the header cannot be read ({error})", line=1) from error
    _check_header(header, separator)
    index = 0
    while True:
        line = reader.line_num + 1
        taken.clear()
        cells: list[str] | None = None
        problem = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = str(error)
        if cells == []:
            continue
        yield _csv_row(Row(index, line, "".join(taken).encode()), header, cells, problem, limits)
        index += 1


def _check_header(header: list[str], separator: str) -> None:
    if len(header) == 1:
        for other in _SEPARATORS:
            if other != separator and other in header[0]:
                raise refuse(
                    "csv_delimiter", f"the separator looks like {other!r}; save with {separator!r}", line=1
                )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise refuse("duplicate_column", f"the column {shown(twice[0])} occurs twice", line=1, field=twice[0])


def _csv_row(row: Row, header: list[str], cells: list[str] | None, problem: str, limits: Limits) -> Row:
    if cells is None:
        if problem == "unexpected end of data":
            lines = row.raw.rstrip(b"\n").count(b"\n") + 1
            if lines > 1:
                # A quote that swallows the following records: how many rows were lost cannot be known.
                message = f"a quote opened in the record on line {row.line} is never closed"
                raise refuse("csv_unclosed_quote", message, line=row.line)
            row.found("csv_unclosed_quote", None, "a quote is never closed")
        elif "field larger than" in problem:
            row.found("row_too_large", None, f"a cell is larger than {limits.row_bytes:,} bytes")
        else:
            row.found("csv_ragged", None, f"the record cannot be split into cells: {problem}")
        row.raw = row.raw[: limits.row_bytes]
    elif len(cells) != len(header):
        row.found("csv_ragged", None, f"{len(cells)} cells where the header has {len(header)}")
    elif len(row.raw) > limits.row_bytes:
        row.found("row_too_large", None, f"the record is larger than {limits.row_bytes:,} bytes")
    else:
        row.value = dict(zip(header, cells, strict=True))
    return row


def parquet_rows(path: Path, limits: Limits) -> Iterator[Row]:
    """Yield the rows of a Parquet file; columns keep their types."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    footer = int.from_bytes(tail[:4], "little")
    if head != b"PAR1" or tail[4:] != b"PAR1" or footer + 12 > size:
        raise refuse("unreadable_parquet", "not a complete Parquet file (no footer); copy or export it again")
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise refuse(
            "unreadable_parquet", f"the Parquet file cannot be read: {shown(str(error), 200)}"
        ) from error
    index = 0
    for batch in frame.iter_slices(_BATCH):
        for value in batch.iter_rows(named=True):
            raw = json.dumps(value, ensure_ascii=False, default=str).encode(errors="surrogatepass")
            row = Row(index, None, raw)
            if len(raw) > limits.row_bytes:
                row.found("row_too_large", None, f"the row is larger than {limits.row_bytes:,} bytes")
            else:
                plain: dict[str, Json] = value
                row.value = plain
            index += 1
            yield row
