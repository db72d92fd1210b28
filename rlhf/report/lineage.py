"""Where something came from and what came of it, by the digests that stages read and wrote."""

from collections.abc import Iterable, Sequence

from schemas.reports import StageRecord


def ancestors(records: Iterable[StageRecord], digest: str) -> tuple[StageRecord, ...]:
    """Return the stages that made a digest, directly or by what they read, in the order in which data flowed."""
    by_output = _by_output(records)
    seen: set[str] = set()
    found: list[StageRecord] = []

    def walk(wanted: str) -> None:
        record = by_output.get(wanted)
        if record is None or record.name in seen:
            return
        seen.add(record.name)
        for ref in record.inputs.values():
            walk(ref.digest)
        found.append(record)

    walk(digest)
    return tuple(found)


def descendants(records: Sequence[StageRecord], digest: str) -> frozenset[str]:
    """Return every digest that was made from this one, however many stages later.

    A stage that writes rankings derives its pairs from them, so what it wrote beside them comes from them, too.
    """
    reached, grown = {digest}, True
    for record in records:
        if "rankings" in record.outputs and record.outputs["rankings"].digest == digest:
            reached |= {ref.digest for ref in record.outputs.values()}
    while grown:
        grown = False
        for record in records:
            if reached.isdisjoint(ref.digest for ref in (*record.inputs.values(), *record.files)):
                continue
            new = {ref.digest for ref in record.outputs.values()} - reached
            reached |= new
            grown = grown or bool(new)
    return frozenset(reached - {digest})


def _by_output(records: Iterable[StageRecord]) -> dict[str, StageRecord]:
    made: dict[str, StageRecord] = {}
    for record in records:
        # PPO may return the SFT policy itself: what a stage hands on unchanged, another one made.
        read = {ref.digest for ref in record.inputs.values()}
        for ref in (ref for ref in record.outputs.values() if ref.digest not in read):
            # Who computed it before who found it in the store.
            if ref.digest not in made or record.status == "ran":
                made[ref.digest] = record
    return made
