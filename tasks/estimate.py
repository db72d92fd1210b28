"""Estimate a run from what earlier ones took or from this machine's speed, and keep the estimate for the report."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from schemas.config import FilesData, RunConfig
from schemas.config.models import BaseModelConfig
from schemas.errors import ConfigError
from schemas.estimates import RunEstimate
from schemas.reports import StageRecord
from schemas.settings import Settings
from tasks.run import config_digest, entries
from tasks.work import artifact_store

if TYPE_CHECKING:
    pass

_RUNS = 8
"""Earlier runs that are looked at: each costs the reading of all its stages."""


def estimate(
    config: RunConfig, names: Sequence[str], *, flops: float | None = None, bandwidth: float | None = None
) -> RunEstimate:
    """Return what a run of the stages in `names` needs on one device, and keep it under the recipe's digest.

    Earlier runs of the same model decide where there are some. Else this machine is measured, unless `flops` and
    `bandwidth` say how fast another one is: then no earlier run counts.
    """
    from rlhf.estimate import calibration
    from rlhf.estimate.lengths import lengths_of
    from rlhf.estimate.predict import predict, rates
    from rlhf.estimate.work import work
    from rlhf.models.device import device_name, free_bytes, own_bytes
    from rlhf.models.precision import choose

    if (flops is None) != (bandwidth is None):
        raise ConfigError("--flops and --bandwidth describe another machine together; give both or none.")
    elsewhere = flops is not None and bandwidth is not None
    architecture = (
        calibration.tiny_llama(config.pretrain.shape)
        if config.base is None
        else calibration.architecture(_config_folder(config.base))
    )
    shape = calibration.shape_of(architecture)
    lengths = lengths_of(config, _files(config), shape.vocabulary)
    precision, process = choose(config.compute), own_bytes()
    earlier = {} if elsewhere else rates(_earlier(config), lengths)
    amounts = work(config, lengths)
    rows = [amount.rows for amount in amounts.values() if amount.drawn]
    if flops is not None and bandwidth is not None:
        speeds = calibration.given(shape, lengths, rows, flops=flops, bandwidth=bandwidth)
    elif amounts.keys() <= earlier.keys():
        speeds = None
    else:
        speeds = calibration.measure(architecture, shape, lengths, rows, precision)
    found = predict(
        config, names, shape, lengths, digest=config_digest(config), speeds=speeds,
        source="given speeds" if elsewhere else "measured here", earlier=earlier,
        bf16=precision.dtype == "bf16", device="another machine" if elsewhere else device_name(),
        available=0.0 if elsewhere else free_bytes(), process=process,
    )  # fmt: skip
    artifact_store().write(_key(found.config_digest), found.model_dump_json().encode())
    return found


def kept_estimate(config: RunConfig) -> RunEstimate | None:
    """Return the last estimate that was made for exactly this tree."""
    content = artifact_store().read(_key(config_digest(config)))
    return None if content is None else RunEstimate.model_validate_json(content)


def _key(digest: str) -> str:
    return f"estimates/{digest}.json"


def _earlier(config: RunConfig) -> Iterator[tuple[RunConfig, list[StageRecord]]]:
    """Give earlier runs of the same model at the same precision, with their stages."""
    store, given = artifact_store(), 0
    for key in store.list_keys("runs/"):
        if not key.endswith("/config.json") or given == _RUNS:
            continue
        try:
            other = RunConfig.model_validate_json(store.read(key) or b"")
        except ValidationError:  # of another version
            continue
        alike = (
            one.base == two.base and one.pretrain.shape == two.pretrain.shape
            for one, two in [(config, other)]
        )
        if all(alike) and other.compute == config.compute:
            given += 1
            yield other, [entry.record for entry in entries(key.split("/")[1]).values()]


def _files(config: RunConfig) -> dict[str, list[Path]]:
    from rlhf.data.fetch import resolve

    if not isinstance(config.data, FilesData):
        return {}
    folder, cache = Path(config.data.folder), Settings().cache
    named = {"demonstrations": config.data.demonstrations, "preferences": config.data.preferences}
    return {
        name: [path for source in sources for path in resolve(source.partition("#")[0], folder, cache)]
        for name, sources in named.items()
    }


def _config_folder(base: BaseModelConfig) -> Path:
    """Return a folder with the base model's config.json; of a hub id nothing else is downloaded."""
    from rlhf.adapters.bucket import download
    from rlhf.models.loading import download_configuration

    if base.source.startswith("s3://"):
        return download(f"{base.source.rstrip('/')}/config.json", Settings().cache).parent
    return Path(base.source) if Path(base.source).is_dir() else download_configuration(base)
