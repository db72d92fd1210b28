"""The live display of a run on standard error: stage, step, tokens per second, time left."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from flows.terminal import say
from tasks.progress import StageEvent


class _Speed(ProgressColumn):
    """Tokens per second, and the time left once a step is done."""

    def render(self, task: Task) -> Text:
        """Return the cell's text; empty before the first step."""
        tokens, seconds = task.fields["tokens"], task.fields["seconds"]
        parts = [f"{tokens / seconds:,.0f} tok/s"] if tokens and seconds else []
        if task.total and 0 < task.completed < task.total and seconds:
            parts.append(f"{seconds * (task.total - task.completed) / task.completed:.0f} s left")
        return Text(" · ".join(parts))


class Display:
    """Show stage events: live bars on a terminal, one line per event elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._live = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:16}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[steps]:>11}"),
            _Speed(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            refresh_per_second=4,
        )

    def __enter__(self) -> Self:
        """Begin the live display."""
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state of the display on the terminal."""
        if self._live:
            self._progress.stop()

    def __call__(self, event: StageEvent) -> None:
        """Show one event."""
        if self._live:
            self._draw(event)
        elif not self._quiet and event.state != "step":
            seconds = f" in {event.seconds:.1f} s" if event.seconds else ""
            say(f"{event.stage}: {event.state}{seconds}")

    def _draw(self, event: StageEvent) -> None:
        if event.stage not in self._bars:
            self._bars[event.stage] = self._progress.add_task(
                event.stage, total=None, steps="", tokens=0, seconds=0.0, note=""
            )
        bar = self._bars[event.stage]
        if event.state == "step":
            self._progress.update(
                bar,
                completed=event.step,
                total=event.total or None,
                steps=f"{event.step}/{event.total}" if event.total else str(event.step),
                tokens=event.tokens,
                seconds=event.seconds,
                note=_headline(event),
            )
        elif event.state == "waiting":
            self._progress.update(bar, note="another run computes it")
        elif event.state in {"finished", "reused", "failed"}:
            note = {"finished": f"{event.seconds:.1f} s", "reused": "re-used", "failed": "failed"}[
                event.state
            ]
            self._progress.update(bar, total=1, completed=event.state != "failed", note=note)
            self._progress.stop_task(bar)


def _headline(event: StageEvent) -> str:
    """Return the one metric that says how the stage goes."""
    for name in ("score", "loss"):
        if name in event.metrics:
            return f"{name} {event.metrics[name]:.3f}"
    return ""
