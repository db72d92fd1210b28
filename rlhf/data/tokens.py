"""What tokenisation does to a table: checks that need the tokenizer of the model that is about to be trained."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from rlhf.data.chat import encode_prompt, encode_response
from schemas.validation import TokenCheck, TokenPicture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SAMPLE = 500
"""Rows that are looked at, spread evenly over the table."""
PICTURES = 3
_BEFORE, _AFTER = 24, 40


def check_demonstrations(
    tokenizer: "PreTrainedTokenizerFast", demonstrations: pl.DataFrame, *, max_length: int
) -> TokenCheck:
    """Look at demonstrations as SFT sees them: which tokens are learnt, and what the cut takes away."""
    rows = _sample(demonstrations)
    found = [_sequence(tokenizer, row["prompt"], row["response"], max_length) for row in rows]
    return TokenCheck(
        rows=demonstrations.height,
        **_counted(found),
        pictures=tuple(_picture(tokenizer, ids, learnt) for ids, learnt, _ in found[:PICTURES]),
    )


def check_pairs(
    tokenizer: "PreTrainedTokenizerFast", preferences: pl.DataFrame, *, max_length: int
) -> TokenCheck:
    """Look at pairs as the reward model and DPO see them: both responses, and whether the cut makes them equal."""
    rows = _sample(preferences)
    sides = [
        [
            _sequence(tokenizer, row["prompt"], row[side], max_length, finished=row[f"{side}_finished"])
            for row in rows
        ]
        for side in ("chosen", "rejected")
    ]
    equal = sum(left[0] == right[0] for left, right in zip(*sides, strict=True))
    return TokenCheck(rows=preferences.height, **_counted([*sides[0], *sides[1]]), equal_after_cut=equal)


Encoded = tuple[list[int], list[bool], dict[str, bool]]
"""Ids after the cut, whether the loss counts each, and what is wrong."""


def _sample(table: pl.DataFrame) -> list[dict[str, Any]]:
    step = max(1, -(-table.height // SAMPLE))
    return table.gather_every(step).to_dicts()


def _sequence(
    tokenizer: "PreTrainedTokenizerFast",
    messages: Sequence[Mapping[str, str]],
    response: str,
    max_length: int,
    *,
    finished: bool = True,
) -> Encoded:
    prompt, answer = (
        encode_prompt(tokenizer, messages),
        encode_response(tokenizer, response, finished=finished),
    )
    ids = (prompt + answer)[:max_length]
    learnt = [position >= len(prompt) for position in range(len(ids))]
    problems = {
        "double_bos": double_bos(prompt + answer, tokenizer.bos_token_id),
        "eos_wrong": not ends_once(answer, tokenizer.eos_token_id, finished=finished),
        "eos_not_learnt": finished and not eos_is_learnt(ids, learnt, tokenizer.eos_token_id),
        "prompt_not_prefix": not is_strict_prefix(
            _rendered(tokenizer, messages), _rendered(tokenizer, messages, response)
        ),
        "special_in_content": holds_special(answer[: len(answer) - finished], tokenizer.all_special_ids),
        "cut": len(prompt) + len(answer) > max_length,
        "cut_to_nothing": len(prompt) >= max_length,
    }
    return ids, learnt, problems


def double_bos(ids: Sequence[int], bos: int | None) -> bool:
    """Tell whether a sequence starts with BOS twice: the template wrote one and the tokenizer another."""
    return bos is not None and list(ids[:2]) == [bos, bos]


def ends_once(answer: Sequence[int], eos: int | None, *, finished: bool) -> bool:
    """Tell whether EOS stands at the end of a finished response and nowhere else."""
    return list(answer).count(eos) == finished and (not finished or answer[-1] == eos)  # type: ignore[arg-type]  # None is counted like any value


def eos_is_learnt(ids: Sequence[int], learnt: Sequence[bool], eos: int | None) -> bool:
    """Tell whether the loss counts the final EOS, if the cut has left it there."""
    return not ids or ids[-1] != eos or learnt[-1]


def is_strict_prefix(prompt: str, whole: str) -> bool:
    """Tell whether the template renders the prompt as the true beginning of prompt and response."""
    return whole.startswith(prompt) and len(whole) > len(prompt)


def holds_special(ids: Sequence[int], special: Sequence[int]) -> bool:
    """Tell whether the text of a response became a special token."""
    return bool(set(ids) & set(special))


def _rendered(
    tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Mapping[str, str]], response: str | None = None
) -> str:
    turns = [dict(message) for message in messages]
    if response is not None:
        turns.append({"role": "assistant", "content": response})
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=response is None, tokenize=False)
    return str(text)


def _counted(found: Sequence[Encoded]) -> dict[str, int]:
    names = (
        "double_bos",
        "eos_wrong",
        "eos_not_learnt",
        "prompt_not_prefix",
        "special_in_content",
        "cut",
        "cut_to_nothing",
    )
    return {"looked_at": len(found)} | {
        name: sum(problems[name] for _, _, problems in found) for name in names
    }


def _picture(
    tokenizer: "PreTrainedTokenizerFast", ids: Sequence[int], learnt: Sequence[bool]
) -> TokenPicture:
    """Return the tokens around the place where the loss begins."""
    begin = learnt.index(True) if True in learnt else len(ids)
    window = range(max(0, begin - _BEFORE), min(len(ids), begin + _AFTER))
    texts = [str(tokenizer.decode([ids[position]])) for position in window]
    return TokenPicture(tokens=tuple(texts), learnt=tuple(learnt[position] for position in window))
