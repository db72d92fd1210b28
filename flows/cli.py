"""The command line `rlhf`: what a command raises becomes one line and an exit code here.

Exit codes: 0 done; 1 failed; 2 the input is wrong; 3 done, but rows were quarantined or the gate refused.
Nothing here may import torch, trl, mlflow or prefect: `rlhf --help` pays for none of them.
"""

import logging
import sys
from types import TracebackType
from typing import Annotated

import typer
from typer.core import TyperGroup

from flows import (
    commands_compare,
    commands_data,
    commands_estimate,
    commands_evaluate,
    commands_init,
    commands_label,
    commands_model,
    commands_registry,
    commands_reward,
    commands_run,
    commands_serve,
    commands_sweep,
    commands_upkeep,
    doctor,
    servers,
    workers,
)
from flows.examples import teach
from flows.terminal import say, show_json
from schemas.errors import RLHFError

_OURS = {"flows", "tasks", "rlhf", "schemas"}


class _Commands(TyperGroup):
    """Turn the project's errors and Ctrl-C into one line and an exit code."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except RLHFError as error:
            if _debug():
                raise
            _fail(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            say("interrupted; every finished stage is kept, and the same command continues from there")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    help="Turn a base language model into an aligned one, and keep the evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (
    commands_init,
    commands_run,
    commands_sweep,
    commands_compare,
    commands_estimate,
    commands_data,
    commands_evaluate,
    commands_registry,
    commands_model,
    commands_reward,
    commands_serve,
    commands_label,
    commands_upkeep,
    servers,
    doctor,
    workers,
):
    module.register(app)
teach(app)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and all logs (accepted anywhere).")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.captureWarnings(capture=True)
    if not debug:
        # Other libraries' warnings and tracebacks are for those who debug; our own messages say what to do.
        for handler in logging.getLogger().handlers:
            handler.addFilter(lambda record: record.name.partition(".")[0] in _OURS)


def main() -> None:
    """Run the command line."""
    if _debug():
        # Accepted after the command too, where people type it once something went wrong.
        sys.argv[1:] = ["--debug", *(argument for argument in sys.argv[1:] if argument != "--debug")]
    else:
        sys.excepthook = _report_defect
    # Called through `app()`, Typer would put a hook of its own in the place of ours.
    typer.main.get_command(app)(prog_name="rlhf")


def _debug() -> bool:
    return "--debug" in sys.argv


def _fail(message: str) -> None:
    say(f"error: {message}")
    if "--json" in sys.argv:
        show_json({"status": "failed", "error": message})


def _report_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line what nobody foresaw; Python then exits with 1."""
    message = " ".join(str(error).split()) or "no message"
    _fail(f"{kind.__name__}: {message[:500]}. Nobody foresaw this; run again with --debug for the traceback.")


if __name__ == "__main__":
    main()
