import json
from pathlib import Path

import numpy as np
import pytest

from rlhf.evaluation.length_controlled import fit, length_controlled, length_term

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "preferences"


def rate(won, ours, theirs, samples=100):
    return length_controlled(won, ours, theirs, confidence=0.95, samples=samples, seed=0)


def test_without_a_difference_in_length_it_is_the_win_rate():
    # sigmoid(theta) = mean outcome solves the likelihood equations.
    assert rate([1.0, 1.0, 0.5, 0.0], [9, 8, 7, 6], [9, 8, 7, 6]).value == pytest.approx(0.625, abs=1e-6)


def test_two_lengths_by_hand():
    # d = +1 or -1, tanh(d / std) = +-t. Of the longer ones 80 % win, of the shorter ones 40 %: two parameters fit both
    # exactly, so theta is half the sum of logit(.8) = 1.386294 and logit(.4) = -0.405465: sigmoid(0.490415) = 0.620204.
    won = [1.0] * 40 + [0.0] * 10 + [1.0] * 20 + [0.0] * 30
    found = rate(won, [11] * 50 + [9] * 50, [10] * 100)
    assert found.value == pytest.approx(0.620204, abs=1e-6)
    assert found.low < found.value < found.high


def test_the_length_term_is_tanh_of_differences_in_standard_deviations():
    # differences 2, -2: their deviation (n - 1) is sqrt(8) = 2.828427, tanh(.707107) = .608859
    np.testing.assert_allclose(
        length_term(np.array([5.0, 1.0]), np.array([3.0, 3.0])), [0.608859, -0.608859], atol=1e-6
    )


def test_swapping_the_sides_mirrors_the_rate():
    generator = np.random.default_rng(3)
    ours, theirs = generator.integers(10, 90, size=(2, 60))
    won = generator.choice([0.0, 0.5, 1.0], size=60)
    assert rate(won, ours, theirs).value == pytest.approx(1 - rate(1 - won, theirs, ours).value, abs=1e-9)


def test_a_judge_who_likes_length_only_is_seen_through():
    generator = np.random.default_rng(4)
    ours, theirs = generator.integers(0, 100, 4_000) + 40, generator.integers(0, 100, 4_000)
    difference = (ours - theirs) / np.std(ours - theirs, ddof=1)
    won = generator.random(4_000) < 1 / (1 + np.exp(-3 * np.tanh(difference)))
    assert won.mean() > 0.7
    found = rate(won.astype(float), ours, theirs, samples=400)
    assert found.low < 0.5 < found.high


def test_one_that_always_wins_has_a_finite_rate_close_to_one():
    found = rate([1.0] * 50, list(range(50)), [10] * 50)
    assert 0.99 < found.value <= 1.0
    assert np.isfinite(fit(np.ones(50), np.linspace(-1, 1, 50), np.ones((1, 50)))).all()


def test_lengths_of_another_number_are_refused():
    with pytest.raises(ValueError, match="one of each per prompt"):
        rate([1.0, 0.0], [3], [4])


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no data sets at {FOLDER}")
@pytest.mark.parametrize(
    ("file", "model", "expected"),
    [
        # The code of AlpacaEval 0.6.6 on these very rows: fit_LogisticRegressionCV(n_splits=0, C=1e6) with the formula of
        # `length_controlled_minimal`, which has no term for prompts. docs/results.md says why not the published numbers.
        ("alpaca_eval_gamed_judge.json", "gpt4_gamed", 0.454261),
        ("alpaca_eval_gamed_judge.json", "example", 0.852720),
        ("alpaca_eval_v1_annotations.json", "alpaca-7b", 0.258289),
        ("alpaca_eval_v1_annotations.json", "cohere", 0.392041),
        ("alpaca_eval_v1_annotations.json", "gpt-3.5-turbo-0301", 0.772156),
    ],
)
def test_it_agrees_with_the_code_of_alpaca_eval_on_its_annotations(file: str, model: str, expected: float):
    rows = [row for row in json.loads((FOLDER / file).read_text()) if row["generator_2"] == model]
    # 1 is the baseline's, 2 the model's; 0 is their code for "no answer", a tie.
    won = [(row["preference"] or 1.5) - 1 for row in rows]
    assert len(rows) > 500
    found = rate(
        won, [len(row["output_2"]) for row in rows], [len(row["output_1"]) for row in rows], samples=50
    )
    assert found.value == pytest.approx(expected, abs=1e-3)
