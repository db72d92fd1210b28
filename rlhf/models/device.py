"""The device that a process works on: what it is called, how much memory it has free, and how much was taken at most.

Nothing here imports torch for a process that has not done so itself.
"""

import platform
import sys
from pathlib import Path
from typing import Any

_STATUS, _CLEAR, _MEMORY = (Path("/proc") / name for name in ("self/status", "self/clear_refs", "meminfo"))


def device_name() -> str:
    """Return the name of the GPU, where torch uses one in this process, and else that of the processor."""
    if (cuda := _cuda()) is not None:
        return str(cuda.get_device_name())
    return platform.machine() + " processor"


def free_bytes() -> float:
    """Return the memory that is free on the device; of the machine, where no GPU is used."""
    if (cuda := _cuda()) is not None:
        return float(cuda.mem_get_info()[0])
    return _kibibytes(_MEMORY, "MemAvailable")


def own_bytes() -> float:
    """Return the memory that this process holds on the machine; 0 where a GPU holds what matters."""
    return 0.0 if _cuda() is not None else _kibibytes(_STATUS, "VmRSS")


def forget_peak() -> None:
    """Begin to look for the largest memory use anew."""
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")  # see proc_pid_clear_refs(5): resets the high-water mark


def peak_bytes() -> float:
    """Return the largest memory use since `forget_peak`: of the GPU's tensors, or of the process; 0 if nobody knows."""
    if (cuda := _cuda()) is not None:
        return float(cuda.max_memory_allocated())
    return _kibibytes(_STATUS, "VmHWM")


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _kibibytes(path: Path, name: str) -> float:
    if not path.exists():  # not Linux
        return 0.0
    line = next((line for line in path.read_text(encoding="ascii").splitlines() if line.startswith(name)), "")
    return 1024.0 * int(line.split()[1]) if line else 0.0
