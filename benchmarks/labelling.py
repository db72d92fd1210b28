"""Load on the labelling page: concurrent raters over real HTTP against a real server process.

    python -m benchmarks.labelling [--raters 20] [--rate 100] [--seconds 30] [--url sqlite:///...]

Raters sign in, then submit at a fixed rate together (an open loop: slow answers delay nobody else).
A submit is one request: it stores the ranking, and its response is the next item.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import polars as pl

from rlhf.feedback import annotators
from rlhf.feedback.batches import Plan, publish
from rlhf.feedback.database import connect
from schemas.tables import polars_schema

ROOT = Path(__file__).parents[1]


def fill(url: str, raters: int, items: int) -> list[str]:
    """Publish a batch and add raters; return their tokens."""
    feedback = connect(url)
    rows = [
        {
            "prompt_id": f"{index:06x}",
            "prompt": [{"role": "user", "content": f"Question {index}: what is the rule on gift wrapping?"}],
            "responses": [f"Response {place} to {index}. " * 8 for place in range(4)],
            "tokens": [40] * 4,
            "finished": [True] * 4,
        }
        for index in range(items)
    ]
    frame = pl.DataFrame(rows, schema=polars_schema("candidates"))
    publish(feedback, "load", frame, Plan(name="load", guidelines="Right first."))
    tokens = [annotators.add(feedback, f"rater-{number}") for number in range(raters)]
    feedback.close()
    return tokens


@contextmanager
def server(url: str, home: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `rlhf label serve` until the block ends."""
    process = start(url, home, port)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def start(url: str, home: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start `rlhf label serve` and wait until it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "label", "serve", "--port", str(port)],
        env={**os.environ, "RLHF_HOME": str(home), "RLHF_FEEDBACK_URL": url, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return process
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise TimeoutError("the page did not start within a minute")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fields(page: str) -> dict[str, str] | None:
    """Return what the form on a page sends; None when nothing is left to rank."""
    found = dict(re.findall(r'name="(csrf|assignment|attempt)" value="([0-9a-f]+)"', page))
    return {**found, "ranks": "1,2,3,3", "seconds": "1"} if "assignment" in found else None


async def sign_in(client: httpx.AsyncClient, token: str) -> dict[str, str] | None:
    """Sign in and return the first item's form."""
    page = (await client.get("/sign-in")).text
    await client.post(
        "/sign-in",
        data={
            "csrf": (fields(page) or dict(re.findall(r'name="(csrf)" value="(\w+)"', page)))["csrf"],
            "token": token,
        },
    )
    return fields((await client.get("/batch/1")).text)


async def _rater(
    base: str, token: str, offset: float, interval: float, begin: asyncio.Event, seconds: float
) -> tuple[list[float], int]:
    times: list[float] = []
    errors = 0
    async with httpx.AsyncClient(base_url=base, timeout=30) as client:
        form = await sign_in(client, token)
        await begin.wait()
        began = time.monotonic() + offset
        for number in range(int(seconds / interval)):
            due = began + number * interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            response = await client.post("/batch/1/answer", data=form, headers={"HX-Request": "true"})
            # From when it was due: waiting for the own previous answer counts, too.
            times.append(time.monotonic() - due)
            errors += response.status_code != 200
            form = fields(response.text)
            if form is None:
                raise ValueError("the batch was too small for this load")
    return times, errors


async def _load(base: str, tokens: list[str], rate: float, seconds: float) -> tuple[list[float], int]:
    begin = asyncio.Event()
    interval = len(tokens) / rate
    work = [
        asyncio.create_task(_rater(base, token, number / rate, interval, begin, seconds))
        for number, token in enumerate(tokens)
    ]
    await asyncio.sleep(0.25 * len(tokens))  # everybody signs in first
    begin.set()
    found = await asyncio.gather(*work)
    return [value for times, _ in found for value in times], sum(errors for _, errors in found)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raters", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100, help="submits per second of all raters together")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--url", help="database; default: SQLite in a new folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite:///{folder}/feedback.db"
        tokens = fill(url, options.raters, int(options.rate * options.seconds) + 10 * options.raters)
        port = free_port()
        with server(url, Path(folder), port):
            began = time.monotonic()
            times, errors = asyncio.run(
                _load(f"http://127.0.0.1:{port}", tokens, options.rate, options.seconds)
            )
            took = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cuts = statistics.quantiles(times, n=100)
    print(
        json.dumps(
            {
                "database": url.partition(":")[0],
                "submits": len(times),
                "errors": errors,
                "submits_per_second": round(len(times) / options.seconds, 1),
                "wall_seconds": round(took, 1),
                "milliseconds": {
                    "p50": round(cuts[49] * 1000, 1),
                    "p95": round(cuts[94] * 1000, 1),
                    "p99": round(cuts[98] * 1000, 1),
                    "max": round(max(times) * 1000, 1),
                },
                "server_cpu_milliseconds_per_submit": round(
                    1000 * (used.ru_utime + used.ru_stime) / len(times), 1
                ),
                "load_average": os.getloadavg()[0],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
