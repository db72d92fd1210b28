"""Tasks of EleutherAI's lm-evaluation-harness, from local files, on a policy that is loaded already."""

import logging
from pathlib import Path

from rlhf.evaluation.subject import Subject
from rlhf.models.precision import autocast
from schemas.config import HarnessConfig
from schemas.errors import ConfigError, NotFound
from schemas.evaluation import TaskScore


def task_files(config: HarnessConfig) -> list[Path]:
    """Return every file of the tasks' folder; refuse tasks that would run code of their own."""
    folder = Path(config.folder)
    if not folder.is_dir():
        raise NotFound(
            f"evaluate.lm_eval.folder: no folder {folder}; name the one that holds the tasks' YAML files."
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for file in files:
        if file.suffix in {".yaml", ".yml"} and "!function" in file.read_text(encoding="utf-8"):
            raise ConfigError(
                f"{file} names Python code (!function), which is not run; write the task with templates alone."
            )
    return files


def run_tasks(subject: Subject, config: HarnessConfig) -> tuple[TaskScore, ...]:
    """Return each metric of each task, as lm-eval computes it: without chat template, greedy where it generates.

    Raises ConfigError where lm-eval is missing, where a task is unknown, and where one would run code.
    """
    task_files(config)
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as missing:
        raise ConfigError(
            f"evaluate.lm_eval needs the extra lm-eval ({missing}); install it with: pip install 'rlhf[lm-eval]'"
        ) from missing
    for name in ("lm_eval", "lm-eval"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tasks = TaskManager(include_path=config.folder, include_defaults=False)
    if unknown := [name for name in config.tasks if name not in tasks.all_tasks]:
        raise ConfigError(
            f"evaluate.lm_eval.tasks: {config.folder} has no task {unknown[0]!r}; it has: {', '.join(tasks.all_tasks)}."
        )
    model = HFLM(
        pretrained=subject.model,
        tokenizer=subject.tokenizer,
        batch_size=subject.config.batch_size,
        device=subject.precision.device,
    )
    with autocast(subject.precision):
        found = simple_evaluate(
            model,
            tasks=list(config.tasks),
            task_manager=tasks,
            limit=config.limit,
            log_samples=False,
            bootstrap_iters=1_000,  # for metrics that are no means
        )
    assert found is not None, "only other ranks than the first get nothing"
    return tuple(
        TaskScore(
            task=task,
            metric=key.removesuffix(",none"),
            value=float(value),
            stderr=_number(numbers.get(key.replace(",", "_stderr,", 1))),
            documents=int(found["n-samples"][task]["effective"]) if task in found["n-samples"] else 0,
        )
        for task, numbers in found["results"].items()
        for key, value in numbers.items()
        if "," in key and "_stderr," not in key and _number(value) is not None
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
