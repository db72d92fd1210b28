"""Open a data file of any supported format, defended before any schema: nothing is unpickled, executed or trusted.

The bytes decide what a file is; the name only breaks ties. Text is read in pieces, so that a bomb or a giant row
costs no more memory than the limit.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rlhf.data import readers_json, readers_table
from rlhf.data.records import Limits, Refused, Row, refuse, shown
from schemas.reports import Finding

_PIECE = 1 << 18
_RATIO_COUNTS_FROM = 10_000_000
_MAGIC = (
    (b"PK\x03\x04", "a zip archive (or xlsx, docx, npz, torch file)"),
    (b"ARROW1", "an Arrow or Feather file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program"),
    (b"\x1f\x8b", "gzip inside gzip"),
    (b"PAR1", "a compressed Parquet file"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_UNSAFE_NAME = re.compile(r"^-|[\x00-\x1f;&|`$<>*?\"'\\]")


@dataclass(slots=True)
class Source:
    """A file that has been opened: its format in words, its rows, and what the reader noticed on the way."""

    format: str
    rows: Iterator[Row]
    notes: list[Finding] = field(default_factory=list)
    """Findings on the whole file; complete once `rows` is exhausted."""


def open_source(path: Path, limits: Limits | None = None) -> Source:
    """Detect the format of a file and return its rows; raise `Refused` where nothing of it may be used."""
    limits = limits or Limits()
    notes: list[Finding] = []
    if _UNSAFE_NAME.search(path.name):
        notes.append(
            Finding(kind="unsafe_filename", message=f"the name {path.name!r} looks like an option or command")
        )
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise refuse("empty_file", f"{path.name} has 0 bytes; export it again")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = head.startswith(b"\x1f\x8b")
    if head.startswith(b"PAR1") or (suffixes[-1:] == [".parquet"] and not zipped):
        return Source("Parquet", readers_table.parquet_rows(path, limits), notes)
    if head.startswith(b"PK\x03\x04"):
        raise _refuse_archive(path)
    if not zipped and suffixes[-1:] == [".gz"]:
        notes.append(
            Finding(kind="not_compressed", message=f"{path.name} is not compressed, whatever its name says")
        )
    pieces = _first_bytes_checked(_decompressed(path, limits) if zipped else _pieces(path), notes)
    base = next((s for s in reversed(suffixes) if s != ".gz"), "")
    source = _text_source(base, pieces, limits, notes)
    source.format += ", gzip" if zipped else ""
    return source


def _text_source(suffix: str, pieces: Iterator[bytes], limits: Limits, notes: list[Finding]) -> Source:
    if suffix in {".csv", ".tsv"}:
        separator = "\t" if suffix == ".tsv" else ","
        return Source("CSV", readers_table.csv_rows(b"".join(pieces), limits, separator), notes)
    if suffix in {".txt", ".text", ".md"}:
        return Source("plain text", readers_json.text_rows(b"".join(pieces)), notes)
    if suffix == ".json":
        return Source("JSON", readers_json.json_rows(b"".join(pieces), limits), notes)
    return Source("JSON Lines", readers_json.jsonl_rows(pieces, limits), notes)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _decompressed(path: Path, limits: Limits) -> Iterator[bytes]:
    """Yield the content of a gzip file (all its members), with size, ratio and checksums watched."""
    taken = given = 0
    stream = zlib.decompressobj(wbits=31)
    untouched = True
    for piece in _pieces(path):
        taken += len(piece)
        rest = piece
        while rest:
            if untouched and given and not (rest := rest.lstrip(b"\0")):
                break  # zero padding after the last member is legal
            untouched = False
            try:
                data = stream.decompress(rest, _PIECE)
            except zlib.error as error:
                raise refuse(
                    "compressed_stream_corrupt", f"gzip data is corrupt ({error}); copy it again"
                ) from error
            given += len(data)
            _check_expansion(given, taken, limits)
            yield data
            rest = stream.unconsumed_tail
            if stream.eof:
                rest, stream, untouched = stream.unused_data, zlib.decompressobj(wbits=31), True
    if not untouched:
        raise refuse(
            "compressed_stream_truncated", f"{path.name} ends in the middle of its gzip stream; copy it again"
        )


def _check_expansion(given: int, taken: int, limits: Limits) -> None:
    bomb = given > _RATIO_COUNTS_FROM and given > taken * limits.compression_ratio
    if bomb or given > limits.decompressed_bytes:
        raise refuse(
            "decompressed_too_large",
            f"{taken:,} bytes expand to more than {given:,}; the limits are {limits.decompressed_bytes:,} bytes "
            f"and a ratio of {limits.compression_ratio}",
        )


def _first_bytes_checked(pieces: Iterator[bytes], notes: list[Finding]) -> Iterator[bytes]:
    """Refuse what is not UTF-8 text by its first bytes, and drop a byte order mark with a note."""
    head = b""
    while len(head) < 512 and (piece := next(pieces, b"")):
        head += piece
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")) or _looks_like_utf16(head[:512]):
        raise refuse("wrong_encoding_utf16", "the text is UTF-16 or UTF-32; save it as UTF-8")
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise refuse(
                "binary_content", f"this is {what}, not text; export JSON Lines, JSON, CSV or Parquet"
            )
    if _PICKLE.match(head) or b"\0" in head[:512]:
        raise refuse("binary_content", "this is binary data (a pickle?), not text; it was not opened further")
    if head.startswith(b"\xef\xbb\xbf"):
        head = head[3:]
        notes.append(
            Finding(
                kind="bom", line=1, message="the file starts with a UTF-8 byte order mark; it was skipped"
            )
        )
    yield head
    yield from pieces


def _looks_like_utf16(head: bytes) -> bool:
    return len(head) >= 8 and max(head[0::2].count(0), head[1::2].count(0)) > len(head) * 0.3


def _refuse_archive(path: Path) -> Refused:
    """Say why an archive is refused; only its list of names is read, nothing is extracted."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        names = []
    for name in names:
        if leaves_folder(name):
            return refuse(
                "path_traversal", f"the archive member {shown(name)} lies outside its folder", field=name
            )
    return refuse(
        "binary_content", "this is a zip archive or a spreadsheet; export JSON Lines, JSON, CSV or Parquet"
    )


def leaves_folder(name: str) -> bool:
    """Tell whether a file reference is absolute, a URL, or climbs out of the folder that it should stay in."""
    plain = name.replace("\\", "/")
    depth = 0
    for part in PurePosixPath(plain).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return (
        plain.startswith(("/", "~"))
        or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", plain) is not None
        or "\0" in plain
    )
