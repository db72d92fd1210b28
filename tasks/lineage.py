"""What the store knows of where a model came from, and of what became of a file or a rating."""

import hashlib
import json

import polars as pl

from rlhf.report.lineage import ancestors, descendants
from schemas.errors import NotFound
from schemas.refs import Ref
from schemas.registry import MadeModel, Trace, Version
from schemas.reports import StageEntry, StageRecord
from tasks.run import entries
from tasks.work import artifact_store

SHORTEST = 8
"""Hexadecimal digits that name a digest."""


def made_by(version: Version) -> tuple[StageRecord, ...]:
    """Return the stages that a version came from, raw data first; none when the store has lost its run."""
    found = entries(version.tags.get("pipeline_run", ""))
    return ancestors((entry.record for entry in found.values()), version.tags.get("digest", ""))


def trained_on(digest: str) -> Trace:
    """Return every model that was made from a file, a table, a model or a rating, by (the beginning of) its digest.

    The digest of a rating is the sha256 of its line as `rlhf label export` writes it, without the line's end.
    """
    records = _finished()
    wanted = digest.lower().removeprefix("sha256:")
    if len(wanted) < SHORTEST:
        raise NotFound(f"{digest!r} is too short for a digest; give {SHORTEST} hexadecimal digits or all 64.")
    known = {ref.digest: ref for record in records for ref in (*record.files, *_refs(record))}
    named = sorted(found for found in known if found.startswith(f"sha256:{wanted}"))
    if len(named) > 1:
        raise NotFound(f"{digest!r} is the beginning of {', '.join(named)}; give more digits.")
    start = known[named[0]] if named else _with_rating(records, wanted)
    made = descendants(records, start.digest)
    models = {
        ref.digest: MadeModel(stage=record.name, uri=ref.uri, digest=ref.digest)
        for record in records
        for name, ref in record.outputs.items()
        if name == "model" and ref.digest in made
    }
    return Trace(
        digest=start.digest, uri=start.uri, rating=None if named else wanted, models=tuple(models.values())
    )


def _finished() -> list[StageRecord]:
    store = artifact_store()
    contents = (store.read(key) for key in store.list_keys("stages"))
    return [StageEntry.model_validate_json(content).record for content in contents if content]


def _refs(record: StageRecord) -> list[Ref]:
    return [*record.inputs.values(), *record.outputs.values()]


def _with_rating(records: list[StageRecord], wanted: str) -> Ref:
    """Return the table of rankings that holds a rating."""
    store = artifact_store()
    tables = {
        ref.digest: ref
        for record in records
        for name, ref in record.outputs.items()
        if name == "rankings" and store.exists(ref)
    }
    for table in tables.values():
        for row in pl.read_parquet(store.fetch(table)).iter_rows(named=True):
            if hashlib.sha256(json.dumps(row).encode()).hexdigest().startswith(wanted):
                return table
    raise NotFound(
        f"No file, table, model or rating with a digest that begins {wanted[:16]} is known to the store. "
        "`sha256sum FILE` gives a file's; a rating's is that of its line in `rlhf label export`."
    )
