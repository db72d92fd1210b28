"""Bytes on the device, stage by stage: what the code of each stage holds at the same time.

Weights, gradients and AdamW's two moments are fp32 (4 + 4 + 8 bytes per trained parameter); autocast adds activations in
bf16. Activations follow Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", equation 2,
without the attention matrices, which fused attention does not keep; logits and their gradient are held in fp32.
"""

from rlhf.estimate.work import Lengths, has_critic
from schemas.config import RunConfig
from schemas.config.aligners import KTOConfig
from schemas.config.aligners.online import OnlineSection
from schemas.config.models import LoraConfig
from schemas.config.run import of_round
from schemas.config.section import Section
from schemas.config.supervised import OptimiserConfig
from schemas.config.tuning import TuningSection
from schemas.estimates import Shape

FP32 = 4
_FOUR_BITS = 1 / 8
"""What is left of fp32 weights in NF4; the scales of its blocks add a percent or two."""
_LAYER_VALUES = 17
"""Values that the backward pass needs per token, layer and unit of width (34 bytes in bf16)."""
_CHECKPOINTED_VALUES = 1
"""The same with gradient checkpointing: a layer's input."""


def memory(config: RunConfig, shape: Shape, lengths: Lengths, *, bf16: bool) -> dict[str, dict[str, float]]:
    """Return the bytes of every stage that holds a model, by what they are for."""
    pretrain = config.pretrain
    tokens = float(pretrain.batch_size * pretrain.block_size)
    stages = (
        {} if config.base else {"pretrain": _trained("policy", shape, None) | _pass(shape, tokens, bf16=bf16)}
    )
    stages["sft"] = _fitted("policy", shape, config.sft, lengths, sequences=1, bf16=bf16)
    compared = 2 if config.preferences.source == "files" else config.sample.num_responses
    held = {
        "sample": {"policy": _weights(shape)}
        | _cache(shape, config.sample.batch_size, lengths.prompt + config.sample.max_new_tokens, bf16=bf16),
        "reward": _fitted("reward model", shape, config.reward, lengths, sequences=compared, bf16=bf16),
    }
    if config.preferences.judging_fraction:
        held["judge"] = held["reward"]
    for aligner in config.aligners:
        held[aligner.name] = _aligner(aligner, shape, lengths, bf16=bf16)
    evaluate = config.evaluate
    models = {name: _weights(shape) for name in ("policy", "reference", "reward model")}
    cache = _cache(shape, evaluate.batch_size, lengths.prompt + evaluate.max_new_tokens, bf16=bf16)
    for name in ("sft", *(aligner.name for aligner in config.aligners)):
        own = {key: size for key, size in models.items() if key != "reference" or name != "sft"}
        held[f"evaluate-{name}"] = own | cache
    for number in range(1, config.labelling.rounds + 1):
        stages |= {of_round(name, number): parts for name, parts in held.items()}
    return stages


def lora_parameters(shape: Shape, lora: LoraConfig) -> float:
    """Return the trainable parameters of adapters on every linear layer: about 2 r (9 d + ...) per layer.

    Four square products of attention (keys and values may be narrower) and three of the feed-forward layer.
    """
    feed_forward = _feed_forward(shape)
    d, kv = shape.hidden, shape.key_values
    per_layer = 2 * (d + d) + 2 * (d + kv) + 3 * (d + feed_forward)
    return float(lora.rank * per_layer * shape.layers)


def _feed_forward(shape: Shape) -> float:
    """Return the width of a gated feed-forward layer that accounts for the parameters which attention leaves."""
    embeddings = shape.vocabulary * shape.hidden
    attention = 2 * shape.hidden * (shape.hidden + shape.key_values)
    rest = max(shape.parameters - embeddings, 0) / max(shape.layers, 1) - attention
    return max(rest, 0.0) / (3 * shape.hidden)


def _weights(shape: Shape) -> float:
    return float(FP32 * shape.parameters)


def _trained(name: str, shape: Shape, tuning: TuningSection | None) -> dict[str, float]:
    lora = tuning.lora if tuning else None
    trained = shape.parameters if lora is None else lora_parameters(shape, lora)
    frozen = _weights(shape) * (_FOUR_BITS if tuning and tuning.load_in_4bit else 1)
    return {
        name: frozen + (0.0 if lora is None else FP32 * trained),
        f"gradient of the {name}": FP32 * trained,
        f"optimizer of the {name}": 2 * FP32 * trained,
    }


def _pass(shape: Shape, tokens: float, *, bf16: bool, checkpointing: bool = False) -> dict[str, float]:
    """Activations and logits of one forward and backward pass over so many tokens."""
    width = 2 if bf16 else FP32
    values = _CHECKPOINTED_VALUES if checkpointing else _LAYER_VALUES
    return {
        "activations": tokens * shape.layers * shape.hidden * values * width,
        "logits": 2 * FP32 * tokens * shape.vocabulary,
    }


def _cache(shape: Shape, rows: int, length: float, *, bf16: bool) -> dict[str, float]:
    width = 2 if bf16 else FP32
    return {"key-value cache": 2.0 * shape.layers * shape.key_values * rows * length * width}


def _fitted(
    name: str, shape: Shape, section: OptimiserConfig, lengths: Lengths, *, sequences: int, bf16: bool
) -> dict[str, float]:
    rows = (section.micro_batch_size or section.batch_size) * sequences
    tokens = rows * min(lengths.sequence, section.max_length)
    return _trained(name, shape, section) | _pass(
        shape, tokens, bf16=bf16, checkpointing=section.gradient_checkpointing
    )


def _aligner(section: Section, shape: Shape, lengths: Lengths, *, bf16: bool) -> dict[str, float]:
    if isinstance(section, OnlineSection):
        return _online(section, shape, lengths, bf16=bf16)
    if not isinstance(section, OptimiserConfig):
        return {}
    # The reference's log-probabilities are computed before the first step, by the policy itself.
    sequences = 1 if isinstance(section, KTOConfig) else 2
    return _fitted("policy", shape, section, lengths, sequences=sequences, bf16=bf16)


def _online(section: OnlineSection, shape: Shape, lengths: Lengths, *, bf16: bool) -> dict[str, float]:
    rows = section.micro_batch_size or section.minibatch_size
    length = lengths.prompt + min(lengths.response, section.max_new_tokens)
    tokens = float(section.micro_batch_tokens or rows * length)
    held = _trained("policy", shape, section) | {"reward model": _weights(shape)}
    if section.lora is None:
        held["reference"] = _weights(shape)
    if has_critic(section):
        held |= _trained("critic", shape, section)
    # Sampling is over before the update begins: the larger of the two counts.
    update = _pass(shape, tokens, bf16=bf16, checkpointing=section.gradient_checkpointing)
    cache = _cache(shape, section.batch_size, lengths.prompt + section.max_new_tokens, bf16=bf16)
    return held | (update if sum(update.values()) >= sum(cache.values()) else cache)
