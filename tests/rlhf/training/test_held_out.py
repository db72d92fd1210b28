"""Held-out preferences: what is measured, when the run ends, and which policy it returns.

The models are random, so which look is the best is chance, and the tests ask the curve.
"""

from pathlib import Path

import polars as pl
import pytest
import torch

from rlhf.data.chat import decode_response, encode_prompt, encode_response, stop_ids
from rlhf.models.batches import collate, score_tokens
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import response_logprobs, sample
from rlhf.training import ppo
from rlhf.training.actors import Actors, load_actors
from rlhf.training.held_out import HeldOut
from rlhf.training.step import StepMetrics
from rlhf.training.trained import Trained
from schemas.config import AlarmConfig, GuardConfig, LoraConfig, PPOConfig

FP32 = Precision(threads=1, dtype="fp32")
LORA = LoraConfig(rank=2, alpha=4.0)
PROMPTS = pl.DataFrame(
    {
        "prompt_id": [f"{row:016x}" for row in range(8)],
        "prompt": [[{"role": "user", "content": "hi " * (row + 1)}] for row in range(8)],
    }
)
CONFIG = PPOConfig(
    iterations=6,
    batch_size=32,
    minibatch_size=16,
    max_new_tokens=6,
    learning_rate=3e-3,
    critic_learning_rate=1e-3,
    kl_coef=0.0,
    target_kl=None,
    warmup_iterations=0,
    missing_eos_penalty=0.0,
)


@pytest.fixture(scope="module")
def pairs(folders: tuple[Path, Path]) -> pl.DataFrame:
    """Responses of the SFT policy; the reward model's favourite of each two is chosen."""
    policy, tokenizer = load_policy(folders[0])
    reward = RewardModel.load(folders[1])
    rows = []
    for row, prompt in PROMPTS.iter_rows():
        ids = encode_prompt(tokenizer, prompt)
        with torch.no_grad():
            drawn = sample(
                policy, [ids] * 12, max_new_tokens=6, temperature=1.0, stop=stop_ids(policy, tokenizer),
                pad_id=0, batch_size=12, generator=torch.Generator().manual_seed(int(row, 16)),
            )  # fmt: skip
        texts = [decode_response(tokenizer, completion.ids) for completion in drawn]
        scores = reward.raw_scores([ids + encode_response(tokenizer, text, finished=True) for text in texts])
        order = scores.argsort(descending=True).tolist()
        for better, worse in zip(order[:6], order[:5:-1], strict=True):
            if texts[better] != texts[worse]:
                rows.append(
                    {
                        "prompt_id": row, "prompt": prompt, "chosen": texts[better], "rejected": texts[worse],
                        "chosen_finished": True, "rejected_finished": True, "margin": None, "weight": 1.0,
                    }
                )  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"margin": pl.Float64})


def against(pairs: pl.DataFrame) -> pl.DataFrame:
    """The same pairs as people would rank them who dislike what the reward model likes."""
    return pairs.rename({"chosen": "rejected", "rejected": "chosen"})


def fit(
    folders: tuple[Path, Path], out: Path, config: PPOConfig, preferences: pl.DataFrame | None, **more: Path
) -> tuple[ppo.PPOFit, list[StepMetrics]]:
    heard: list[StepMetrics] = []
    fitted = ppo.fit(
        *folders, PROMPTS, config, seed=0, precision=FP32, on_step=heard.append, out=out,
        preferences=preferences, **more,
    )  # fmt: skip
    return fitted, heard


def same_weights(left: Path, right: Path) -> bool:
    states = [load_policy(folder)[0].state_dict() for folder in (left, right)]
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def watched(
    folders: tuple[Path, Path], pairs: pl.DataFrame, lora: LoraConfig | None = None
) -> tuple[Actors, Trained, HeldOut]:
    actors = load_actors(*folders, lora=lora, seed=0, device="cpu")
    return actors, Trained.by_adamw(actors.policy, 1e-3), HeldOut(actors, pairs, CONFIG, FP32)


