"""A recipe cannot switch code of strangers on, and names of files and artifacts stay inside their folders."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rlhf.adapters.object_store import open_store
from schemas.config import RunConfig
from schemas.config.loading import load_config
from schemas.errors import ArtifactMissing, ConfigError, NotFound, RLHFError
from schemas.refs import ModelRef

SECTIONS = sorted(name for name in RunConfig.model_fields if name not in {"name", "seed", "aligners"})


@pytest.mark.parametrize("key", ["trust_remote_code", "allow_pickle", "use_auth_token"])
@pytest.mark.parametrize("section", [*SECTIONS, "ppo", "dpo", "reward.base", "compute", ""])
def test_no_section_knows_such_a_switch(section: str, key: str) -> None:
    with pytest.raises(ConfigError):
        load_config("helpdesk", [f"{section}.{key}=true".lstrip(".")])


def test_no_model_of_the_configuration_has_a_field_of_that_name() -> None:
    pending, seen = [RunConfig], set[type[BaseModel]]()
    while pending:
        model: Any = pending.pop()
        if model in seen:
            continue
        seen.add(model)
        for name, field in model.model_fields.items():
            assert not {"trust", "remote", "pickle", "password", "secret", "key", "login"} & set(
                name.split("_")
            ), name
            stack = [field.annotation]
            while stack:
                kind = stack.pop()
                stack += getattr(kind, "__args__", ())
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    pending.append(kind)
    assert len(seen) > 15


@pytest.mark.parametrize(
    "key", ["../outside", "/etc/passwd", "runs/../../outside", "a//b", "a/./b", "a\0b", "..", ""]
)
def test_records_stay_in_the_store(tmp_path: Path, key: str) -> None:
    store = open_store(str(tmp_path / "store"), tmp_path / "cache")
    for use in (
        lambda: store.read(key),
        lambda: store.write(key, b"x"),
        lambda: store.write_once(key, b"x"),
        lambda: store.list_keys(key or ".."),
    ):
        with pytest.raises(NotFound):
            use()
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "folders/../../etc",
        "folders/ab/" + "a" * 64 + "/../../..",
        "files/ab/" + "a" * 64 + "/../x",
        "%2e%2e/outside",
    ],
)
def test_refs_stay_in_the_store(tmp_path: Path, path: str) -> None:
    store = open_store(str(tmp_path / "store"), tmp_path / "cache")
    (tmp_path / "outside").write_text("secret")
    ref = ModelRef(uri=f"{(tmp_path / 'store').as_uri()}/{path}", digest="sha256:" + "a" * 64, role="policy")
    with pytest.raises(ArtifactMissing):
        store.fetch(ref)


def test_an_archive_is_never_unpacked(tmp_path: Path) -> None:
    from rlhf.data.validation import validate_file
    from schemas.config.data import DataChecks

    for name in ("rows.zip", "rows.jsonl", "rows.xlsx"):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../escaped.txt", "x")
            archive.writestr("rows.jsonl", '{"prompt": "a", "chosen": "b", "rejected": "c"}')
        report = validate_file(
            str(path), kind="preferences", out=tmp_path / "out" / "deep", config=DataChecks()
        )
        assert report.verdict == "reject_file"
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not (tmp_path.parent / "escaped.txt").exists()


def test_a_recipe_that_cannot_be_read_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['touch /tmp/never']\n", encoding="utf-8")
    with pytest.raises(RLHFError):
        load_config(str(path), [])
