import pytest

from rlhf.feedback import thumbs
from schemas.errors import AnswerRefused
from schemas.tables import TABLES

SAID = {
    "prompt": [{"role": "user", "content": "Hi?\0"}], "response": "Hello\0 <b>", "label": True, "rater": "ann",
    "model": "champion", "consent": "You may keep this.", "occasion": "1",
}  # fmt: skip


def test_a_thumb_is_kept_once_per_occasion_and_read_as_the_table_feedback(feedback):
    assert thumbs.record(feedback, **SAID)
    assert not thumbs.record(feedback, **SAID)
    assert thumbs.record(feedback, **{**SAID, "occasion": "2", "label": False})
    table = TABLES["feedback"].validate(thumbs.table(feedback))
    assert table["label"].to_list() == [True, False]
    assert table["response"].to_list() == ["Hello\0 <b>"] * 2


def test_without_consent_nothing_is_kept(feedback):
    with pytest.raises(AnswerRefused, match="consent"):
        thumbs.record(feedback, **{**SAID, "consent": " "})
    assert thumbs.table(feedback).height == 0
