"""What the stages that use TRL's trainers share: its arguments with every trap closed, and its metrics."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import polars as pl
from accelerate.utils import DistributedType
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rlhf.data.pairs import encode_pairs
from rlhf.models.loading import save_model
from rlhf.models.precision import Precision, apply
from rlhf.training import processes
from rlhf.training.schedule import schedule
from rlhf.training.step import OnStep, StepMetrics
from schemas.config.supervised import OptimiserConfig
from schemas.errors import ConfigError, TrainingDiverged

ForwardPass = Callable[..., Any]
"""A model as TRL's trainers call it."""
_NOT_METRICS = {"epoch", "num_tokens", "num_input_tokens_seen", "step"}


class WithoutTelemetry:
    """Keeps TRL's trainers from reporting to their makers; training must not need or use the network."""

    def _send_telemetry(self) -> None:
        """Send nothing."""


class SharedArguments(TypedDict):
    """The arguments that every trainer gets; each adds those of its own method."""

    output_dir: str
    max_steps: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    train_sampling_strategy: str
    learning_rate: float
    lr_scheduler_type: str
    warmup_steps: float
    weight_decay: float
    max_grad_norm: float
    bf16: bool
    activation_checkpointing: bool
    use_cpu: bool
    dataloader_pin_memory: bool
    seed: int
    logging_steps: float
    logging_nan_inf_filter: bool
    save_strategy: str
    report_to: str
    disable_tqdm: bool


