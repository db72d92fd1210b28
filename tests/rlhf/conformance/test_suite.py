"""The suite itself: what is planted is found and nothing else, and what is not offered never passes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

FOUND = {
    "test_eos_is_learnt_once",
    "test_no_eos_is_stamped_onto_a_text_that_was_cut",
    "test_a_response_that_ran_out_of_room_is_not_judged_as_finished",
    "test_what_is_trained_on_is_what_was_sampled",
    "test_a_text_that_ends_scores_by_its_end",
    "test_scoring_uses_the_temperature_of_sampling",
    "test_the_reference_does_not_move_with_the_policy",
    "test_the_first_ratio_is_one",
    "test_the_kl_that_is_logged_is_not_clamped",
    "test_the_critic_begins_as_the_reward_model",
    "test_only_the_score_is_clipped",
    "test_advantages_agree_with_their_definition",
    "test_whitening_counts_real_tokens_only",
    "test_a_kl_in_the_loss_descends_the_kl_from_policy_to_reference",
    "test_nothing_in_the_padding_changes_the_policy_loss",
    "test_the_clipped_value_loss_takes_the_larger_error",
    "test_swapped_sides_have_the_other_accuracy",
    "test_scores_far_apart_give_finite_losses",
}
FOUND_IN_TRAINING = {
    "test_the_first_loss_of_dpo",
    "test_micro_batches_change_no_gradient",
    "test_gradients_are_clipped_before_the_step",
    "test_a_run_that_was_stopped_ends_with_the_same_bits",
    "test_the_head_survives_saving_and_loading",
}
"""Checks that must fail on `wrong.py`; all others must pass."""


def _run(tmp_path: Path, backend: str, *options: str) -> tuple[int, dict[str, set[str]]]:
    """Run the suite as anyone would, from a folder that knows nothing of this project's configuration."""
    results = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "rlhf.conformance.plugin", "--pyargs", "rlhf.conformance", "-q",
         "-p", "no:cacheprovider", f"--backend={backend}", f"--conformance-results={results}", *options],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert results.is_file(), done.stdout + done.stderr
    checks: dict[str, set[str]] = {}
    for outcome in json.loads(results.read_text())["outcomes"]:
        checks.setdefault(outcome["check"], set()).add(outcome["outcome"])
    return done.returncode, checks


@pytest.mark.integration
def test_planted_mistakes_are_found_and_nothing_else(tmp_path: Path):
    code, checks = _run(tmp_path, str(HERE / "wrong.py"))
    assert code == 1
    assert {name for name, outcomes in checks.items() if "fail" in outcomes} == FOUND | FOUND_IN_TRAINING
    assert not any("error" in outcomes for outcomes in checks.values())


@pytest.mark.integration
def test_what_is_not_offered_never_passes(tmp_path: Path):
    code, checks = _run(tmp_path, str(HERE / "nothing.py"))
    assert code == 0
    assert len(checks) > 30
    assert set.union(*checks.values()) == {"not offered"}


@pytest.mark.integration
def test_a_file_without_a_backend_is_refused(tmp_path: Path):
    empty = tmp_path / "empty.py"
    empty.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "rlhf.conformance.plugin", "--pyargs", "rlhf.conformance", f"--backend={empty}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode not in (0, 1)  # nothing was tested
    assert "defines no `backend`" in done.stdout + done.stderr
