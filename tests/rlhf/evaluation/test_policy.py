from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.data.chat import encode_prompt, stop_ids
from rlhf.data.helpdesk.probes import counterfactual_pairs
from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import World
from rlhf.evaluation import policy as evaluation
from rlhf.evaluation.judges import ColumnJudge, verdicts, with_gold
from rlhf.evaluation.policy import annotate_curve
from rlhf.evaluation.probes import probe_reward
from rlhf.evaluation.subject import Subject
from rlhf.models import best_of_n
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import sample
from schemas.config import EnsembleScoring, EvaluateConfig
from schemas.errors import ConfigError, DataRejected
from schemas.evaluation import PolicyEvaluation
from schemas.tables import TABLES, polars_schema

REWARD_JUDGE = EvaluateConfig(judge="reward", bootstrap_samples=500)
PRECISION = Precision(threads=1, dtype="fp32")


def samples(scores: list[float], world: World | None = None, **columns: list[object]) -> pl.DataFrame:
    ids = [f"p{i}" for i in range(len(scores))]
    frame = pl.DataFrame(
        {
            "prompt_id": ids,
            "prompt": [[{"role": "user", "content": name}] for name in ids],
            "response": [f"yes {name}" for name in ids],
            "tokens": [4] * len(ids),
            "finished": [True] * len(ids),
            "logprob": [-2.0] * len(ids),
            "score": scores,
            "kl": [0.0] * len(ids),
        }
    )
    return with_gold(
        frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()}), world
    )


def evaluate(
    name: str, ours: pl.DataFrame, theirs: pl.DataFrame | None, config: EvaluateConfig, *, seed: int
) -> PolicyEvaluation:
    """Judge by the column that the section names."""
    column = ColumnJudge("gold" if config.judge == "utility" else "score")
    if theirs is not None and theirs is not ours:  # the same words would be a tie
        theirs = theirs.with_columns(pl.col("response") + "!")
    outcomes = None if theirs is None else verdicts(column, ours, theirs)
    return evaluation.evaluate(name, ours, outcomes, config, seed=seed)


def respond(
    policy: Path,
    reference: Path,
    reward: Path | None,
    prompts: pl.DataFrame,
    config: EvaluateConfig,
    *,
    world: World | None,
    seed: int,
    precision: Precision,
) -> pl.DataFrame:
    subject = Subject(policy, config, precision)
    other = subject if policy == reference else Subject(reference, config, precision)
    scorer = RewardModel.load(reward) if reward else None
    return evaluation.respond(subject, other, scorer, prompts, world=world, seed=seed)


def test_best_of_n_scores_higher_and_its_kl_is_the_bound(save_policy, reward_folder, tmp_path):
    sft, best = save_policy("sft", seed=1), tmp_path / "best"
    best_of_n.save(sft, reward_folder, best, n=8, scoring=EnsembleScoring())
    config = EvaluateConfig(judge="reward", num_prompts=24, max_new_tokens=4, bootstrap_samples=100)
    prompts = pl.DataFrame(
        {
            "prompt_id": [str(number) for number in range(24)],
            "prompt": [[{"role": "user", "content": "hi" * number}] for number in range(1, 25)],
        }
    )
    plain, chosen = (
        respond(
            policy, sft, reward_folder, prompts, config,
            world=None, seed=0, precision=Precision(threads=1, dtype="fp32"),
        )
        for policy in (sft, best)
    )  # fmt: skip
    # log 8 - 7 / 8, whatever was said, and no other weights to add to it
    assert chosen["kl"].to_list() == pytest.approx([1.204442] * 24, abs=1e-5)
    assert chosen["score"].mean() > plain["score"].mean() + 0.5 * plain["score"].std()
    assert plain["kl"].to_list() == [0.0] * 24


def test_win_rate_by_hand_counts_ties_as_half():
    # win, tie, loss, win: (1 + .5 + 0 + 1) / 4
    ours, theirs = samples([1.0, 2.0, 3.0, 4.0]), samples([0.0, 2.0, 5.0, 1.0])
    found = evaluate("ppo", ours, theirs, REWARD_JUDGE, seed=0)
    assert found.win_rate == 0.625
    assert found.win_rate_low is not None
    assert found.win_rate_high is not None
    assert found.win_rate_low < 0.625 < found.win_rate_high


