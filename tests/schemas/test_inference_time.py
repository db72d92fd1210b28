"""What a policy without weights of its own may not be asked for."""

import pytest

from schemas.config import ComputeConfig, RunConfig
from schemas.config.loading import load_config
from schemas.errors import ConfigError
from schemas.evaluation import PolicyEvaluation
from schemas.pipeline import PipelineRun, Round, evaluations_of, policies_of
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import EvaluationResult, PolicyResult, PreferencesResult

TABLE = DatasetRef(uri="file:///t", digest="sha256:" + "0" * 64, kind="samples", rows=1)


def _policy(role: str) -> PolicyResult:
    return PolicyResult(
        model=ModelRef.model_validate({"uri": "file:///m", "digest": "sha256:" + "1" * 64, "role": role})
    )


def _judged(name: str) -> EvaluationResult:
    return EvaluationResult(evaluation=PolicyEvaluation(name=name, length=1.0, eos_rate=1.0), samples=TABLE)


def test_best_of_n_is_compared_and_is_no_candidate_for_the_registry():
    run = PipelineRun(run_id="1", name="mine", seed=0, compute=ComputeConfig(), round=2)
    round_ = Round(
        run=run,
        candidates=TABLE,
        preferences=PreferencesResult(preferences=TABLE),
        reward=_policy("reward").model,
        policies={"best": _policy("best_of_n"), "ppo": _policy("policy")},
        judged={"best": _judged("best"), "ppo": _judged("ppo")},
    )
    assert list(policies_of([round_])) == ["ppo-2"]
    assert list(evaluations_of([round_])) == ["ppo-2"]


def test_best_of_n_has_nothing_to_say_in_a_later_round(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("labelling: {rounds: 2}\naligners: [{method: best_of_n, n: 4}]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"labelling\.rounds=2"):
        load_config(str(path))
    assert RunConfig.model_validate({"aligners": [{"method": "best_of_n"}]}).aligners[0].name == "best_of_n"
