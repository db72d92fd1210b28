from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from rlhf.evaluation.judges import verdicts
from rlhf.evaluation.people import PeopleJudge
from rlhf.evaluation.reward_judge import RewardJudge
from rlhf.feedback import annotators, answers, assigning, batches
from rlhf.feedback.database import Feedback, connect
from rlhf.models.precision import Precision
from schemas.config.evaluation import PeopleJudgeConfig


def samples(responses: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt_id": [f"p{number}" for number in range(len(responses))],
            "prompt": [
                [{"role": "user", "content": f"question {number}"}] for number in range(len(responses))
            ],
            "response": responses,
            "finished": [True] * len(responses),
        }
    )


@pytest.mark.integration
def test_a_reward_model_judges_text_whatever_the_batches(reward_folder: Path):
    ours, theirs = samples(["a good one", "b", "c"]), samples(["no", "bb", "c"])
    wide = RewardJudge(reward_folder, Precision(threads=1, dtype="fp32"), batch_size=8)
    narrow = RewardJudge(reward_folder, Precision(threads=1, dtype="fp32"), batch_size=1)
    found = verdicts(wide, ours, theirs)
    expected = [
        float(left > right) for left, right in zip(wide.scores(ours), wide.scores(theirs), strict=True)
    ]
    assert found["outcome"].to_list() == [*expected[:2], 0.5]
    assert verdicts(narrow, ours, theirs)["outcome"].to_list() == found["outcome"].to_list()
    assert found["characters"].to_list() == [10, 1, 1]
    assert found["characters_baseline"].to_list() == [2, 2, 1]


@pytest.fixture
def feedback(tmp_path: Path) -> Iterator[Feedback]:
    opened = connect(f"sqlite:///{tmp_path / 'feedback.db'}")
    yield opened
    opened.close()


def people(feedback: Feedback, **settings: int) -> PeopleJudge:
    return PeopleJudge(feedback, "k", PeopleJudgeConfig.model_validate(settings), name="pairs", seed=0)


def rate(feedback: Feedback, rater: str, better: Callable[[str], int]) -> None:
    """Rank every pair that is served to a rater, by a number that each response has: lower is better."""
    annotators.add(feedback, rater)
    somebody = annotators.named(feedback, rater)
    served = assigning.assign(feedback, batches.find(feedback, "pairs").id, somebody.id, limit=100)
    given = []
    for assignment, item in served:
        found = [better(response) for response in item.responses]
        places = sorted(set(found))
        ranks = tuple(places.index(value) + 1 for value in found)
        given.append(answers.Answer(assignment_id=assignment.id, attempt=assignment.attempt, ranks=ranks))
    answers.submit(feedback, somebody.id, given)


def test_pairs_are_published_once_and_their_rankings_come_back_as_outcomes(feedback):
    ours, theirs = (
        samples(["good a", "bad b", "same", "fair d"]),
        samples(["bad a", "good b", "same", "fair e"]),
    )
    judge = people(feedback, overlap=2)
    # Nobody has answered: only the equal responses count, as a tie.
    assert verdicts(judge, ours, theirs)["prompt_id"].to_list() == ["p2"]
    worth = {"good": 1, "fair": 2, "bad": 2}
    rate(feedback, "ann", lambda response: worth[response.split()[0]])
    assert verdicts(judge, ours, theirs)["outcome"].to_list() == [1.0, 0.0, 0.5, 0.5]
    rate(feedback, "bob", lambda response: 3 - worth[response.split()[0]])
    # Bob says the opposite of Ann wherever they do not both see a tie.
    assert verdicts(judge, ours, theirs)["outcome"].to_list() == [0.5, 0.5, 0.5, 0.5]
    assert len(batches.listed(feedback)) == 1


def test_only_so_many_pairs_are_published(feedback):
    ours, theirs = samples(["good a", "good b", "good c"]), samples(["bad a", "bad b", "bad c"])
    judge = people(feedback, max_pairs=2)
    verdicts(judge, ours, theirs)
    rate(feedback, "ann", lambda response: 1 if response.startswith("good") else 2)
    assert verdicts(judge, ours, theirs)["prompt_id"].to_list() == ["p0", "p1"]
