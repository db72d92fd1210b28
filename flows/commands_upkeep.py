"""`rlhf reap` and `rlhf gc`: what killed processes and old runs have left behind."""

from typing import Annotated

import typer

from flows.commands_run import Json
from flows.environment import prepare
from flows.servers import temporary_prefect
from flows.terminal import say, show, show_json
from schemas.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(reap)
    app.command()(gc)


def reap(json: Json = False) -> None:
    """End the MLflow and Prefect runs whose process is gone; those of other machines after a minute without a sign."""
    prepare(Settings())
    with temporary_prefect() as until_it_answers:
        from tasks.reap import reap as end_dead_runs
        from tasks.work import connect_tracking

        tracking = connect_tracking("helpdesk")
        until_it_answers()
        say("looking for runs whose process is gone")
        found = end_dead_runs(tracking, patient=True)
    if json:
        show_json(found)
        return
    for run_id in found.tracked:
        show(f"MLflow run {run_id} is KILLED")
    for run_id in found.flow_runs:
        show(f"Prefect run {run_id} is Crashed")
    if not (found.tracked or found.flow_runs):
        show("nothing to end")


def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove it; without this, only say what would go.")
    ] = False,
    days: Annotated[
        float, typer.Option(help="Keep what is younger than this, and all of the runs begun since.", min=1)
    ] = 30,
    json: Json = False,
) -> None:
    """Say what no kept run, registered version or unfinished stage needs, and with --delete remove it."""
    prepare(Settings())
    from tasks.gc import collect
    from tasks.work import connect_tracking

    found = collect(connect_tracking("helpdesk"), days=days, delete=delete)
    if json:
        show_json(found)
        return
    for uri, size in sorted(found.artifacts.items(), key=lambda one: -one[1]):
        show(f"{size / 1e6:10.1f} MB  {uri}")
    show(
        f"{'removed' if delete else 'not needed'}: {len(found.artifacts)} artifacts ({found.size / 1e6:.1f} MB), {len(found.records)} records"
    )
    show(
        f"kept: {found.kept['artifacts']} artifacts ({found.kept['bytes'] / 1e6:.1f} MB) of {found.kept['runs']} runs and {found.kept['versions']} versions"
    )
    if not delete and (found.artifacts or found.records):
        say("nothing was removed; add --delete")
