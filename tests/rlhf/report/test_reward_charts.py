import re

from rlhf.report import reward_charts
from rlhf.report.page import plots, render


def test_the_page_tells_what_the_reward_model_is_worth(content):
    page = render(content)
    assert "On the 30 pairs of about equal length it is right in 80.0% (72.0% to 88.0%)." in page
    assert "not sure enough by a factor of 0.80" in page
    assert "with probability 0.81" in page
    assert "At nine. &lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script") == 1  # the page's own
    assert {"reward-slices.svg", "reward-reliability.svg", "reward-scores.svg"} <= set(plots(content))


def test_reliability_draws_a_dot_per_bin_where_it_belongs(content):
    drawn = str(reward_charts.reliability(content.reward_quality))
    dots = [
        (float(x), float(y)) for x, y in re.findall(r'class="dot one" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    ]
    # the axis goes from 44 (confidence 0.5) to 388 (1), and from 228 (never right) to 36 (always)
    assert dots == [(44 + 344 * 0.2, 93.6), (44 + 344 * 0.8, 45.6)]
    assert "40 pairs: confidence 0.60, right 0.70" in drawn


def test_distributions_are_shares_of_each_side(content):
    drawn = str(reward_charts.distributions(content.reward_quality))
    # bins at -1 and 1 of an axis from -2 to 2; the highest share, 0.8, fills 1 / 1.05 of the height
    (path,) = re.findall(r'class="stroke one" data-name="chosen" d="M([^"]+)"', drawn)
    heights = [float(point.split(",")[1]) for point in path.split("L")]
    assert heights[1] < heights[0]
    assert abs((192 - heights[0]) / (192 - heights[1]) - 0.25) < 0.01


def test_the_accuracy_stands_beside_the_habit_of_taking_the_longer(content):
    drawn = str(reward_charts.slices(content.reward_quality))
    assert "all pairs" in drawn
    assert "85.3%" in drawn
    assert "longer one wins" in drawn
    assert "length matched" in drawn
