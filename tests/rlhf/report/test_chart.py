import pytest

from rlhf.report.chart import Area, span, tick_room, ticks


@pytest.mark.parametrize(
    ("low", "high", "wanted", "written"),
    [
        (0, 10, 5, ["0", "2", "4", "6", "8", "10"]),
        # A fifth of 0.87 is 0.174; the next of 1, 2, 5 times a power of ten is 0.2.
        (0.2, 1.07, 5, ["0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-1.2, 1.3, 5, ["\N{MINUS SIGN}1.0", "\N{MINUS SIGN}0.5", "0.0", "0.5", "1.0"]),
        (0, 4_000_000, 4, ["0", "1e+06", "2e+06", "3e+06", "4e+06"]),
        (1e-5, 3e-5, 2, ["1e-05", "2e-05", "3e-05"]),
        (1, 900, 5, ["200", "400", "600", "800"]),
        (0, 4000, 4, ["0", "1,000", "2,000", "3,000", "4,000"]),
    ],
)
def test_ticks_are_round_and_within_the_range(low: float, high: float, wanted: int, written: list[str]):
    assert [text for _, text in ticks(low, high, wanted)] == written
    assert all(low - 1e-9 <= value <= high * (1 + 1e-9) for value, _ in ticks(low, high, wanted))


def test_what_is_counted_has_no_ticks_between_whole_numbers():
    assert [text for _, text in ticks(1, 2, 5, whole=True)] == ["1", "2"]
    assert [text for _, text in ticks(1, 2, 5)] == ["1.0", "1.2", "1.4", "1.6", "1.8", "2.0"]


def test_larger_values_lie_further_right_and_higher_up():
    area = Area(left=10, right=110, top=20, bottom=220, low_x=0, high_x=10, low_y=-1, high_y=1)
    assert (area.x(0), area.x(5), area.x(10)) == (10, 60, 110)
    assert (area.y(-1), area.y(0), area.y(1)) == (220, 120, 20)


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-2.0], [1e-9, 1e-9]])
def test_a_constant_still_has_a_range_around_it(values: list[float]):
    low, high = span(values)
    assert low < values[0] < high
    assert ticks(low, high, 5)


def test_a_range_is_widened_by_its_margin():
    assert span([0.0, 10.0], margin=0.1) == (-1.0, 11.0)


def test_long_numbers_get_more_room():
    assert tick_room(0, 4_000) > tick_room(0, 4)
