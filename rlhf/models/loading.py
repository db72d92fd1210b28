"""Policies on disk: load, check, save, import, and low-rank adapters."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import peft
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rlhf.models.precision import attention_implementation
from schemas.config.models import BaseModelConfig, LoraConfig
from schemas.errors import ConfigError, ModelNotUsable, NotFound, StoreUnreachable

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The built-in template for tokenizers that have none."""

BEST_OF_N = "best_of_n.json"
"""In the folder of a policy that has no weights of its own (see `rlhf.models.best_of_n`)."""

_TOKENIZER_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
_MODEL_FILES = ["*.safetensors", *_TOKENIZER_FILES]
"""Weights in safetensors, configuration and tokenizer: nothing that could run code."""


def load_policy(
    path: str | Path, *, device: str = "cpu", four_bit: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a policy and its tokenizer from a folder: fp32 weights, evaluation mode, ready for chat.

    With `four_bit` its linear layers are in 4 bits and frozen, to be trained by adapters; raises ConfigError without a GPU.
    """
    folder = Path(path)
    if (folder / BEST_OF_N).is_file():
        raise ModelNotUsable(
            f"{folder} is a best-of-n policy, which has no weights of its own; wanted one model. Take the folder policy/ in "
            "it, and let `rlhf serve` choose with `best_of` in its guard and --reward naming the folder reward/."
        )
    tokenizer = load_tokenizer(folder)
    _check_tokenizer(tokenizer, str(folder))
    model = load_weights(folder, device, **(four_bit_options(device) if four_bit else {}))
    rows = model.get_input_embeddings().get_parameter("weight").shape[0]
    if len(tokenizer) > rows:
        raise ModelNotUsable(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {rows} embeddings; "
            "wanted a tokenizer that belongs to the model. Export both from the same checkpoint."
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a folder without running code from it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelNotUsable(f"{folder} has no tokenizer that can be loaded: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelNotUsable(
            f"{folder} has a {type(tokenizer).__name__}; wanted a fast one (tokenizer.json). Convert it."
        )
    return tokenizer


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer in the Hugging Face layout."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def import_base(
    config: BaseModelConfig, folder: Path | None, out: Path, *, tokenizer_folder: Path | None = None
) -> None:
    """Check an existing base model, complete its tokenizer as configured, and save it in fp32.

    `folder` holds the files of a local or s3:// source; None means that `config.source` is a hub id. So it is with
    `tokenizer_folder` and `config.tokenizer`, if the recipe names one.
    """
    source = folder or _download("base.source", config.source, config.revision, _MODEL_FILES)
    if config.tokenizer is None:
        tokenizer_name, tokenizer_source = config.source, source
    else:
        tokenizer_name = config.tokenizer
        tokenizer_source = tokenizer_folder or _download(
            "base.tokenizer", config.tokenizer, config.tokenizer_revision, _TOKENIZER_FILES
        )
    tokenizer = load_tokenizer(tokenizer_source)
    if config.chat_template is not None:
        tokenizer.chat_template = CHATML if config.chat_template == "chatml" else config.chat_template
    if config.pad_token is not None:
        if config.pad_token not in tokenizer.get_vocab():
            raise ModelNotUsable(
                f"base.pad_token={config.pad_token!r} is not in the vocabulary of {tokenizer_name}; "
                "name a token that the tokenizer has and never uses in text."
            )
        tokenizer.pad_token = config.pad_token
    _check_tokenizer(tokenizer, tokenizer_name)
    model = load_weights(source, "cpu")
    model.config.pad_token_id = tokenizer.pad_token_id
    save_model(model, tokenizer, out)
    load_policy(out)


def download_configuration(base: BaseModelConfig) -> Path:
    """Return a folder with the configuration of a base model from the hub, without its weights."""
    return _download("base.source", base.source, base.revision, ["config.json"])


def attach_lora(
    model: PreTrainedModel,
    config: LoraConfig,
    task: Literal["CAUSAL_LM", "SEQ_CLS"],
    *,
    name: str = "default",
) -> peft.PeftModel:
    """Freeze the model and add low-rank adapters to it (Hu et al. 2021); a scalar head stays trainable."""
    adapted = peft.get_peft_model(model, peft_config(config, task), adapter_name=name)
    assert isinstance(adapted, peft.PeftModel), "only mixed adapters give another kind"
    return adapted


def peft_config(config: LoraConfig, task: Literal["CAUSAL_LM", "SEQ_CLS"]) -> peft.LoraConfig:
    """Translate the section into peft's own configuration."""
    targets = config.target_modules
    return peft.LoraConfig(
        task_type=task,
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # it is divided by the rank: a float does as well
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias=config.bias,
    )


def merge(model: nn.Module, *, onto: Path | None = None) -> PreTrainedModel:
    """Fold adapters, if there are any, into the fp32 weights and return the plain model.

    `onto` is the folder of the same model in full precision, for adapters on one that was loaded in 4 bits.
    """
    if onto is not None:
        assert isinstance(model, peft.PeftModel), "weights of 4 bits are trained by adapters"
        adapters = peft.get_peft_model_state_dict(model)
        model = peft.get_peft_model(load_weights(onto, "cpu"), model.peft_config["default"])
        peft.set_peft_model_state_dict(model, {name: tensor.cpu() for name, tensor in adapters.items()})
    plain = model.merge_and_unload() if isinstance(model, peft.PeftModel) else model
    assert isinstance(plain, PreTrainedModel), "adapters are only ever put on such a model"
    return plain


def four_bit_options(device: str) -> dict[str, Any]:
    """Return the options that load the linear layers in 4 bits (NF4, Dettmers et al. 2023); raises ConfigError without a GPU."""
    if device == "cpu":
        raise ConfigError(
            "load_in_4bit=true needs a GPU, and this machine computes on its CPU; set load_in_4bit=false, or run where "
            "`rlhf doctor` finds a GPU."
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "load_in_4bit=true needs bitsandbytes, which is not installed; install it with `pip install 'rlhf[four-bit]'`."
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def load_weights(
    folder: Path,
    device: str,
    kind: type[AutoModelForCausalLM | AutoModelForSequenceClassification] = AutoModelForCausalLM,
    *,
    attention: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Load one architecture in fp32 for evaluation: safetensors only, no remote code, no weight left random."""
    if not any(folder.glob("*.safetensors")):
        raise ModelNotUsable(
            f"{folder} has no *.safetensors file; wanted weights in that format (pickles can run code). "
            "Convert the model with `save_pretrained`."
        )
    try:
        model: PreTrainedModel
        model, found = kind.from_pretrained(  # type: ignore[misc]  # a pair, with output_loading_info
            folder,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation=attention or attention_implementation(device),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelNotUsable(
            f"{folder} cannot be loaded as {kind.__name__.removeprefix('AutoModelFor')}: {_first_line(error)}"
        ) from error
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random ones
        raise ModelNotUsable(
            f"{folder} lacks {len(missing)} of the weights of a {type(model).__name__} "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); "
            "wanted all of them. Save the whole model again with `save_pretrained`, adapters merged."
        )
    if "quantization_config" not in options:  # those lie where they belong already
        model.to(device)  # type: ignore[arg-type]  # transformers' decorator has lost that this is a method
    model.eval()
    return model


def _check_tokenizer(tokenizer: PreTrainedTokenizerFast, source: str) -> None:
    if not tokenizer.chat_template:
        raise ModelNotUsable(
            f"{source}: the tokenizer has no chat template. "
            "Set base.chat_template to a Jinja template or to `chatml`."
        )
    if tokenizer.eos_token_id is None:
        raise ModelNotUsable(f"{source}: the tokenizer has no EOS token, so responses could never end.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        found = (
            "no pad token"
            if tokenizer.pad_token_id is None
            else f"EOS ({tokenizer.eos_token}) as its pad token"
        )
        raise ModelNotUsable(
            f"{source}: the tokenizer has {found}; wanted a pad token that is not EOS. "
            "Set base.pad_token to a token that never occurs in text."
        )


def _download(key: str, name: str, revision: str | None, files: list[str]) -> Path:
    """Return the snapshot of what `key` of the recipe names on the hub."""
    if revision is None:
        wanted = "base.revision" if key == "base.source" else f"{key}_revision"
        raise ModelNotUsable(
            f"{key}={name} is a hub id without {wanted}; "
            "name a commit, tag or branch, so that the run can be repeated."
        )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise NotFound(
            f"The Hugging Face hub has no {name} at revision {revision}: {_first_line(error)}"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise StoreUnreachable(
            f"The Hugging Face hub did not give {name}: {_first_line(error)}. "
            "Check the network, or name a local folder."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
