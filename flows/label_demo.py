"""`make label-demo`: a small helpdesk run that waits for a person, and the page on which that person ranks."""

import os
import subprocess
import sys
import time

from flows.terminal import say
from schemas.settings import Settings

RECIPE = (
    "helpdesk", "name=label-demo", "preferences.source=people", "sample.num_prompts=12", "data.documents=4000",
    "pretrain.steps=300", "sft.steps=150", "reward.steps=40", "ppo.iterations=4", "dpo.steps=20",
    "evaluate.num_prompts=64", "preferences.gold_questions=2", "preferences.gold_every=6",
)  # fmt: skip
"""Small enough to wait for: 12 prompts to rank, then a minute or two of training."""


def main() -> int:
    """Serve the page, run the pipeline beside it, and stop the page when the run ends."""
    command = [sys.executable, "-m", "flows.cli"]
    environment = {**os.environ, "RLHF_HOME": str(Settings().home)}
    # First, so that the page need not make an admin of its own.
    subprocess.run([*command, "label", "rater", "you", "--admin"], env=environment, check=True)  # noqa: S603 - our own arguments
    page = subprocess.Popen([*command, "label", "serve"], env=environment)  # noqa: S603
    try:
        time.sleep(2)
        if page.poll() is not None:
            return page.returncode
        say(
            "above is the token of `you`, rater and admin; the batch appears on the page once a small model has been trained"
        )
        return subprocess.run([*command, "run", *RECIPE], env=environment, check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return 130
    finally:
        page.terminate()
        page.wait()


if __name__ == "__main__":
    sys.exit(main())
