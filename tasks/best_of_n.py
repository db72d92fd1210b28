"""Stage `best_of_n`: the SFT policy beside the reward model that chooses among what it says."""

from schemas.config import BestOfNConfig
from schemas.refs import ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("best_of_n")
def build_best_of_n(work: StageWork, sft: ModelRef, reward: ModelRef, config: BestOfNConfig) -> PolicyResult:
    """Publish both models as one policy that draws n responses and gives the best."""
    from rlhf.evaluation.over_optimisation import best_of_n_kl
    from rlhf.models import best_of_n

    out = work.folder / "model"
    best_of_n.save(work.fetch(sft), work.fetch(reward), out, n=config.n, scoring=config.ensemble)
    return PolicyResult(
        model=work.publish_model(out, "best_of_n"),
        metrics={"n": float(config.n), "kl": best_of_n_kl(config.n)},
    )
