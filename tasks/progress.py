"""Tell whoever listens how a run goes on, stage by stage and step by step."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEvent:
    """Something that happened in a stage."""

    stage: str
    state: Literal["waiting", "started", "step", "finished", "reused", "failed"]
    step: int = 0
    total: int = 0
    """Steps that the stage will take; 0: not known."""
    tokens: int = 0
    """Tokens worked on since the stage began."""
    seconds: float = 0.0
    """Since the stage began."""
    metrics: Mapping[str, float] = field(default_factory=dict)


Listener = Callable[[StageEvent], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Send every event of the stages called inside the block to the listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def emit(event: StageEvent) -> None:
    """Hand an event to the listener, if there is one."""
    if listener := _listener.get():
        listener(event)
