"""Whoever names a pool and a queue finds a worker there, and no worker waits where nothing is sent."""

from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from flows.servers import POOL
from schemas.config.loading import load_config
from schemas.config.run import PlaceConfig

ROOT = Path(__file__).parents[2]
DEFAULT = "default"
"""The queue that Prefect gives each pool."""


def _read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def named() -> dict[str, tuple[str, str]]:
    """Return pool and queue of each deployment, by the flow's name and its own."""
    found = {}
    for one in _read("prefect.yaml")["deployments"]:
        module, _, name = one["entrypoint"].partition(":")
        flow = getattr(import_module(module), name)
        pool = one["work_pool"]
        found[f"{flow.name}/{one['name']}"] = (pool["name"], pool.get("work_queue_name", DEFAULT))
    return found


def served(command: Sequence[str]) -> tuple[str, str | None]:
    """Return the pool and the queue that a worker's command takes runs of; None: of all queues."""
    options = dict(pairwise(command))
    if "flows.cli" in command:  # `rlhf worker` has one pool
        assert command[command.index("flows.cli") + 1] == "worker"
        return POOL, options.get("--queue")
    assert {"worker", "start"} <= set(command)
    return options["--pool"], options.get("--work-queue")


def test_compose_serves_what_is_named_and_nothing_else() -> None:
    services = _read("infra/compose.yaml")["services"]
    workers = {name: served(one["command"]) for name, one in services.items() if "worker" in one["command"]}
    assert set(workers) == {"worker", "worker-gpu"}
    assert set(workers.values()) == set(named().values())


def test_the_worker_of_kubernetes_serves_every_queue() -> None:
    (deployment,) = yaml.safe_load_all(
        (ROOT / "infra/kubernetes/base/worker.yaml").read_text(encoding="utf-8")
    )
    (box,) = deployment["spec"]["template"]["spec"]["containers"]
    pool, queue = served(box["args"])
    assert queue is None
    assert {pool} == {pool for pool, _ in named().values()}


def test_a_stage_that_is_sent_away_has_a_deployment() -> None:
    assert PlaceConfig().deployment in named()
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        for place in load_config(str(recipe)).compute.stages.values():
            assert place.place != "pool" or place.deployment in named(), recipe
