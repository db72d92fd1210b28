"""The flow behind `rlhf evaluate`: two models that exist, on the held-out prompts of a recipe."""

from prefect import flow

from schemas.config import RunConfig
from schemas.refs import ModelRef
from schemas.reports import EvaluationResult
from tasks.evaluate import evaluate_policy
from tasks.run import pipeline_run
from tasks.validate import validate


@flow(name="rlhf-evaluate", flow_run_name="{config.name}-seed{config.seed}")
def compare(config: RunConfig, models: dict[str, ModelRef]) -> EvaluationResult:
    """Judge `model` against `against`; `reward` and `judge` are reward models, where given."""
    with pipeline_run(config, fresh=False) as run:
        data = validate(run, config.data)
        against, scored = models["against"], (models.get("reward"), models.get("judge"), data.evaluation)
        baseline = evaluate_policy.named("evaluate-against")(
            run, "against", against, against, *scored, None, None, config.data, config.evaluate
        )
        return evaluate_policy.named("evaluate-model")(
            run,
            "model",
            models["model"],
            against,
            *scored,
            baseline.samples,
            None,
            config.data,
            config.evaluate,
        )
