"""A pickle that leaves a mark when somebody loads it."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest


class _Mark:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


class Bomb:
    """Bytes that create a file when they are unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark
        self.content = pickle.dumps(_Mark(mark))

    def put(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content)
        return path

    def put_torch(self, path: Path) -> Path:
        """Write it as torch.save does."""
        import torch

        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_Mark(self.mark), path)
        return path


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Bomb]:
    """Yield a bomb that has been seen to work, and check at the end that nothing else has set it off."""
    mark = tmp_path / "the pickle was loaded"
    made = Bomb(mark)
    pickle.loads(made.content)  # noqa: S301 - the point of it
    assert mark.exists(), "a bomb that does not go off proves nothing"
    mark.unlink()
    yield made
    assert not mark.exists(), "a pickle was loaded"