def test_policies_are_compared_by_prompt_and_not_by_row():
    ours, theirs = samples([1.0, 2.0, 3.0, 4.0]), samples([0.0, 2.0, 5.0, 1.0])
    straight = evaluate("ppo", ours, theirs, REWARD_JUDGE, seed=0)
    turned = evaluate("ppo", ours, theirs.reverse(), REWARD_JUDGE, seed=0)
    assert turned.win_rate == straight.win_rate == 0.625


def test_a_policy_against_itself_wins_half_exactly_and_swapping_sides_mirrors_the_rate():
    ours, theirs = samples([1.0, 2.0, 3.0, 4.0]), samples([0.0, 2.0, 5.0, 1.0])
    itself = evaluate("sft", ours, ours, REWARD_JUDGE, seed=0)
    assert (itself.win_rate, itself.win_rate_low, itself.win_rate_high) == (0.5, 0.5, 0.5)
    assert evaluate("dpo", theirs, ours, REWARD_JUDGE, seed=0).win_rate == 1 - 0.625


def test_means_and_counts_by_hand():
    frame = samples([1.0, 3.0], tokens=[2, 5], finished=[True, False], kl=[1.5, 2.5])
    found = evaluate("ppo", frame, None, REWARD_JUDGE, seed=0)
    assert (found.length, found.eos_rate, found.kl, found.score.value) == (3.5, 0.5, 2.0, 2.0)
    assert (found.win_rate, found.gold, found.right, found.num_prompts) == (None, None, None, 2)


def test_other_prompts_on_the_other_side_are_refused():
    with pytest.raises(DataRejected, match="share 2 prompts"):
        evaluate("ppo", samples([1.0] * 2), samples([1.0] * 3), REWARD_JUDGE, seed=0)


def test_a_judge_that_lacks_what_it_looks_at_says_so():
    with pytest.raises(ConfigError, match="for want of a world"):
        evaluate("ppo", samples([1.0]), samples([0.0]), EvaluateConfig(), seed=0)


def test_the_same_words_are_a_tie_whatever_the_judge_would_say():
    ours, theirs = samples([1.0, 2.0]), samples([0.0, 5.0])
    assert verdicts(ColumnJudge("score"), ours, theirs)["outcome"].to_list() == [0.5, 0.5]
    cut = theirs.with_columns(finished=pl.Series([True, False]))
    assert verdicts(ColumnJudge("score"), ours, cut)["outcome"].to_list() == [0.5, 0.0]


def test_the_hidden_utility_decides_and_not_the_score_when_it_is_the_judge():
    world = World(0)
    pairs = counterfactual_pairs(world, 40, 0)
    prompts = [[{"role": "user", "content": pair.question}] for pair in pairs]
    better = samples([-9.0] * 40, world, prompt=prompts, response=[pair.better for pair in pairs])
    worse = samples([9.0] * 40, world, prompt=prompts, response=[pair.worse for pair in pairs])
    config = EvaluateConfig(bootstrap_samples=100)
    found = evaluate("ppo", better, worse, config, seed=0)
    assert found.win_rate == 1.0
    assert evaluate("ppo", better, worse, REWARD_JUDGE, seed=0).win_rate == 0.0
    rude = evaluate("sft", worse, None, config, seed=0).rude
    assert rude is not None
    assert found.rude is not None
    # Every fifth pair differs in rudeness.
    assert rude.value - found.rude.value == pytest.approx(8 / 40, abs=1e-12)


def test_curve_by_hand():
    frame = samples([1.0, 3.0, 5.0, 7.0], kl=[0.0, 1.0, 2.0, 4.0]).with_columns(
        iteration=pl.Series([0, 0, 1, 1])
    )
    points = annotate_curve(frame.reverse(), None)
    assert [(p.iteration, p.kl, p.score, p.gold) for p in points] == [
        (0, 0.5, 2.0, None),
        (1, 3.0, 6.0, None),
    ]