@pytest.mark.parametrize("lora", [None, LORA])
def test_before_the_first_step_the_policy_has_no_opinion(
    folders: tuple[Path, Path], pairs: pl.DataFrame, lora: LoraConfig | None
):
    _, policy, held_out = watched(folders, pairs, lora)
    metrics, best = held_out.evaluate(policy, held_out.start(policy), 1)
    assert metrics == {"agreement": 0.5, "agreement_fall": 0.0, "best_iteration": 0.0}
    assert best.agreement_N.tolist() == [0.5] * pairs["prompt_id"].n_unique()


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_agreement_is_the_policys_own_choice_within_each_pair(
    folders: tuple[Path, Path], pairs: pl.DataFrame, lora: LoraConfig | None
):
    actors, policy, held_out = watched(folders, pairs, lora)
    begun = held_out.start(policy)
    with torch.no_grad():
        for parameter in policy.weights().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    metrics, best = held_out.evaluate(policy, begun, 4)

    def ratio(prompt: list[int], text: str) -> float:
        response = encode_response(actors.tokenizer, text, finished=True)
        with torch.no_grad(), actors.reference() as reference:
            theirs = response_logprobs(
                reference, [prompt], [response], temperature=1.0, pad_id=0, batch_size=1
            )
        with torch.no_grad():
            ours = response_logprobs(
                actors.policy, [prompt], [response], temperature=1.0, pad_id=0, batch_size=1
            )
        return float(torch.exp(ours[0].sum() - theirs[0].sum()))

    by_prompt: dict[str, list[float]] = {}
    for row in pairs.iter_rows(named=True):
        prompt = encode_prompt(actors.tokenizer, row["prompt"])
        chosen, rejected = ratio(prompt, row["chosen"]), ratio(prompt, row["rejected"])
        by_prompt.setdefault(row["prompt_id"], []).append(chosen / (chosen + rejected))
    means = [sum(values) / len(values) for values in by_prompt.values()]
    assert metrics["agreement"] == pytest.approx(sum(means) / len(means), abs=1e-5)
    assert metrics["agreement"] != pytest.approx(0.5, abs=1e-4)
    # Kept are the weights of the better of the two, and not the parameters that go on changing.
    assert (best.weights is begun.weights) == (metrics["agreement"] < 0.5) == (best.iteration == 0)
    assert all(
        tensor.data_ptr() != policy.weights()[name].data_ptr() for name, tensor in best.weights.items()
    )


def test_a_policy_that_learns_the_chosen_responses_agrees_and_one_that_learns_the_rejected_does_not(
    folders: tuple[Path, Path], pairs: pl.DataFrame
):
    for side, agrees in (("chosen", True), ("rejected", False)):
        actors, policy, held_out = watched(folders, pairs)
        best = begun = held_out.start(policy)
        prompts = [encode_prompt(actors.tokenizer, prompt) for prompt in pairs["prompt"].to_list()]
        responses = [encode_response(actors.tokenizer, text, finished=True) for text in pairs[side].to_list()]
        batch = collate(prompts, responses, pad_id=0, device=torch.device("cpu"))
        for _ in range(5):
            policy.forget_gradient()
            loss = -score_tokens(actors.policy, batch, temperature=1.0, pad_id=0)[batch.mask_BT].mean()
            loss.backward()
            policy.step(scale=1.0, max_grad_norm=1.0)
        metrics, best = held_out.evaluate(policy, begun, 5)
        if agrees:
            assert metrics["agreement"] > 0.52
            assert (metrics["agreement_fall"], metrics["best_iteration"]) == (0.0, 5.0)
        else:
            assert metrics["agreement"] < 0.48
            assert metrics["agreement_fall"] > 0
            assert best.weights is begun.weights


def looked_at(step: StepMetrics) -> float:
    return step.metrics["agreement"]


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_fall_past_the_limit_stops_the_run_which_returns_the_policy_of_the_best_look(
    folders: tuple[Path, Path], pairs: pl.DataFrame, tmp_path: Path, lora: LoraConfig | None
):
    every = GuardConfig(agreement_falls=AlarmConfig(limit=1.0, action="warn"), evaluate_every=1)
    config = CONFIG.model_copy(update={"guard": every, "lora": lora, "iterations": 10})
    _, whole = fit(folders, tmp_path / "whole", config, against(pairs))
    end = next(step.step for step in whole if step.metrics["agreement_fall"] > 1)
    best = max(whole[:end], key=looked_at).step
    assert 1 < end < len(whole), "the test shows something only if the run would have gone on"
    assert best < end

    stop = every.model_copy(update={"agreement_falls": AlarmConfig(limit=1.0, action="stop")})
    fitted, curve = fit(folders, tmp_path / "out", config.model_copy(update={"guard": stop}), against(pairs))
    assert [step.metrics["agreement"] for step in curve] == [looked_at(step) for step in whole[:end]]
    assert fitted.metrics["returned_iteration"] == best
    last = config.model_copy(update={"guard": every.model_copy(update={"keep": "last"}), "iterations": best})
    fitted, _ = fit(folders, tmp_path / "short", last, against(pairs))
    assert fitted.metrics["returned_iteration"] == best
    assert same_weights(tmp_path / "out", tmp_path / "short")
    fitted, _ = fit(folders, tmp_path / "last", last.model_copy(update={"iterations": end}), against(pairs))
    assert fitted.metrics["returned_iteration"] == end
    assert not same_weights(tmp_path / "out", tmp_path / "last")


