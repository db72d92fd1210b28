"""PPO on a random model of two layers: what must hold exactly, and what must hold after a restart."""

import copy
import math
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from rlhf.data.chat import encode_prompt
from rlhf.models.batches import score_tokens
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision
from rlhf.models.sampling import response_logprobs
from rlhf.training import ppo
from rlhf.training.actors import Actors, load_actors
from rlhf.training.experience import learn_from
from rlhf.training.objective import Tally, accumulate_gradients
from rlhf.training.rollout import collect, micro_batch
from rlhf.training.step import StepMetrics
from rlhf.training.trained import Trained
from schemas.config import KLConfig, LoraConfig, PPOConfig
from schemas.errors import ConfigError, DataRejected

FP32 = Precision(threads=1, dtype="fp32")
BF16 = Precision(threads=1, dtype="bf16")
LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.3)
SMALL = PPOConfig(
    iterations=3,
    batch_size=8,
    minibatch_size=4,
    max_new_tokens=6,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
)
PROMPTS = pl.DataFrame(
    {
        "prompt_id": [f"{row:016x}" for row in range(5)],
        "prompt": [[{"role": "user", "content": "hi " * (row + 1)}] for row in range(5)],
    }
)


def actors_of(folders: tuple[Path, Path], lora: LoraConfig | None = None) -> Actors:
    return load_actors(*folders, lora=lora, seed=0, device="cpu")


def run(
    folders: tuple[Path, Path],
    out: Path,
    config: PPOConfig = SMALL,
    *,
    checkpoints: Path | None = None,
    stop_after: int | None = None,
    precision: Precision = FP32,
) -> tuple[ppo.PPOFit, list[StepMetrics]]:
    heard: list[StepMetrics] = []

    def on_step(step: StepMetrics) -> None:
        if stop_after is not None and step.step > stop_after:
            raise KeyboardInterrupt
        heard.append(step)

    result = ppo.fit(
        *folders,
        PROMPTS,
        config,
        seed=0,
        precision=precision,
        on_step=on_step,
        out=out,
        checkpoints=checkpoints,
    )
    return result, heard


def weights(folder: Path) -> dict[str, Tensor]:
    return load_policy(folder)[0].state_dict()


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("precision", [FP32, BF16])
def test_before_the_first_step_the_ratio_is_one_and_the_kl_zero(
    folders: tuple[Path, Path], tmp_path: Path, lora: LoraConfig | None, precision: Precision
):
    config = SMALL.model_copy(update={"iterations": 1, "lora": lora, "epochs": 1, "minibatch_size": 8})
    result, _ = run(folders, tmp_path / "out", config, precision=precision)
    for name in ("kl", "first_ratio_deviation", "clip_fraction", "approx_kl"):
        assert result.metrics[name] == 0.0, name
    assert result.metrics["sampler_gap"] < (1e-4 if precision is FP32 else 0.2)


