"""Find, and if asked remove, what nothing refers to any more: artifacts, stage manifests, run records, checkpoints, leases.

Kept is what belongs to

- a run that MLflow has (not deleted there), that is at work, young, or has the tag `keep`: all of its stages;
- a registered version, whatever its age: the stages that it came from, back to the data, and the gate's evidence; one with
  an alias: all of its run;
- an unfinished stage: its checkpoint, while it is young or a living run holds its lease.

Nothing young is ever removed, so what a running stage has published and not yet recorded is safe.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rlhf.adapters import leases, presence
from rlhf.adapters.object_store import ObjectStore
from rlhf.adapters.presence import Watch
from rlhf.adapters.tracking import Tracking
from schemas.process import Waste
from schemas.refs import Checkpoint
from schemas.registry import Version
from schemas.reports import StageEntry, StageRecord
from tasks.lineage import made_by
from tasks.run import entries
from tasks.work import artifact_store, model_registry

DAY = 24 * 3600.0
SETTLE_SECONDS = 5.0


@dataclass
class _Needed:
    """What may not be removed."""

    digests: set[str] = field(default_factory=set)
    origins: set[str] = field(default_factory=set)
    """MLflow runs that computed a stage whose manifest is needed."""
    runs: set[str] = field(default_factory=set)
    versions: int = 0

    def add(self, records: Iterable[StageRecord]) -> None:
        for record in records:
            self.digests |= {
                ref.digest for ref in (*record.inputs.values(), *record.outputs.values(), *record.files)
            }
            self.origins.add(record.reused_from or record.run_id)


def collect(tracking: Tracking, *, days: float, delete: bool) -> Waste:
    """Return what is not needed and was last written more than `days` ago; remove it if `delete`."""
    store, before = artifact_store(), time.time() - days * DAY
    records = tuple(_records(store, _needed(store, tracking, before), before))
    if delete:
        for key in records:
            store.remove(key)
        # A run that was about to re-use a stage has told so by then; its artifacts are kept below.
        time.sleep(SETTLE_SECONDS if any(key.startswith("stages/") for key in records) else 0)
    needed = _needed(store, tracking, before)
    stored = store.artifacts().values()
    waste = {
        one.ref: one.size for one in stored if one.ref.digest not in needed.digests and one.written < before
    }
    if delete:
        for ref in waste:
            store.discard(ref)
    left = [one for one in stored if one.ref not in waste]
    return Waste(
        artifacts={ref.uri: size for ref, size in waste.items()},
        records=records,
        kept={
            "artifacts": len(left),
            "bytes": sum(one.size for one in left),
            "runs": len(needed.runs),
            "versions": needed.versions,
        },
        deleted=delete,
    )


def _needed(store: ObjectStore, tracking: Tracking, before: float) -> _Needed:
    needed = _Needed(runs=set(tracking.kept_runs(before)))
    for run_id in needed.runs:
        needed.add(entry.record for entry in entries(run_id).values())
    for version in _versions(tracking):
        needed.versions += 1
        needed.runs.add(version.tags.get("pipeline_run", ""))  # its records say where the version came from
        needed.add(made_by(version))
        if version.aliases:  # its report and its evaluation, too
            needed.add(entry.record for entry in entries(version.tags.get("pipeline_run", "")).values())
        needed.digests |= {version.tags.get("digest", ""), version.tags.get("gate_evidence", "")}
    for key in store.list_keys("checkpoints"):
        if content := store.read(key):
            needed.digests.add(Checkpoint.model_validate_json(content).digest)
    return needed


def _versions(tracking: Tracking) -> Iterator[Version]:
    for model in tracking.models():
        yield from model_registry(model).versions()


def _records(store: ObjectStore, needed: _Needed, before: float) -> Iterator[str]:
    """Yield the keys of records that are old and not needed."""
    watch = Watch(store)

    def old(prefix: str) -> list[str]:
        return sorted(key for key, written in store.written(prefix).items() if written < before)

    for key in old("stages"):
        content = store.read(key)
        if content and StageEntry.model_validate_json(content).record.run_id not in needed.origins:
            yield key
    yield from (key for key in old("runs") if key.split("/")[1] not in needed.runs)
    for key in old("checkpoints"):
        if not leases.held(store, key.removeprefix("checkpoints/").removesuffix(".json"), watch):
            yield key
    for key in old("leases"):
        if not leases.held(store, "/".join(key.split("/")[1:-1]), watch):
            yield key
    living = {presence.key_of(one.token) for one in presence.known(store) if watch.alive(one.token)}
    yield from (key for key in old("processes") if key not in living)
