"""`rlhf evaluate-reward`: what is a reward model worth on pairs that somebody has labelled?"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands_data import local_files
from flows.commands_model import model_folder
from flows.commands_registry import Name
from flows.commands_run import Json
from flows.terminal import say, show, show_json
from schemas.errors import DataRejected

if TYPE_CHECKING:
    import polars as pl

    from schemas.record import Interval
    from schemas.reward_quality import RewardQuality

KINDS = ("preferences", "rankings")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("evaluate-reward")(evaluate_reward)


def evaluate_reward(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder (ours, or any Hugging Face sequence-classification model with one output), RUN/reward, or a ref."
        ),
    ],
    data: Annotated[
        str, typer.Option(help="A file, a glob, a folder, s3://... or hf://...; RewardBench's columns, too.")
    ],
    kind: Annotated[str, typer.Option("--as", metavar="KIND", help=", ".join(KINDS))] = "preferences",
    name: Name = "helpdesk",
    max_length: Annotated[int, typer.Option(min=8, help="Longer sequences are cut, and counted.")] = 1024,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999)] = 0.95,
    seed: int = 0,
    json: Json = False,
) -> None:
    """Accuracy with intervals, by kind of pair and by subset, beside the habit of taking the longer; calibration; length."""
    if kind not in KINDS:
        raise DataRejected(f"No pairs follow from {kind!r}; wanted one of {', '.join(KINDS)}.")
    folder = model_folder(model, name)
    pairs = _pairs(data, kind)
    from rlhf.evaluation.judged_pairs import judge_pairs, judge_pairs_elsewhere
    from rlhf.evaluation.reward_quality import describe
    from rlhf.models.precision import choose
    from rlhf.models.reward import is_ours
    from schemas.config import ComputeConfig

    judge = judge_pairs if is_ours(folder) else judge_pairs_elsewhere
    judged = judge(
        folder, pairs, max_length=max_length, batch_size=batch_size, precision=choose(ComputeConfig())
    )
    quality = describe(judged, confidence=confidence, samples=2_000, seed=seed)
    if json:
        show_json(quality, model=model, data=data, equal_after_cut=pairs.height - judged.height)
    else:
        _show(quality, pairs.height - judged.height)


def _pairs(data: str, kind: str) -> "pl.DataFrame":
    """Read labelled pairs, with their subsets; rows that a run would put aside are put aside here, too."""
    import polars as pl

    from rlhf.data.subsets import with_subsets
    from rlhf.data.validation import validate_files
    from rlhf.feedback.rankings import pairs as pairs_of

    files = local_files(data)
    with tempfile.TemporaryDirectory() as out:
        report = validate_files(files, kind=kind, out=Path(out), name=data)
        if report.verdict == "reject_file":
            raise DataRejected(f"{data} cannot be used: {report.findings[0].message}")
        table = pl.read_parquet(Path(out) / f"{kind}.parquet")
    left_out = report.quarantined + report.dropped
    say(f"{report.rows} rows read as {report.format}; {left_out} left out (`rlhf validate` says why)")
    return pairs_of(table) if kind == "rankings" else with_subsets(table, files)


def _show(quality: "RewardQuality", equal: int) -> None:
    show(f"{quality.pairs} pairs of {quality.prompts} prompts; {equal} pairs are equal once cut and left out")
    width = max(len(f"{found.by} {found.name}") for found in quality.slices) if quality.slices else 20
    rows = [
        ("all pairs", quality.pairs, quality.accuracy),
        ("longer one wins", quality.pairs, quality.longer_baseline),
        *((f"{found.by} {found.name}", found.pairs, found.accuracy) for found in quality.slices),
    ]
    for label, pairs, accuracy in rows:
        show(f"  {label:<{max(width, 15)}}  {pairs:>6}  {_interval(accuracy)}")
    found = quality.calibration
    show(
        f"calibration error {found.error:.3f}; with a temperature fitted on other prompts {found.fitted_error:.3f} "
        f"(temperature {found.temperature:.2f})"
    )
    show(
        f"correlation of score and length {quality.length_correlation:.2f}, "
        f"given the preference {quality.partial_length_correlation:.2f}"
    )
    if among := quality.disagreement:
        show(
            f"members disagree by {among.when_right:.2f} on right pairs and {among.when_wrong:.2f} on wrong ones; "
            f"disagreement finds mistakes with probability {among.finds_mistakes:.2f}"
        )


def _interval(found: "Interval") -> str:
    return f"{found.value:6.1%}  ({found.low:.1%} to {found.high:.1%})"
