"""Write the rankings of a batch in the formats that other tools read; `imports` reads them back."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlhf.feedback import collected
from rlhf.feedback.database import Feedback
from rlhf.feedback.rankings import pairs
from rlhf.feedback.votes import compared

COLUMNS = ("prompt_id", "rater", "prompt", "response", "text", "finished", "rank")
"""Of the CSV file: one line per response of a ranking."""


@dataclass(frozen=True)
class Format:
    """A file format."""

    suffix: str
    write: Callable[[pl.DataFrame], str]


def write(feedback: Feedback, batch_id: int, name: str) -> str:
    """Return a batch's rankings as the text of a file."""
    return FORMATS[name].write(collected.rankings(feedback, batch_id))


def _jsonl(frame: pl.DataFrame) -> str:
    return _lines(frame.iter_rows(named=True))


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _csv(frame: pl.DataFrame) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in frame.iter_rows(named=True):
        for place, (text, finished, rank) in enumerate(
            zip(row["responses"], row["finished"], row["ranks"], strict=True)
        ):
            cells = (row["prompt_id"], row["rater"], json.dumps(row["prompt"]), place, text)
            writer.writerow([*map(_cell, cells), finished, "" if rank is None else rank])
    return out.getvalue()


def _cell(value: object) -> object:
    # A spreadsheet would run a cell that begins like a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r'") else value


def _label_studio(frame: pl.DataFrame) -> str:
    """One task per item with Label Studio's Ranker; it knows no ties, so the exact ranks travel as `meta`."""
    tasks: dict[str, dict[str, Any]] = {}
    for row in frame.iter_rows(named=True):
        key = json.dumps([row["prompt_id"], row["responses"]])
        task = tasks.setdefault(
            key,
            {
                "id": len(tasks) + 1,
                "data": {
                    "prompt_id": row["prompt_id"],
                    "messages": row["prompt"],
                    "prompt": row["prompt"][-1]["content"],
                    "items": [
                        {"id": str(place), "body": text} for place, text in enumerate(row["responses"])
                    ],
                    "finished": row["finished"],
                },
                "annotations": [],
            },
        )
        ranked = [(rank, place) for place, rank in enumerate(row["ranks"]) if rank is not None]
        task["annotations"].append(
            {
                "completed_by": row["rater"],
                "result": [
                    {
                        "from_name": "rank",
                        "to_name": "items",
                        "type": "ranker",
                        "value": {"ranker": {"rank": [str(place) for _, place in sorted(ranked)]}},
                        "meta": {"ranks": row["ranks"]},
                    }
                ],
            }
        )
    return json.dumps(list(tasks.values()), indent=1)


def _label_studio_pairwise(frame: pl.DataFrame) -> str:
    """One task per two responses with Label Studio's Pairwise, which knows no ties: those are left out."""
    tasks: dict[str, dict[str, Any]] = {}
    for row in frame.iter_rows(named=True):
        for left, right, vote in compared(row["ranks"]):
            if not vote:
                continue
            texts, finished = (
                [row[name][side] for side in (left, right)] for name in ("responses", "finished")
            )
            data = {
                "prompt_id": row["prompt_id"],
                "messages": row["prompt"],
                "prompt": row["prompt"][-1]["content"],
                "text1": texts[0],
                "text2": texts[1],
                "finished": finished,
            }
            task = tasks.setdefault(json.dumps(data), {"id": len(tasks) + 1, "data": data, "annotations": []})
            result = {
                "from_name": "preference",
                "to_name": "text1,text2",
                "type": "pairwise",
                "value": {"selected": "left" if vote > 0 else "right"},
            }
            task["annotations"].append({"completed_by": row["rater"], "result": [result]})
    return json.dumps(list(tasks.values()), indent=1)


def _argilla(frame: pl.DataFrame) -> str:
    """One record per item with a ranking question; equal ranks are ties there, too."""
    records: dict[str, dict[str, Any]] = {}
    for row in frame.iter_rows(named=True):
        key = json.dumps([row["prompt_id"], row["responses"]])
        record = records.setdefault(
            key,
            {
                "id": row["prompt_id"],
                "fields": {
                    "prompt": row["prompt"],
                    **{f"response-{place}": text for place, text in enumerate(row["responses"])},
                },
                "metadata": {"finished": row["finished"]},
                "responses": {"ranking": []},
            },
        )
        ranked = [
            {"value": f"response-{place}", "rank": rank}
            for place, rank in enumerate(row["ranks"])
            if rank is not None
        ]
        record["responses"]["ranking"].append(
            {"user_id": row["rater"], "value": ranked, "status": "submitted"}
        )
    return json.dumps(list(records.values()), indent=1)


def _trl(frame: pl.DataFrame) -> str:
    """TRL's conversational preferences: the pairs that follow from the rankings."""
    return _lines(
        {
            "prompt": row["prompt"],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
            "prompt_id": row["prompt_id"],
        }
        for row in pairs(frame).iter_rows(named=True)
    )


FORMATS = {
    "jsonl": Format("jsonl", _jsonl),
    "csv": Format("csv", _csv),
    "label-studio": Format("json", _label_studio),
    "label-studio-pairwise": Format("json", _label_studio_pairwise),
    "argilla": Format("json", _argilla),
    "trl": Format("jsonl", _trl),
}
"""`jsonl` is the table `rankings`, one row per line; `trl` and `label-studio-pairwise` keep pairs, all others rankings."""
