import torch

from rlhf.algorithms.masks import length_mask, masked_mean, masked_sum, whiten

MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_a_length_mask_counts_places_and_knows_no_ids():
    assert length_mask(torch.tensor([2, 0, 3]), 3).tolist() == [
        [True, True, False],
        [False, False, False],
        [True, True, True],
    ]


def test_masked_sums_and_means_ignore_what_padding_holds():
    values = torch.tensor([[1.0, 2.0, 3.0], [6.0, torch.nan, torch.inf]])
    assert masked_sum(values, MASK).item() == 12.0
    assert masked_mean(values, MASK).item() == 3.0  # 12 over 4 tokens, not a mean of the row means 2 and 6


def test_whitening_counts_real_tokens_only_and_divides_by_their_number():
    values = torch.tensor([[1.0, 2.0, 3.0], [6.0, 1e6, -1e6]])
    # mean 3, deviations -2 -1 0 3, population variance 14 / 4
    expected = torch.tensor([[-2.0, -1.0, 0.0], [3.0, 0.0, 0.0]]) / 3.5**0.5
    torch.testing.assert_close(whiten(values, MASK), expected, rtol=0, atol=1e-6)


def test_whitening_without_shift_keeps_the_mean():
    values = torch.tensor([[1.0, 2.0, 3.0], [6.0, 0.0, 0.0]])
    whitened = whiten(values, MASK, shift_mean=False)
    torch.testing.assert_close(masked_mean(whitened, MASK), torch.tensor(3.0), rtol=0, atol=1e-6)


def test_whitening_equal_values_gives_zeros():
    assert whiten(torch.full((2, 3), 7.0), MASK).abs().max().item() == 0.0
