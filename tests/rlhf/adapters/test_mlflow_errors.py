import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from rlhf.adapters.mlflow_errors import write_row


def collision(message: str) -> MlflowException:
    return MlflowException(message, error_code=BAD_REQUEST)


@pytest.mark.parametrize(
    "message",
    [
        "(sqlite3.IntegrityError) UNIQUE constraint failed: model_version_tags.key",
        'duplicate key value violates unique constraint "model_version_tag_pk"',
    ],
)
def test_a_row_that_somebody_else_has_inserted_is_written_once_more(message: str):
    answers = [collision(message)]
    calls: list[str] = []

    def write(value: str) -> None:
        calls.append(value)
        if answers:
            raise answers.pop()

    write_row(write, "ann")
    assert calls == ["ann", "ann"]


def test_another_refusal_is_not_repeated():
    calls: list[str] = []

    def write(value: str) -> None:
        calls.append(value)
        raise collision("tag too long")

    with pytest.raises(MlflowException, match="too long"):
        write_row(write, "ann")
    assert calls == ["ann"]
