from collections import Counter

import pytest

from rlhf.training.schedule import schedule


def _batches(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def test_every_row_is_seen_as_often_as_the_steps_need():
    rows = schedule([[row] for row in range(64)], list(range(64)), batch_size=4, steps=48, seed=0)
    assert len(rows) == 4 * 48  # three epochs of 64
    assert set(Counter(rows).values()) == {3}


def test_a_batch_larger_than_the_data_is_filled_by_repeating():
    rows = schedule([[0], [1], [2]], [1, 1, 1], batch_size=8, steps=2, seed=0)
    assert len(rows) == 16
    assert set(rows) == {0, 1, 2}


def test_batches_hold_similar_lengths_in_mixed_order():
    lengths = [(row * 37) % 100 for row in range(400)]
    batches = _batches(schedule([[row] for row in range(400)], lengths, batch_size=10, steps=40, seed=0), 10)
    padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)
    assert padded < 1.25 * sum(lengths)
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest != sorted(longest)


def test_rows_of_a_unit_stay_in_one_batch_when_they_fit():
    units = [[3 * unit, 3 * unit + 1, 3 * unit + 2] for unit in range(40)]
    for batch in _batches(schedule(units, [1] * 120, batch_size=12, steps=10, seed=1), 12):
        assert all(count % 3 == 0 for count in Counter(row // 3 for row in batch).values())


def test_the_seed_decides_the_order():
    def order(seed):
        return schedule([[row] for row in range(50)], [1] * 50, batch_size=5, steps=10, seed=seed)

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize("unit", [5, 7])
def test_units_that_do_not_tile_a_batch_lose_no_rows(unit):
    units = [list(range(start, start + unit)) for start in range(0, unit * 20, unit)]
    rows = schedule(units, [1] * unit * 20, batch_size=4, steps=unit * 5 * 4, seed=0)
    assert set(rows) == set(range(unit * 20))
