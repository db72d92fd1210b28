"""Turn validated tables into what the stages need, with the evaluation prompts kept apart from all training."""

import polars as pl

from rlhf.data.leakage import leaked
from rlhf.data.questions import first_questions
from rlhf.data.splits import split_by_prompt

HELD_OUT_TEXT, HELD_OUT_SHARE, HELD_OUT_DEMONSTRATIONS = 256, 0.02, 256
"""Documents for evaluation at most, as a share of the corpus at most; demonstrations at most."""


def assemble(
    tables: dict[str, pl.DataFrame], *, held_out_fraction: float, seed: int, similar: bool = False
) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """Return `demonstrations`, `prompts`, `held_out` and, where given, `corpus`, `preferences`, `feedback` and what is held out of them.

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
    found |= {name: tables[name] for name in ("preferences", "feedback") if name in tables}
    trained = {name: frame.filter(~_asked(frame, held_out, similar=similar)) for name, frame in found.items()}
    left = {name: found[name].height - frame.height for name, frame in trained.items()}
    return {**_held_out(tables, found, trained, seed), **trained, "held_out": held_out}, left


def _held_out(
    tables: dict[str, pl.DataFrame],
    found: dict[str, pl.DataFrame],
    trained: dict[str, pl.DataFrame],
    seed: int,
) -> dict[str, pl.DataFrame]:
    """Return the corpus, and the tables that only evaluation reads: as given, else held out of the others."""
    given = ("corpus", "held_out_text", "held_out_demonstrations", "red_team", "benign")
    kept = {name: tables[name] for name in given if name in tables}
    if "corpus" in kept and "held_out_text" not in kept:
        documents = kept["corpus"].unique("text", keep="first", maintain_order=True)
        wanted = min(HELD_OUT_TEXT, int(HELD_OUT_SHARE * documents.height))
        if wanted:
            kept["held_out_text"] = away = documents.sample(wanted, seed=seed)
            kept["corpus"] = kept["corpus"].join(away, on="text", how="anti", maintain_order="left")
    if "held_out_demonstrations" not in kept:
        away = found["demonstrations"].join(trained["demonstrations"], on="prompt_id", how="anti")
        if away.height:
            kept["held_out_demonstrations"] = away.head(HELD_OUT_DEMONSTRATIONS)
    return kept


def _asked(frame: pl.DataFrame, held_out: pl.DataFrame, *, similar: bool) -> pl.Series:
    """Tell for each row whether the held-out prompts ask the same."""
    same = frame["prompt_id"].is_in(held_out["prompt_id"].implode())
    return same | leaked(first_questions(held_out), first_questions(frame)) if similar else same
