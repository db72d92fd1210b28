"""Several LoRA adapters on one trunk, on disk: the trunk once, and each adapter in PEFT's own layout."""

from collections.abc import Sequence
from pathlib import Path

import peft
from safetensors.torch import save_file
from transformers import PreTrainedModel

from schemas.errors import ModelNotUsable

TRUNK, ADAPTERS = "trunk", "adapters"
_WEIGHTS = "adapter_model.safetensors"


def adapter_name(member: int) -> str:
    """Return what PEFT is to call a member; a bare number is also the name of a layer, and PEFT takes it out of both."""
    return f"member{member}"


def saved_adapters(folder: Path) -> list[Path]:
    """Return the folders of a saved ensemble's adapters in their order; none: it is another kind of model."""
    return [
        folder / ADAPTERS / adapter_name(member)
        for member in range(len(list((folder / ADAPTERS).glob("*/"))))
    ]


def save_adapters(adapted: peft.PeftModel, folder: Path) -> None:
    """Write the trunk as it was without adapters, and each adapter with its head under its name."""
    model: PreTrainedModel = adapted.base_model.model  # type: ignore[assignment]  # nn.Module in the stubs
    trunk = {
        name.replace(".base_layer", "").replace(".original_module", ""): tensor
        for name, tensor in model.state_dict().items()
        if "lora_" not in name and "modules_to_save" not in name
    }
    model.save_pretrained(folder / TRUNK, state_dict=trunk)
    for name, config in adapted.peft_config.items():
        place = folder / ADAPTERS / name
        place.mkdir(parents=True, exist_ok=True)
        weights = peft.get_peft_model_state_dict(adapted, adapter_name=name)
        save_file(
            {key: tensor.contiguous() for key, tensor in weights.items()},
            place / _WEIGHTS,
            metadata={"format": "pt"},
        )
        config.base_model_name_or_path = None  # it would name a folder of this machine
        config.save_pretrained(str(place))


def load_adapters(model: PreTrainedModel, folders: Sequence[Path]) -> peft.PeftModel:
    """Put saved adapters on a trunk, named like their folders; the first one is active."""
    for folder in folders:
        if not (folder / _WEIGHTS).is_file():
            raise ModelNotUsable(
                f"{folder} has no {_WEIGHTS}; wanted an adapter in that format (pickles can run code)."
            )
    first, *rest = folders
    adapted = peft.PeftModel.from_pretrained(model, str(first), adapter_name=first.name)
    for folder in rest:
        adapted.load_adapter(str(folder), adapter_name=folder.name)
    adapted.eval()
    return adapted
