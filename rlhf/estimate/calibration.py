"""How fast this machine trains, reads and samples with a model of a given shape: measured, on random weights.

A deep model is not built: time grows by the same amount with each layer, so one and two layers say what all will take.
"""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

from rlhf.estimate.work import Lengths
from rlhf.models.precision import Precision, attention_implementation, autocast
from rlhf.models.sampling import sample
from schemas.config.models import ModelShape
from schemas.errors import ModelNotUsable
from schemas.estimates import Shape, Speeds

_SMALL = 30_000_000
"""Parameters up to which the whole model is measured."""
_TOKENS = 2_048
"""Of a measured training step, about: small enough for a large model on a laptop."""
_REPEATS = 3


def architecture(folder: Path) -> PreTrainedConfig:
    """Read the architecture of a base model from its config.json, without its weights."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelNotUsable(
            f"{folder} has no config.json of a known architecture: {str(error).splitlines()[0]}"
        ) from error
    assert isinstance(config, PreTrainedConfig)
    return config


def tiny_llama(shape: ModelShape) -> LlamaConfig:
    """Return the architecture that `pretrain` builds."""
    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
    )


def shape_of(config: PreTrainedConfig) -> Shape:
    """Count the parameters of an architecture, and name what memory depends on."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        heads=heads,
        key_values=groups * width,
        vocabulary=int(config.vocab_size),
    )


def measure(
    config: PreTrainedConfig, shape: Shape, lengths: Lengths, rows: Iterable[int], precision: Precision
) -> Speeds:
    """Time training, reading and sampling (with each number of `rows` at once) of the architecture on this machine."""
    depths = (shape.layers,) if shape.parameters <= _SMALL or shape.layers <= 2 else (1, 2)
    found = [_speeds(_cut(config, depth), lengths, sorted(set(rows)), precision) for depth in depths]
    if len(found) == 1:
        return found[0]
    one, two = found
    more = shape.layers - 1
    return Speeds(
        trained=one.trained + more * max(two.trained - one.trained, 0.0),
        read=one.read + more * max(two.read - one.read, 0.0),
        drawn={n: one.drawn[n] + more * max(two.drawn[n] - one.drawn[n], 0.0) for n in one.drawn},
    )


def given(shape: Shape, lengths: Lengths, rows: Iterable[int], *, flops: float, bandwidth: float) -> Speeds:
    """Return the speeds of a machine that reaches so many operations and bytes of memory traffic per second.

    2 operations per parameter and token forward, 4 more backward (Kaplan et al. 2020, section 2.1). Sampling reads all weights
    (fp32, as they are held) once per step, whatever the number of sequences, until arithmetic takes longer.
    """
    read = 2 * shape.parameters / flops
    step = 4 * shape.parameters / bandwidth
    return Speeds(trained=3 * read, read=read, drawn={n: max(step / n, read) for n in set(rows)})


def _cut(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    cut = copy.deepcopy(config)
    cut.num_hidden_layers = layers
    if kinds := getattr(cut, "layer_types", None):
        cut.layer_types = list(kinds)[:layers]
    return cut


def _speeds(config: PreTrainedConfig, lengths: Lengths, rows: list[int], precision: Precision) -> Speeds:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        config, attn_implementation=attention_implementation(precision.device)
    )
    model.to(precision.device)  # type: ignore[arg-type]  # transformers' decorator has lost that this is a method
    model.eval()
    length = max(round(lengths.sequence), 2)
    batch = max(_TOKENS // length, 1)
    ids = torch.randint(3, config.vocab_size, (batch, length), device=precision.device)
    trained = _seconds(_training_step(model, ids, precision), precision) / ids.numel()
    model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def read() -> None:
        with autocast(precision):
            model(input_ids=ids, use_cache=False)

    drawn = {number: _drawing(model, lengths, number, precision) for number in rows}
    return Speeds(trained=trained, read=_seconds(read, precision) / ids.numel(), drawn=drawn)


def _training_step(model: PreTrainedModel, ids: torch.Tensor, precision: Precision) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def train() -> None:
        with autocast(precision):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return train


def _drawing(model: PreTrainedModel, lengths: Lengths, rows: int, precision: Precision) -> float:
    """Return the seconds per sampled token of so many sequences at once; the prompt's pass is shared among them."""
    prompt = [3] * max(round(lengths.prompt), 1)
    room = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30) - len(prompt)
    new = max(min(round(lengths.response), 16, room), 1)

    def draw() -> None:
        with autocast(precision):
            sample(
                model, [prompt] * rows, max_new_tokens=new, temperature=1.0, stop=frozenset({-1}), pad_id=0,
                batch_size=rows, generator=torch.Generator().manual_seed(0),
            )  # fmt: skip

    return _seconds(draw, precision) / (rows * new)


def _seconds(work: Callable[[], None], precision: Precision) -> float:
    """Return the shortest of a few runs after a first one, whose allocations belong to nobody."""
    times = []
    for _ in range(_REPEATS + 1):
        start = perf_counter()
        work()
        if precision.device == "cuda":
            torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return min(times[1:])
