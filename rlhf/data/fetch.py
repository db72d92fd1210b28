"""From what a recipe names (a path, a glob, a folder, `s3://...`) to files on this machine."""

from pathlib import Path

from schemas.errors import DataRejected, NotFound

_DATA = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".gz")


def resolve(source: str, folder: Path, cache: Path) -> list[Path]:
    """Return the files that a source names, sorted; relative names start from `folder`, remote ones land in `cache`."""
    if source.startswith("s3://"):
        from rlhf.adapters.object_store import download  # boto3 costs half a second

        return [download(source, cache)]
    path = Path(source).expanduser()
    path = path if path.is_absolute() else folder / path
    if path.is_file():
        return [path]
    if path.is_dir():
        root, found = path, (file for file in path.rglob("*") if file.suffix.lower() in _DATA)
    else:
        root = _fixed_part(path)
        pattern = str(path.relative_to(root))
        found = (file for file in root.glob(pattern) if pattern != ".") if root.is_dir() else iter(())
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise NotFound(
            f"no data file at {source!r} (looked in {root}); name a file, a folder, a glob or s3://..."
        )
    for file in files:
        if not file.resolve().is_relative_to(root.resolve()):
            raise DataRejected(f"{file} is a link that leads out of {root}; copy the file there instead")
    return files


def _fixed_part(path: Path) -> Path:
    """Return the folder before the first part with a wildcard."""
    fixed = Path(path.anchor)
    for part in path.parts[len(fixed.parts) :]:
        if any(mark in part for mark in "*?["):
            return fixed
        fixed /= part
    return fixed.parent
