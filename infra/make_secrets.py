"""Make the secrets of a deployment, one file each; files that exist are kept.

python infra/make_secrets.py .secrets        for compose.yaml; `kubectl create secret generic rlhf --from-file=.secrets`
"""

import argparse
import secrets
from pathlib import Path


def make_secrets(folder: Path, postgres: str = "postgres:5432") -> None:
    """Write what is missing; `postgres` is where the servers find their database."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(name: str, text: str) -> str:
        path = folder / name
        if not path.exists():
            path.write_text(text, encoding="utf-8")
            # The folder keeps others out; a container sees the file alone, and is another user.
            path.chmod(0o444)
        return path.read_text(encoding="utf-8")

    def new() -> str:
        return secrets.token_urlsafe(24)

    database = f"rlhf:{keep('postgres_password', new())}@{postgres}"
    keep("prefect_database", f"postgresql+asyncpg://{database}/prefect")
    keep("mlflow_database", f"postgresql+psycopg://{database}/mlflow")
    keep("feedback_database", f"postgresql://{database}/feedback")
    keep("prefect_auth", f"rlhf:{new()}")
    keep("mlflow_admin_password", new())
    keep("mlflow_password", new())
    keep("mlflow_flask_key", new())
    keep("mlflow_auth.ini", _mlflow_auth(f"postgresql+psycopg://{database}/mlflow_auth"))
    keep("s3_key_id", "rlhf:pipeline")
    keep("s3_secret", new())
    keep("label_secret", new())


def _mlflow_auth(database: str) -> str:
    # Interpolation would read a % in the address as its own; the passwords above hold none.
    return (
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = {database}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Without it every request hashes its password anew, which costs more than most requests do.
        "auth_cache_ttl_seconds = 60\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--postgres", default="postgres:5432", help="host:port of the database server")
    arguments = parser.parse_args()
    make_secrets(arguments.folder, arguments.postgres)
