import xml.etree.ElementTree as ElementTree

from rlhf.report.standings import picture
from schemas.record import Interval
from schemas.standings import Spent, Standing, Standings


def _policy(rank: int, name: str, **measures: float) -> Standing:
    return Standing(
        name=name,
        method=name,
        rank=rank,
        letters="ab",
        value=Interval(value=1.0 / rank, low=0.9 / rank, high=1.1 / rank),
        measures={"gold": 1.0 / rank, "length": 20.0, **measures},
        spent=Spent(seconds=1.0, sampled_tokens=5.0, gradient_tokens=7.0),
        tokens_per_answer=20.0,
    )


def test_every_policy_stands_in_every_panel_that_knows_it_and_names_are_escaped():
    report = Standings(
        recipe="mine",
        runs=("1",),
        seeds=(0,),
        measure="gold",
        unit="prompt",
        units=9,
        confidence=0.95,
        policies=(_policy(1, "<b>ppo</b>", win_rate=0.8), _policy(2, "dpo")),
        pairs=(),
        shared={},
    )
    drawn = picture(report)
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own picture
    svg = "{http://www.w3.org/2000/svg}"
    titles = [node.text for node in root.iter(f"{svg}text") if node.get("class") == "title"]
    assert titles[0] == "gold, with 95% interval"
    assert "right answers" not in titles  # nobody knows
    dots = [node.find(f"{svg}title").text for node in root.iter(f"{svg}circle")]
    assert len(dots) == 2 * (len(titles) - 1) + 1  # only one of the two knows a win rate
    assert "<b>ppo</b>: 0.800" in dots
    # Better is further right, and each row has a height of its own.
    first, second = [node for node in root.iter(f"{svg}circle")][:2]
    assert float(first.get("cx")) > float(second.get("cx"))
    assert float(first.get("cy")) < float(second.get("cy"))
