import sys

import pytest

from schemas.config.knobs import Knob
from schemas.errors import ConfigError
from tasks.search import Search, grid, optuna

COEF, LOSS = Knob(key="ppo.kl_coef", values=(0.1, 0.2)), Knob(key="dpo.loss", values=("ipo", "sigmoid"))


def _answered(search: Search, worth) -> list:
    """Run a search to its end, and return what it asked for."""
    asked = [next(search)]
    while True:
        try:
            asked.append(search.send(worth(asked[-1])))
        except StopIteration:
            return asked


def test_a_grid_is_every_combination_whatever_the_answers():
    assert [tuple(one.values()) for one in _answered(grid([COEF, LOSS]), lambda setting: None)] == [
        (0.1, "ipo"), (0.1, "sigmoid"), (0.2, "ipo"), (0.2, "sigmoid"),
    ]  # fmt: skip
    assert list(grid([])) == [{}]


def test_a_search_without_optuna_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"rlhf\[sweep\]"):
        optuna([COEF], trials=3, seed=0)


@pytest.mark.integration
def test_a_search_closes_in_on_the_best_and_repeats_itself():
    pytest.importorskip("optuna")
    knobs = [Knob(key="ppo.kl_coef", low=0.001, high=1.0), LOSS]

    def worth(setting):
        return -abs(setting["ppo.kl_coef"] - 0.3) - (setting["dpo.loss"] == "ipo")

    asked = _answered(optuna(knobs, trials=40, seed=1), worth)
    assert len(asked) == 40
    early, late = (sum(map(worth, part)) / 10 for part in (asked[:10], asked[-10:]))
    assert late > early + 0.2
    assert abs(max(asked, key=worth)["ppo.kl_coef"] - 0.3) < 0.1
    assert _answered(optuna(knobs, trials=40, seed=1), worth) == asked


@pytest.mark.integration
def test_a_search_goes_on_after_a_failure():
    pytest.importorskip("optuna")
    assert len(_answered(optuna([COEF], trials=5, seed=0), lambda setting: None)) == 5
