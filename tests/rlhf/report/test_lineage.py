from rlhf.report.lineage import ancestors, descendants
from schemas.refs import FileRef, Ref
from schemas.reports import StageRecord


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def ref(letter: str) -> Ref:
    return Ref(uri=f"file:///store/{letter}", digest=digest(letter))


def stage(name: str, reads: str, writes: str, files: str = "", status: str = "ran") -> StageRecord:
    return StageRecord(
        name=name,
        status=status,
        seconds=1.0,
        run_id=f"run of {name}",
        inputs={f"in-{letter}": ref(letter) for letter in reads},
        outputs={f"out-{letter}": ref(letter) for letter in writes},
        files=tuple(FileRef(uri=f"file:///data/{letter}", digest=digest(letter)) for letter in files),
    )


# validate reads the file f; the held-out table d is read by evaluation alone.
RUN = (
    stage("validate", "", "abcd", files="f"),
    stage("sft", "a", "1"),
    stage("reward", "1b", "2"),
    stage("ppo", "12c", "3"),
    stage("dpo", "1b", "4"),
    stage("evaluate-ppo", "3d", "5"),
)


def names(records: tuple[StageRecord, ...]) -> list[str]:
    return [record.name for record in records]


def test_a_model_comes_from_the_stages_that_made_what_it_was_made_from_in_their_order():
    assert names(ancestors(RUN, digest("3"))) == ["validate", "sft", "reward", "ppo"]
    assert names(ancestors(RUN, digest("4"))) == ["validate", "sft", "dpo"]
    assert names(ancestors(reversed(RUN), digest("4"))) == ["validate", "sft", "dpo"]
    assert ancestors(RUN, digest("9")) == ()


def test_a_policy_that_ppo_returns_as_it_was_comes_from_sft_and_goes_round_in_no_circle():
    unchanged = (
        *RUN[:3],
        stage("ppo", "12c", "1"),
        stage("sample-2", "1c", "7"),
        stage("sft-again", "7", "1"),
    )
    assert names(ancestors(unchanged[:4], digest("1"))) == ["validate", "sft"]
    assert names(ancestors(unchanged, digest("7")))[-1] == "sample-2"


def test_a_file_reaches_every_model_and_held_out_prompts_reach_none():
    models = {digest(letter) for letter in "1234"}
    assert descendants(RUN, digest("f")) >= models
    assert descendants(RUN, digest("b")) & models == {digest("2"), digest("3"), digest("4")}
    assert descendants(RUN, digest("d")) & models == set()
    assert descendants(RUN, digest("3")) == {digest("5")}


def test_stages_of_other_runs_are_followed_in_whatever_order_they_are_found():
    later = stage("sft", "a", "6"), stage("ppo", "6", "7")
    assert digest("7") in descendants((later[1], *RUN, later[0]), digest("f"))


def test_who_computed_it_is_named_before_who_found_it_in_the_store():
    again = stage("sft", "a", "1", status="reused").model_copy(update={"run_id": "another"})
    assert [record.run_id for record in ancestors((again, *RUN), digest("1"))][-1] == "run of sft"
