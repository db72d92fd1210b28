"""What the recipes for real models are estimated to need, on machines that are not at hand.

    PYTHONPATH=. python benchmarks/real_models.py

Writes the public shapes as config.json and pairs as long as UltraFeedback's (800 characters of prompt,
1,400 of response), and asks `rlhf estimate` about each recipe with the speeds that its machine is assumed to
reach: 40 % of the data sheet's bf16 operations and 60 % of its memory bandwidth. Nothing is trained.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import GPTNeoXConfig, LlamaConfig, Qwen2Config

SHAPES: dict[str, Any] = {
    "qwen2.5-0.5b": Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, vocab_size=151_936, tie_word_embeddings=True,
    ),
    "llama-3-8b": LlamaConfig(
        hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128_256,
    ),
    "instructgpt": GPTNeoXConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=16,
        vocab_size=50_304,
    ),
}  # fmt: skip
SHAPES["llama-3-8b-multi"] = SHAPES["llama-3-8b"]
MACHINES = {"RTX 4090": (0.4 * 165e12, 0.6 * 1.0e12), "H100": (0.4 * 989e12, 0.6 * 3.35e12)}
"""Operations and bytes per second."""
ON = {"qwen2.5-0.5b": "RTX 4090", "llama-3-8b": "H100", "llama-3-8b-multi": "H100", "instructgpt": "H100"}
PROMPT, RESPONSE = "what " * 160, "word " * 280


def estimate(recipe: str, folder: Path) -> dict[str, Any]:
    """Return what `rlhf estimate` prints as JSON."""
    base = folder / recipe
    SHAPES[recipe].save_pretrained(base)
    for name in ("preferences/pairs.jsonl", "demonstrations/answers.jsonl", "prompts/asked.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
    pairs = json.dumps({"prompt": PROMPT, "chosen": RESPONSE, "rejected": RESPONSE})
    (folder / "preferences/pairs.jsonl").write_text(pairs)
    (folder / "demonstrations/answers.jsonl").write_text(json.dumps({"prompt": PROMPT, "response": RESPONSE}))
    (folder / "prompts/asked.jsonl").write_text(json.dumps({"prompt": PROMPT}))
    overrides = [
        f"base.source={base}",
        "base.revision=null",
        f"data.folder={folder}",
        "compute.precision=bf16",
    ]
    if recipe != "instructgpt":
        overrides += [
            "data.preferences=[preferences/pairs.jsonl]",
            "data.evaluation=[prompts/asked.jsonl]",
        ]
    flops, bandwidth = MACHINES[ON[recipe]]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "estimate", recipe, *overrides,
         "--flops", f"{flops:g}", "--bandwidth", f"{bandwidth:g}", "--json"],
        env={**os.environ, "RLHF_HOME": str(folder / "home")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print a row per recipe: hours and gigabytes, of the whole and of its largest stages."""
    print("| recipe | card | hours | of which | most memory, GB |")
    print("|---|---|---|---|---|")
    for recipe in ON:
        with tempfile.TemporaryDirectory() as folder:
            found = estimate(recipe, Path(folder))
        hours = {stage["name"]: (stage["seconds"] or 0.0) / 3600 for stage in found["stages"]}
        largest = sorted(hours, key=lambda name: -hours[name])[:4]
        told = ", ".join(f"{name} {hours[name]:.1f}" for name in largest)
        whole, most = found["seconds"] / 3600, found["bytes"] / 1e9
        print(f"| `{recipe}` | {ON[recipe]} | {whole:.1f} | {told} | {most:.0f} |")


if __name__ == "__main__":
    main()
