import pytest

from rlhf.estimate.predict import IMPORT_SECONDS, STAGE_SECONDS, duration, predict, rates
from rlhf.estimate.work import Lengths, work
from schemas.config.loading import load_config
from schemas.estimates import Shape, Speeds, Work
from schemas.reports import StageRecord

LENGTHS = Lengths(prompt=10, response=30)
SHAPE = Shape(parameters=1000, layers=2, hidden=8, heads=2, key_values=8, vocabulary=50)


def test_the_work_of_each_stage_by_hand():
    config = load_config(
        "helpdesk",
        [
            "pretrain.steps=10", "pretrain.batch_size=2", "pretrain.block_size=16",
            "sft.steps=5", "sft.batch_size=4", "sample.num_prompts=8", "sample.num_responses=3",
            "sample.batch_size=6", "reward.steps=7", "reward.batch_size=2",
            "ppo.iterations=3", "ppo.batch_size=4", "ppo.minibatch_size=2", "ppo.epochs=2",
            "dpo.steps=6", "dpo.batch_size=2", "evaluate.num_prompts=9", "evaluate.max_new_tokens=20",
        ],
    )  # fmt: skip
    found = work(config, LENGTHS)
    assert found["pretrain"] == Work(trained=10 * 2 * 16)
    assert found["sft"] == Work(trained=5 * 4 * 40)
    assert found["sample"] == Work(drawn=8 * 3 * 30, rows=6)
    # 2 prompts of 3 responses each are 6 sequences of 40 tokens.
    assert found["reward"] == Work(trained=7 * 2 * 3 * 40)
    # 12 responses; policy, reference, reward model and critic read each, policy and critic train on it twice.
    assert found["ppo"] == Work(drawn=12 * 30, read=12 * 4 * 40, trained=12 * 2 * 2 * 40, rows=4)
    assert found["dpo"] == Work(trained=6 * 2 * 2 * 40, read=6 * 2 * 2 * 40)
    assert found["evaluate-sft"] == Work(drawn=9 * 20, read=9 * 30, rows=9)
    assert found["evaluate-ppo"] == Work(drawn=9 * 20, read=9 * 3 * 30, rows=9)


def test_a_shared_trunk_saves_a_model_and_long_texts_are_cut():
    both = work(load_config("helpdesk"), LENGTHS)["ppo"]
    one = work(load_config("helpdesk", ["ppo.shared_trunk=true"]), LENGTHS)["ppo"]
    assert one.trained == both.trained / 2
    assert one.read == both.read * 3 / 4
    cut = work(load_config("helpdesk", ["sft.max_length=8"]), LENGTHS)["sft"]
    assert cut.trained == 300 * 32 * 8


def test_each_method_reads_and_trains_what_it_has():
    methods = ("grpo", "rloo", "kto", "orpo", "simpo", "cpo", "dpo", "ppo")
    same = "steps: 10, batch_size: 4"
    listed = ", ".join(
        f"{{method: {method}" + ("}" if method in {"grpo", "rloo", "ppo"} else f", {same}}}")
        for method in methods
    )
    found = work(load_config("helpdesk", [f"aligners=[{listed}]"]), LENGTHS)
    assert all(found[method].tokens > 0 for method in methods)
    pairs = 10 * 4 * 2 * 40
    assert {method: found[method].trained for method in ("dpo", "orpo", "simpo", "cpo")} == dict.fromkeys(
        ("dpo", "orpo", "simpo", "cpo"), pairs
    )
    assert found["kto"].trained == pairs / 2
    assert (found["dpo"].read, found["orpo"].read, found["simpo"].read) == (pairs, 0, 0)
    # No critic: half of PPO's training, and three readers in place of four.
    config = load_config("helpdesk", ["aligners=[{method: ppo}, {method: rloo, epochs: 2, batch_size: 128}]"])
    ppo, rloo = (work(config, LENGTHS)[name] for name in ("ppo", "rloo"))
    per_response = [one.trained / one.drawn for one in (ppo, rloo)]
    assert per_response[0] == 2 * per_response[1]
    assert ppo.read / ppo.drawn == rloo.read / rloo.drawn * 4 / 3


