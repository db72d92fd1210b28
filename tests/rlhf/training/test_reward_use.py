"""PPO against reward models that are not a copy of the policy: ensembles, and other tokenizers and sizes."""

import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf.data.chat import decode_response, encode_prompt, encode_response
from rlhf.models.bpe import train_tokenizer
from rlhf.models.critic import Critic
from rlhf.models.loading import load_tokenizer, save_model
from rlhf.models.reward import RewardModel
from rlhf.training import ppo, reward
from rlhf.training.actors import load_actors
from rlhf.training.rollout import collect
from schemas.config import EnsembleConfig, EnsembleScoring, ModelShape, PPOConfig, RewardConfig

CONFIG = PPOConfig(
    iterations=1,
    batch_size=4,
    minibatch_size=4,
    epochs=1,
    warmup_iterations=0,
    max_new_tokens=6,
    learning_rate=1e-3,
)


@pytest.fixture(scope="module")
def foreign_base(tmp_path_factory):
    """A smaller model of another architecture, with its own tokenizer and template."""
    folder = tmp_path_factory.mktemp("foreign")
    tokenizer = train_tokenizer(["euros and kettles, thank you very much " * 3], ModelShape(vocab_size=310))
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=96, n_embd=16, n_layer=1, n_head=2,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    save_model(GPT2LMHeadModel(config), tokenizer, folder)
    return folder


def _reward(start, preferences, candidates, precision, out, **changes):
    config = RewardConfig(
        **{"steps": 30, "batch_size": 8, "learning_rate": 5e-3, "max_length": 80, **changes}
    )
    reward.fit(
        start, preferences, None, candidates, config,
        rater_weights={}, seed=0, precision=precision, on_step=lambda _: None, out=out,
    )  # fmt: skip
    return out


@pytest.mark.integration
def test_a_reward_model_of_another_tokenizer_reads_the_text_and_ppo_runs_against_it(
    tiny_policy, foreign_base, preferences, candidates, fp32, tmp_path
):
    judge = _reward(foreign_base, preferences, candidates, fp32, tmp_path / "judge")
    actors = load_actors(tiny_policy, judge, lora=None, seed=0, device="cpu")
    assert isinstance(actors.critic, Critic)
    prompts = preferences["prompt"].to_list()[:4]
    rollout, _ = collect(actors, prompts, CONFIG, precision=fp32, seed=0, iteration=0)
    own, policy = load_tokenizer(judge), load_tokenizer(tiny_policy)
    expected = RewardModel.load(judge).normalised_scores(
        [
            encode_prompt(own, prompt)
            + encode_response(own, decode_response(policy, ids), finished=bool(end))
            for prompt, ids, end in zip(prompts, rollout.responses, rollout.finished_B, strict=True)
        ]
    )
    torch.testing.assert_close(rollout.scores_B, expected, rtol=0, atol=1e-5)
    assert rollout.values_BT.abs().max() == 0  # a critic of the policy's own kind begins at the mean score
    found = ppo.fit(
        tiny_policy, judge, preferences.select("prompt_id", "prompt"), CONFIG,
        seed=0, precision=fp32, on_step=lambda _: None, out=tmp_path / "policy",
    )  # fmt: skip
    assert found.rollouts.height == CONFIG.batch_size
    assert found.rollouts["score"].is_finite().all()
    assert load_tokenizer(tmp_path / "policy").get_vocab() == policy.get_vocab()


@pytest.mark.integration
def test_ppo_optimises_the_score_that_the_recipe_asks_of_an_ensemble(
    tiny_policy, preferences, candidates, fp32, tmp_path
):
    judge = _reward(
        tiny_policy, preferences, candidates, fp32, tmp_path / "judge", ensemble=EnsembleConfig(size=3)
    )
    prompts = preferences.select("prompt_id", "prompt")
    scores: dict[str, pl.Series] = {}
    for how in ("mean", "worst"):
        config = CONFIG.model_copy(update={"ensemble": EnsembleScoring(combine=how)})
        scores[how] = ppo.fit(
            tiny_policy, judge, prompts, config,
            seed=0, precision=fp32, on_step=lambda _: None, out=tmp_path / how,
        ).rollouts["score"]  # fmt: skip
    assert (scores["worst"] < scores["mean"]).all()