@pytest.mark.integration
def test_responses_carry_the_score_and_kl_of_the_very_ids_that_were_sampled(
    save_policy: Callable[..., Path], reward_folder: Path
):
    policy, reference = save_policy("policy", seed=1), save_policy("sft", seed=2)
    prompts = samples([0.0] * 12).select("prompt_id", "prompt")
    config = EvaluateConfig(num_prompts=8, max_new_tokens=6, temperature=0.7, batch_size=3)
    found = respond(
        policy, reference, reward_folder, prompts, config, world=None, seed=4, precision=PRECISION
    )
    assert found.height == 8
    assert found["prompt_id"].n_unique() == 8

    model, tokenizer = load_policy(policy)
    asked = [encode_prompt(tokenizer, messages) for messages in found["prompt"].to_list()]
    drawn = sample(
        model,
        asked,
        max_new_tokens=6,
        temperature=0.7,
        stop=stop_ids(model, tokenizer),
        pad_id=1,
        batch_size=8,
        generator=torch.Generator().manual_seed(4),
    )
    assert found["tokens"].to_list() == [len(completion.ids) for completion in drawn]

    def logprob(path: Path, prompt: list[int], response: list[int]) -> float:
        network = AutoModelForCausalLM.from_pretrained(path).eval()
        with torch.no_grad():
            logits = network(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / 0.7
        # The pad id is never sampled.
        logits[:, 1] = -torch.inf
        return float(logits.log_softmax(-1)[range(len(response)), response].sum())

    head = AutoModelForSequenceClassification.from_pretrained(reward_folder).eval()
    for row in range(8):
        prompt, response = asked[row], drawn[row].ids
        kl = logprob(policy, prompt, response) - logprob(reference, prompt, response)
        assert found["kl"][row] == pytest.approx(kl, abs=1e-4)
        with torch.no_grad():
            raw = float(head(torch.tensor([prompt + response])).logits)
        assert found["score"][row] == pytest.approx((raw - 0.5) / 2.0, abs=1e-4)


@pytest.mark.integration
def test_the_table_keeps_what_the_judge_saw_and_nulls_where_no_world_knows(
    save_policy: Callable[..., Path], reward_folder: Path
):
    policy, world = save_policy("policy", seed=1), World(0)
    pairs = counterfactual_pairs(world, 8, 0)
    prompts = samples([0.0] * 8, prompt=[[{"role": "user", "content": pair.question}] for pair in pairs])
    asked = prompts.select("prompt_id", "prompt")
    config = EvaluateConfig(num_prompts=8, max_new_tokens=4)
    for known in (world, None):
        found = respond(
            policy, policy, reward_folder, asked, config, world=known, seed=4, precision=PRECISION
        )
        table = TABLES["samples"].validate(found, lazy=True)
        assert table.schema == polars_schema("samples")
        for prompt, response, *seen in table.select(
            "prompt", "response", "gold", "right", "rude"
        ).iter_rows():
            judged = judge(world, prompt[-1]["content"], response)
            assert seen == ([judged.utility, judged.right, judged.rude] if known else [None] * 3)


def test_no_table_that_training_reads_has_room_for_what_the_judge_saw():
    assert [kind for kind in TABLES if {"gold", "right", "rude"} & {*polars_schema(kind)}] == ["samples"]


@pytest.mark.integration
def test_every_policy_answers_the_same_prompts_and_the_reference_has_no_kl(
    save_policy: Callable[..., Path], reward_folder: Path
):
    policy, reference = save_policy("policy", seed=1), save_policy("sft", seed=2)
    prompts = samples([0.0] * 12).select("prompt_id", "prompt")
    config = EvaluateConfig(num_prompts=8, max_new_tokens=4)
    ours = respond(policy, reference, reward_folder, prompts, config, world=None, seed=4, precision=PRECISION)
    theirs = respond(
        reference, reference, reward_folder, prompts, config, world=None, seed=4, precision=PRECISION
    )
    assert ours["prompt_id"].to_list() == theirs["prompt_id"].to_list()
    assert theirs["kl"].to_list() == [0.0] * 8
    assert ours["kl"].mean() != 0.0


@pytest.mark.integration
def test_probes_cover_every_flaw_with_intervals_around_a_share(reward_folder: Path):
    probes = probe_reward(
        reward_folder, World(0), num_pairs=20, batch_size=8, confidence=0.95, seed=0, precision=PRECISION
    )
    assert [probe.flaw for probe in probes] == ["discourteous", "rambling", "rude", "trivia", "wrong"]
    assert all(probe.pairs == 4 for probe in probes)
    assert all(probe.accuracy.low <= probe.accuracy.value <= probe.accuracy.high for probe in probes)
