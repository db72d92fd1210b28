"""The section of best-of-n."""

from typing import Literal

from pydantic import Field

from schemas.config.aligners.section import AlignerSection
from schemas.config.reward import EnsembleScoring


class BestOfNConfig(AlignerSection):
    """Draw n responses of the SFT policy and give the one that scores highest (Stiennon et al. 2020, appendix).

    Nothing is trained; every answer costs n. It is compared with the other aligners and not registered: it has no weights.
    """

    method: Literal["best_of_n"] = "best_of_n"
    n: int = Field(16, ge=2, le=256)
    """Responses drawn for each one that is given."""
    ensemble: EnsembleScoring = EnsembleScoring()
    """Which score chooses where the reward model is an ensemble."""
