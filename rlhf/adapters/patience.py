"""Ask a service again that does not answer, for a while: by the clock, so that an outage of known length is outlasted."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import InfrastructureError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between two calls, each shortened by up to a half so that many runs do not come back at once."""


def patiently(
    seconds: float,
    call: Callable[[], T],
    unreachable: type[InfrastructureError],
    *,
    hopeless: Callable[[Exception], bool] = lambda _: False,
) -> T:
    """Call again while the service does not answer, and raise what was raised last once `seconds` have passed."""
    deadline, tries = time.monotonic() + seconds, 0
    while True:
        try:
            return call()
        except unreachable as error:
            if time.monotonic() >= deadline or hopeless(error):
                raise
            if not tries:
                logger.warning("it is waited for up to %.0f s: %s", seconds, error)
        time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)] * random.uniform(0.5, 1.0))
        tries += 1
