"""The order in which a stage sees its examples: epoch after epoch, shuffled, similar lengths together."""

import random
from collections.abc import Sequence

_WINDOW = 8
"""Batches that are sorted by length together; more would save little padding and mix lengths less."""


def schedule(
    units: Sequence[Sequence[int]], lengths: Sequence[int], *, batch_size: int, steps: int, seed: int
) -> list[int]:
    """Return `steps * batch_size` rows to train on, in order; the rows of one unit stay together.

    `units` lists the rows of each unit, `lengths` the tokens of each row. Every row is seen once before any
    is seen twice, except that the window in which an epoch ends also holds the beginning of the next.
    """
    order, rows = random.Random(seed), list[int]()
    queue: list[Sequence[int]] = []
    while len(rows) < steps * batch_size:
        window: list[Sequence[int]] = []
        while sum(map(len, window)) < _WINDOW * batch_size:
            if not queue:
                queue = order.sample(units, len(units))
            window.append(queue.pop())
        window.sort(key=lambda unit: max(lengths[row] for row in unit))
        sorted_rows = [row for unit in window for row in unit]
        batches = [
            sorted_rows[start : start + batch_size] for start in range(0, len(sorted_rows), batch_size)
        ]
        rest = batches.pop() if len(batches[-1]) < batch_size else []
        if rest:
            queue.append(rest)
        order.shuffle(batches)
        rows += [row for batch in batches for row in batch]
    return rows[: steps * batch_size]
