import re
from xml.etree import ElementTree

import pytest

from rlhf.report.content import ReportContent
from rlhf.report.figures import frontier, metric_curve, probe_accuracies
from rlhf.report.page import plots
from rlhf.report.pipeline import pipeline
from schemas.evaluation import CurvePoint
from schemas.record import Interval
from schemas.reports import Probe


def drawn(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)  # noqa: S314 - our own drawing


def texts(picture: str, kind: str) -> list[str]:
    return [found.text or "" for found in drawn(picture).iter("text") if found.get("class") == kind]


def heights(picture: str, kind: str) -> list[float]:
    """Return the y coordinates along a curve."""
    paths = [found.get("d", "") for found in drawn(picture).iter("path") if found.get("class") == kind]
    return [float(y) for y in re.findall(r",([\d.]+)", paths[0])]


def test_a_curve_goes_down_on_paper_when_the_metric_falls():
    falling = heights(metric_curve("sft", "loss", ((1, 3.0), (2, 2.0), (3, 1.0))), "stroke one")
    assert falling == sorted(falling)  # y grows downwards


def test_a_short_history_is_drawn_as_it_is_and_a_long_one_with_its_mean():
    short = metric_curve("ppo", "score", tuple((step, float(step % 2)) for step in range(30)))
    assert 'class="raw"' not in short
    noisy = tuple((step, float(step % 2)) for step in range(100))
    # The mean over four steps to each side is 4/9 or 5/9; the last one covers the steps 95 to 99.
    assert texts(metric_curve("sft", "loss", noisy), "value") == ["0.6"]
    assert len(set(heights(metric_curve("sft", "loss", noisy), "raw"))) == 2


@pytest.mark.parametrize("count", [1, 2, 1_000])
def test_the_last_value_is_always_drawn(count: int):
    history = tuple((step, float(step)) for step in range(count))
    picture = metric_curve("sft", "loss", history)
    path = next(
        found for found in drawn(picture).iter("path") if (found.get("class") or "").startswith("stroke")
    )
    points = re.findall(r"([\d.]+),[\d.]+", path.get("d", ""))
    assert len(points) <= 240
    assert float(points[-1]) == pytest.approx(320 if count > 1 else float(points[-1]))


def test_gold_is_drawn_beside_the_score_only_where_it_is_known():
    known = tuple(CurvePoint(iteration=i, kl=i / 2, score=i, gold=3.0 - i) for i in range(6))
    score, gold = frontier("ppo", known)
    assert texts(score, "value one") == ["0.00 → 5.00"]
    assert texts(gold, "value two") == ["3.00 → -2.00"]
    unknown = tuple(point.model_copy(update={"gold": None}) for point in known)
    assert "gold is not known" in frontier("ppo", unknown)[1]


def test_the_weakest_probe_comes_first_and_no_number_covers_the_plot():
    found = {"rude": 1.0, "wrong": 0.5, "discourteous": 0.9}
    picture = probe_accuracies(
        [
            Probe(flaw=flaw, accuracy=Interval(value=v, low=v - 0.1, high=1.0), pairs=9)
            for flaw, v in found.items()
        ]
    )
    labels = texts(picture, "label")
    assert labels[::2] == ["wrong", "discourteous", "rude"]
    assert labels[-1] == "100.0% (90.0\N{EN DASH}100.0)"
    dots = [float(dot.get("cx", 0)) for dot in drawn(picture).iter("circle")]
    assert dots == sorted(dots)
    # The longest number ends at 400 and needs 6.6 pixels per character.
    assert max(dots) + 4.5 < 400 - 6.6 * len(labels[-1])


def test_charts_are_files_of_their_own_with_their_colours(content: ReportContent):
    files = plots(content)
    assert {"ppo-score.svg", "ppo-gold-by-kl.svg", "win-rates.svg", "reward-probes.svg"} <= set(files)
    for picture in files.values():
        assert drawn(picture).tag == "{http://www.w3.org/2000/svg}svg"
        assert "--series-1: #" in picture


@pytest.mark.parametrize("vertical", [True, False])
def test_stages_of_the_pipeline_neither_overlap_nor_are_cut(content: ReportContent, vertical: bool):
    picture = drawn(pipeline(content.stages, vertical=vertical))
    left, top, width, height = map(float, picture.get("viewBox", "").split())
    boxes = [
        tuple(float(box.get(side, 0)) for side in ("x", "y", "width", "height"))
        for box in picture.iter("rect")
        if box.get("class") == "box"
    ]
    assert len(boxes) == len(content.stages)
    for x, y, w, h in boxes:
        assert left <= x
        assert top <= y
        assert x + w <= left + width
        assert y + h <= top + height
    for number, (x, y, w, h) in enumerate(boxes):
        for other_x, other_y, _, _ in boxes[number + 1 :]:
            assert abs(x - other_x) >= w or abs(y - other_y) >= h


def test_every_stage_stands_in_the_panel_of_its_step(content: ReportContent):
    probe = content.stages[0].model_copy(update={"name": "probe"})
    picture = drawn(pipeline((*content.stages, probe), vertical=False))
    panels: dict[str, set[str]] = {}
    for node in picture.iter("g"):
        name = (node.findtext("title") or "").partition(":")[0]
        box = node.find("rect")
        assert box is not None
        panels.setdefault(box.get("x", ""), set()).add(name)
    assert list(panels.values()) == [
        {"validate", "pretrain", "sft"},
        {"sample", "preferences", "reward", "probe"},
        {"ppo", "dpo"},
        {"evaluate-sft", "evaluate-ppo", "evaluate-dpo", "gate", "register"},
    ]
