"""`rlhf models`, `promote`, `rollback`, `approve`, `lineage`: the registry by hand."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands_run import Json
from flows.environment import prefect_answers, prepare
from flows.terminal import say, show, show_json, show_table
from schemas.errors import ConfigError
from schemas.settings import Settings

if TYPE_CHECKING:
    from rlhf.adapters.registry import ModelRegistry

Reason = Annotated[str, typer.Option(help="Why; it is kept with the move.")]
Name = Annotated[str, typer.Option("--name", help="The registered model: the recipe's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (models, promote, rollback, approve, lineage):
        app.command()(command)


def models(name: Name = "helpdesk", json: Json = False) -> None:
    """List the registered versions with their aliases and what they have shown."""
    versions = registry(name).versions()
    if json:
        show_json([version.model_dump(mode="json") for version in versions])
        return
    rows = [
        (
            str(version.version),
            ", ".join(version.aliases),
            *(version.tags.get(tag, "-") for tag in ("aligner", "win_rate", "kl", "gate", "pipeline_run")),
        )
        for version in versions
    ]
    show_table(("version", "alias", "aligner", "win rate", "kl", "gate", "pipeline run"), rows)


def promote(
    version: Annotated[int, typer.Argument(min=1)],
    name: Name = "helpdesk",
    expected: Annotated[
        int | None, typer.Option(help="Refuse when another version than this is champion by now; 0: none.")
    ] = None,
    reason: Reason = "by hand",
) -> None:
    """Make a version the champion; the one before it becomes `previous`."""
    model = registry(name)
    verdict = model.resolve(str(version)).tags.get("gate")
    if verdict != "passed":
        say(
            f"version {version} did not pass the gate ({verdict or 'no verdict'}); you promote it all the same"
        )
    model.promote(version, expected=expected, why=reason)
    show(f"{name}: version {version} is now champion")


def rollback(name: Name = "helpdesk", reason: Reason = "by hand") -> None:
    """Make the previous champion the champion again."""
    move = registry(name).rollback(why=reason)
    show(f"{name}: version {move.version} is champion again")


def approve(
    version: Annotated[int, typer.Argument(min=1)],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the decision.")],
    name: Name = "helpdesk",
    reject: Annotated[bool, typer.Option("--reject", help="Keep it from becoming champion.")] = False,
) -> None:
    """Promote a version that has passed the gate and waits for a person (`gate.approval: manual`)."""
    model = registry(name)
    waiting = model.resolve(str(version)).tags.get("approval_flow_run")
    from rlhf.adapters.registry import somebody
    from tasks.approval import Approval, decide_by_person, resume

    answer = Approval(decision="reject" if reject else "approve", reviewer=somebody(), reason=reason)
    decide_by_person(model, version, answer)
    show(f"{name}: version {version} is {'rejected' if reject else 'now champion'}")
    if waiting:
        # Asked first: Prefect would start a server of its own only to learn that it does not know the run.
        silent = "the run that waited for it could not be told: no Prefect server answers"
        say(resume(waiting, answer) if prefect_answers() else silent)


def lineage(
    version: Annotated[str | None, typer.Argument(help="A number or an alias.", show_default=False)] = None,
    name: Name = "helpdesk",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIGEST", help="List the models made from a file, table, model or rating instead."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show where a version came from, or with --data what became of a file or a rating."""
    if (version is None) == (data is None):
        raise ConfigError("Name a version (a number or an alias) or --data DIGEST, and not both.")
    if data is not None:
        _what_became_of(data, json=json)
        return
    found = registry(name).resolve(str(version))
    from tasks.lineage import made_by

    stages = made_by(found)
    if json:
        show_json(found, stages=[stage.model_dump(mode="json") for stage in stages])
        return
    show(f"{name} version {found.version}")
    for key, value in sorted(found.tags.items()):
        show(f"  {key}: {value}")
    for stage in stages:
        origin = f", computed in {stage.reused_from}" if stage.reused_from else ""
        show(f"{stage.name} (MLflow run {stage.run_id}{origin})")
        for file in stage.files:
            show(f"  read {file.uri} {file.digest}")
        for direction, refs in (("read", stage.inputs), ("wrote", stage.outputs)):
            for label, ref in refs.items():
                show(f"  {direction} {label} {ref.digest}")
    if not stages:
        say("the store no longer has the run that made it; the digests above are what is left")


def _what_became_of(digest: str, *, json: bool) -> None:
    settings = Settings()
    prepare(settings)
    from tasks.lineage import trained_on
    from tasks.work import connect_tracking, model_registry

    trace = trained_on(digest)
    versions = {
        (version.model, version.version): version
        for model in connect_tracking("helpdesk").models()
        for version in model_registry(model).versions()
        if version.tags.get("digest") in {made.digest for made in trace.models}
    }
    if json:
        show_json(trace, versions=[version.model_dump(mode="json") for version in versions.values()])
        return
    show(f"{trace.uri} {trace.digest}" + (f" with rating {trace.rating}" if trace.rating else ""))
    show_table(
        ("version", "alias", "aligner", "gate", "pipeline run"),
        [
            (
                f"{version.model} {version.version}",
                ", ".join(version.aliases),
                *(version.tags.get(tag, "-") for tag in ("aligner", "gate", "pipeline_run")),
            )
            for version in versions.values()
        ],
    )
    registered = {version.tags["digest"] for version in versions.values()}
    for made in trace.models:
        if made.digest not in registered:
            show(f"not registered: {made.stage} {made.digest} {made.uri}")


def registry(name: str) -> "ModelRegistry":
    """Return the registered model in the registry that the environment names."""
    settings = Settings()
    prepare(settings)
    from rlhf.adapters.object_store import open_store
    from rlhf.adapters.tracking import connect

    return connect(settings, name).registry(name, open_store(settings.store, settings.cache))