def test_a_second_round_costs_as_much_as_the_first():
    found = work(load_config("helpdesk", ["labelling.rounds=2"]), LENGTHS)
    assert found["ppo-2"] == found["ppo"]
    assert "sft-2" not in found


def test_time_is_work_over_speed():
    amount = Work(trained=100, read=10, drawn=4, rows=2)
    speeds = Speeds(trained=0.5, read=0.25, drawn={2: 3.0, 8: 1.0})
    assert duration(amount, speeds) == 100 * 0.5 + 10 * 0.25 + 4 * 3.0


def _record(name: str, seconds: float, status: str = "ran") -> StageRecord:
    return StageRecord(name=name, status=status, seconds=seconds, run_id="1")


def test_earlier_runs_scale_with_the_work_and_count_by_their_median():
    half = load_config("helpdesk", ["sft.steps=150"])
    full = load_config("helpdesk")
    runs = [
        (half, [_record("sft", 30), _record("validate", 4), _record("dpo", 9, "failed")]),
        (half, [_record("sft", 0, "reused"), _record("validate", 6)]),
        (full, [_record("sft", 80), _record("validate", 50)]),
        (full, [_record("sft", 60)]),
    ]
    found = rates(runs, LENGTHS)
    # Twice the steps take twice as long: 60, 80 and 60 seconds for the full recipe.
    assert found["sft"] * work(full, LENGTHS)["sft"].tokens == pytest.approx(60)
    assert found["validate"] == 6
    assert "dpo" not in found


def test_a_stage_known_from_earlier_is_not_taken_from_the_speeds_and_cost_follows_time():
    config = load_config("helpdesk", ["cost.price_per_hour=36", "cost.watts=1000", "cost.price_per_kwh=0.5"])
    names = ["validate", "sft", "dpo", "gate"]
    tokens = work(config, LENGTHS)
    found = predict(
        config, names, SHAPE, LENGTHS, digest="d", speeds=Speeds(trained=1e-3, read=1e-3, drawn={}),
        source="measured here", earlier={"sft": 2e-3, "validate": 5.0}, bf16=False, device="here",
        available=0.0, process=100.0,
    )  # fmt: skip
    by_name = {stage.name: stage for stage in found.stages}
    assert [stage.name for stage in found.stages] == names
    assert by_name["sft"].seconds == pytest.approx(2e-3 * tokens["sft"].tokens)
    assert by_name["sft"].source == "earlier runs"
    assert by_name["dpo"].seconds == pytest.approx(1e-3 * tokens["dpo"].tokens + STAGE_SECONDS)
    assert by_name["dpo"].source == "measured here"
    assert by_name["validate"].seconds == 5.0
    assert by_name["gate"].seconds is None
    assert found.seconds == pytest.approx(5 + by_name["sft"].seconds + by_name["dpo"].seconds)
    assert found.kilowatt_hours == pytest.approx(found.seconds / 3600)
    # 36 an hour is a cent a second; a kilowatt-hour costs half of one.
    assert found.price == pytest.approx(found.seconds * 0.01 + found.seconds / 3600 * 0.5)


def test_without_prices_nothing_is_reckoned():
    config = load_config("helpdesk")
    assert config.cost.price(100.0) is None
    assert config.cost.energy(100.0) is None


def test_a_stage_takes_its_start_too_and_the_first_one_with_a_model_its_imports():
    config, names = load_config("helpdesk"), ["validate", "sft", "dpo"]
    tokens = work(config, LENGTHS)
    found = predict(
        config, names, SHAPE, LENGTHS, digest="d", speeds=Speeds(trained=1e-3, read=1e-3, drawn={}),
        source="measured here", earlier={}, bf16=False, device="here", available=0.0, process=100.0,
    )  # fmt: skip
    seconds = [stage.seconds for stage in found.stages]
    assert seconds[0] is None
    assert seconds[1:] == pytest.approx(
        [
            1e-3 * tokens["sft"].tokens + STAGE_SECONDS + IMPORT_SECONDS,
            1e-3 * tokens["dpo"].tokens + STAGE_SECONDS,
        ]
    )
