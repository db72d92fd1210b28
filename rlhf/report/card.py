"""A model's card in the Hugging Face form (Mitchell et al. 2019), filled in from what the run has measured."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rlhf.evaluation.judges import JUDGES
from rlhf.report.content import ReportContent, percent, weakest_probe
from rlhf.report.lineage import ancestors
from schemas.config import RunConfig
from schemas.config.run import of_round
from schemas.evaluation import PolicyEvaluation
from schemas.record import Interval

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_MEASURED = ("win_rate", "gold", "right", "rude", "score")


def card(content: ReportContent, name: str, provenance: Mapping[str, str]) -> str:
    """Return the README.md of an aligner's model: front matter that the hub reads, then Markdown."""
    from huggingface_hub import ModelCardData  # half a second, and only who registers a model needs it

    config = content.config
    rounds = range(1, config.labelling.rounds + 1)
    method = next(
        aligner.method
        for aligner in config.aligners
        if name in {of_round(aligner.name, turn) for turn in rounds}
    )
    data = ModelCardData(
        model_name=f"{config.name}-{name}",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["rlhf", method, f"seed-{config.seed}"],
        base_model=_hub_id(config),
        eval_results=_results(content, name),
    )
    parts = (
        f"# {config.name}-{name}",
        f"A language model aligned with {name.upper()} by the recipe `{config.name}`, seed {config.seed}. "
        f"{_base(config)}",
        _use(config),
        "## Evaluation",
        *_evaluation(content, name),
        "## Gate",
        *_gate(content, name),
        "## Limits",
        *(f"- {limit}" for limit in _limits(content, name)),
        "## Where it comes from",
        *_provenance(content, name, provenance),
        f"Repeat it with:\n\n```sh\n{content.command}\n```",
    )
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _hub_id(config: RunConfig) -> str | None:
    base = config.base
    return base.source if base and base.revision and not base.source.startswith(("s3://", "/", ".")) else None


def _base(config: RunConfig) -> str:
    if config.base is None:
        shape = config.pretrain.shape
        return (
            f"Its base was pre-trained for this purpose alone: {shape.num_layers} layers, width {shape.hidden_size}, "
            f"a vocabulary of {shape.vocab_size}. It knows nothing outside of its data."
        )
    revision = f" at revision `{config.base.revision}`" if config.base.revision else ""
    return f"Its base is `{config.base.source}`{revision}, under the terms of that model."


def _use(config: RunConfig) -> str:
    return f"""## Use

```python
from transformers import pipeline
chat = pipeline("text-generation", model=FOLDER)
chat([{{"role": "user", "content": "..."}}], max_new_tokens={config.evaluate.max_new_tokens})
```

or `rlhf chat FOLDER`, `rlhf serve FOLDER`, `mlflow.pyfunc.load_model(FOLDER)` where the package `rlhf` is installed."""


def _results(content: ReportContent, name: str) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    found = content.evaluations[name]
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=content.config.name,
            dataset_name=f"held-out prompts of {content.config.name}, seed {content.config.seed}",
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for metric, value in ((metric, _value(found, metric)) for metric in (*_MEASURED, "kl"))
        if value is not None
    ]


def _value(found: PolicyEvaluation, metric: str) -> float | None:
    value = getattr(found, metric)
    return value.value if isinstance(value, Interval) else value


def _evaluation(content: ReportContent, name: str) -> Iterator[str]:
    found, config = content.evaluations[name], content.config.evaluate
    yield (
        f"{found.num_prompts} prompts that no stage was trained on; intervals are {config.confidence:.0%}; "
        f"the judge is {JUDGES[config.judge]}. SFT is the model before alignment."
    )
    rows = ["| measure | this model | SFT |", "|---|---|---|"]
    if found.win_rate is not None:
        span = f"{percent(found.win_rate_low)} to {percent(found.win_rate_high)}"
        rows.append(f"| win rate over SFT | {percent(found.win_rate)} ({span}) | |")
    for label, metric, share in (
        ("right answers", "right", True), ("rude answers", "rude", True), ("hidden utility", "gold", False),
        ("reward model's score", "score", False),
    ):  # fmt: skip
        ours, before = getattr(found, metric), getattr(content.sft, metric)
        rows.append(f"| {label} | {_span(ours, share=share)} | {_span(before, share=share)} |")
    rows.append(f"| KL from SFT, nats per response | {found.kl:.1f} | 0 |")
    rows.append(f"| length, tokens | {found.length:.1f} | {content.sft.length:.1f} |")
    yield "\n".join(rows)


def _span(found: Interval | None, *, share: bool) -> str:
    if found is None:
        return "not measured"
    value, low, high = (
        percent(part) if share else f"{part:.2f}" for part in (found.value, found.low, found.high)
    )
    return f"{value} ({low} to {high})"


def _gate(content: ReportContent, name: str) -> Iterator[str]:
    gate = content.gate
    against = f"champion version {gate.champion}" if gate.champion else "SFT, as there was no champion"
    yield f"Verdict when it was registered: **{gate.verdicts.get(name, 'none')}**, compared with {against}."
    rows = [f"| {r.name} | {r.wanted} | {r.found} | {r.verdict} |" for r in gate.rules.get(name, ())]
    if rows:
        yield "\n".join(("| rule | wanted | found | verdict |", "|---|---|---|---|", *rows))
    if gate.evidence:
        yield f"The numbers behind it: `{gate.evidence.digest}`."


def _limits(content: ReportContent, name: str) -> Iterator[str]:
    missing = [rule.name for rule in content.gate.rules.get(name, ()) if rule.verdict == "not measured"]
    if missing:
        yield f"Not measured: {', '.join(missing)}."
    if not content.config.evaluate.independent:
        yield "The judge is the reward model that was optimised: its win rates show optimisation, not quality."
    if content.config.data.source == "helpdesk":
        yield "Data and judge are generated; nothing here says how real people would like its answers."
    if weakest := weakest_probe(content):
        yield f"The reward model was probed with pairs that differ in one flaw. {weakest}"
    yield "No safety filter is part of the model; `rlhf serve` puts guardrails around it."


def _provenance(content: ReportContent, name: str, provenance: Mapping[str, str]) -> Iterator[str]:
    revision = provenance.get("code_revision", "unknown")
    yield (
        f"Pipeline run `{content.run_id}`, configuration `sha256:{provenance.get('config_digest', '')}`, "
        f"code `{revision}`."
    )
    made = next(
        (ref.digest for stage in content.stages if stage.name == name for ref in stage.outputs.values()), ""
    )
    rows = ["| stage | read | wrote |", "|---|---|---|"]
    for stage in ancestors(content.stages, made):
        read = [f"{file.uri.rpartition('/')[2]} `{file.digest[7:19]}`" for file in stage.files]
        read += [f"{label} `{ref.digest[7:19]}`" for label, ref in stage.inputs.items()]
        wrote = [f"{label} `{ref.digest[7:19]}`" for label, ref in stage.outputs.items()]
        rows.append(f"| {stage.name} | {', '.join(read)} | {', '.join(wrote)} |")
    yield "\n".join(rows)
