"""Render a run as one self-contained HTML page: no network, no script, light and dark."""

from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rlhf.report import figures
from rlhf.report.content import ReportContent, duration, over_optimisation, percent, summary, verdict
from rlhf.report.pipeline import pipeline

HEADLINES = ("loss", "accuracy", "score", "kl")
"""Metrics drawn openly; the rest is folded away."""


def render(content: ReportContent) -> str:
    """Return the page; every text is escaped, for responses come from models and data from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration}
    return environment.get_template("page.html.j2").render(
        content=content,
        verdict=verdict(content),
        summary=summary(content),
        policies=(content.sft, *content.evaluations.values()),
        pictures=(pipeline(content.stages, vertical=False), pipeline(content.stages, vertical=True)),
        training=_training(content, headline=True),
        more_training=_training(content, headline=False),
        reward_figure=content.reward and figures.reward_model(content.reward),
        probe_figure=figures.probe_accuracies(content.probes) if content.probes else None,
        win_figure=figures.win_rates(content.evaluations, content.config.gate.min_win_rate_low),
        frontiers=[
            (name, figures.frontier(name, curve), over_optimisation(name, curve))
            for name, curve in content.curves.items()
            if curve
        ],
        config=yaml.safe_dump(content.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        seconds=sum(stage.seconds for stage in content.stages),
        reused=sum(stage.status == "reused" for stage in content.stages),
    )


def _training(content: ReportContent, *, headline: bool) -> list[tuple[str, list[str]]]:
    return [
        (stage, drawn)
        for stage, metrics in content.histories.items()
        if (
            drawn := [
                figures.metric_curve(stage, metric, history)
                for metric, history in metrics.items()
                if len(history) > 1 and (metric in HEADLINES) == headline
            ]
        )
    ]
