"""Threads and number type: measured, because both can change speed several times over on a CPU."""

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Literal

import torch
from torch import Tensor

from rlhf.models.attention import register_fp32_attention
from schemas.config.run import ComputeConfig
from schemas.errors import ConfigError

_ROWS, _INNER, _OUTER = 2048, 128, 512
"""Shape of the calibration product: a feed-forward layer of a small model on one batch of tokens."""
_REPEATS = 9
_WORTH_MORE_THREADS = 1.3
"""Threads that gain less than this stay off: they cost more as soon as anything else wants a core."""


_MALLOC = {-1: 2**30, -3: 2**25}
"""M_TRIM_THRESHOLD: bytes that are kept. M_MMAP_THRESHOLD: size from which a block is the kernel's (the largest allowed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Where and in which number type a stage computes; recorded with the stage."""

    threads: int
    dtype: Literal["fp32", "bf16"]
    """bf16 means autocast: weights, optimizer state, losses and (on a CPU) attention stay fp32."""
    device: Literal["cpu", "cuda"] = "cpu"


def choose(compute: ComputeConfig) -> Precision:
    """Measure what `auto` leaves open, and use the chosen number of threads from here on."""
    device = _device(compute.device)
    dtype = compute.precision if compute.precision != "auto" else _fast_dtype(device)
    threads = compute.threads if compute.threads != "auto" else _fast_threads(device, dtype)
    precision = Precision(threads=threads, dtype=dtype, device=device)
    apply(precision)
    return precision


def apply(precision: Precision) -> None:
    """Use the threads of an earlier choice in this process, and let it keep the memory that tensors give back."""
    torch.set_num_threads(precision.threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have glibc, where that is the C library, keep freed memory for the next tensor instead of returning it.

    Otherwise each training step asks the kernel for its activations anew, page by page, and waits for it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, size in _MALLOC.items():
            mallopt(parameter, size)


def autocast(precision: Precision) -> AbstractContextManager[None]:
    """Run matrix products in bf16 where the precision says so."""
    return torch.autocast(precision.device, torch.bfloat16, enabled=precision.dtype == "bf16")


def attention_implementation(device: str) -> str:
    """Name the attention to load models with: fp32 on CPUs, where bf16 attention is slow backwards."""
    return register_fp32_attention() if torch.device(device).type == "cpu" else "sdpa"


def _device(wanted: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "compute.device=cuda but torch sees no CUDA device; use compute.device=auto or cpu."
        )
    return "cpu" if wanted == "cpu" or not torch.cuda.is_available() else "cuda"


def _fast_dtype(device: Literal["cpu", "cuda"]) -> Literal["fp32", "bf16"]:
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Private names of torch, hence the getattr: without them bf16 is merely not used.
    instructions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, name, lambda: False)() for name in instructions) else "fp32"


def _fast_threads(device: Literal["cpu", "cuda"], dtype: Literal["fp32", "bf16"]) -> int:
    """Compare one thread with all cores on a product as large as a training step has."""
    cores = torch.get_num_threads()
    if device == "cuda" or cores == 1:
        return cores
    number = torch.bfloat16 if dtype == "bf16" else torch.float32
    left, right = torch.ones(_ROWS, _INNER, dtype=number), torch.ones(_INNER, _OUTER, dtype=number)
    one = _median_seconds(lambda: left @ right, threads=1)
    every = _median_seconds(lambda: left @ right, threads=cores)
    return cores if one / every >= _WORTH_MORE_THREADS else 1


def _median_seconds(product: Callable[[], Tensor], *, threads: int) -> float:
    torch.set_num_threads(threads)
    product()
    seconds = []
    for _ in range(_REPEATS):
        start = perf_counter()
        product()
        seconds.append(perf_counter() - start)
    return median(seconds)
