"""The accuracy of a model that sees words and no meaning: what a reward model must beat."""

import math

import numpy as np
import polars as pl

_FEWEST = 60
_FEATURES = 2**15
_TEST_SHARE = 0.25


def prepare() -> None:
    """Import what the regression needs: about a second, and only files with enough pairs need it."""
    import sklearn.feature_extraction.text
    import sklearn.linear_model  # noqa: F401 - for whoever comes next


def bag_of_words_accuracy(pairs: pl.DataFrame) -> tuple[float, float] | None:
    """Return accuracy and standard error of a pairwise bag-of-words regression on the prompts that it has not seen.

    None: too few pairs to say anything.
    """
    if pairs.height < _FEWEST:
        return None
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    held_out = (pairs["prompt_id"].hash(seed=9).cast(pl.Float64) < _TEST_SHARE * 2.0**64).to_numpy()
    if not 10 <= held_out.sum() <= pairs.height - 30:
        return None
    words = HashingVectorizer(n_features=_FEATURES, norm="l2", alternate_sign=False, binary=True)
    better, worse = (words.transform(pairs[side].to_list()) for side in ("chosen", "rejected"))
    signs = np.where(np.arange(pairs.height) % 2, 1, -1)
    features = (better - worse).multiply(signs[:, None]).tocsr()
    model = SGDClassifier(
        loss="log_loss", alpha=1e-4, fit_intercept=False, random_state=0, max_iter=50, tol=None
    )
    model.fit(features[~held_out], signs[~held_out])
    right = float((model.predict(features[held_out]) == signs[held_out]).mean())
    return right, math.sqrt(right * (1 - right) / int(held_out.sum()))
