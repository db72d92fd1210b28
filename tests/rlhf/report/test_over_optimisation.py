import math
import xml.etree.ElementTree as ET

import numpy as np

from rlhf.evaluation.over_optimisation import frontier_of_best, frontier_of_policies
from rlhf.report.over_optimisation import picture
from schemas.frontier import FrontierPoint, FrontierReport

SVG = "{http://www.w3.org/2000/svg}"


def report(reach: float) -> FrontierReport:
    """Gold 1 + d (2 - 1.2 log d) turns at KL 3.79."""
    points = [
        FrontierPoint(label=f"<{number}>", kl=kl, score=2 * math.sqrt(kl), gold=1 + math.sqrt(kl) * (2 - 0.6 * math.log(kl or 1)))
        for number, kl in enumerate(np.linspace(0, reach, 12).tolist())
    ]  # fmt: skip
    golds = np.random.default_rng(0).normal(size=(8, 4))
    settings = {"confidence": 0.95, "samples": 100, "seed": 0}
    return FrontierReport(
        run_id="abc",
        gold="hidden utility",
        num_prompts=8,
        num_samples=4,
        confidence=0.95,
        methods=(
            frontier_of_policies("ppo", points, **settings),
            frontier_of_best(golds, golds, [1, 2, 4], **settings),
        ),
    )


def test_every_point_and_both_curves_of_each_method_are_drawn_and_text_is_escaped():
    drawn = ET.fromstring(picture(report(16.0)))  # noqa: S314 - our own
    dots = [found for found in drawn.iter(f"{SVG}circle")]
    assert len(dots) == 2 * (12 + 3)
    assert dots[0].find(f"{SVG}title").text.startswith("<0>: KL 0.00")
    strokes = [path for path in drawn.iter(f"{SVG}path") if path.get("class", "").startswith("stroke")]
    assert [path.get("class") for path in strokes] == ["stroke one", "stroke two"] * 2
    said = [found.text for found in drawn.iter(f"{SVG}text")]
    assert "gold peaks: 3.8 nats" in said
    assert "no turn measured" in said


def test_points_lie_where_their_values_are():
    drawn = ET.fromstring(picture(report(16.0)))  # noqa: S314 - our own
    proxy = [dot for dot in drawn.iter(f"{SVG}circle") if dot.get("class") == "dot one"][:12]
    xs, ys = ([float(dot.get(name)) for dot in proxy] for name in ("cx", "cy"))
    # The score is twice the distance, so the points lie on a line that rises.
    slopes = np.diff(ys) / np.diff(xs)
    assert slopes.max() < 0
    assert np.ptp(slopes) < 0.05 * abs(slopes.mean())
