"""`rlhf serve` and `rlhf export`: a model for other programs."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from pydantic import ValidationError

from flows.commands_label import LOOPBACK
from flows.commands_model import MODEL_HELP, model_folder, version_of
from flows.commands_registry import Name
from flows.terminal import say, show
from schemas.config.serving import GuardConfig
from schemas.errors import ConfigError, NotFound
from schemas.settings import Settings

if TYPE_CHECKING:
    from rlhf.serving.api import Served


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(serve)
    app.command()(export)


def serve(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)] = "champion",
    name: Name = "helpdesk",
    host: Annotated[str, typer.Option(help="Beyond this machine it needs RLHF_SERVE_TOKEN.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8800,
    guard: Annotated[Path | None, typer.Option(help="YAML with the guardrails; see docs/serving.md.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="Reward model for best_of and min_score; default: the version's own.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 64,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Take thumbs with consent at POST /v1/feedback.")
    ] = False,
) -> None:
    """Serve a model at /v1/chat/completions, as OpenAI's clients expect it, until Ctrl-C."""
    settings = Settings()
    token = settings.serve_token.get_secret_value() if settings.serve_token else None
    if host not in LOOPBACK and token is None:
        raise ConfigError(
            f"--host {host} lets other machines in, and RLHF_SERVE_TOKEN is not set; set it to a long random text, and put TLS in front."
        )
    if token is not None and len(token) < 16:
        raise ConfigError("RLHF_SERVE_TOKEN is too short to keep anybody out; use 16 characters or more.")
    served = _load(settings, model, name, _guard(guard), reward, max_new_tokens, token, feedback=feedback)
    import uvicorn

    from rlhf.serving.api import create_app

    shown = f"[{host}]" if ":" in host else host
    show(f"serving {served.name} at http://{shown}:{port}/v1")
    say(f"decisions of the guardrails: {_decisions(settings)}; Ctrl-C stops the server")
    uvicorn.run(create_app(served), host=host, port=port, log_level="warning", server_header=False)


def export(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    destination: Annotated[str, typer.Argument(metavar="DEST", help="A new folder, or s3://bucket/prefix.")],
    name: Name = "helpdesk",
    base: Annotated[
        Path | None, typer.Option(help="The model that adapters were trained on, where they do not name it.")
    ] = None,
) -> None:
    """Write a model where transformers or vLLM can load it: adapters merged in fp32, every file hashed on arrival."""
    folder = model_folder(model, name)
    from rlhf.adapters.export import export as hand_out
    from rlhf.models.export import export_policy

    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "model"
        export_policy(folder, plain, base=base)
        manifest = hand_out(plain, destination)
    size = sum(entry.size for entry in manifest.files)
    show(f"{destination}: {len(manifest.files)} files, {size:,} bytes, hashed on arrival")


def _load(
    settings: Settings,
    model: str,
    name: str,
    guard: GuardConfig,
    reward: str | None,
    max_new_tokens: int,
    token: str | None,
    *,
    feedback: bool,
) -> "Served":
    version = version_of(model, name)
    if guard.needs_reward and reward is None:
        if version is None:
            raise NotFound("best_of and min_score need a reward model; name one with --reward.")
        reward = f"{version.tags.get('pipeline_run', '')}/reward"
    folder = model_folder(model, name)
    scorer = model_folder(reward, name) if reward else None
    from rlhf.feedback.database import connect
    from rlhf.serving.api import Served
    from rlhf.serving.assistant import Assistant
    from rlhf.serving.guardrails import DecisionLog, Guardrails

    log = DecisionLog(
        _decisions(settings), f"{version.model} version {version.version}" if version else str(folder)
    )
    return Served(
        guardrails=Guardrails(Assistant.load(folder, scorer), guard, log),
        name=version.model if version else folder.name,
        max_new_tokens=max_new_tokens,
        feedback=connect(settings.feedback_url) if feedback else None,
        token=token,
    )


def _guard(path: Path | None) -> GuardConfig:
    if path is None:
        return GuardConfig()
    if not path.is_file():
        raise NotFound(f"No file {path}; name one that exists.")
    try:
        return GuardConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path}: {where}: {first['msg'].removeprefix('Value error, ')} (found {first['input']!r:.80})."
        ) from None


def _decisions(settings: Settings) -> Path:
    return settings.home / "serving" / "decisions.jsonl"
