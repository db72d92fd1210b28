import pytest

from schemas.config.knobs import label, read_knobs, settled
from schemas.errors import ConfigError


def test_values_are_read_as_yaml_and_reach_the_tree():
    knobs = read_knobs(
        ["ppo.kl_coef=0.02,1e-1", "ppo.lora={rank: 2},null", "dpo.loss=ipo,sigmoid"], ranges=False
    )
    assert [knob.values for knob in knobs] == [(0.02, 0.1), ({"rank": 2}, None), ("ipo", "sigmoid")]
    tree = settled("micro", ["sft.steps=3"], {knob.key: knob.values[0] for knob in knobs}, 7)
    ppo, dpo = tree.aligners
    assert (tree.seed, tree.sft.steps, ppo.kl_coef, ppo.lora.rank, dpo.loss) == (7, 3, 0.02, 2, ("ipo",))
    assert label({"ppo.kl_coef": 0.1, "dpo.loss": "ipo"}, 3) == "ppo.kl_coef=0.1 dpo.loss=ipo seed=3"


def test_a_word_that_yaml_takes_for_something_else_stays_a_word():
    (knob,) = read_knobs(["base.source='on','1.0.0'"], ranges=False)
    assert settled("helpdesk", [], {knob.key: knob.values[0]}, 0).base.source == "on"


def test_a_range_is_for_a_search_and_logarithmic_over_a_factor_of_ten():
    short, wide = read_knobs(["ppo.kl_coef=0.1..0.3", "dpo.learning_rate=1e-5..1e-3"], ranges=True)
    assert (short.low, short.high, short.logarithmic) == (0.1, 0.3, False)
    assert (wide.ends, wide.logarithmic) == ((1e-5, 1e-3), True)


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["ppo.kl_coef"], "not a knob"),
        (["=1,2"], "not a knob"),
        (["ppo.kl_coef="], "names no value"),
        (["ppo.kl_coef=0.1"], "no alternative"),
        (["ppo.kl_coef=0.1,"], "no alternative"),
        (["ppo.kl_coef=0.1,0.2,0.1"], "twice"),
        (["ppo.kl_coef=0.1,1e-1"], "twice"),
        (["ppo.kl_coef=[0.1,0.2"], "YAML"),
        (["ppo.kl_coef=1,2", "ppo.kl_coef=3,4"], "varied twice"),
        (["ppo.kl_coef=0.1..0.2"], "--search optuna"),
        (["name=a,b"], "experiment"),
        (["seed=0,1"], "--seeds"),
    ],
)
def test_what_is_no_knob_is_said_so(texts, named):
    with pytest.raises(ConfigError, match=named):
        read_knobs(texts, ranges=False)


def test_a_range_must_go_up():
    with pytest.raises(ConfigError, match="not above"):
        read_knobs(["ppo.kl_coef=0.3..0.1"], ranges=True)
