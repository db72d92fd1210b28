"""Start a program with its secrets: `NAME_FILE=/run/secrets/x` becomes `NAME=<what that file holds>`.

Programs read secrets from their environment; `docker inspect` and a Compose file must not show them.
"""

import os
import sys
from pathlib import Path

SECRETS = Path(os.environ.get("RLHF_SECRETS", "/run/secrets"))


def read_secrets(environment: dict[str, str], secrets: Path = SECRETS) -> dict[str, str]:
    """Return the environment with each variable that names a file of secrets replaced by the file's content."""
    found: dict[str, str] = {}
    for name, value in environment.items():
        # AWS_CONFIG_FILE and its like name files that the program itself reads: they lie elsewhere.
        if name.endswith("_FILE") and Path(value).parent == secrets:
            found[name.removesuffix("_FILE")] = Path(value).read_text(encoding="utf-8").strip()
        else:
            found[name] = value
    return found


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("entrypoint.py: name the program to start")
    os.execvpe(sys.argv[1], sys.argv[1:], read_secrets(dict(os.environ)))  # noqa: S606 - no shell is wanted
