"""The page's server is killed under load and started again: nothing acknowledged is lost, nothing served twice."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from benchmarks.labelling import fields, fill, free_port, sign_in, start
from rlhf.feedback.database import connect
from rlhf.feedback.schema import Assignment, Batch, Item, Ranking

pytestmark = pytest.mark.integration

RATERS, ITEMS = 20, 1200


async def _rate(base: str, token: str, acknowledged: dict[tuple[int, int], int], stop: asyncio.Event) -> None:
    """Answer until told to stop; what the server does not acknowledge is sent again as it was."""
    async with httpx.AsyncClient(base_url=base, timeout=10) as client:
        form = None
        while form is None:
            form = await _again(sign_in, client, token)
        while not stop.is_set() and form:
            try:
                answer = await client.post("/batch/1/answer", data=form, headers={"HX-Request": "true"})
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 200, answer.text
            key = (int(form["assignment"]), int(form["attempt"]))
            acknowledged[key] = acknowledged.get(key, 0) + 1
            form = fields(answer.text)


async def _again(call, *arguments):
    try:
        return await call(*arguments)
    except (httpx.TransportError, KeyError):
        await asyncio.sleep(0.1)


async def _load(url: str, home: Path, tokens: list[str]) -> dict[tuple[int, int], int]:
    port = free_port()
    acknowledged: dict[tuple[int, int], int] = {}
    stop = asyncio.Event()
    server = await asyncio.to_thread(start, url, home, port)
    raters = [
        asyncio.create_task(_rate(f"http://127.0.0.1:{port}", token, acknowledged, stop)) for token in tokens
    ]
    try:
        for _ in range(3):
            before, deadline = len(acknowledged), time.monotonic() + 60
            while len(acknowledged) < before + 100 and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            server.kill()
            server.wait()
            server = await asyncio.to_thread(start, url, home, port)
        before = len(acknowledged)
        while len(acknowledged) < before + 50 and not all(task.done() for task in raters):
            await asyncio.sleep(0.02)
        stop.set()
        await asyncio.gather(*raters)
    finally:
        server.kill()
        server.wait()
    return acknowledged


def test_sigkill_under_load_loses_and_doubles_nothing(url, tmp_path):
    tokens = fill(url, RATERS, ITEMS)
    acknowledged = asyncio.run(_load(url, tmp_path / "home", tokens))
    assert len(acknowledged) >= 300
    feedback = connect(url)
    with feedback.read() as session:
        kept = set(session.execute(select(Ranking.assignment_id, Ranking.attempt)).tuples())
        answered = session.scalar(select(Batch.answered))
        rankings = session.scalar(select(func.count()).select_from(Ranking))
        taken = session.scalars(select(Item.taken)).all()
        pairs = session.execute(select(Assignment.item_id, Assignment.annotator_id)).all()
    feedback.close()
    assert set(acknowledged) <= kept
    assert set(acknowledged.values()) == {1}
    assert answered == rankings == len(kept)
    assert max(taken) == 1
    assert len(pairs) == len(set(pairs)) == sum(taken)
