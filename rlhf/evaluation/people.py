"""People as a judge: pairs go to the labelling page as a batch, and its rankings come back as outcomes."""

from collections import defaultdict
from collections.abc import Sequence

import polars as pl

from rlhf.feedback import batches, collected
from rlhf.feedback.database import Feedback
from rlhf.feedback.schema import Batch
from schemas.config.evaluation import PeopleJudgeConfig


class PeopleJudge:
    """Asks each pair once it is published, and knows what has been answered by now."""

    def __init__(
        self, feedback: Feedback, key: str, config: PeopleJudgeConfig, *, name: str, seed: int
    ) -> None:
        """`key` says what is compared: asked again with the same one, people find the batch that they know."""
        self._feedback = feedback
        self._key = key
        self._config = config
        self._name = name
        self._seed = seed

    def outcomes(self, pairs: pl.DataFrame) -> Sequence[float | None]:
        """Publish the pairs, the first `max_pairs` of them; return what raters said, averaged by prompt."""
        if not pairs.height:
            return []
        batch = self.publish(pairs)
        found = defaultdict(list)
        for row in collected.rankings(self._feedback, batch.id).iter_rows(named=True):
            ours, theirs = row["ranks"]
            if ours is not None and theirs is not None:
                found[row["prompt_id"]].append(0.5 if ours == theirs else float(ours < theirs))
        return [
            sum(given) / len(given) if (given := found.get(name)) else None for name in pairs["prompt_id"]
        ]

    def publish(self, pairs: pl.DataFrame) -> Batch:
        """Put the pairs on the labelling page; each rater sees them in an order of its own, unnamed."""
        asked = pairs.head(self._config.max_pairs)
        frame = asked.select(
            "prompt_id",
            "prompt",
            pl.concat_list("response", "response_baseline").alias("responses"),
            pl.concat_list("finished", "finished_baseline").alias("finished"),
        )
        plan = batches.Plan(
            name=self._name,
            guidelines=self._config.guidelines,
            overlap=self._config.overlap,
            seed=self._seed,
        )
        return batches.publish(self._feedback, self._key, frame, plan)