def arguments(optimiser: OptimiserConfig, *, seed: int, precision: Precision) -> SharedArguments:
    """Translate the optimiser section into the arguments that all trainers share."""
    micro = optimiser.micro_batch_size or optimiser.batch_size
    processes.join(precision.device)
    share, rest = divmod(micro, processes.number())
    if rest:
        raise ConfigError(
            f"{micro} examples at a time are not a multiple of {processes.number()} processes; "
            "change batch_size or micro_batch_size, or compute.stages"
        )
    return SharedArguments(
        output_dir=tempfile.gettempdir(),  # must exist, and nothing is written to it
        max_steps=optimiser.steps,
        per_device_train_batch_size=share,
        gradient_accumulation_steps=optimiser.batch_size // micro,
        train_sampling_strategy="sequential",  # the dataset is in the order of `schedule`
        learning_rate=optimiser.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(optimiser.warmup_fraction * optimiser.steps),
        weight_decay=optimiser.weight_decay,
        max_grad_norm=optimiser.max_grad_norm,
        # TRL turns these two on unless told otherwise, on CPUs too. The second has an older name, which TRL
        # sets and transformers warns of; given this one, transformers overwrites the other silently.
        bf16=precision.dtype == "bf16",
        activation_checkpointing=optimiser.gradient_checkpointing,
        use_cpu=precision.device == "cpu",
        dataloader_pin_memory=precision.device != "cpu",
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # the filter would hide a diverged loss
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def pair_rows(
    tokenizer: PreTrainedTokenizerFast,
    preferences: pl.DataFrame,
    optimiser: OptimiserConfig,
    *,
    weighted: bool,
    seed: int,
    reference: pl.DataFrame | None = None,
) -> Dataset:
    """Return the pairs as ids in the order of the steps, each with a `weight`; weights have mean 1.

    Where the reference's log-probabilities are known (table `reference`), each pair has them as TRL names them.
    """
    if not weighted:
        preferences = preferences.with_columns(weight=1.0)
    pairs = encode_pairs(tokenizer, preferences, max_length=optimiser.max_length)
    known: dict[int, dict[str, float]] = {}
    unknown: dict[str, None] = {}
    if reference is not None:
        unknown = {"ref_chosen_logps": None, "ref_rejected_logps": None}
        mine = reference.filter(pl.col("max_length") == optimiser.max_length)
        known = {
            row: {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
            for row, chosen, rejected in mine.select("row", "chosen_logprob", "rejected_logprob").iter_rows()
        }
    mean_weight = sum(pair.weight for pair in pairs) / len(pairs)
    rows = [
        {
            "prompt_ids": pair.prompt,
            "chosen_ids": pair.chosen,
            "rejected_ids": pair.rejected,
            "weight": pair.weight / mean_weight,
            **known.get(pair.row, unknown),
        }
        for pair in pairs
    ]
    units = [[row] for row in range(len(rows))]
    dataset = in_order(rows, units, [pair.length for pair in pairs], optimiser, seed=seed)
    if reference is not None:
        assert None not in dataset["ref_chosen_logps"], "the table has every pair that a step learns from"
    return dataset


def in_order(
    rows: Sequence[Mapping[str, object]],
    units: Sequence[Sequence[int]],
    lengths: Sequence[int],
    optimiser: OptimiserConfig,
    *,
    seed: int,
) -> Dataset:
    """Return the rows in the order in which the steps see them; the rows of a unit stay together, `lengths` are in tokens."""
    order = schedule(
        units,
        lengths,
        batch_size=optimiser.batch_size,
        steps=optimiser.steps,
        seed=seed,
    )
    return Dataset.from_list(rows).select(order)


def weigh(model: ForwardPass, weights_B: Tensor) -> ForwardPass:
    """Return the model with the gradient of each row's log-probabilities multiplied by a weight, their value unchanged.

    So TRL's losses can count a row more than another: each depends on a row through its log-probabilities only.
    """

    def weighed(**batch: object) -> Any:
        outputs = model(**batch)
        fixed = outputs.log_probs.detach()
        outputs.log_probs = fixed + weights_B[:, None] * (outputs.log_probs - fixed)
        return outputs

    return weighed


def train(trainer: Trainer, precision: Precision, on_step: OnStep) -> dict[str, float]:
    """Run all steps; return each metric's mean over the last tenth of them."""
    apply(precision)
    _require_what_was_asked_for(trainer)
    reporter = _Reporter(on_step)
    # Without a progress bar the trainer would print its logs to standard output, which belongs to the result.
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(reporter)
    trainer.train()
    processes.gather_weights(model_of(trainer).eval())
    last = reporter.history[-math.ceil(len(reporter.history) / 10) :]
    # A step whose batch has no response of a kind says nothing of that kind.
    told = {name: [step[name] for step in last if name in step] for step in last for name in step}
    return {name: sum(values) / len(values) for name, values in told.items()}


def _require_what_was_asked_for(trainer: Trainer) -> None:
    """Accelerate holds all weights in each process of a CPU, whatever its configuration says, and is silent about it."""
    kind = processes.sharding()
    if kind and trainer.accelerator.distributed_type != DistributedType[kind]:
        raise ConfigError(
            f"accelerate shares nothing out by {kind} on {trainer.accelerator.device.type}; name a configuration for "
            "data parallelism (infra/accelerate/ddp.yaml), none, or use GPUs."
        )


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save a trained model; of several processes, which all have it, the first one does."""
    if processes.is_first():
        save_model(model, tokenizer, out)
    processes.wait()


def model_of(trainer: Trainer) -> nn.Module:
    """Return the model that a trainer trains, adapters and all."""
    assert trainer.model is not None, "every trainer here is given one"
    return trainer.model


class _Reporter(TrainerCallback):
    """Hands each step's metrics on, and stops the stage once they are not finite."""

    def __init__(self, on_step: OnStep) -> None:
        self.history: list[dict[str, float]] = []
        self._on_step = on_step
        self._tokens = 0.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        """Report one step; the summary that follows the last step has no `loss` and is passed over."""
        if not logs or "loss" not in logs:
            return
        metrics = {
            name.replace("/", "_"): float(value) for name, value in logs.items() if name not in _NOT_METRICS
        }
        for name in ("loss", "grad_norm"):
            if not math.isfinite(metrics[name]):
                raise TrainingDiverged(
                    f"{name} is {metrics[name]} at step {state.global_step}; wanted a finite number. "
                    "Lower learning_rate or max_grad_norm, or use compute.precision=fp32."
                )
        self.history.append(metrics)
        # TRL's trainers count tokens themselves, transformers' own keeps the count in its state.
        total = float(logs.get("num_tokens", state.num_input_tokens_seen))
        tokens = int(total - self._tokens)
        self._tokens = total
        if not processes.is_first():
            return
        self._on_step(
            StepMetrics(
                step=state.global_step,
                total=state.max_steps,
                metrics=metrics,
                tokens=tokens,
                gradient_tokens=tokens,
            )
        )
