"""Two runs side by side: what was set differently, what was read, what it took, and what came of it."""

from collections.abc import Iterator, Mapping

from markupsafe import Markup
from pydantic import JsonValue

from rlhf.report.chart import Area, axes, curve, cut, span, svg, text, tick_room
from rlhf.report.content import Answer, History, PairedResponses, ReportContent, percent, summary, verdict
from rlhf.report.figures import forest, running_mean, thin
from rlhf.report.page import HEADLINES, template
from schemas.record import Interval, Record

NAMES = ("A", "B")
_MEASURES = (
    ("win rate over SFT", "win_rate", True), ("hidden utility", "gold", False), ("score", "score", False),
    ("right answers", "right", True), ("rude answers", "rude", True), ("KL from SFT, nats", "kl", False),
    ("tokens", "length", False),
)  # fmt: skip


class Measure(Record):
    """One measure of one policy in both runs; None: not measured."""

    policy: str
    name: str
    first: str
    second: str
    difference: str
    apart: bool | None
    """Whether the intervals do not meet; None where there are none."""


def render_comparison(
    first: ReportContent, second: ReportContent, settings: Mapping[str, tuple[JsonValue, JsonValue]]
) -> str:
    """Return the page; `settings` holds what the two recipes say differently, by its dotted name."""
    runs = (first, second)
    return template("compare.html.j2").render(
        runs=list(zip(NAMES, runs, strict=True)),
        verdicts=[verdict(run) for run in runs],
        summaries=[summary(run) for run in runs],
        settings=settings,
        data=_data(first, second),
        measures=[row for policy in _policies(first, second) for row in _measures(policy, first, second)],
        wins=_wins(first, second),
        curves=list(_curves(first, second)),
        times=_times(first, second),
        shown=_responses(first, second),
        judges={run.config.evaluate.judge for run in runs},
    )


def _policies(first: ReportContent, second: ReportContent) -> list[str]:
    return list(dict.fromkeys(("sft", *first.evaluations, *second.evaluations)))


def _measures(policy: str, first: ReportContent, second: ReportContent) -> Iterator[Measure]:
    found = [run.sft if policy == "sft" else run.evaluations.get(policy) for run in (first, second)]
    for name, field, share in _MEASURES:
        values = [getattr(one, field, None) for one in found]
        spans = [value if isinstance(value, Interval) else None for value in values]
        if field == "win_rate":
            spans = [_win(one) for one in found]
        numbers = [value.value if isinstance(value, Interval) else value for value in values]
        if numbers == [None, None]:
            continue
        both = [number for number in numbers if number is not None]
        gap = both[1] - both[0] if len(both) == 2 else None
        yield Measure(
            policy=policy,
            name=name,
            first=_written(numbers[0], spans[0], share=share),
            second=_written(numbers[1], spans[1], share=share),
            difference="" if gap is None else f"{100 * gap:+.1f} points" if share else f"{gap:+.2f}",
            apart=None
            if spans[0] is None or spans[1] is None
            else spans[0].high < spans[1].low or spans[1].high < spans[0].low,
        )


def _win(found: object) -> Interval | None:
    value, low, high = (getattr(found, f"win_rate{end}", None) for end in ("", "_low", "_high"))
    return None if value is None or low is None or high is None else Interval(value=value, low=low, high=high)


def _written(number: float | None, found: Interval | None, *, share: bool) -> str:
    if number is None:
        return "not measured"
    parts = [number] if found is None else [number, found.low, found.high]
    value, *ends = (percent(part) if share else f"{part:.2f}" for part in parts)
    return f"{value} ({ends[0]} to {ends[1]})" if ends else value


def _wins(first: ReportContent, second: ReportContent) -> Markup | None:
    rows = {
        f"{policy.upper()} in {name}": found
        for policy in _policies(first, second)
        for name, run in zip(NAMES, (first, second), strict=True)
        if (found := _win(run.evaluations.get(policy)))
    }
    return forest("win rate over the run's own SFT model", rows) if rows else None


def _data(first: ReportContent, second: ReportContent) -> list[tuple[str, str, str]]:
    """Return the tables that validation made, with their digests in both runs."""
    found = [
        next((stage.outputs for stage in run.stages if stage.name == "validate"), {})
        for run in (first, second)
    ]
    return [
        (name, *(one[name].digest[7:19] if name in one else "none" for one in found))  # type: ignore[misc]  # always two
        for name in dict.fromkeys((*found[0], *found[1]))
    ]


def _times(first: ReportContent, second: ReportContent) -> list[tuple[str, list[str | float]]]:
    found = [{stage.name: stage for stage in run.stages} for run in (first, second)]
    rows: list[tuple[str, list[str | float]]] = []
    for name in dict.fromkeys((*found[0], *found[1])):
        stages = [one.get(name) for one in found]
        rows.append(
            (
                name,
                [
                    "" if stage is None else "re-used" if stage.status == "reused" else stage.seconds
                    for stage in stages
                ],
            )
        )
    return rows


def _curves(first: ReportContent, second: ReportContent) -> Iterator[Markup]:
    for stage, metrics in first.histories.items():
        for metric, history in metrics.items():
            other = second.histories.get(stage, {}).get(metric, ())
            if metric in HEADLINES and len(history) > 1 and len(other) > 1:
                yield both(stage, metric, history, other)


def both(stage: str, metric: str, first: History, second: History) -> Markup:
    """Draw a metric of both runs over its steps, each as its running mean."""
    lines = [thin(running_mean(history)) for history in (first, second)]
    low, high = span([value for line in lines for _, value in line], margin=0.05)
    start, end = span([step for line in lines for step, _ in line])
    area = Area(
        left=tick_room(low, high), right=320, top=34, bottom=172, low_x=start, high_x=end, low_y=low, high_y=high,
    )  # fmt: skip
    name = metric.replace("_", " ")
    parts = axes(area, label="step", whole=True)
    for kind, run, line, place in zip(("one", "two"), NAMES, lines, (276, 336), strict=True):
        parts.append(curve(f"stroke {kind}", line, area, name=run))
        parts.append(text(f"value {kind}", place, 16, f"{run} {line[-1][1]:.3g}", anchor="end"))
    parts.append(text("title", 4, 16, cut(f"{stage} · {name}", 24), full=f"{stage} · {name}"))
    return svg(parts, width=340, height=212, label=f"{name} of {stage} by step, in both runs", plot=area)


def _responses(first: ReportContent, second: ReportContent) -> list[PairedResponses]:
    """Return the prompts that both runs were asked, with the answers of both."""
    others = {pair.prompt: pair for pair in second.responses}
    return [
        PairedResponses(
            prompt=pair.prompt,
            answers=tuple(
                _of(answer, name)
                for name, answers in zip(NAMES, (pair.answers, others[pair.prompt].answers), strict=True)
                for answer in answers
            ),
        )
        for pair in first.responses
        if pair.prompt in others
    ]


def _of(answer: Answer, run: str) -> Answer:
    return answer.model_copy(update={"policy": f"{answer.policy} in {run}"})
