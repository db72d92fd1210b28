"""What `rlhf doctor` looks at around a run: ports, servers, stores, databases, credentials. Secrets are never shown."""

import os
import socket
from urllib.parse import urlsplit

from flows.checks_verdict import Check
from flows.environment import answers, running_servers
from schemas.errors import FeedbackUnreachable, StoreRefused, StoreUnreachable
from schemas.settings import Settings, without_login

PORTS = {
    4200: "rlhf ui --prefect-port",
    5000: "rlhf ui --mlflow-port",
    8700: "rlhf label serve --port",
    8800: "rlhf serve --port",
}


def ports(settings: Settings) -> Check:
    """See which of the ports that our commands want by default are taken by others."""
    servers = running_servers(settings)
    ours = {urlsplit(url).port for url in (servers.prefect, servers.mlflow)} if servers else set()
    taken = [port for port in PORTS if port not in ours and _listens("127.0.0.1", port)]
    if not taken:
        return Check("ports", True, f"{', '.join(map(str, PORTS))} are free or ours")
    advice = "; ".join(f"another one than {port}: {PORTS[port]} PORT" for port in taken)
    # Each command takes another port, so that no run fails for it.
    return Check(
        "ports", True, f"taken by another program: {', '.join(map(str, taken))}", f"Choose {advice}."
    )


def pages(settings: Settings) -> Check:
    """Say where `rlhf ui` serves."""
    servers = running_servers(settings)
    found = (
        f"{servers.prefect.removesuffix('/api')}, {servers.mlflow}" if servers else "not running (rlhf ui)"
    )
    return Check("pages", True, found)


def prefect(settings: Settings) -> Check:
    """Ask the Prefect server that the environment names."""
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        return Check("prefect", True, "PREFECT_API_URL is not set; a run starts a server of its own")
    if answers(f"{url.rstrip('/')}/health"):
        return Check("prefect", True, f"{without_login(url)} answers")
    advice = "Start it (rlhf ui starts one at http://127.0.0.1:4200/api), or unset PREFECT_API_URL."
    return Check("prefect", False, f"{without_login(url)} does not answer", advice)


def tracking(settings: Settings) -> Check:
    """Ask the MLflow server, where there is one."""
    uri = settings.tracking_uri
    if not uri.startswith(("http://", "https://")):
        return Check("tracking", True, without_login(uri))
    if _reachable(uri):
        return Check("tracking", True, f"{without_login(uri)} answers")
    advice = "Start the server, or unset MLFLOW_TRACKING_URI for a local database."
    return Check("tracking", False, f"{without_login(uri)} does not answer", advice)


def store(settings: Settings) -> Check:
    """Read from the object store."""
    if not settings.store.startswith("s3://"):
        return Check("store", True, settings.store)
    from rlhf.adapters.object_store import open_store

    try:
        open_store(settings.store, settings.cache).read("doctor")
    except (StoreUnreachable, StoreRefused) as error:
        return Check(
            "store", False, str(error),
            "Set AWS_ENDPOINT_URL, AWS_REGION and credentials as boto3 reads them, or unset RLHF_STORE for a folder.",
        )  # fmt: skip
    return Check("store", True, f"{settings.store} answers")


def credentials(settings: Settings) -> Check:
    """Say where credentials for S3 would come from."""
    remote = settings.store.startswith("s3://")
    names = (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    )
    found = [name for name in names if os.environ.get(name)]
    hub = (
        "a Hugging Face token is set"
        if os.environ.get("HF_TOKEN")
        else "no Hugging Face token (public models need none)"
    )
    if found or not remote:
        return Check("credentials", True, f"{', '.join(found) or 'none for S3, none is needed'}; {hub}")
    advice = "If the store does not answer: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    return Check(
        "credentials",
        True,
        f"none for S3 in the environment; boto3 looks into ~/.aws and asks the machine; {hub}",
        advice,
    )


def feedback(settings: Settings) -> Check:
    """Ask the database of rankings, where it is a server."""
    url = settings.feedback_url
    if url.startswith("sqlite"):
        return Check("feedback", True, without_login(url))
    from rlhf.feedback.database import connect

    try:
        connect(url)
    except FeedbackUnreachable as error:
        advice = "Start the database, or unset RLHF_FEEDBACK_URL for a local file."
        return Check("feedback", False, str(error), advice)
    return Check("feedback", True, f"{without_login(url)} answers")


def judge(settings: Settings) -> Check:
    """See whether somebody listens where the LLM judge is said to be."""
    if settings.judge_url is None:
        return Check("judge", True, "RLHF_JUDGE_URL is not set; only evaluate.judge=llm needs it")
    if _reachable(settings.judge_url):
        key = "with a key" if settings.judge_key else "without a key (RLHF_JUDGE_KEY)"
        return Check("judge", True, f"{without_login(settings.judge_url)} answers, {key}")
    advice = "Start the endpoint, correct RLHF_JUDGE_URL, or choose another evaluate.judge."
    return Check("judge", False, f"{without_login(settings.judge_url)} does not answer", advice)


def secrets(settings: Settings) -> Check:
    """Say which secrets are set; each is needed only where a page listens beyond this machine."""
    known = {"RLHF_LABEL_SECRET": settings.label_secret, "RLHF_SERVE_TOKEN": settings.serve_token}
    said = [f"{name} {'is set' if value else 'is not set'}" for name, value in known.items()]
    return Check("secrets", True, f"{', '.join(said)}; needed only with --host beyond this machine")


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def _reachable(url: str) -> bool:
    found = urlsplit(url)
    try:
        socket.create_connection(
            (found.hostname or "", found.port or (443 if found.scheme == "https" else 80)), 3
        ).close()
    except OSError:
        return False
    return True
