"""From what a recipe names (a path, a glob, a folder, `s3://...`, `hf://...`) to files on this machine."""

from collections.abc import Iterator
from pathlib import Path

from schemas.errors import DataRejected, NotFound

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".gz", ".zst", ".zstd")
_NOT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "manifest.json"}


def resolve(source: str, folder: Path, cache: Path) -> list[Path]:
    """Return the files that a source names, sorted; relative names start from `folder`, remote ones land in `cache`.

    A dataset that `save_to_disk` wrote is one of them, as its folder.
    """
    if source.startswith("s3://"):
        from rlhf.adapters.bucket import download  # boto3 costs half a second

        found = download(source, cache)
        return _found(found, found, source) if found.is_dir() else [found]
    if source.startswith("hf://"):
        from rlhf.data.hub import download_dataset  # so does the hub's client

        return download_dataset(source)
    given = Path(source).expanduser()
    path = given if given.is_absolute() else folder / given
    root = path if path.is_dir() else _fixed_part(path)
    files = [path] if path.is_file() else _found(path, root, source)
    _stay_inside(files, root if given.is_absolute() else folder, named=given.is_absolute() and path.is_file())
    return files


def _found(path: Path, root: Path, source: str) -> list[Path]:
    """Return the data files of a folder, or those that a pattern matches."""
    if (path / "dataset_dict.json").is_file():
        return _only_split(path)
    if (path / "state.json").is_file():
        return [path]
    candidates: Iterator[Path] = iter(())
    if path.is_dir():
        candidates = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    elif root.is_dir() and path != root:
        candidates = root.glob(str(path.relative_to(root)))
    files = sorted(file for file in candidates if file.is_file() and file.name not in _NOT_DATA)
    if not files:
        raise NotFound(
            f"no data file at {source!r} (looked in {root}); name a file, a folder, a glob, s3://... or hf://..."
        )
    return files


def _only_split(folder: Path) -> list[Path]:
    splits = sorted(part.name for part in folder.iterdir() if (part / "state.json").is_file())
    if len(splits) == 1:
        return [folder / splits[0]]
    raise NotFound(
        f"{folder} is a saved dataset with the splits {', '.join(splits)}; name one, such as {folder / (splits or ['train'])[0]}"
    )


def _stay_inside(files: list[Path], root: Path, *, named: bool) -> None:
    """Refuse names and links that lead out of the data folder; a file named by its absolute path is meant."""
    for file in () if named else files:
        if not file.resolve().is_relative_to(root.resolve()):
            raise DataRejected(
                f"{file} leads out of {root} (path_traversal); copy the file there, or give its absolute path"
            )


def _fixed_part(path: Path) -> Path:
    """Return the folder before the first part with a wildcard."""
    fixed = Path(path.anchor)
    for part in path.parts[len(fixed.parts) :]:
        if any(mark in part for mark in "*?["):
            return fixed
        fixed /= part
    return fixed.parent
