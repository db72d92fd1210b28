"""Datasets of the Hugging Face hub, at a named revision: `hf://owner/name@revision/file, pattern or split`."""

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from rlhf.data.fetch import SUFFIXES
from schemas.errors import ConfigError, NotFound

_SOURCE = re.compile(
    r"hf://(?P<dataset>[\w.-]+(?:/[\w.-]+)?)@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+)/(?P<part>.+)"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Part(NamedTuple):
    """Some files of a dataset at a revision."""

    dataset: str
    revision: str
    part: str

    @property
    def patterns(self) -> list[str]:
        """Patterns of the paths in the repository that this part can be."""
        if self.part.lower().endswith(SUFFIXES) or any(mark in self.part for mark in "*?["):
            return [self.part]
        return [f"{folder}{self.part}{end}" for folder in ("", "*/") for end in ("-*", ".*", "/*")]


def parse(source: str) -> Part:
    """Return what an `hf://` source names."""
    found = _SOURCE.fullmatch(source)
    if found is None:
        raise ConfigError(
            f"{source!r} is not hf://owner/name@revision/file-or-split; name the revision too (a commit is best): "
            "what a branch holds changes"
        )
    return Part(found["dataset"], found["revision"], found["part"])


def download_dataset(source: str, cache: Path | None = None) -> list[Path]:
    """Return the files on this machine, downloaded unless the hub's own cache holds them at this commit."""
    part = parse(source)
    if _COMMIT.fullmatch(part.revision) and (files := _files(part, cache, local=True)):
        return files
    if files := _files(part, cache, local=False):
        return files
    raise NotFound(
        f"{part.dataset} has no file {part.part!r} at {part.revision}; name a file, a pattern or a split"
    )


def _files(part: Part, cache: Path | None, *, local: bool) -> list[Path]:
    try:
        folder = Path(
            snapshot_download(
                part.dataset,
                repo_type="dataset",
                revision=part.revision,
                allow_patterns=part.patterns,
                cache_dir=cache,
                local_files_only=local,
            )
        )
    except LocalEntryNotFoundError as error:
        if local:
            return []
        raise NotFound(
            f"the hub cannot be reached, and {part.dataset}@{part.revision} is not in its cache"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise NotFound(
            f"the hub does not give {part.dataset} at {part.revision} ({type(error).__name__}); check the names, HF_TOKEN "
            "for a private dataset, and the network"
        ) from error
    paths = {path: path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wanted = (
        path for path, name in paths.items() if any(fnmatch(name, pattern) for pattern in part.patterns)
    )
    return sorted(path for path in wanted if path.name.lower().endswith(SUFFIXES))
