"""CSV, Parquet, and datasets that the `datasets` library saved to disk."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf.data.paths import leaves_folder
from rlhf.data.records import Found, Json, Limits, Raw, refuse, shown

_SEPARATORS = (";", "\t", "|", ",")
_BATCH = 2_048


def csv_records(pieces: Iterator[bytes], limits: Limits, separator: str) -> Iterator[Raw]:
    """Yield the records of a CSV file with a header; cells may hold newlines, and every value is a string."""
    csv.field_size_limit(max(limits.row_bytes, 131_072))
    taken: list[str] = []
    reader = csv.reader(_remembered(_lines(pieces), taken, limits), delimiter=separator, strict=True)
    try:
        header = next(reader)
        while not any(header):
            header = next(reader)
    except StopIteration:
        raise refuse("no_rows", "the file holds only white space") from None
    except csv.Error as error:
        raise refuse("csv_unclosed_quote", f"the header cannot be read ({error})", line=1) from error
    _check_header(header, separator)
    while True:
        line = reader.line_num + 1
        taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _broken(line, taken, str(error), limits)
            continue
        if cells:
            yield _record(line, taken, header, cells, limits)


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of the file with their ends; \r\n becomes \n, a lone \r stays."""
    number, tail = 0, b""
    for piece in pieces:
        *whole, tail = (tail + piece).split(b"\n")
        for line in whole:
            number += 1
            yield _decoded(line.removesuffix(b"\r"), number) + "\n"
    if tail:
        yield _decoded(tail, number + 1)


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        message = f"not UTF-8 at byte {error.start} of line {number}; save the file as UTF-8"
        raise refuse("encoding_error", message, line=number) from error


def _remembered(lines: Iterator[str], taken: list[str], limits: Limits) -> Iterator[str]:
    """Pass the lines on and keep those of the current record."""
    size = 0
    for line in lines:
        size = size + len(line) if taken else len(line)
        if size > 4 * limits.row_bytes:
            message = f"a record goes on for more than {size:,} characters: is a quote not closed?"
            raise refuse("csv_unclosed_quote", message)
        taken.append(line)
        yield line


def _check_header(header: list[str], separator: str) -> None:
    if len(header) == 1:
        for other in _SEPARATORS:
            if other != separator and other in header[0]:
                message = f"the separator looks like {other!r}; save with {separator!r}"
                raise refuse("csv_delimiter", message, line=1)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise refuse("duplicate_column", f"the column {shown(twice[0])} occurs twice", line=1, field=twice[0])


def _broken(line: int, taken: list[str], problem: str, limits: Limits) -> Raw:
    """Return the row of a record that cannot be split into cells."""
    kind, message = "csv_ragged", f"the record cannot be split into cells: {problem}"
    if problem == "unexpected end of data":
        if len(taken) > 1:
            # A quote that swallows the following records: how many rows were lost cannot be known.
            message = f"a quote opened in the record on line {line} is never closed"
            raise refuse("csv_unclosed_quote", message, line=line)
        kind, message = "csv_unclosed_quote", "a quote is never closed"
    elif "field larger than" in problem:
        kind, message = "row_too_large", f"a cell is larger than {limits.row_bytes:,} bytes"
    return Raw(line, "".join(taken).encode()[: limits.row_bytes], None, Found(kind, message, None, line))


def _record(line: int, taken: list[str], header: list[str], cells: list[str], limits: Limits) -> Raw:
    data = "".join(taken).encode()
    defect = None
    if len(cells) != len(header):
        message = f"{len(cells)} cells where the header has {len(header)}"
        defect = Found("csv_ragged", message, None, line)
    elif len(data) > limits.row_bytes:
        message = f"the record is larger than {limits.row_bytes:,} bytes"
        defect = Found("row_too_large", message, None, line)
    return Raw(line, data, None if defect else dict(zip(header, cells, strict=True)), defect)


def parquet_records(path: Path, limits: Limits) -> Iterator[Raw]:
    """Yield the rows of a Parquet file, a few at a time; columns keep their types."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    footer = int.from_bytes(tail[:4], "little")
    if head != b"PAR1" or tail[4:] != b"PAR1" or footer + 12 > size:
        raise refuse("unreadable_parquet", "not a complete Parquet file (no footer); copy or export it again")
    try:
        with pq.ParquetFile(path) as table:
            _check_columns(table.schema_arrow)
            expands = sum(
                table.metadata.row_group(i).total_byte_size for i in range(table.metadata.num_row_groups)
            )
            if expands > limits.decompressed_bytes:
                message = f"{size:,} bytes expand to {expands:,}; the limit is {limits.decompressed_bytes:,}"
                raise refuse("decompressed_too_large", message)
            for batch in table.iter_batches(batch_size=_BATCH):
                yield from _rows(batch, limits)
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        message = f"the Parquet file cannot be read: {shown(str(error), 200)}"
        raise refuse("unreadable_parquet", message) from error


def _check_columns(schema: Any) -> None:
    names = list(schema.names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise refuse("duplicate_column", f"the column {shown(twice[0])} occurs twice", field=twice[0])


def _rows(batch: Any, limits: Limits) -> Iterator[Raw]:
    # A batch within the limit has no row beyond it, so the size of each row need not be known.
    large = batch.nbytes > limits.row_bytes
    for value in batch.to_pylist():
        row: dict[str, Json] = value
        if large and (size := _size(row)) > limits.row_bytes:
            message = f"the row is larger than {limits.row_bytes:,} bytes"
            yield Raw(None, f"{size} bytes".encode(), None, Found("row_too_large", message))
        else:
            yield Raw(None, b"", row)


def _size(value: Json) -> int:
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, str | bytes) else 8


def saved_records(folder: Path, limits: Limits) -> Iterator[Raw]:
    """Yield the rows of a dataset that `save_to_disk` wrote."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise refuse("unexpected_top_level", f"state.json does not list the data files: {error!r}") from error
    for name in names:
        path = folder / name
        if leaves_folder(name) or not path.resolve().is_relative_to(folder.resolve()):
            message = f"state.json names {shown(name)}, outside the dataset's folder"
            raise refuse("path_traversal", message, field=name)
        try:
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as batches:
                _check_columns(batches.schema)
                for batch in batches:
                    for start in range(0, batch.num_rows, _BATCH):
                        yield from _rows(batch.slice(start, _BATCH), limits)
        except (pa.ArrowException, OSError) as error:
            raise refuse("binary_content", f"{name} is not a whole Arrow stream: {error}") from error