def test_a_rise_is_told_from_the_second_look_on_and_too_small_a_one_stops_the_run(
    folders: tuple[Path, Path], pairs: pl.DataFrame, tmp_path: Path
):
    stalls = GuardConfig(agreement_stalls=AlarmConfig(limit=0.0), agreement_falls=None, evaluate_every=1)
    config = CONFIG.model_copy(update={"guard": stalls, "iterations": 8})
    _, whole = fit(folders, tmp_path / "whole", config, against(pairs))
    assert "agreement_rise" not in whole[0].metrics
    for earlier, now in zip(whole, whole[2:], strict=False):
        assert (now.metrics["agreement_rise"] > 0) == (looked_at(now) > looked_at(earlier))
    end = next(step.step for step in whole if step.metrics.get("agreement_rise", 0.0) < 0)
    assert end < len(whole), "the test shows something only if the run would have gone on"
    stop = stalls.model_copy(update={"agreement_stalls": AlarmConfig(limit=0.0, action="stop")})
    _, curve = fit(folders, tmp_path / "out", config.model_copy(update={"guard": stop}), against(pairs))
    assert [step.metrics["agreement"] for step in curve] == [looked_at(step) for step in whole[:end]]


def test_without_held_out_preferences_the_last_policy_is_returned_and_nothing_is_looked_at(
    folders: tuple[Path, Path], tmp_path: Path
):
    fitted, curve = fit(folders, tmp_path / "out", CONFIG.model_copy(update={"iterations": 2}), None)
    assert fitted.metrics["returned_iteration"] == 2
    assert not any("agreement" in step.metrics for step in curve)


def test_looks_are_taken_as_often_as_the_recipe_says_and_after_the_last_iteration(
    folders: tuple[Path, Path], pairs: pl.DataFrame, tmp_path: Path
):
    warn = GuardConfig(agreement_falls=None, evaluate_every=2)
    config = CONFIG.model_copy(update={"guard": warn, "iterations": 5})
    _, curve = fit(folders, tmp_path / "out", config, pairs)
    assert [step.step for step in curve if "agreement" in step.metrics] == [2, 4, 5]


def test_a_run_that_another_alarm_stops_is_looked_at_before_it_ends(
    folders: tuple[Path, Path], pairs: pl.DataFrame, tmp_path: Path
):
    stop = GuardConfig(entropy_below=AlarmConfig(limit=100.0, action="stop"), evaluate_every=5)
    config = CONFIG.model_copy(update={"guard": stop})
    found = []
    for number, table in enumerate((pairs, against(pairs))):
        fitted, curve = fit(folders, tmp_path / f"{number}", config, table)
        assert len(curve) == 1
        found.append((looked_at(curve[0]) > 0.5, fitted.metrics["returned_iteration"]))
    assert sorted(found) == [(False, 0.0), (True, 1.0)]


def test_a_run_that_never_agrees_better_than_it_began_returns_the_sft_policy(
    folders: tuple[Path, Path], pairs: pl.DataFrame, tmp_path: Path
):
    _, curve = fit(folders, tmp_path / "one", CONFIG.model_copy(update={"iterations": 1}), pairs)
    worse = pairs if looked_at(curve[-1]) < 0.5 else against(pairs)
    fitted, _ = fit(folders, tmp_path / "out", CONFIG.model_copy(update={"iterations": 1}), worse)
    assert fitted.metrics["returned_iteration"] == 0
    assert same_weights(tmp_path / "out", folders[0])


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LORA])
def test_a_stopped_run_goes_on_with_the_best_policy_that_it_had(
    folders: tuple[Path, Path], pairs: pl.DataFrame, tmp_path: Path, lora: LoraConfig | None
):
    every = GuardConfig(agreement_falls=None, evaluate_every=1)
    config = CONFIG.model_copy(update={"guard": every, "lora": lora})
    whole, curve = fit(folders, tmp_path / "whole", config, against(pairs))
    best = int(whole.metrics["returned_iteration"])
    assert 0 < best < 6

    class Killed(Exception):
        pass

    def kill(step: StepMetrics) -> None:
        if step.step == best + 1:  # the checkpoint of the best look is the last one that was written
            raise Killed

    state = tmp_path / "state"
    with pytest.raises(Killed):
        ppo.fit(*folders, PROMPTS, config, seed=0, precision=FP32, on_step=kill, out=tmp_path / "out",
                preferences=against(pairs), checkpoints=state)  # fmt: skip
    resumed, rest = fit(folders, tmp_path / "out", config, against(pairs), checkpoints=state)
    assert (resumed.metrics, rest) == (whole.metrics, curve)
    assert same_weights(tmp_path / "out", tmp_path / "whole")
    again, _ = fit(folders, tmp_path / "again", config, against(pairs), checkpoints=state)
    assert again.metrics == whole.metrics
    assert same_weights(tmp_path / "again", tmp_path / "whole")