def test_the_reward_is_the_score_while_the_policy_is_the_reference(folders: tuple[Path, Path]):
    config = SMALL.model_copy(update={"missing_eos_penalty": 0.0, "score_clip": 100.0})
    actors = actors_of(folders)
    rollout, _ = collect(
        actors, PROMPTS["prompt"].to_list() * 2,
        config.model_copy(update={"batch_size": 10, "minibatch_size": 5}),
        precision=FP32, seed=0, iteration=0,
    )  # fmt: skip
    experience = learn_from(rollout, config, kl_coef=config.kl_coef)
    torch.testing.assert_close(experience.rewards_BT.sum(1), rollout.scores_B, rtol=0, atol=1e-6)
    # The reward model read exactly the sampled ids after exactly the encoded prompt.
    for row in range(10):
        prompt = encode_prompt(actors.tokenizer, PROMPTS["prompt"].to_list()[row % 5])
        expected = actors.reward_model.normalised_scores([prompt + rollout.responses[row]])
        torch.testing.assert_close(rollout.scores_B[row], expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("lora", [None, LORA])
def test_gradients_do_not_depend_on_the_micro_batches(folders: tuple[Path, Path], lora: LoraConfig | None):
    actors = actors_of(folders, lora)
    config = SMALL.model_copy(update={"lora": lora, "minibatch_size": 8})
    prompts = PROMPTS["prompt"].to_list()
    rollout, _ = collect(actors, [*prompts, *prompts[:3]], config, precision=FP32, seed=0, iteration=0)
    assert len({len(ids) for ids in rollout.responses}) > 1
    experience = learn_from(rollout, config, kl_coef=config.kl_coef)
    num_tokens = int(rollout.mask_BT.sum())

    def gradients(size: int) -> list[Tensor]:
        tally = Tally(torch.device("cpu"))
        for start in range(0, 8, size):
            rows = list(range(start, start + size))
            accumulate_gradients(
                actors,
                experience,
                rows,
                config,
                kl_coef=0.1,
                precision=FP32,
                num_tokens=num_tokens,
                tally=tally,
            )
        found = []
        for part in (actors.policy, actors.critic):
            for parameter in part.parameters():
                if parameter.grad is not None:
                    found.append(parameter.grad.clone())
                    parameter.grad = None
        return found

    whole = gradients(8)
    assert len(whole) > 4
    for size in (4, 1):
        torch.testing.assert_close(gradients(size), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lora", [None, LORA])
def test_an_update_makes_good_tokens_likelier_and_the_critic_more_right(
    folders: tuple[Path, Path], lora: LoraConfig | None
):
    actors = actors_of(folders, lora)
    config = SMALL.model_copy(update={"lora": lora, "warmup_iterations": 0, "target_kl": None})
    trained = {
        "policy": Trained.by_adamw(actors.policy, 1e-3),
        "critic": Trained.by_adamw(actors.critic, 1e-3),
    }
    prompts = PROMPTS["prompt"].to_list()
    rollout, plan = collect(actors, [*prompts, *prompts[:3]], config, precision=FP32, seed=0, iteration=0)
    experience = learn_from(rollout, config, kl_coef=config.kl_coef)
    mask = rollout.mask_BT
    ppo.update(actors, trained, experience, plan, config, kl_coef=0.1, precision=FP32, iteration=0)
    batch = micro_batch(rollout.prompts, rollout.responses, list(range(8)), actors)
    with torch.no_grad():
        logprobs = score_tokens(actors.policy, batch, temperature=1.0, pad_id=0)
        values = actors.critic(batch)
    assert (experience.advantages_BT * (logprobs - rollout.old_logprobs_BT))[mask].mean() > 1e-3
    before, after = (
        (guess - experience.returns_BT)[mask].square().mean() for guess in (rollout.values_BT, values)
    )
    assert after < before * 0.98


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LORA])
def test_a_stopped_run_goes_on_to_the_same_bits(
    folders: tuple[Path, Path], tmp_path: Path, lora: LoraConfig | None
):
    config = SMALL.model_copy(update={"lora": lora})
    whole, curve = run(folders, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        run(folders, tmp_path / "halves", config, checkpoints=tmp_path / "state", stop_after=1)
    (tmp_path / "state" / "partial-2").mkdir()  # as a kill in the midst of writing leaves it
    resumed, rest = run(folders, tmp_path / "halves", config, checkpoints=tmp_path / "state")
    assert rest == curve  # told again from the start, so that no listener misses a step or hears one twice
    assert resumed.rollouts.equals(whole.rollouts)
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path / "halves").items())
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["iteration-000003"]
    # A finished run has nothing left to do, and still knows its last metrics.
    again, told = run(folders, tmp_path / "again", config, checkpoints=tmp_path / "state")
    assert (told, again.metrics) == (curve, whole.metrics)


