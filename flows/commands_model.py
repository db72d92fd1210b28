"""`rlhf chat` and `rlhf report`: use what a run has left."""

import getpass
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands_registry import Name, registry
from flows.environment import prepare
from flows.terminal import say, show
from schemas.errors import ConfigError, NotFound
from schemas.refs import ModelRef
from schemas.settings import Settings

if TYPE_CHECKING:
    from schemas.registry import Version

MODEL_HELP = "A version, an alias, models:/NAME@ALIAS, RUN/STAGE, a ref (URI DIGEST) or a folder."
CONSENT = (
    "with + and - you agree that the question and the answer above are kept, with your user name, to train on"
)
"""Shown before the first answer, and kept with every judgement."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(chat)
    app.command()(report)


def chat(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)] = "champion",
    name: Name = "helpdesk",
    temperature: Annotated[float, typer.Option(help="Above 0; small means sober.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    seed: int = 0,
    feedback: Annotated[
        bool,
        typer.Option(
            "--feedback", help="Keep your + and - on answers, with the words, in the feedback database."
        ),
    ] = False,
) -> None:
    """Talk to a model; an empty line or Ctrl-D ends it.

    With --feedback a line of + or - judges the answer above it.
    """
    folder = model_folder(model, name)
    from rlhf.serving.assistant import Assistant, Sampling

    assistant = Assistant.load(folder)
    if sys.stdin.isatty():
        say(f"talking to {model}; an empty line ends it")
    judge = _Judge(model) if feedback else None
    if judge:
        say(CONSENT)
    while question := _ask():
        if judge and question in ("+", "-"):
            say(judge.judge(liked=question == "+"))
            continue
        sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        answer = assistant.answer([{"role": "user", "content": question}], sampling)[0].text
        seed += 1  # the same question twice need not get the same answer
        show(answer)
        if judge:
            judge.said = (question, answer)


class _Judge:
    """Keeps what somebody who asked for it with --feedback thinks of the last answer."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.said: tuple[str, str] | None = None
        self._occasion = uuid.uuid4().hex
        self._number = 0

    def judge(self, *, liked: bool) -> str:
        """Keep the judgement, and return what to say about it."""
        if self.said is None:
            return "there is no answer to judge yet"
        from rlhf.feedback import thumbs
        from rlhf.feedback.database import connect

        self._number += 1
        question, answer = self.said
        thumbs.record(
            connect(Settings().feedback_url),
            prompt=[{"role": "user", "content": question}],
            response=answer,
            label=liked,
            rater=getpass.getuser(),
            model=self.model,
            consent=CONSENT,
            occasion=f"{self._occasion}-{self._number}",
        )
        self.said = None
        return "kept"


def report(
    run: Annotated[str | None, typer.Argument(help="The run's id; default: the run that ended last.")] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="RUN RUN", help="Put two runs side by side instead.", show_default=False),
    ] = None,
) -> None:
    """Write a run's page, or one that compares two runs, to the reports folder and say where it is."""
    settings = Settings()
    prepare(settings)
    from rlhf.report.comparison import render_comparison
    from rlhf.report.page import render
    from tasks.report import read_content, settings_apart

    if run is not None and compare is not None:
        raise ConfigError("Name one run, or two after --compare, and not both.")
    if compare is not None:
        first, second = (read_content(one) for one in compare)
        page = render_comparison(first, second, settings_apart(first.config, second.config))
        name = "-".join(one[:8] for one in compare)
    else:
        name = run or _last_run(settings)
        page = render(read_content(name))
    settings.reports.mkdir(parents=True, exist_ok=True)
    target = settings.reports / f"{name}.html"
    target.write_text(page, encoding="utf-8")
    show(str(target))


def model_folder(model: str, name: str) -> Path:
    """Return a local folder with the model that MODEL names, in any of the ways that `rlhf chat` takes."""
    if Path(model).is_dir():
        return Path(model)
    settings = Settings()
    uri, _, digest = model.partition(" ")
    if digest:
        from rlhf.adapters.object_store import open_store

        return open_store(settings.store, settings.cache).fetch(
            ModelRef(uri=uri, digest=digest, role="policy")
        )
    version = version_of(model, name)
    if version is None:
        return _stage_output(*model.split("/", 1))
    return registry(version.model).download(
        version, settings.cache / "models" / version.model / str(version.version)
    )


def version_of(model: str, name: str) -> "Version | None":
    """Return the registered version that MODEL names; None when it names a folder, a ref or a stage's output."""
    if Path(model).is_dir() or " " in model:
        return None
    if model.startswith("models:/"):
        name, _, model = model.removeprefix("models:/").replace("@", "/").partition("/")
    elif "/" in model:
        return None
    return registry(name).resolve(model)


def _stage_output(run_id: str, stage: str) -> Path:
    settings = Settings()
    prepare(settings)
    from rlhf.adapters.object_store import open_store
    from tasks.run import entries

    entry = entries(run_id).get(stage)
    ref = entry.record.outputs.get("model") if entry else None
    if ref is None:
        raise NotFound(
            f"{run_id}/{stage} is neither a folder nor a known run with a stage that made a model."
        )
    return open_store(settings.store, settings.cache).fetch(ref)


def _last_run(settings: Settings) -> str:
    from tasks.run import entries
    from tasks.work import artifact_store

    ids = {key.split("/")[1] for key in artifact_store().list_keys("runs/")}
    ended = {run: entry.record.ended for run in ids if (entry := entries(run).get("report"))}
    if not ended:
        raise NotFound(f"No run under {settings.home} has a report yet; start one with `rlhf run helpdesk`.")
    return max(ended, key=lambda run: ended[run])


def _ask() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
