"""What the stages that use TRL's trainers share: its arguments with every trap closed, and its metrics."""

import math
import tempfile
from collections.abc import Mapping
from typing import TypeVar

from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rlhf.models.precision import Precision, apply
from rlhf.training.step import OnStep, StepMetrics
from schemas.config.supervised import OptimiserConfig
from schemas.errors import TrainingDiverged

Arguments = TypeVar("Arguments", bound=TrainingArguments)

_NOT_METRICS = {"epoch", "num_tokens", "num_input_tokens_seen", "step"}


class WithoutTelemetry:
    """Keeps TRL's trainers from reporting to their makers; training must not need or use the network."""

    def _send_telemetry(self) -> None:
        """Send nothing."""


def arguments(
    kind: type[Arguments], optimiser: OptimiserConfig, *, seed: int, precision: Precision, **method: object
) -> Arguments:
    """Translate the optimiser section into the arguments of one TRL trainer."""
    micro = optimiser.micro_batch_size or optimiser.batch_size
    return kind(
        output_dir=tempfile.gettempdir(),  # must exist, and nothing is written to it
        max_steps=optimiser.steps,
        per_device_train_batch_size=micro,
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
        **method,
    )


def train(trainer: Trainer, precision: Precision, on_step: OnStep) -> dict[str, float]:
    """Run all steps; return each metric's mean over the last tenth of them."""
    apply(precision)
    reporter = _Reporter(on_step)
    # Without a progress bar the trainer would print its logs to standard output, which belongs to the result.
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(reporter)
    trainer.train()
    trainer.model.eval()
    last = reporter.history[-math.ceil(len(reporter.history) / 10) :]
    return {name: sum(step[name] for step in last) / len(last) for name in last[0]}


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
        tokens = float(logs.get("num_tokens", state.num_input_tokens_seen))
        self._on_step(
            StepMetrics(
                step=state.global_step,
                total=state.max_steps,
                metrics=metrics,
                tokens=int(tokens - self._tokens),
            )
        )
        self._tokens = tokens
