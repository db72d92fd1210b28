import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.evaluation.harness import run_tasks, task_files
from rlhf.evaluation.subject import Subject
from rlhf.models.precision import Precision
from schemas.config import EvaluateConfig, HarnessConfig
from schemas.errors import ConfigError, NotFound

CONFIG = EvaluateConfig(max_new_tokens=4, batch_size=4)
CHOICES = ("At nine.", "Never.")
DOCUMENTS = [
    {"question": f"When does shop {number} open?", "choices": CHOICES, "answer": number % 2}
    for number in range(8)
]
has_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-eval is not installed (pip install 'rlhf[lm-eval]')",
)


@pytest.fixture
def tasks(tmp_path: Path) -> HarnessConfig:
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "shop.jsonl"
    data.write_text("\n".join(json.dumps(document) for document in DOCUMENTS), encoding="utf-8")
    (folder / "shop.yaml").write_text(
        "task: shop\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "output_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
        encoding="utf-8",
    )
    return HarnessConfig(folder=str(folder), tasks=("shop",))


@pytest.fixture
def policy(save_policy: Callable[..., Path]) -> Subject:
    return Subject(save_policy("policy", seed=1), CONFIG, Precision(threads=1, dtype="fp32"))


@has_harness
@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")  # the harness's own
def test_accuracy_is_that_of_the_likelier_choice(
    policy: Subject, tasks: HarnessConfig, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    encode = policy.tokenizer.encode
    right = 0
    for document in DOCUMENTS:
        contexts = [encode(document["question"])] * 2
        nats = policy.logprobs(contexts, [encode(f" {choice}") for choice in CHOICES])
        right += nats.index(max(nats)) == document["answer"]
    (score,) = run_tasks(policy, tasks)
    assert (score.task, score.metric, score.documents) == ("shop", "acc", len(DOCUMENTS))
    assert score.value == pytest.approx(right / len(DOCUMENTS))
    assert score.stderr is not None
    assert run_tasks(policy, tasks.model_copy(update={"limit": 2}))[0].documents == 2
    with pytest.raises(ConfigError, match="has no task 'other'; it has: shop"):
        run_tasks(policy, tasks.model_copy(update={"tasks": ("other",)}))


def test_a_task_that_names_code_is_refused(tasks: HarnessConfig):
    file = Path(tasks.folder) / "code.yaml"
    file.write_text("task: code\nprocess_docs: !function helper.change\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"code\.yaml names Python code"):
        task_files(tasks)


def test_a_missing_folder_is_named():
    with pytest.raises(NotFound, match="no folder nowhere"):
        task_files(HarnessConfig(folder="nowhere", tasks=("shop",)))


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
@pytest.mark.integration
def test_without_the_harness_the_extra_is_named(policy: Subject, tasks: HarnessConfig):
    with pytest.raises(ConfigError, match=r"rlhf\[lm-eval\]"):
        run_tasks(policy, tasks)
