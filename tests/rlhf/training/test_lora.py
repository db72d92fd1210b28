"""One switch of the recipe, `lora`, decides what a stage trains; what it leaves is a plain model either way."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rlhf.models.loading import load_policy, load_tokenizer
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from rlhf.training import cpo, dpo, kto, orpo, pairwise, ppo, reward, sft, simpo
from schemas.config import (
    CPOConfig,
    DPOConfig,
    GRPOConfig,
    KTOConfig,
    LoraConfig,
    OnlineSection,
    ORPOConfig,
    PPOConfig,
    RewardConfig,
    RLOOConfig,
    SFTConfig,
    SimPOConfig,
)

IDS = [[9, 8, 7, 6, 30, 31], [5, 4, 40, 41, 42, 43]]
LORA = LoraConfig(rank=2, alpha=8.0)
PAIRWISE = {"orpo": (orpo, ORPOConfig), "cpo": (cpo, CPOConfig), "simpo": (simpo, SimPOConfig)}
MODULES = {
    "sft": sft, "reward": reward, "ppo": ppo, "rloo": ppo, "grpo": ppo, "dpo": dpo, "kto": kto,
    **dict.fromkeys(PAIRWISE, pairwise),
}  # fmt: skip
"""Where each stage folds its adapters in."""
Fit = Callable[[Path, LoraConfig | None], None]


def _ignore(step: object) -> None:
    pass


@pytest.fixture
def fits(
    tiny_policy: Path,
    demonstrations: pl.DataFrame,
    preferences: pl.DataFrame,
    candidates: pl.DataFrame,
    fp32: Precision,
    tmp_path: Path,
) -> dict[str, Fit]:
    """The stages that train a policy or a reward model, each from `tiny_policy` to a folder."""
    common = {"seed": 0, "precision": fp32, "on_step": _ignore}
    examples = {"steps": 3, "batch_size": 4, "max_length": 64, "learning_rate": 1e-2}

    def fit_online(section: type[OnlineSection], out: Path, lora: LoraConfig | None) -> None:
        judge = RewardModel.from_policy(tiny_policy, seed=0)
        judge.set_normalisation(mean=0.0, std=1.0)
        judge.save(tmp_path / "judge")
        load_tokenizer(tiny_policy).save_pretrained(tmp_path / "judge")
        config = section(
            iterations=1, batch_size=4, minibatch_size=4, epochs=1, warmup_iterations=0, max_new_tokens=6,
            learning_rate=1e-2, lora=lora, **({} if section is PPOConfig else {"group_size": 2}),
        )  # fmt: skip
        prompts = preferences.select("prompt_id", "prompt")
        ppo.fit(tiny_policy, tmp_path / "judge", prompts, config, out=out, **common)

    return {
        "sft": lambda out, lora: sft.fit(
            tiny_policy, demonstrations, SFTConfig(**examples, lora=lora), out=out, **common
        ),
        "reward": lambda out, lora: reward.fit(
            tiny_policy,
            preferences,
            None,
            candidates,
            RewardConfig(**examples, lora=lora),
            rater_weights={},
            out=out,
            **common,
        ),
        "ppo": partial(fit_online, PPOConfig),
        "rloo": partial(fit_online, RLOOConfig),
        "grpo": partial(fit_online, GRPOConfig),
        "kto": lambda out, lora: kto.fit(
            tiny_policy, preferences, None, KTOConfig(**examples, lora=lora), out=out, **common
        ),
        **{
            name: lambda out, lora, fit=module.fit, section=section: fit(
                tiny_policy, preferences, section(**examples, lora=lora), out=out, **common
            )
            for name, (module, section) in PAIRWISE.items()
        },
        "dpo": lambda out, lora: dpo.fit(
            tiny_policy, preferences, DPOConfig(**examples, lora=lora), out=out, **common
        ),
    }


def _remember_what_was_trained(monkeypatch: pytest.MonkeyPatch, stage: object) -> list[Tensor]:
    """Note the outputs of the model that a stage trained, adapters and all, just before they are merged."""
    outputs: list[Tensor] = []
    merge = stage.merge

    def remember(model, **options):
        with torch.no_grad():
            outputs.append(model.eval()(torch.tensor(IDS)).logits.clone())
        return merge(model, **options)

    monkeypatch.setattr(stage, "merge", remember)
    return outputs


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", MODULES)
def test_what_was_trained_is_what_is_loaded_and_it_is_a_plain_model(
    fits, tiny_policy, tmp_path, monkeypatch, name, lora
):
    outputs = _remember_what_was_trained(monkeypatch, MODULES[name])
    out = tmp_path / "out"
    fits[name](out, lora)

    if name == "reward":
        found = RewardModel.load(out).raw_scores(IDS)[:, None]
        # The head is new: adapters or not, it has to learn.
        begun_head = RewardModel.from_policy(tiny_policy, seed=0).head.weight
        assert (RewardModel.load(out).head.weight - begun_head).abs().min() > 1e-3
    else:
        with torch.no_grad():
            found = load_policy(out)[0](torch.tensor(IDS)).logits
    torch.testing.assert_close(found, outputs[0], rtol=0, atol=1e-4 if lora else 1e-5)

    begun, saved = (load_file(folder / "model.safetensors") for folder in (tiny_policy, out))
    assert saved.keys() == begun.keys() | ({"score.weight"} if name == "reward" else set())
    assert not list(out.glob("adapter*"))
    assert "peft" not in json.dumps(json.loads((out / "config.json").read_text()))

    changed = {key for key in begun if not torch.equal(begun[key], saved[key])}
    linear = {key for key in begun if key.endswith("_proj.weight")}
    # Adapters sit on the linear layers and leave all else alone; without them nothing is left alone.
    assert changed == (linear if lora else begun.keys())
