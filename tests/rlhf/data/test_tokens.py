"""What tokenisation does to a table, counted by hand."""

import copy

import polars as pl
import pytest

from rlhf.data.tokens import (
    check_demonstrations,
    check_pairs,
    double_bos,
    ends_once,
    eos_is_learnt,
    holds_special,
    is_strict_prefix,
)

ASK = [{"role": "user", "content": "When do you open?"}]


def demonstrations(*responses):
    return pl.DataFrame(
        {"prompt_id": ["a"] * len(responses), "prompt": [ASK] * len(responses), "response": list(responses)}
    )


def pairs(*sides):
    chosen, rejected = zip(*sides, strict=True)
    same = {"prompt_id": ["a"] * len(sides), "prompt": [ASK] * len(sides)}
    finished = {f"{side}_finished": [True] * len(sides) for side in ("chosen", "rejected")}
    return pl.DataFrame({**same, "chosen": chosen, "rejected": rejected, **finished})


def test_the_pure_checks_by_hand():
    assert double_bos([1, 1, 5], 1)
    assert not double_bos([1, 5, 1], 1)
    assert not double_bos([5], None)
    assert ends_once([4, 5, 2], 2, finished=True)
    assert not ends_once([4, 5], 2, finished=True)
    assert not ends_once([4, 2, 5, 2], 2, finished=True)
    assert ends_once([4, 5], 2, finished=False)
    assert not eos_is_learnt([4, 2], [True, False], 2)
    assert eos_is_learnt([4, 5], [False, False], 2)  # the cut took it
    assert is_strict_prefix("ab", "abc")
    assert not is_strict_prefix("ab", "ab")
    assert not is_strict_prefix("ab", "ac!")
    assert holds_special([4, 0], [0, 1])


def test_good_demonstrations_have_no_problem(tokenizer):
    found = check_demonstrations(tokenizer, demonstrations("At nine.", "At <|end|> nine."), max_length=200)
    counts = found.model_dump(exclude={"pictures"})
    assert counts.pop("rows") == counts.pop("looked_at") == 2
    assert set(counts.values()) == {0}


def test_the_picture_shows_where_the_loss_begins(tokenizer):
    (picture,) = check_demonstrations(tokenizer, demonstrations("At nine."), max_length=200).pictures
    begin = picture.learnt.index(True)
    assert picture.tokens[begin - 1] == "<|assistant|>"
    assert "".join(picture.tokens[begin:-1]) == "At nine."
    assert picture.tokens[-1] == tokenizer.eos_token
    assert picture.learnt[-1]


def test_what_the_cut_takes_away_is_counted(tokenizer):
    long = "We open at nine and close at five. "
    found = check_pairs(
        tokenizer, pairs((long * 9 + "a", long * 9 + "b"), ("At nine.", "No.")), max_length=60
    )
    assert (found.rows, found.looked_at) == (2, 4)
    assert (found.cut, found.cut_to_nothing, found.equal_after_cut) == (2, 0, 1)
    found = check_pairs(tokenizer, pairs(("At nine.", "No.")), max_length=3)
    assert (found.cut, found.cut_to_nothing, found.equal_after_cut) == (2, 2, 1)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant>{% endif %}",
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
    ],
)
def test_a_template_that_rewrites_the_prompt_is_noticed(tokenizer, template):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    found = check_demonstrations(changed, demonstrations("At nine."), max_length=200)
    assert found.prompt_not_prefix == 1
