"""`rlhf chat --feedback` at a terminal, as a person meets it."""

import getpass
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf.feedback import thumbs
from rlhf.feedback.database import connect

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


class Terminal:
    """A terminal with a process in it: what is typed, and what is on the screen."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.screen = ""
        self.own, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            env={**os.environ, "RLHF_HOME": str(home), "TERM": "dumb"},
            cwd=ROOT, stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
        )  # fmt: skip
        os.close(inside)

    def type(self, text: str) -> None:
        os.write(self.own, text.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Return what came up to the pattern, which is then behind us."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen)):
            assert time.monotonic() < deadline, f"{pattern!r} did not come: {self.screen!r}"
            if select.select([self.own], [], [], 0.2)[0]:
                self.screen += os.read(self.own, 4096).decode(errors="replace")
        before, self.screen = self.screen[: found.start()], self.screen[found.end() :]
        return before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.own)


def test_a_thumb_at_a_terminal_is_kept_with_the_words_and_the_consent(tiny_policy: Path, tmp_path: Path):
    terminal = Terminal(tmp_path, "chat", str(tiny_policy), "--feedback", "--max-new-tokens", "6")
    try:
        terminal.wait_for("an empty line ends it")
        terminal.wait_for("you agree that the question and the answer above are kept")
        terminal.type("+\n")
        terminal.wait_for("no answer to judge yet")
        for question, thumb in (("Hi there?", "+"), ("When?", "-"), ("And not judged?", "")):
            terminal.type(f"{question}\n")
            terminal.wait_for(re.escape(question))  # the terminal's echo
            terminal.wait_for("> ")
            if thumb:
                terminal.type(f"{thumb}\n")
                terminal.wait_for("kept")
                terminal.type(f"{thumb}\n")  # once is enough
                terminal.wait_for("no answer to judge yet")
        terminal.type("\x04")
        assert terminal.process.wait(timeout=20) == 0
    finally:
        terminal.close()
    feedback = connect(f"sqlite:///{tmp_path / 'feedback.db'}")
    table = thumbs.table(feedback)
    feedback.close()
    assert [prompt[0]["content"] for prompt in table["prompt"].to_list()] == ["Hi there?", "When?"]
    assert table["label"].to_list() == [True, False]
    assert table["rater"].to_list() == [getpass.getuser()] * 2
    assert all(table["response"].to_list())
