"""Turn validated tables into what the stages need, with the evaluation prompts kept apart from all training."""

import polars as pl

from rlhf.data.leakage import leaked
from rlhf.data.questions import first_questions
from rlhf.data.splits import split_by_prompt


def assemble(
    tables: dict[str, pl.DataFrame], *, held_out_fraction: float, seed: int, similar: bool = False
) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """Return `demonstrations`, `prompts`, `held_out` and, where given, `corpus` and `preferences`.

    Missing demonstrations are the chosen responses, missing prompts those of the preferences or demonstrations.
    Rows whose prompt is held out leave every training table, with `similar` also those that ask nearly the same; the
    second result says how many left each table.
    """
    preferences = tables.get("preferences")
    demonstrations = tables.get("demonstrations")
    if demonstrations is None:
        assert preferences is not None, "the schema refuses data without demonstrations and preferences"
        demonstrations = preferences.select("prompt_id", "prompt", pl.col("chosen").alias("response"))
    prompts = tables.get("prompts")
    if prompts is None:
        prompts = (demonstrations if preferences is None else preferences).select("prompt_id", "prompt")
    prompts = prompts.unique("prompt_id", keep="first", maintain_order=True)
    held_out = tables.get("held_out")
    if held_out is None:
        prompts, held_out = split_by_prompt(prompts, held_out_fraction, seed)
    found = {"demonstrations": demonstrations, "prompts": prompts}
    if preferences is not None:
        found["preferences"] = preferences
    trained = {name: frame.filter(~_asked(frame, held_out, similar=similar)) for name, frame in found.items()}
    left = {name: found[name].height - frame.height for name, frame in trained.items()}
    corpus = {"corpus": tables["corpus"]} if "corpus" in tables else {}
    return {**corpus, **trained, "held_out": held_out}, left


def _asked(frame: pl.DataFrame, held_out: pl.DataFrame, *, similar: bool) -> pl.Series:
    """Tell for each row whether the held-out prompts ask the same."""
    same = frame["prompt_id"].is_in(held_out["prompt_id"].implode())
    return same | leaked(first_questions(held_out), first_questions(frame)) if similar else same