def test_an_adapted_coefficient_survives_a_restart(folders: tuple[Path, Path], tmp_path: Path):
    config = SMALL.model_copy(update={"kl": KLConfig(target=5.0, horizon=16), "epochs": 1})
    _, curve = run(folders, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        run(folders, tmp_path / "out", config, checkpoints=tmp_path / "state", stop_after=2)
    _, again = run(folders, tmp_path / "out", config, checkpoints=tmp_path / "state")
    assert again == curve
    assert len({step.metrics["kl_coef"] for step in again}) == 3


def test_a_checkpoint_of_other_settings_is_refused(folders: tuple[Path, Path], tmp_path: Path):
    run(folders, tmp_path / "out", SMALL.model_copy(update={"iterations": 1}), checkpoints=tmp_path / "state")
    with pytest.raises(ConfigError, match="was written with the settings"):
        run(folders, tmp_path / "out", checkpoints=tmp_path / "state")


@pytest.mark.parametrize("lora", [None, LORA])
def test_training_moves_the_policy_and_never_the_reference(
    folders: tuple[Path, Path], tmp_path: Path, lora: LoraConfig | None, monkeypatch: pytest.MonkeyPatch
):
    kept: list[Actors] = []

    def load(*arguments: object, **options: object) -> Actors:
        kept.append(load_actors(*folders, lora=lora, seed=0, device="cpu"))
        return kept[0]

    monkeypatch.setattr(ppo, "load_actors", load)
    result, _ = run(folders, tmp_path / "out", SMALL.model_copy(update={"lora": lora, "target_kl": None}))
    assert result.metrics["kl"] != 0.0
    begun, trained = weights(folders[0]), weights(tmp_path / "out")
    assert begun.keys() == trained.keys()  # merged: a plain model, whatever it was trained as
    assert any(not torch.equal(begun[name], trained[name]) for name in begun)
    if lora is None:
        reference = copy.deepcopy(kept[0].frozen_reference)
        assert reference is not None
        prompts, responses = [[2, 9]], [[20, 21, 22]]
        before, after = (
            response_logprobs(model, prompts, responses, temperature=1.0, pad_id=0, batch_size=1)[0]
            for model in (load_policy(folders[0])[0], reference)
        )
        assert torch.equal(before, after)


def test_the_rollouts_table_has_every_response(folders: tuple[Path, Path], tmp_path: Path):
    result, curve = run(folders, tmp_path / "out")
    table = result.rollouts
    assert dict(table.schema) == {
        "iteration": pl.Int64,
        "prompt_id": pl.String,
        "prompt": PROMPTS.schema["prompt"],
        "response": pl.String,
        "score": pl.Float64,
        "kl": pl.Float64,
        "finished": pl.Boolean,
    }
    assert table["iteration"].to_list() == [0] * 8 + [1] * 8 + [2] * 8
    for iteration, step in enumerate(curve):
        rows = table.filter(pl.col("iteration") == iteration)
        assert step.metrics["score"] == pytest.approx(rows["score"].mean(), abs=1e-5)
        assert step.metrics["kl"] == pytest.approx(rows["kl"].mean(), abs=1e-5)
        assert step.metrics["eos_rate"] == pytest.approx(rows["finished"].mean(), abs=1e-6)


def test_updates_stop_once_the_target_kl_is_passed(folders: tuple[Path, Path], tmp_path: Path):
    config = SMALL.model_copy(update={"iterations": 1, "warmup_iterations": 0, "target_kl": 1e-9})
    result, _ = run(folders, tmp_path / "out", config)
    assert result.metrics["optimizer_steps"] == 1.0
    unlimited, _ = run(folders, tmp_path / "out", config.model_copy(update={"target_kl": None}))
    assert unlimited.metrics["optimizer_steps"] == 4.0


def test_the_gradient_that_reaches_the_optimizer_is_clipped_and_the_rate_scaled():
    layer = torch.nn.Linear(2, 1, bias=False)
    part = Trained(layer, torch.optim.AdamW(layer.parameters(), lr=1.0), 0.01)
    layer.weight.grad = torch.tensor([[3e4, 4e4]])
    seen: list[Tensor] = []
    part.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in layer.parameters()))
    assert part.step(scale=0.5, max_grad_norm=1.0) == pytest.approx(5e4)
    torch.testing.assert_close(seen[0], torch.tensor([[0.6, 0.8]]), rtol=0, atol=1e-4)
    part.forget_gradient()
    assert layer.weight.grad is None
    assert part.optimizer.param_groups[0]["lr"] == 0.005


def test_an_empty_table_of_prompts_is_refused(folders: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(DataRejected, match="at least one prompt"):
        ppo.fit(
            *folders, PROMPTS.head(0), SMALL, seed=0, precision=FP32, on_step=lambda step: None, out=tmp_path
        )


def test_entropy_is_that_of_the_vocabulary_without_the_pad_id(folders: tuple[Path, Path], tmp_path: Path):
    result, _ = run(folders, tmp_path / "out", SMALL.model_copy(update={"iterations": 1, "temperature": 1e6}))
    # One id is never drawn; at this temperature all others are equally likely.
    vocabulary = load_policy(folders[0])[0].config.vocab_size
    assert result.metrics["entropy"] == pytest.approx(math.log(vocabulary - 1), abs=1e-3)
