"""The bytes of a file, decompressed in pieces: what they are is decided by themselves, the name only breaks ties."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import zstandard

from rlhf.data.records import Found, Limits, Refused, refuse

PIECE = 1 << 18
_BOM = b"\xef\xbb\xbf"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_RATIO_COUNTS_FROM = 10_000_000
_MAX_WINDOW = 1 << 27
_MAGIC = (
    (b"PK\x03\x04", "a zip archive (or xlsx, docx, npz, torch file)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"ARROW1", "an Arrow or Feather file"),
    (b"FEA1", "a Feather file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (GZIP, "compressed data inside compressed data"),
    (ZSTD, "compressed data inside compressed data"),
    (b"PAR1", "a compressed Parquet file"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_OLD_PICKLE = re.compile(
    rb"\([dl]p\d+\n|\(?c(?:posix|os|nt|sys|builtins|__builtin__|subprocess|copy_?reg|collections|numpy[\w.]*|torch[\w.]*)\n"
)
_TAR = 257


class Span(NamedTuple):
    """Bytes of a file that is not compressed: a place to read them from travels better than they do."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Return the bytes themselves."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


class Text(NamedTuple):
    """The text of a file in pieces."""

    pieces: Iterator[bytes]
    compression: str = ""
    """Its name; empty: none."""
    start: Span | None = None
    """Where the text begins in the file; None: it has to be decompressed."""


def open_text(path: Path, head: bytes, limits: Limits, notes: list[Found]) -> Text:
    """Open a file after the checks on its first bytes."""
    if head.startswith(GZIP):
        return Text(_checked(_expanded(path, limits, _Gzip()), notes), "gzip")
    if head.startswith(ZSTD):
        return Text(_checked(_expanded(path, limits, _Zstd()), notes), "zstd")
    if path.suffix.lower() in {".gz", ".zst", ".zstd"}:
        message = f"{path.name!r} is not compressed, whatever its name says; rename or compress it"
        _refuse_binary(head)
        raise refuse("not_compressed", message)
    start = Span(path, len(_BOM) if head.startswith(_BOM) else 0, 0)
    return Text(_checked(_pieces(path), notes), start=start)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


class _Gzip:
    name = "gzip"

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        self.unused = b""

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._stream.eof:
            try:
                yield self._stream.decompress(data, PIECE)
            except zlib.error as error:
                raise _corrupt(self.name, error) from error
            data = self._stream.unconsumed_tail
        self.unused = self._stream.unused_data


class _Zstd:
    name = "zstd"

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self.eof, self.unused = False, b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        # Little by little: the library has no limit on what one call may give.
        for start in range(0, len(data), 1024):
            try:
                yield self._stream.decompress(data[start : start + 1024])
            except zstandard.ZstdError as error:
                raise _corrupt(self.name, error) from error
            if self._stream.eof:
                self.eof, self.unused = True, self._stream.unused_data + data[start + 1024 :]
                return


def _corrupt(name: str, error: Exception) -> Refused:
    return refuse("compressed_stream_corrupt", f"{name} data is corrupt ({error}); copy it again")


def _expanded(path: Path, limits: Limits, codec: "_Gzip | _Zstd") -> Iterator[bytes]:
    """Yield the content of a compressed file (all its members), with size, ratio and checksums watched."""
    taken = given = 0
    inside = True
    for piece in _pieces(path):
        taken += len(piece)
        rest = piece
        while rest:
            if not inside:
                rest = rest.lstrip(b"\0")  # zero padding after the last member is legal
                if not rest:
                    break
                codec.restart()
                inside = True
            for data in codec.feed(rest):
                given += len(data)
                _check_expansion(given, taken, limits)
                if data:
                    yield data
            rest = b""
            if codec.eof:
                rest, inside = codec.unused, False
    if inside:
        message = f"{path.name!r} ends in the middle of its {codec.name} stream; copy it again"
        raise refuse("compressed_stream_truncated", message)


def _check_expansion(given: int, taken: int, limits: Limits) -> None:
    bomb = given > _RATIO_COUNTS_FROM and given > taken * limits.compression_ratio
    if bomb or given > limits.decompressed_bytes:
        raise refuse(
            "decompressed_too_large",
            f"{taken:,} bytes expand to more than {given:,}; the limits are {limits.decompressed_bytes:,} bytes "
            f"and a ratio of {limits.compression_ratio}",
        )


def _checked(pieces: Iterator[bytes], notes: list[Found]) -> Iterator[bytes]:
    """Refuse what is not UTF-8 text by its first bytes, and drop a byte order mark with a note."""
    head = b""
    while len(head) < 512 and (piece := next(pieces, b"")):
        head += piece
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")) or _looks_like_utf16(head[:512]):
        raise refuse("wrong_encoding_utf16", "the text is UTF-16 or UTF-32; save it as UTF-8")
    _refuse_binary(head)
    if head.startswith(_BOM):
        head = head[len(_BOM) :]
        notes.append(Found("bom", "the file starts with a UTF-8 byte order mark; it was skipped", line=1))
    yield head
    yield from pieces


def _refuse_binary(head: bytes) -> None:
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise refuse(
                "binary_content", f"this is {what}, not text; export JSON Lines, JSON, CSV or Parquet"
            )
    tar = head[_TAR : _TAR + 5] == b"ustar"
    if tar or _PICKLE.match(head) or _OLD_PICKLE.match(head) or b"\0" in head[:512]:
        what = "a tar archive" if tar else "binary data (a pickle?)"
        raise refuse("binary_content", f"this is {what}, not text; it was not opened further")


def _looks_like_utf16(head: bytes) -> bool:
    """Tell whether every second byte is mostly zero, and the other one is not."""
    if len(head) < 8:
        return False
    even, odd = head[0::2].count(0) / len(head[0::2]), head[1::2].count(0) / len(head[1::2])
    quarter = head[3::4].count(0) / max(len(head[3::4]), 1), head[0::4].count(0) / len(head[0::4])
    return max(even, odd) > 0.6 and (min(even, odd) < 0.2 or max(quarter) > 0.9)
