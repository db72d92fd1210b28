"""Bring new servers to the state that runs need: buckets, MLflow's user for them, pools, deployments, automations.

python infra/bootstrap.py        once, and after each change of prefect.yaml; doing it again changes nothing
"""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

TEMPLATE = Path(__file__).parent / "kubernetes" / "job-template.json"


def main() -> None:
    """Do each of them, and stop at the first that fails."""
    make_buckets()
    make_user()
    deploy = [sys.executable, "-m", "flows.cli", "deploy"]
    if os.environ.get("RLHF_POOL_TYPE") == "kubernetes":
        deploy += ["--pool-type", "kubernetes", "--job-template", str(TEMPLATE)]
    subprocess.run(deploy, check=True)


def make_buckets() -> None:
    """Make what is missing of RLHF_BUCKETS, and keep old versions of what is in them; a cloud's are made before."""
    names = [name for name in os.environ.get("RLHF_BUCKETS", "").split(",") if name]
    if not names:
        return
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    for name in names:
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def make_user() -> None:
    """Make the MLflow user as whom runs log; the administrator's password is for people."""
    body = {
        "username": os.environ["MLFLOW_TRACKING_USERNAME"],
        "password": os.environ["MLFLOW_TRACKING_PASSWORD"],
    }
    admin = f"{os.environ['MLFLOW_AUTH_ADMIN_USERNAME']}:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}"
    request = urllib.request.Request(  # noqa: S310 - http or https, as deployed
        f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/users/create",
        data=json.dumps(body).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Basic {base64.b64encode(admin.encode()).decode()}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - the same
            pass
    except urllib.error.HTTPError as error:
        if b"RESOURCE_ALREADY_EXISTS" not in error.read():
            raise


if __name__ == "__main__":
    main()
