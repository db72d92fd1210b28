"""Who is at work: what a running process says of itself to others."""

from schemas.record import Record


class Process(Record):
    """A process that runs the pipeline."""

    token: str
    """Its name among all processes, used once."""
    host: str
    """The machine since its last start, and the namespace in which `pid` counts."""
    pid: int
    started: str
    """In the kernel's ticks; tells it from a later process with the same number."""
    tracking: str
    """Digest of the address of its MLflow server or database: only who uses the same one can end its runs."""
    flow_run_id: str | None = None
    """In Prefect."""
    beat: int = 0
    """Rises while it lives."""


class Claim(Record):
    """A line in the history of a lease."""

    holder: str
    """Token of the process that holds or held it."""
    released: bool = False


class Reaped(Record):
    """What killed processes had left open and was ended."""

    tracked: tuple[str, ...] = ()
    """Runs in MLflow."""
    flow_runs: tuple[str, ...] = ()
    """Runs in Prefect."""


class Waste(Record):
    """What no kept run, registered version or unfinished stage needs any more."""

    artifacts: dict[str, int]
    """Bytes of each, by its URI."""
    records: tuple[str, ...]
    """Keys of stage manifests, run records, checkpoints, leases and processes."""
    kept: dict[str, int]
    """What is left, in numbers: artifacts, bytes, runs, versions."""
    deleted: bool = False

    @property
    def size(self) -> int:
        """Return the bytes of all artifacts."""
        return sum(self.artifacts.values())
