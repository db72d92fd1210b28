"""What is known of a reward model on pairs that it was not trained on."""

from schemas.record import Interval, Record


class Slice(Record):
    """Accuracy on some of the pairs."""

    by: str
    """What the pairs were sorted by: length, margin, agreement, subset."""
    name: str
    pairs: int
    accuracy: Interval


class ReliabilityBin(Record):
    """Pairs of which the model was about equally sure."""

    confidence: float
    """Mean probability that the model gave to the response that it preferred."""
    accuracy: float
    """Share in which people preferred it, too."""
    pairs: int


class Calibration(Record):
    """Whether 80 % sure means right in 80 % of the pairs (Guo et al. 2017)."""

    error: float
    """Expected calibration error: mean distance of confidence and accuracy, over pairs."""
    temperature: float
    """What the score differences are to be divided by; above 1 the model is too sure."""
    fitted_error: float
    """The error with a temperature that was fitted on other prompts."""
    bins: tuple[ReliabilityBin, ...]
    fitted_bins: tuple[ReliabilityBin, ...]


class Mistake(Record):
    """A pair that the model ranks the other way round."""

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float


class Disagreement(Record):
    """How far the members of an ensemble disagree on the difference of two scores."""

    when_right: float
    """Mean standard deviation between members on pairs that they rank right together."""
    when_wrong: float
    finds_mistakes: float
    """Probability that a pair ranked wrong has the larger disagreement of two: 0.5 says nothing."""


class RewardQuality(Record):
    """The table on one model and one set of pairs."""

    pairs: int
    prompts: int
    accuracy: Interval
    """Share of pairs whose chosen response scores higher, ties half; prompts are resampled whole."""
    longer_baseline: Interval
    """The same for always taking the longer response."""
    slices: tuple[Slice, ...] = ()
    length_correlation: float
    """Of score and length in tokens, over all responses."""
    partial_length_correlation: float
    """The same among responses of equal preference: what length alone earns."""
    calibration: Calibration
    score_edges: tuple[float, ...]
    chosen_counts: tuple[float, ...]
    rejected_counts: tuple[float, ...]
    """Distribution of the normalised scores."""
    mistakes: tuple[Mistake, ...] = ()
    """Those that it is surest of."""
    disagreement: Disagreement | None = None
    """Of an ensemble."""

    def slice(self, by: str, name: str) -> Slice | None:
        """Return one slice; None when no pair falls into it."""
        return next((found for found in self.slices if (found.by, found.name) == (by, name)), None)

    def numbers(self) -> dict[str, float]:
        """Return what is worth comparing between runs, as flat metrics."""
        found = {
            "accuracy": self.accuracy.value,
            "accuracy_low": self.accuracy.low,
            "accuracy_high": self.accuracy.high,
            "longer_baseline": self.longer_baseline.value,
            "length_correlation": self.length_correlation,
            "partial_length_correlation": self.partial_length_correlation,
            "calibration_error": self.calibration.error,
            "calibration_error_fitted": self.calibration.fitted_error,
            "temperature": self.calibration.temperature,
        }
        if matched := self.slice("length", "matched"):
            found["accuracy_length_matched"] = matched.accuracy.value
        if self.disagreement:
            found |= {
                f"disagreement_{name}": float(value) for name, value in self.disagreement.model_dump().items()
            }
        return found
