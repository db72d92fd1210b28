"""Label efficiency: is a reward model better when raters are asked where it doubts than when asked anywhere?

    python -m benchmarks.active --homes FOLDER --seeds 0 1 2 3 [--plot docs/images/active-selection.svg]

FOLDER/seed<N> is RLHF_HOME of a finished run of the default recipe with that seed, of which the SFT policy
and the sampled candidates are taken; nothing is written there. The last 512 prompts measure: the share of
their response pairs that the reward model orders as the hidden utility does. Both ways begin with the same
64 ranked prompts and double their number three times, each time training a fresh ensemble from the SFT
policy. One JSON line per seed and way.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from urllib.parse import unquote, urlsplit

import polars as pl

from rlhf.data.helpdesk import raters
from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import World
from rlhf.feedback.rankings import pairs
from rlhf.feedback.selection import doubts, encode, most_doubtful
from rlhf.models.loading import load_tokenizer
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from rlhf.report import chart
from rlhf.report.chart import Area, axes, curve, span, standalone, svg, text, tick_room
from rlhf.training import reward
from schemas.config import EnsembleConfig, PreferencesConfig, RewardConfig
from schemas.tables import polars_schema

SIZES = (64, 128, 256, 512)
"""Ranked prompts."""
POOL, HELD_OUT = 1024, 512
"""Prompts that may be ranked, and prompts that measure."""
EPOCHS, FEWEST_STEPS = 4, 60
APART = 0.1
"""Responses whose utilities differ by less are no pair to be right about."""
PRECISION = Precision(threads=1, dtype="fp32")


class Study:
    """One seed: its world, its candidates, and what the utility makes of those that measure."""

    def __init__(self, home: Path, seed: int, scratch: Path) -> None:
        self.seed, self.world, self.scratch = seed, World(seed), scratch
        self.sft, sampled = _outputs(home)
        candidates = pl.read_parquet(sampled)
        self.pool, self.held_out = candidates.head(POOL), candidates.tail(HELD_OUT)
        self.utilities = [
            [judge(self.world, prompt[-1]["content"], said).utility for said in responses]
            for prompt, responses in self.held_out.select("prompt", "responses").iter_rows()
        ]

    def train(self, asked: pl.DataFrame) -> Path:
        """Have the prompts ranked, one rater each, and train an ensemble on that."""
        out = Path(tempfile.mkdtemp(dir=self.scratch)) / "model"
        steps = max(FEWEST_STEPS, EPOCHS * asked.height // RewardConfig().batch_size)
        reward.fit(
            self.sft,
            pairs(self._rank(asked)),
            None,
            self.pool,
            RewardConfig(steps=steps, ensemble=EnsembleConfig(size=4)),
            rater_weights={},
            seed=self.seed,
            precision=PRECISION,
            on_step=lambda _: None,
            out=out,
        )
        return out

    def accuracy(self, model: Path) -> float:
        """Return the share of held-out pairs in the order of their utilities; equal scores count half."""
        found = RewardModel.load(model).raw_scores(
            encode(load_tokenizer(model), self.held_out), batch_size=256
        )
        scores = iter(found.tolist())
        right = total = 0.0
        for worth in self.utilities:
            mine = [next(scores) for _ in worth]
            for one, other in combinations(range(len(worth)), 2):
                if abs(worth[one] - worth[other]) >= APART:
                    product = (mine[one] - mine[other]) * (worth[one] - worth[other])
                    right, total = right + (product > 0) + 0.5 * (product == 0), total + 1
        return right / total

    def _rank(self, asked: pl.DataFrame) -> pl.DataFrame:
        preferences = PreferencesConfig()
        rows = []
        for row in asked.iter_rows(named=True):
            # Who ranks a prompt does not depend on how it was chosen.
            rater = random.Random(row["prompt_id"]).randrange(preferences.num_raters)
            ranks = raters.rank(
                self.world, row["prompt"][-1]["content"], row["responses"],
                rater=rater, noise=preferences.noise, seed=self.seed,
            )  # fmt: skip
            names = ("prompt_id", "prompt", "responses", "finished")
            rows.append({**{name: row[name] for name in names}, "rater": str(rater), "ranks": ranks})
        return pl.DataFrame(rows, schema=polars_schema("rankings"))


def follow(study: Study, way: str, asked: pl.DataFrame, rest: pl.DataFrame, model: Path) -> list[float]:
    """Return the accuracy at each size; `model` has learnt from those that were asked first."""
    found = [study.accuracy(model)]
    for size in SIZES[1:]:
        wanted = size - asked.height
        if way == "disagreement":
            chosen = most_doubtful(rest, doubts(model, rest, batch_size=256, precision=PRECISION), wanted)
        else:
            chosen = rest.head(wanted)
        asked = pl.concat([asked, chosen])
        rest = rest.join(chosen.select("prompt_id"), on="prompt_id", how="anti", maintain_order="left")
        model = study.train(asked)
        found.append(study.accuracy(model))
    return found


def plot(curves: dict[str, Sequence[float]]) -> str:
    """Draw the mean accuracy of both ways by the number of ranked prompts."""
    low, high = span([value for values in curves.values() for value in values], margin=0.08)
    area = Area(
        left=tick_room(low, high), right=388, top=36, bottom=228,
        low_x=0, high_x=SIZES[-1], low_y=low, high_y=high,
    )  # fmt: skip
    parts = axes(area, label="ranked prompts", whole=True)
    for kind, (place, (way, values)) in zip(("one", "two"), enumerate(curves.items()), strict=True):
        parts.append(curve(f"stroke {kind}", list(zip(SIZES, values, strict=True)), area))
        parts.append(
            text(f"value {kind}", 392, 16 + 160 + 18 * place, f"{way}: {values[-1]:.1%}", anchor="end")
        )
    parts.append(text("title", 4, 16, "pairs that the reward model orders as the utility does"))
    picture = svg(parts, width=400, height=270, label="accuracy by ranked prompts")
    return standalone(picture, Path(chart.__file__).with_suffix(".css").read_text(encoding="utf-8"))


def _outputs(home: Path) -> tuple[Path, Path]:
    """Return the SFT policy and the candidates of a run that trained a reward model."""
    for entry in sorted(home.glob("store/runs/*/reward.json")):
        found = [
            json.loads((entry.parent / f"{stage}.json").read_text())["record"]["outputs"][name]["uri"]
            for stage, name in (("sft", "model"), ("sample", "candidates"))
        ]
        sft, candidates = (Path(unquote(urlsplit(uri).path)) for uri in found)
        if sft.is_dir() and candidates.is_file():
            return sft, candidates
    raise SystemExit(f"{home} has no finished run; make one with `RLHF_HOME={home} rlhf run helpdesk`")


def main() -> None:
    """Run the study, print its numbers, and draw them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--homes", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {"disagreement": [], "random": []}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            study = Study(options.homes / f"seed{seed}", seed, Path(scratch))
            pool = study.pool.sample(fraction=1.0, shuffle=True, seed=seed)
            asked, rest = pool.head(SIZES[0]), pool.tail(-SIZES[0])
            first = study.train(asked)
            for way, curves in found.items():
                curves.append(follow(study, way, asked, rest, first))
                shown = [round(value, 4) for value in curves[-1]]
                print(
                    json.dumps({"seed": seed, "way": way, "accuracy": dict(zip(SIZES, shown, strict=True))}),
                    flush=True,
                )
    if options.plot:
        means = {
            way: [sum(values) / len(values) for values in zip(*curves, strict=True)]
            for way, curves in found.items()
        }
        options.plot.write_text(plot(means), encoding="utf-8")


if __name__ == "__main__":
    main()
