import pytest
import torch

from rlhf.algorithms.ensembles import combine, disagreement

MEMBERS = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.5, 0.5]])


def test_members_are_combined_by_hand():
    # population variance of 1, 2, 3 is 2/3
    assert combine(MEMBERS, how="mean").tolist() == pytest.approx([2.0, 0.5])
    assert combine(MEMBERS, how="worst").tolist() == pytest.approx([1.0, 0.5])
    assert combine(MEMBERS, how="uncertainty", variance_coef=0.3).tolist() == pytest.approx([1.8, 0.5])
    # and their standard deviation is its root, 0.8165
    assert combine(MEMBERS, how="lower_bound", std_coef=0.5).tolist() == pytest.approx(
        [1.5918, 0.5], abs=1e-4
    )
    assert disagreement(MEMBERS).tolist() == pytest.approx([(2 / 3) ** 0.5, 0.0])


def test_one_member_is_itself_however_it_is_combined():
    alone = torch.tensor([[1.5], [-2.0]])
    for how in ("mean", "worst", "uncertainty", "lower_bound"):
        assert combine(alone, how=how, variance_coef=9.0, std_coef=9.0).tolist() == [1.5, -2.0]
    assert disagreement(alone).tolist() == [0.0, 0.0]


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="uncertainty"):
        combine(MEMBERS, how="best")
