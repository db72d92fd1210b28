"""Render a run as one self-contained HTML page: no network, light and dark, and whole without its script."""

import base64
import hashlib
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from rlhf.report import figures, quality, reward_charts
from rlhf.report.chart import standalone
from rlhf.report.content import (
    ReportContent,
    feedback,
    over_optimisation,
    percent,
    rounds,
    summary,
    verdict,
    weakest_probe,
)
from rlhf.report.cost import cost, estimate_said
from rlhf.report.pipeline import pipeline
from schemas.reports import GateRule
from schemas.units import duration, size

_HERE = Path(__file__).parent
HEADLINES = ("loss", "accuracy", "rewards_accuracies", "score", "kl")
"""Metrics drawn openly; the rest is folded away."""
SHOWN = 8
"""Prompts whose responses are shown openly."""


def render(content: ReportContent) -> str:
    """Return the page; every text is escaped, for responses come from models and data from anywhere."""
    spent = cost(content)
    return template("page.html.j2").render(
        content=content,
        verdict=verdict(content),
        summary=summary(content),
        rounds=rounds(content),
        policies=(content.sft, *content.evaluations.values()),
        pictures=(pipeline(content.stages, vertical=False), pipeline(content.stages, vertical=True)),
        feedback=feedback(content),
        data_charts=[picture for report in content.validation for picture in quality.charts(report)],
        agreement=[said for report in content.validation if (said := quality.agreement(report))],
        tokens=[(name, check, quality.token_sentences(check)) for name, check in content.tokens.items()],
        training=_training(content, headline=True),
        more_training=_training(content, headline=False),
        reward_charts=reward_charts.charts(content.reward_quality) if content.reward_quality else {},
        reward_sentences=reward_charts.sentences(content.reward_quality) if content.reward_quality else [],
        mistakes=content.reward_quality.mistakes if content.reward_quality else (),
        probe_figure=figures.probe_accuracies(content.probes) if content.probes else None,
        weakest_probe=weakest_probe(content),
        win_figure=figures.win_rates(content.evaluations, content.config.gate.min_win_rate_low),
        frontiers=[
            (name, figures.frontier(name, curve), over_optimisation(name, curve))
            for name, curve in content.curves.items()
            if curve
        ],
        shown=content.responses[:SHOWN],
        folded=content.responses[SHOWN:],
        rules=_rules(content),
        config=yaml.safe_dump(content.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        cost=spent,
        estimate_said=estimate_said(spent),
        safe=[found for found in (content.sft, *content.evaluations.values()) if found.safety],
        seconds=sum(stage.seconds for stage in content.stages),
        reused=sum(stage.status == "reused" for stage in content.stages),
    )


def template(name: str) -> Template:
    """Return a template that knows how numbers are written, and the script with the digest that admits it."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "size": size}
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": Markup(script),  # noqa: S704 - our own file, which holds nothing of a run
        "script_hash": f"sha256-{digest}",
    }
    return environment.get_template(name)


def plots(content: ReportContent) -> dict[str, str]:
    """Return the charts as image files by name, each with its colours in it."""
    drawn = {
        f"{stage}-{metric}": figures.metric_curve(stage, metric, history)
        for stage, metrics in content.histories.items()
        for metric, history in metrics.items()
        if len(history) > 1 and metric in HEADLINES
    }
    for name, curve in content.curves.items():
        if curve:
            drawn[f"{name}-score-by-kl"], drawn[f"{name}-gold-by-kl"] = figures.frontier(name, curve)
    drawn["win-rates"] = figures.win_rates(content.evaluations, content.config.gate.min_win_rate_low)
    if content.reward_quality:
        drawn |= reward_charts.charts(content.reward_quality)
    if content.probes:
        drawn["reward-probes"] = figures.probe_accuracies(content.probes)
    style = (_HERE / "chart.css").read_text(encoding="utf-8")
    return {f"{name}.svg": standalone(picture, style) for name, picture in drawn.items()}


def _training(content: ReportContent, *, headline: bool) -> list[tuple[str, list[Markup]]]:
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


def _rules(content: ReportContent) -> dict[tuple[str, str], dict[str, GateRule]]:
    """Return each rule, by its name and what it wants, with what was found of each aligner."""
    rows: dict[tuple[str, str], dict[str, GateRule]] = {}
    for aligner, rules in content.gate.rules.items():
        for rule in rules:
            rows.setdefault((rule.name, rule.wanted), {})[aligner] = rule
    return rows
