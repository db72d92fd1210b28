"""A folder that other programs load: adapters merged in fp32, safetensors, tokenizer, and nothing that runs code."""

import json
import shutil
from pathlib import Path

import peft
from safetensors import SafetensorError

from rlhf.models.loading import load_policy, load_tokenizer, load_weights, merge, save_model
from schemas.errors import ModelNotUsable

_ADAPTER, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def export_policy(folder: Path, out: Path, *, base: Path | None = None) -> None:
    """Write a policy to `out` (which must not exist) and load it once, so that what is handed out is known to work.

    A folder of adapters needs `base`, the model that they were trained on, unless its own configuration names a
    folder that exists.
    """
    if (folder / _ADAPTER).is_file():
        _merge(folder, out, base)
    else:
        shutil.copytree(folder, out)
    load_policy(out)


def _merge(folder: Path, out: Path, base: Path | None) -> None:
    if not (folder / _ADAPTER_WEIGHTS).is_file():
        raise ModelNotUsable(
            f"{folder} has no {_ADAPTER_WEIGHTS}; wanted adapters in that format (pickles can run code). "
            "Save them again with `save_pretrained`."
        )
    named = Path(
        json.loads((folder / _ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
    )
    source = base or named
    if not (source / "config.json").is_file():
        raise ModelNotUsable(
            f"{folder} holds adapters for {str(named) or 'a model that it does not name'}, which is no folder here; "
            "name the folder of their base with --base."
        )
    try:
        adapted = peft.PeftModel.from_pretrained(load_weights(source, "cpu"), str(folder))
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelNotUsable(
            f"The adapters in {folder} do not fit {source}: {first}. Name their base."
        ) from error
    own = folder if (folder / "tokenizer.json").is_file() else source
    save_model(merge(adapted), load_tokenizer(own), out)
