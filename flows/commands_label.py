"""`rlhf label ...`: the page on which people rank responses, who they are, and what they have answered."""

import os
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import commands_review
from flows.commands_run import Json
from flows.events import batches_closed
from flows.terminal import say, show, show_json, show_table
from schemas.errors import ConfigError, NotFound, RLHFError
from schemas.settings import Settings

if TYPE_CHECKING:
    from rlhf.feedback.database import Feedback

RESUME_SECONDS = 5.0
"""How often the page looks for closed batches whose run has not been told yet."""

FORMATS = ("jsonl", "csv", "label-studio", "label-studio-pairwise", "argilla", "trl")
LOOPBACK = ("127.0.0.1", "::1", "localhost")

BatchName = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's name or number.")]
FormatName = Annotated[str, typer.Option("--format", metavar="FORMAT", help=", ".join(FORMATS))]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    label = typer.Typer(no_args_is_help=True, help="People rank responses, and a run waits for them.")
    label.command()(serve)
    label.command()(rater)
    label.command("list")(list_batches)
    label.command()(close)
    label.command()(export)
    label.command("import")(import_rankings)
    label.command()(agreement)
    label.command()(commands_review.publish)
    label.command()(commands_review.collect)
    app.add_typer(label, name="label")


def serve(
    host: Annotated[str, typer.Option(help="Beyond this machine it needs RLHF_LABEL_SECRET.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8700,
) -> None:
    """Serve the labelling page until Ctrl-C."""
    settings = Settings()
    secret = _secret(settings, host)
    feedback = _open()
    import uvicorn

    from rlhf.feedback import annotators
    from rlhf.feedback.web.app import create_app

    if not [one for one in annotators.everybody(feedback) if one.token_id]:
        say("nobody can sign in yet, so here is an admin; the token is shown this once")
        show(f"admin token: {annotators.add(feedback, 'admin', 'admin')}")
    closed, stopping = threading.Event(), threading.Event()
    resuming = threading.Thread(target=_keep_resuming, args=(feedback, closed, stopping), daemon=True)
    resuming.start()
    shown = f"[{host}]" if ":" in host else host
    show(f"labelling page: http://{shown}:{port}")
    say("add raters with: rlhf label rater NAME; Ctrl-C stops the page")
    app = create_app(feedback, secret, closed.set)
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
    stopping.set()
    closed.set()
    resuming.join(timeout=5)


def rater(
    name: Annotated[str, typer.Argument(help="Who is to answer.")],
    admin: Annotated[bool, typer.Option("--admin", help="May see the admin page and close batches.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="End this person's access.")] = False,
) -> None:
    """Add a rater and show their token, this once; a known name gets a new token."""
    from rlhf.feedback import annotators

    feedback = _open()
    if revoke:
        annotators.revoke(feedback, name)
        show(f"{name} can no longer sign in; what they answered stays")
    else:
        show(annotators.add(feedback, name, "admin" if admin else "rater"))


def list_batches(json: Json = False) -> None:
    """List the batches, newest first."""
    from rlhf.feedback import batches

    found = batches.listed(_open())
    if json:
        rows = [
            {
                "id": one.id,
                "name": one.name,
                "answered": one.answered,
                "quota": one.quota,
                "closed_by": one.closed_by,
            }
            for one in found
        ]
        show_json(rows)
        return
    show_table(
        ("number", "batch", "rankings", "state"),
        [
            (
                str(one.id),
                one.name,
                f"{one.answered} of {one.quota}",
                f"closed by {one.closed_by}" if one.closed_at else "open",
            )
            for one in found
        ],
    )


def close(batch: BatchName) -> None:
    """Close a batch, so that the run that waits for it goes on."""
    from rlhf.feedback import batches

    feedback = _open()
    closed = batches.close(feedback, batches.find(feedback, batch).id, "the command line")
    show(f"{closed.name} is closed by {closed.closed_by} with {closed.answered} of {closed.quota} rankings")
    from flows.resume import resume_waiting

    for message in resume_waiting(feedback):
        say(message)
    batches_closed(feedback, [closed])


def export(
    batch: BatchName,
    format_name: FormatName = "jsonl",
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
) -> None:
    """Write a batch's rankings as a file that other tools read."""
    _known(format_name)
    from rlhf.feedback import batches, exports

    feedback = _open()
    text = exports.write(feedback, batches.find(feedback, batch).id, format_name)
    if out is None:
        show(text.rstrip("\n"))
    else:
        out.write_text(text, encoding="utf-8", newline="")
        say(f"wrote {out}")


def import_rankings(
    file: Annotated[Path, typer.Argument(help="What another tool, or export, wrote.")],
    format_name: FormatName = "jsonl",
    name: Annotated[str | None, typer.Option(help="The batch's name; default: the file's.")] = None,
) -> None:
    """Keep rankings from elsewhere as a closed batch."""
    _known(format_name)
    if not file.is_file():
        raise NotFound(f"No file {file}; name one that exists.")
    from rlhf.feedback import imports

    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8; convert it first.") from None
    feedback = _open()
    batch = imports.keep(feedback, imports.read(text, format_name), name or file.stem)
    show(f"batch {batch.id}, {batch.name}: {batch.answered} rankings")
    batches_closed(feedback, [batch])


def agreement(batch: BatchName, json: Json = False) -> None:
    """Say how far the raters of a batch agree, and what each one's answers look like."""
    from rlhf.feedback import batches, collected, raters
    from rlhf.feedback.agreement import agreement as measure
    from rlhf.feedback.votes import votes

    feedback = _open()
    standing = collected.standing(feedback, batches.find(feedback, batch).id)
    found = measure(votes(one for one in standing if one.gold is None and not one.excluded))
    described = raters.statistics(standing)
    if json:
        show_json(
            {
                "items": found.items if found else 0,
                "alpha": found.alpha.model_dump() if found else None,
                "pairwise": found.pairwise.model_dump() if found else None,
                "raters": [vars(one) for one in described],
            }
        )
        return
    if found is None:
        show("no two raters compared the same responses; ask for more with preferences.overlap=2")
    else:
        for name, value in (("Krippendorff's alpha", found.alpha), ("pairwise agreement", found.pairwise)):
            show(f"{name}: {value.value:.3f} [{value.low:.3f}, {value.high:.3f}] on {found.items} items")
    show_table(
        ("rater", "ranked", "skipped", "seconds", "majority", "gold", "reliability", "remarks"),
        [
            (
                one.name, str(one.ranked), str(one.skipped),
                *("-" if value is None else f"{value:.2f}" for value in (one.seconds, one.majority, one.gold, one.reliability)),
                "; ".join((*(["excluded"] if one.excluded else []), *one.warnings)),
            )
            for one in described
        ],
    )  # fmt: skip


def _open() -> "Feedback":
    from rlhf.feedback.database import connect

    return connect(Settings().feedback_url)


def _known(format_name: str) -> None:
    if format_name not in FORMATS:
        raise NotFound(f"No format {format_name!r}; wanted one of {', '.join(FORMATS)}.")


def _secret(settings: Settings, host: str) -> str:
    """Return what signs the sessions: the environment's, or on loopback one that this machine keeps."""
    if settings.label_secret is not None:
        secret = settings.label_secret.get_secret_value()
        if len(secret) < 16:
            raise ConfigError(
                "RLHF_LABEL_SECRET is too short to keep anybody out; use 16 characters or more."
            )
        return secret
    if host not in LOOPBACK:
        raise ConfigError(
            f"--host {host} lets other machines in, and RLHF_LABEL_SECRET is not set; set it to a long random text, and put TLS in front."
        )
    path = settings.home / "label-secret"
    settings.home.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="utf-8")
    secret = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secret)
    return secret


def _keep_resuming(feedback: "Feedback", closed: threading.Event, stopping: threading.Event) -> None:
    """Tell the runs whose batches are closed, also those that closed while nobody was there to tell."""
    from rlhf.feedback import batches

    told = {batch.id for batch in batches.closed(feedback)}
    while not stopping.is_set():
        try:
            new = [batch for batch in batches.closed(feedback) if batch.id not in told]
            told |= {batch.id for batch in new}
            batches_closed(feedback, new)
            if batches.waiting_to_resume(feedback):
                from flows.resume import resume_waiting

                for message in resume_waiting(feedback):
                    say(message)
        except RLHFError as error:
            say(f"error: {error}")
        closed.wait(RESUME_SECONDS)
        closed.clear()
