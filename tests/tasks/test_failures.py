"""What is tried again, and what is said of a full disk."""

import errno

import pytest
from prefect.states import Failed
from safetensors import SafetensorError

from schemas.errors import (
    ConfigError,
    DataRejected,
    DiskFull,
    FeedbackUnreachable,
    JudgeUnreachable,
    SamplerUnreachable,
    StoreRefused,
    StoreUnreachable,
    TrackingUnreachable,
    TrainingDiverged,
)
from tasks.failures import may_succeed_later, raise_clearly


@pytest.mark.parametrize(
    ("kind", "again"),
    [
        *((kind, True) for kind in (TrackingUnreachable, StoreUnreachable, FeedbackUnreachable)),
        *((kind, True) for kind in (JudgeUnreachable, SamplerUnreachable)),
        *((kind, False) for kind in (StoreRefused, DataRejected, ConfigError, TrainingDiverged, DiskFull)),
        *((kind, False) for kind in (ValueError, MemoryError)),
    ],
)
def test_only_what_a_service_failed_at_is_tried_again(kind: type[Exception], again: bool) -> None:
    assert may_succeed_later(None, None, Failed(data=kind("found, wanted"))) is again


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_in_our_words(error: Exception) -> None:
    with pytest.raises(DiskFull, match="sft: there is no space left"):
        raise_clearly(error, "sft")


def test_what_caused_an_error_counts_and_other_errors_stay_as_they_are() -> None:
    caused = ValueError("could not write")
    caused.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFull):
        raise_clearly(caused, "sft")
    for error in (OSError(errno.EACCES, "Permission denied"), DataRejected("no rows"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            raise_clearly(error, "sft")
        assert caught.value is error
