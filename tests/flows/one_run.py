"""Run the micro recipe as the command line does, and tell of each event through a pipe: the body of a forked process.

Given as globals: env, overrides, out.
"""

import os

from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    temporary_settings,
)

from flows.pipeline import rlhf
from flows.signals import stop_in_order
from schemas.config.loading import load_config
from schemas.errors import RLHFError
from tasks.progress import StageEvent, listen

given = globals()
out = given["out"]
os.setsid()
os.environ.clear()  # what it is forked from was started among other tests, with what they had set
os.environ.update(given["env"])


def tell(event: StageEvent) -> None:
    out.send((event.stage, event.state, event.step, event.seconds))


stop_in_order()
# Prefect was imported, and has read its settings, before.
settings = {
    PREFECT_API_URL: os.environ["PREFECT_API_URL"],
    PREFECT_HOME: os.environ["PREFECT_HOME"],
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
}
with temporary_settings(settings), listen(tell):
    try:
        summary = rlhf(load_config("micro", given["overrides"]))
    except RLHFError as error:
        out.send(("", f"{type(error).__name__}: {error}", 0, 0.0))
        raise SystemExit(error.exit_code) from None
out.send(summary.model_dump_json())
