"""Turn validated tables into what the stages need, with the evaluation prompts kept apart from all training."""

import polars as pl

from rlhf.data.splits import split_by_prompt


def assemble(
    tables: dict[str, pl.DataFrame], *, held_out_fraction: float, seed: int
) -> dict[str, pl.DataFrame]:
    """Return `demonstrations`, `prompts`, `held_out` and, where given, `corpus` and `preferences`.

    Missing demonstrations are the chosen responses, missing prompts those of the preferences or demonstrations.
    Rows whose prompt is held out leave every training table.
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
    kept_apart = held_out["prompt_id"].implode()
    found = {"demonstrations": demonstrations, "prompts": prompts}
    if preferences is not None:
        found["preferences"] = preferences
    trained = {name: frame.filter(~pl.col("prompt_id").is_in(kept_apart)) for name, frame in found.items()}
    corpus = {"corpus": tables["corpus"]} if "corpus" in tables else {}
    return {**corpus, **trained, "held_out": held_out}
