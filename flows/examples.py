"""What `--help` shows to copy: for each command, lines that work as they stand or with a name of yours in capitals."""

from collections.abc import Iterator, Mapping

import typer
from rich.markup import escape

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "init": (
        ("rlhf init support", "a starter project in the folder support"),
        ("cd support && rlhf run recipe.yaml", "align a tiny model on its example data"),
    ),
    "run": (
        ("rlhf run helpdesk", "the whole pipeline on the embedded world"),
        ("rlhf run helpdesk ppo.kl_coef=0.2", "change one knob: only what depends on it runs again"),
        ("rlhf run recipe.yaml,gpu.yaml --json", "the second file on top of the first; one JSON object"),
    ),
    "stage": (
        ("rlhf stage reward helpdesk", "the reward model, and what it needs"),
        ("rlhf stage validate recipe.yaml", "look at your data before anything is trained"),
    ),
    "config": (
        ("rlhf config helpdesk", "every key and its value"),
        ("rlhf config recipe.yaml sft.lora.rank=8", "is this right? exit code 2 if it is not"),
    ),
    "sweep": (
        ("rlhf sweep helpdesk ppo.kl_coef=0.02,0.05,0.1 --seeds 4", "a grid, what it shares computed once"),
    ),
    "compare": (
        ("rlhf compare RUN", "the aligners of one run, by its prompts"),
        ("rlhf compare SWEEP --by win_rate", "over the seeds of a sweep, by the win rate"),
    ),
    "estimate": (
        ("rlhf estimate helpdesk", "memory, time and cost, before anything runs"),
        ("rlhf estimate recipe.yaml cost.price_per_hour=2.5", "with the price of the machine"),
        ("rlhf estimate recipe.yaml --flops 3e14 --bandwidth 2e12", "on another machine"),
    ),
    "validate": (
        ("rlhf validate pairs.jsonl --as preferences", "what a run would say to this file"),
        ("rlhf validate pairs.csv --as preferences --column chosen=best --out checked", "names of your own"),
        ("rlhf validate chats.jsonl --as demonstrations rules.pii.level=quarantine", "a stricter rule"),
    ),
    "evaluate": (
        ("rlhf evaluate champion --against previous helpdesk", "two versions of the registered model"),
        ("rlhf evaluate RUN/ppo --against RUN/sft helpdesk", "two stages of a run"),
    ),
    "frontier": (("rlhf frontier RUN", "proxy and gold against KL, and a KL budget"),),
    "models": (
        ("rlhf models", "versions of the helpdesk model, and who is champion"),
        ("rlhf models --name support --json", "those of another recipe, for a script"),
    ),
    "promote": (
        ("rlhf promote 3 --reason 'reads better'", "version 3 becomes champion; the old one is `previous`"),
        ("rlhf promote 3 --expected 2", "only if version 2 is still champion"),
    ),
    "rollback": (("rlhf rollback --reason 'complaints since Monday'", "the previous champion is back"),),
    "approve": (
        ("rlhf approve 4 --reason 'read 50 answers'", "the last word on a model that waits"),
        ("rlhf approve 4 --reject --reason 'too curt'", "keep it from becoming champion"),
    ),
    "gc": (
        ("rlhf gc", "what no run, version or unfinished stage needs, and how much room it takes"),
        ("rlhf gc --days 7 --delete", "remove it, down to what is a week old"),
    ),
    "reap": (("rlhf reap", "end the MLflow and Prefect runs that killed processes have left open"),),
    "lineage": (
        ("rlhf lineage champion", "back to the data files"),
        ("rlhf lineage --data sha256:DIGEST", "every model that a file went into"),
    ),
    "chat": (
        ("rlhf chat", "talk to the champion"),
        ("rlhf chat candidate --feedback", "talk to another version and keep your + and -"),
    ),
    "report": (
        ("rlhf report", "the page of the run that ended last"),
        ("rlhf report --compare RUN RUN", "two runs side by side"),
    ),
    "evaluate-reward": (
        ("rlhf evaluate-reward RUN/reward --data pairs.jsonl", "accuracy with intervals, beside baselines"),
    ),
    "serve": (
        ("rlhf serve", "the champion at http://127.0.0.1:8800/v1"),
        ("rlhf serve 3 --guard guard.yaml --feedback", "version 3 with guardrails, taking thumbs"),
    ),
    "export": (
        ("rlhf export champion model", "a folder for transformers or vLLM"),
        ("rlhf export 3 s3://bucket/models/3", "the same into a bucket"),
    ),
    "label": (
        ("rlhf run helpdesk preferences.source=people", "a run that waits for people"),
        ("rlhf label serve", "the page on which they rank"),
    ),
    "label serve": (("rlhf label serve --port 8700", "the labelling page, on this machine only"),),
    "label rater": (
        ("rlhf label rater ann", "a token for ann, shown this once"),
        ("rlhf label rater ann --revoke", "end her access"),
    ),
    "label list": (("rlhf label list", "batches, and how far each is"),),
    "label close": (("rlhf label close BATCH", "enough: the run goes on with what there is"),),
    "label export": (
        ("rlhf label export BATCH --out rankings.jsonl", "rankings as JSON Lines"),
        ("rlhf label export BATCH --format label-studio", "for another tool"),
    ),
    "label import": (("rlhf label import rankings.jsonl", "rankings made elsewhere"),),
    "label agreement": (("rlhf label agreement BATCH", "how far raters agree"),),
    "label publish": (("rlhf label publish BATCH", "the batch, pair by pair, on MLflow's page"),),
    "label collect": (("rlhf label collect BATCH", "take the verdicts back"),),
    "ui": (("rlhf ui", "Prefect at port 4200, MLflow at port 5000"),),
    "deploy": (("rlhf deploy --file prefect.yaml", "register schedules and the worker pool"),),
    "worker": (
        ("rlhf worker", "run what is due, one at a time"),
        ("rlhf worker --gpus 0,1", "one run per card, and no card for two"),
    ),
    "doctor": (("rlhf doctor", "what is missing here, and how to mend it"),),
}


def teach(app: typer.Typer, prefix: str = "") -> None:
    """Put its examples under the help of every command and group of an app."""
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", ""))
        command.epilog = "\n\n".join(_lines(f"{prefix}{name}"))
    for group in app.registered_groups:
        group.epilog = "\n\n".join(_lines(f"{prefix}{group.name}"))
        assert group.typer_instance is not None, "a group is an app of its own"
        teach(group.typer_instance, f"{prefix}{group.name} ")


def _lines(command: str) -> Iterator[str]:
    """Give each example with what it does; a command without examples has nothing under its help."""
    for example, meaning in EXAMPLES.get(command, ()):
        yield f"[bold]{escape(example)}[/bold]  [dim]{escape(meaning)}[/dim]"
