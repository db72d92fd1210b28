import pytest

from tasks.register import winning


@pytest.mark.parametrize(
    ("winner", "known", "reigning", "wanted"),
    [
        ("ppo", set(), None, 1),  # nobody reigns
        ("ppo", {1, 2}, None, 1),  # nor on a second look, after a rollback to nothing
        ("dpo", {1, 2}, 1, 1),  # a run that is repeated once its PPO reigns
        ("dpo", {1}, 1, 2),  # a DPO that is new beside the PPO that reigns
        ("ppo", {1, 2}, 7, 1),  # a model of another run reigns
    ],
)
def test_a_model_that_was_before_the_gate_already_does_not_replace_its_sibling(
    winner: str, known: set[int], reigning: int | None, wanted: int
) -> None:
    assert winning(winner, {"ppo": 1, "dpo": 2}, known, reigning) == wanted
