"""Which settings a sweep tries: all combinations, or those that a search proposes from what it has seen."""

import itertools
import math
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from schemas.config.knobs import Knob, Setting
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Study

Search = Generator[Setting, float | None, None]
"""Yields a setting and is sent what it was worth, None if it failed."""


def grid(knobs: Sequence[Knob]) -> Search:
    """Yield every combination; the last knob varies fastest."""
    for values in itertools.product(*(knob.values for knob in knobs)):
        yield dict(zip((knob.key for knob in knobs), values, strict=True))


def optuna(knobs: Sequence[Knob], *, trials: int, seed: int) -> Search:
    """Propose what Optuna's tree-structured Parzen estimator does (Bergstra et al. 2011), to raise the objective.

    With the same seed and the same answers it proposes the same again, so a repeated sweep re-uses what it finds.
    """
    try:
        import optuna as library
    except ModuleNotFoundError:
        raise ConfigError(
            "--search optuna needs Optuna, which is not installed; run `pip install 'rlhf[sweep]'`, or leave the option out."
        ) from None
    library.logging.set_verbosity(library.logging.WARNING)
    sampler = library.samplers.TPESampler(seed=seed, n_startup_trials=max(1, trials // 3))
    return _proposals(library.create_study(direction="maximize", sampler=sampler), knobs, trials)


def _proposals(study: "Study", knobs: Sequence[Knob], trials: int) -> Search:
    from optuna.trial import TrialState

    for _ in range(trials):
        trial = study.ask()
        setting: Setting = {}
        for knob in knobs:
            if knob.low is not None and knob.high is not None:
                setting[knob.key] = trial.suggest_float(knob.key, knob.low, knob.high, log=knob.logarithmic)
            else:  # by its place: Optuna's categories hold plain values only
                setting[knob.key] = knob.values[trial.suggest_categorical(knob.key, range(len(knob.values)))]
        worth = yield setting
        if worth is None or not math.isfinite(worth):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, worth)
