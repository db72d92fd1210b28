import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from schemas.errors import NotFound
from schemas.refs import FileRef, Ref
from schemas.reports import StageEntry, StageRecord
from schemas.tables import polars_schema
from tasks.lineage import trained_on
from tasks.work import artifact_store

ASKED = [{"role": "user", "content": "Open?"}]
ROWS = [
    ("p1", ASKED, ["At nine.", "No."], [True, True], "ann", [1, 2]),
    ("p1", ASKED, ["At nine.", "No."], [True, True], "bob", [2, 1]),
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ref:
    """A store that knows of one run on one file and one table of rankings; returns that table."""
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RLHF_STORE", raising=False)
    table = tmp_path / "rankings.parquet"
    pl.DataFrame(ROWS, schema=polars_schema("rankings"), orient="row").write_parquet(table)
    uri, digest = artifact_store().publish(table)
    rankings = Ref(uri=uri, digest=digest)
    data, reward = _ref("a"), _ref("c")
    given = FileRef(uri="file:///data/questions.jsonl", digest="sha256:" + "f" * 64)
    _finish("validate", {}, {"prompts": data}, (given,))
    _finish("preferences", {"candidates": data}, {"rankings": rankings, "preferences": _ref("b")})
    _finish("reward", {"preferences": _ref("b")}, {"model": reward})
    _finish("ppo", {"reward": reward}, {"model": _ref("d"), "rollouts": _ref("e")})
    _finish("sft", {"prompts": data}, {"model": _ref("0")})
    return rankings


def _ref(letter: str) -> Ref:
    return Ref(uri=f"file:///store/{letter}", digest="sha256:" + letter * 64)


def _finish(
    name: str, inputs: dict[str, Ref], outputs: dict[str, Ref], files: tuple[FileRef, ...] = ()
) -> None:
    record = StageRecord(
        name=name, status="ran", seconds=1, run_id="r", inputs=inputs, outputs=outputs, files=files
    )
    entry = StageEntry(record=record, result={})
    artifact_store().write(f"stages/{name}/{'1' * 32}.json", entry.model_dump_json().encode())


def _made(digest: str) -> set[str]:
    return {model.stage for model in trained_on(digest).models}


def test_every_model_made_from_a_file_a_table_or_a_model_is_found_by_a_few_digits(store: Ref) -> None:
    assert _made("f" * 8) == {"reward", "ppo", "sft"}
    assert trained_on("f" * 8).uri == "file:///data/questions.jsonl"
    assert _made(store.digest) == {"reward", "ppo"}  # by way of the pairs that the same stage derived from it
    assert _made("sha256:" + "b" * 64) == {"reward", "ppo"}
    assert _made("c" * 64) == {"ppo"}


def test_a_rating_is_found_by_the_digest_of_its_exported_line(store: Ref) -> None:
    frame = pl.DataFrame(ROWS, schema=polars_schema("rankings"), orient="row")
    line = json.dumps(frame.row(1, named=True))
    trace = trained_on(hashlib.sha256(line.encode()).hexdigest())
    assert trace.digest == store.digest
    assert trace.rating is not None
    assert {model.stage for model in trace.models} == {"reward", "ppo"}


@pytest.mark.parametrize(
    ("digest", "said"), [("abc", "too short"), ("12345678", "No file, table, model or rating")]
)
def test_what_is_no_digest_or_not_known_is_said(store: Ref, digest: str, said: str) -> None:
    with pytest.raises(NotFound, match=said):
        trained_on(digest)
