"""What `rlhf doctor` looks at on this machine; nothing here imports torch, which takes seconds."""

import importlib.metadata
import importlib.util
import os
import platform
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from flows.checks_verdict import Check
from rlhf.models.device import free_bytes
from schemas.settings import Settings
from schemas.units import size

FREE_GIB = 3
"""What the default recipe leaves behind, with room to spare."""
MEMORY_GIB = 2
"""What the default recipe takes, with room to spare."""
PYTHONS = (3, 11), (3, 14)
_DRIVER = Path("/proc/driver/nvidia/version")


def python(settings: Settings) -> Check:
    """Look at the interpreter."""
    found = sys.version_info[:2]
    first, beyond = PYTHONS
    where = f"Python {platform.python_version()} at {sys.executable}"
    if first <= found < beyond:
        return Check("python", True, where)
    return Check(
        "python",
        False,
        f"{where}; wanted 3.11 to 3.13",
        "Make the environment anew: make PYTHON=python3.12 install",
    )


def versions(settings: Settings) -> Check:
    """Compare what is installed with the bounds that this project was proved to run with."""
    wrong = []
    for line in importlib.metadata.requires("rlhf") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is outside {requirement.specifier}")
    found = "; ".join(wrong) or "every package is within its bounds"
    advice = "Install with: make install (or pip install -c constraints.txt)." if wrong else ""
    return Check("versions", not wrong, found, advice)


def torch_build(settings: Settings) -> Check:
    """Say which build of torch is installed, and whether it fits the driver."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return Check("torch", False, "torch is not installed", "Install with: make install.")
    build = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    cuda, hip = build.get("cuda"), build.get("hip")
    kind = f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else "CPU only"
    found = f"torch {build['__version__']}, {kind}"
    if _DRIVER.exists() and not cuda:
        return Check(
            "torch", False, f"{found}, although an NVIDIA driver is here",
            "Install the CUDA build: pip install --force-reinstall torch --index-url INDEX, with the index that pytorch.org names "
            "for your driver; or keep the CPU on purpose with compute.device=cpu.",
        )  # fmt: skip
    return Check("torch", True, found)


def gpu(settings: Settings) -> Check:
    """Name the GPUs and their free memory, as the driver's own tool does."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not _DRIVER.exists():
        return Check("devices", True, f"{cores} cores, no GPU, none is needed")
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Check("devices", True, f"{cores} cores, an NVIDIA driver without nvidia-smi")
    asked = [tool, "--query-gpu=name,memory.free,driver_version", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - fixed arguments
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        return Check(
            "devices",
            False,
            f"nvidia-smi: {said[-1]}",
            "Load or update the driver; the CPU works without it: compute.device=cpu.",
        )
    return Check("devices", True, f"{cores} cores; {'; '.join(done.stdout.strip().splitlines())}")


def memory(settings: Settings) -> Check:
    """Look at the memory that is free."""
    free = free_bytes()
    if not free:
        return Check("memory", True, "not known on this system")
    ok = free >= MEMORY_GIB * 2**30
    advice = (
        ""
        if ok
        else f"Close something: the default recipe wants {MEMORY_GIB} GiB; `rlhf estimate RECIPE` says what yours does."
    )
    return Check("memory", ok, f"{size(free)} free", advice)


def home(settings: Settings) -> Check:
    """Try whether what a run leaves can be written."""
    folder = _existing(settings.home)
    ok = folder.is_dir() and os.access(folder, os.W_OK)
    found = f"{settings.home}{'' if ok else ' cannot be written'}"
    return Check("home", ok, found, "" if ok else "Set RLHF_HOME to a folder of yours.")


def space(settings: Settings) -> Check:
    """Look at the disk under it."""
    folder = _existing(settings.home)
    free = shutil.disk_usage(folder).free
    ok = free >= FREE_GIB * 2**30
    advice = "" if ok else f"Free some, or set RLHF_HOME to another disk: a run wants {FREE_GIB} GiB."
    return Check("disk", ok, f"{size(free)} free under {folder}", advice)


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
