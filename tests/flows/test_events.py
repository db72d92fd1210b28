"""When rankings are enough; what Prefect then does is in `tests/infra/test_notified.py`, on its server."""

import pytest

from flows.events import enough


@pytest.mark.parametrize(
    ("total", "new", "every", "wanted"),
    [
        (4, 4, 5, False),
        (5, 3, 5, True),  # 2 -> 5
        (7, 2, 5, False),  # 5 -> 7: five have started a run already
        (11, 4, 5, True),  # 7 -> 11
        (30, 30, 5, True),  # a batch of many is one run, not six
        (10, 0, 5, False),  # nothing new
        (1, 1, 1, True),
    ],
)
def test_rankings_are_enough_when_they_pass_a_multiple(
    total: int, new: int, every: int, wanted: bool
) -> None:
    assert enough(total, new, every) is wanted
