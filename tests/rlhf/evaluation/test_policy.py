from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from rlhf.data.chat import encode_prompt, stop_ids
from rlhf.data.helpdesk.probes import counterfactual_pairs
from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import World
from rlhf.evaluation.judges import with_gold
from rlhf.evaluation.policy import annotate_curve, evaluate, respond
from rlhf.evaluation.probes import probe_reward
from rlhf.models.loading import CHATML, load_policy
from rlhf.models.precision import Precision
from rlhf.models.sampling import sample
from schemas.config import EvaluateConfig
from schemas.errors import ConfigError, DataRejected
from schemas.tables import TABLES, polars_schema

REWARD_JUDGE = EvaluateConfig(judge="reward", bootstrap_samples=500)
PRECISION = Precision(threads=1, dtype="fp32")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *alphabet])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        additional_special_tokens=special[2:],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=260,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=1,
    )


@pytest.fixture
def save_policy(tmp_path: Path) -> Callable[..., Path]:
    """Saves a random tiny policy; a seed names its weights."""

    def save(name: str, *, seed: int) -> Path:
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config())
        with torch.no_grad():
            model.lm_head.weight.mul_(20)
        model.save_pretrained(tmp_path / name)
        byte_tokenizer().save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def reward_folder(tmp_path: Path) -> Path:
    torch.manual_seed(9)
    shape = config()
    shape.num_labels = 1
    shape.rlhf_score_mean, shape.rlhf_score_std = 0.5, 2.0
    LlamaForSequenceClassification(shape).save_pretrained(tmp_path / "reward")
    byte_tokenizer().save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


def samples(scores: list[float], world: World | None = None, **columns: list[object]) -> pl.DataFrame:
    ids = [f"p{i}" for i in range(len(scores))]
    frame = pl.DataFrame(
        {
            "prompt_id": ids,
            "prompt": [[{"role": "user", "content": name}] for name in ids],
            "response": ["yes"] * len(ids),
            "tokens": [4] * len(ids),
            "finished": [True] * len(ids),
            "score": scores,
            "kl": [0.0] * len(ids),
        }
    )
    return with_gold(
        frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()}), world
    )


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


def test_the_hidden_utility_cannot_judge_without_a_world():
    with pytest.raises(ConfigError, match=r"evaluate\.judge=reward"):
        evaluate("ppo", samples([1.0]), None, EvaluateConfig(), seed=0)


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
