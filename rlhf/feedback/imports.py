"""Read rankings from the formats that `exports` writes and other tools use, and keep them as a closed batch."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import polars as pl
from sqlalchemy import insert, select

from rlhf.feedback import annotators
from rlhf.feedback.batches import Plan, publish
from rlhf.feedback.database import Feedback, now
from rlhf.feedback.exports import COLUMNS
from rlhf.feedback.schema import Assignment, Batch, Item, Ranking
from schemas.errors import DataRejected
from schemas.tables import polars_schema

Row = dict[str, Any]


def read(text: str, name: str) -> pl.DataFrame:
    """Return the table `rankings` of a file's text."""
    try:
        rows = [_complete(row) for row in READERS[name](text)]
        frame = pl.DataFrame(rows, schema=polars_schema("rankings"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
        raise DataRejected(
            f"This is no file of the format {name}: {type(error).__name__}: {str(error)[:200]}. Check --format, and that the file is whole."
        ) from None
    for row in frame.iter_rows(named=True):
        given = sorted({rank for rank in row["ranks"] if rank is not None})
        same = len(row["ranks"]) == len(row["responses"]) == len(row["finished"])
        if not same or len(row["responses"]) < 2 or given != list(range(1, len(given) + 1)):
            raise DataRejected(
                f"The ranks {row['ranks']} of prompt {row['prompt_id']} do not fit its {len(row['responses'])} responses; ranks count from 1, ties share one."
            )
    return frame


def _complete(row: Row) -> Row:
    """Fill in what other tools do not know."""
    prompt = row["prompt"]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    digest = hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:16]
    responses = [str(text) for text in row["responses"]]
    return {
        "prompt_id": str(row.get("prompt_id") or digest),
        "prompt": prompt,
        "responses": responses,
        "finished": row.get("finished") or [True] * len(responses),
        "rater": str(row.get("rater") or "unknown"),
        "ranks": row["ranks"],
    }


def _jsonl(text: str) -> Iterator[Row]:
    for line in text.split("\n"):
        if line.strip():
            yield json.loads(line)


def _csv(text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if missing := set(COLUMNS) - set(reader.fieldnames or ()):
        raise KeyError(f"no column {', '.join(sorted(missing))}")
    row: Row | None = None
    for cells in reader:
        line = {name: _uncell(cells[name]) for name in COLUMNS}
        if int(line["response"]) == 0:
            if row:
                yield row
            row = {
                "prompt_id": line["prompt_id"],
                "rater": line["rater"],
                "prompt": json.loads(line["prompt"]),
                "responses": [],
                "finished": [],
                "ranks": [],
            }
        if row is None:
            raise ValueError("the first line is not of response 0")
        row["responses"].append(line["text"])
        row["finished"].append(line["finished"] == "True")
        row["ranks"].append(int(line["rank"]) if line["rank"] else None)
    if row:
        yield row


def _uncell(cell: str) -> str:
    return cell.removeprefix("'")


def _label_studio(text: str) -> Iterator[Row]:
    for task in json.loads(text):
        data = task["data"]
        for annotation in task["annotations"]:
            rater = annotation.get("completed_by")
            rater = rater.get("email") or rater.get("id") if isinstance(rater, dict) else rater
            for result in annotation["result"]:
                row = {
                    "prompt_id": data.get("prompt_id"),
                    "prompt": data.get("messages") or data["prompt"],
                    "rater": rater,
                }
                if result["type"] == "pairwise":
                    left = result["value"]["selected"] == "left"
                    texts = [data.get("text1", data.get("left")), data.get("text2", data.get("right"))]
                    yield {
                        **row,
                        "responses": texts,
                        "finished": data.get("finished"),
                        "ranks": [1, 2] if left else [2, 1],
                    }
                elif result["type"] == "ranker":
                    items = [str(item["id"]) for item in data["items"]]
                    order = result["value"]["ranker"]["rank"]
                    ranks = [order.index(item) + 1 if item in order else None for item in items]
                    yield {
                        **row,
                        "responses": [item["body"] for item in data["items"]],
                        "finished": data.get("finished"),
                        "ranks": result.get("meta", {}).get("ranks") or ranks,
                    }


def _argilla(text: str) -> Iterator[Row]:
    for record in json.loads(text):
        names = [name for name in record["fields"] if name.startswith("response")]
        for given in record["responses"]["ranking"]:
            if given.get("status", "submitted") != "submitted":
                continue
            ranks = {value["value"]: value["rank"] for value in given["value"]}
            # Argilla counts places that ties take; here the next place follows at once.
            dense = {rank: place for place, rank in enumerate(sorted(set(ranks.values())), start=1)}
            yield {
                "prompt_id": record.get("id"),
                "prompt": record["fields"]["prompt"],
                "responses": [record["fields"][name] for name in names],
                "finished": record.get("metadata", {}).get("finished"),
                "rater": given.get("user_id"),
                "ranks": [dense[ranks[name]] if name in ranks else None for name in names],
            }


def _trl(text: str) -> Iterator[Row]:
    for row in _jsonl(text):
        sides = [row["chosen"], row["rejected"]]
        yield {
            "prompt_id": row.get("prompt_id"),
            "prompt": row["prompt"],
            "responses": [side if isinstance(side, str) else side[-1]["content"] for side in sides],
            "ranks": [1, 2],
        }


READERS = {
    "jsonl": _jsonl, "csv": _csv, "label-studio": _label_studio, "label-studio-pairwise": _label_studio,
    "argilla": _argilla, "trl": _trl,
}  # fmt: skip


def keep(feedback: Feedback, frame: pl.DataFrame, name: str) -> Batch:
    """Keep rankings from elsewhere as a closed batch; the same rankings under the same name are kept once."""
    key = f"imported-{hashlib.sha256((name + json.dumps(frame.to_dicts())).encode()).hexdigest()[:32]}"
    alike = ["prompt_id", "prompt", "responses", "finished"]
    places: dict[str, int] = {}
    for row in frame.iter_rows(named=True):
        places.setdefault(json.dumps([row[column] for column in alike]), len(places))
    items = pl.DataFrame(
        [dict(zip(alike, json.loads(text), strict=True)) for text in places],
        schema={column: frame.schema[column] for column in alike},
    )
    batch = publish(feedback, key, items, Plan(name=name, overlap=max(1, frame["rater"].n_unique())))
    if batch.closed_at is not None:
        return batch
    raters = {who: annotators.outside(feedback, who) for who in frame["rater"].unique(maintain_order=True)}
    with feedback.write() as session:
        found = session.execute(select(Item.position, Item.id).where(Item.batch_id == batch.id))
        ids = {position: item_id for position, item_id in found}
        done: set[tuple[int, int]] = set()
        for row in frame.iter_rows(named=True):
            item_id = ids[places[json.dumps([row[column] for column in alike])]]
            who = raters[row["rater"]]
            if (item_id, who) in done:
                continue
            done.add((item_id, who))
            assignment = Assignment(
                item_id=item_id, annotator_id=who, order=list(range(len(row["ranks"]))),
                state="ranked", attempt=1, assigned_at=now(),
            )  # fmt: skip
            session.add(assignment)
            session.flush()
            ranking = {
                "assignment_id": assignment.id, "attempt": 0, "ranks": row["ranks"],
                "flags": [[] for _ in row["ranks"]], "created_at": now(),
            }  # fmt: skip
            session.execute(insert(Ranking), [ranking])
        kept = session.get_one(Batch, batch.id)
        kept.answered, kept.closed_at, kept.closed_by = len(done), now(), "import"
        return kept
