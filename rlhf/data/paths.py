"""File names and references that must not be followed."""

import re
import zipfile
from pathlib import Path, PurePosixPath

from rlhf.data.records import Found, Refused, refuse, shown

_UNSAFE_NAME = re.compile(r"^-|[\x00-\x1f\x7f;&|`$<>*?\"'\\]")


def unsafe_name(path: Path) -> list[Found]:
    """Return a finding if a file's name looks like an option or a command."""
    if not _UNSAFE_NAME.search(path.name):
        return []
    return [
        Found("unsafe_filename", f"the name {shown(path.name)} looks like an option or command; rename it")
    ]


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


def refuse_archive(path: Path) -> Refused:
    """Say why an archive is refused; only its list of names is read, nothing is extracted."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError, RuntimeError):
        names = []
    escaping = [
        Found("path_traversal", f"the archive member {shown(name)} lies outside its folder", field=name)
        for name in names
        if leaves_folder(name)
    ]
    if escaping:
        return Refused(*escaping)
    return refuse(
        "binary_content", "this is a zip archive or a spreadsheet; export JSON Lines, JSON, CSV or Parquet"
    )
