import numpy as np
import pytest

from rlhf.evaluation.intervals import bootstrap_mean, bootstrap_ratio, wilson


def test_wilson_by_hand():
    # z = 1.95996; 8 of 10: centre = (.8 + 3.84146/20) / 1.384146 = .716738,
    # half = 1.95996/1.384146 * sqrt(.8*.2/10 + 3.84146/400) = .226590
    interval = wilson(8, 10, 0.95)
    assert interval.value == 0.8
    assert interval.low == pytest.approx(0.490156, abs=2e-5)
    assert interval.high == pytest.approx(0.943319, abs=2e-5)


def test_wilson_at_the_edges_stays_within_zero_and_one_and_is_not_empty():
    nothing, everything = wilson(0, 20), wilson(20, 20)
    # At zero successes the upper bound is z^2 / (n + z^2) = 3.84146 / 23.84146.
    assert (nothing.low, nothing.high) == (0.0, pytest.approx(0.161125, abs=1e-5))
    assert (everything.low, everything.high) == (pytest.approx(0.838875, abs=1e-5), 1.0)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes: int, n: int):
    with pytest.raises(ValueError, match="wanted 0 <= successes <= n"):
        wilson(successes, n)


def test_bootstrap_of_equal_values_is_a_point_and_of_others_brackets_their_mean():
    flat = bootstrap_mean([0.5] * 12, confidence=0.95, samples=100, seed=0)
    assert (flat.value, flat.low, flat.high) == (0.5, 0.5, 0.5)
    spread = bootstrap_mean([0.0, 1.0] * 50, confidence=0.95, samples=4_000, seed=0)
    assert spread.value == 0.5
    # The normal approximation: .5 +- 1.96 * .5 / 10.
    assert spread.low == pytest.approx(0.402, abs=0.015)
    assert spread.high == pytest.approx(0.598, abs=0.015)


def test_bootstrap_repeats_with_its_seed_and_blocks_change_only_memory(
    monkeypatch: pytest.MonkeyPatch,
):
    values = np.random.default_rng(3).normal(size=40)
    once = bootstrap_mean(values, confidence=0.9, samples=500, seed=7)
    again = bootstrap_mean(values, confidence=0.9, samples=500, seed=7)
    assert again == once
    monkeypatch.setattr("rlhf.evaluation.intervals.DRAWN_AT_ONCE", 400)
    assert bootstrap_mean(values, confidence=0.9, samples=500, seed=7) == once


def test_bootstrap_of_a_ratio_is_that_of_sums_and_not_of_the_documents_own_ratios():
    generator = np.random.default_rng(2)
    tokens = generator.integers(1, 200, size=400).astype(float)
    nats = tokens * 0.5 + 20 + generator.normal(size=400)  # short documents cost more per token
    found = bootstrap_ratio(nats, tokens, confidence=0.95, samples=4_000, seed=0)
    ratio = nats.sum() / tokens.sum()
    assert found.value == pytest.approx(ratio, abs=1e-12)
    # The delta method: 1.96 sd(nats - ratio * tokens) / (sqrt(n) mean tokens).
    half = 1.96 * np.std(nats - ratio * tokens) / (20 * tokens.mean())
    assert found.low == pytest.approx(ratio - half, abs=half / 6)
    assert found.high == pytest.approx(ratio + half, abs=half / 6)
    with pytest.raises(ValueError, match="one of each per document"):
        bootstrap_ratio([1.0], [1.0, 2.0], confidence=0.95, samples=10, seed=0)


def test_bootstrap_refuses_an_empty_sample():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([], confidence=0.95, samples=100, seed=0)


def test_a_bootstrap_interval_of_95_percent_covers_the_true_win_rate_in_95_percent_of_repetitions():
    win, ties, prompts, repetitions = 0.7, 0.1, 120, 600
    truth = win + ties / 2
    games = np.random.default_rng(11).choice(
        [1.0, 0.5, 0.0], p=[win, ties, 1 - win - ties], size=(repetitions, prompts)
    )
    intervals = [
        bootstrap_mean(values, confidence=0.95, samples=300, seed=seed) for seed, values in enumerate(games)
    ]
    coverage = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert abs(coverage - 0.95) <= 0.02


def test_a_wilson_interval_of_95_percent_covers_the_true_share_in_95_percent_of_repetitions():
    # Exact: sum of binomial probabilities of the counts whose interval holds the truth, averaged over shares.
    from math import comb

    def coverage(truth: float, n: int = 80) -> float:
        return sum(
            comb(n, k) * truth**k * (1 - truth) ** (n - k)
            for k in range(n + 1)
            if wilson(k, n).low <= truth <= wilson(k, n).high
        )

    assert abs(np.mean([coverage(share) for share in np.linspace(0.05, 0.95, 19)]) - 0.95) <= 0.02
