"""Memory of PPO's four models: four copies, adapters, and adapters on one base.

    python benchmarks/one_base.py [--hidden 512] [--layers 8]

Each configuration runs one iteration of PPO in a process of its own, on random weights. One JSON line each:
megabytes of all parameters (a tensor that several models have counts once), and the peak of the process above
what it held before. Linux only: it resets the kernel's own mark of the peak.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "four copies": {},
    "adapters": {"lora": {"rank": 8}},
    "adapters, values on the policy's trunk": {"lora": {"rank": 8}, "shared_trunk": True},
    "one base: the reward model's adapters, too": {"lora": {"rank": 8}, "shared_trunk": True},
}
ONE_BASE = list(CONFIGURATIONS)[-1]


def main() -> None:
    """Run every configuration, or, as a worker, one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(_measure(arguments, Path(folder))))
        return
    for name in CONFIGURATIONS:
        command = [sys.executable, __file__, "--worker", name]
        command += ["--hidden", str(arguments.hidden), "--layers", str(arguments.layers)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout.strip().splitlines()[-1], flush=True)


def _measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import polars as pl

    from rlhf.models.precision import Precision
    from rlhf.models.sharing import distinct_bytes
    from rlhf.training import ppo
    from rlhf.training.actors import load_actors
    from schemas.config import PPOConfig

    name = arguments.worker
    sft, reward = _save_models(arguments, folder, adapters=name == ONE_BASE)
    config = PPOConfig.model_validate(
        {
            "iterations": 1, "batch_size": 8, "minibatch_size": 4, "epochs": 1, "max_new_tokens": 16,
            **CONFIGURATIONS[name],
        }
    )  # fmt: skip
    options = {"seed": 0, "device": "cpu", "lora": config.lora, "shared_trunk": config.shared_trunk}
    actors = load_actors(sft, reward, **options)
    models = [actors.policy, actors.frozen_reference, actors.critic, actors.reward_model.model]
    parameters = distinct_bytes(*(model for model in models if model is not None))
    del actors, models
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak()
    asked = [[{"role": "user", "content": "hi " * number}] for number in range(1, 9)]
    ppo.fit(
        sft, reward, pl.DataFrame({"prompt_id": list("abcdefgh"), "prompt": asked}), config, seed=0,
        precision=Precision(threads=1, dtype="fp32"), on_step=lambda _: None, out=folder / "out",
    )  # fmt: skip
    peak = _peak()
    return {
        "configuration": name,
        "hidden": arguments.hidden,
        "layers": arguments.layers,
        "parameters_mb": round(parameters / 2**20, 1),
        "peak_above_start_mb": round((peak - before) / 2**20, 1),
    }


def _save_models(arguments: argparse.Namespace, folder: Path, *, adapters: bool) -> tuple[Path, Path]:
    """Save a policy and a reward model: with weights of its own, or as two adapters on the policy's trunk."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.models.bpe import train_tokenizer
    from rlhf.models.loading import save_model
    from rlhf.models.reward import RewardModel
    from schemas.config import LoraConfig, ModelShape

    tokenizer = train_tokenizer(["hi there, how are you?", "hi hi hi"], ModelShape(vocab_size=320))
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=320, hidden_size=arguments.hidden, intermediate_size=3 * arguments.hidden,
        num_hidden_layers=arguments.layers, num_attention_heads=8, max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        tie_word_embeddings=True,
    )  # fmt: skip
    save_model(LlamaForCausalLM(shape), tokenizer, folder / "sft")
    reward = RewardModel.from_policy(folder / "sft", seed=0)
    if adapters:
        for _ in range(2):
            reward.add_adapter(LoraConfig(rank=8))
        reward.set_normalisation(mean=[0.0, 0.0], std=[1.0, 1.0])
    else:
        with torch.no_grad():
            for weight in reward.model.parameters():
                weight.add_(0.01 * torch.randn_like(weight))
        reward.set_normalisation(mean=0.0, std=1.0)
    reward.save(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")
    return folder / "sft", folder / "reward"


def _peak() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


if __name__ == "__main__":
    main()
