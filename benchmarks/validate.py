"""How fast preference rows are validated, and in how much memory.

    python benchmarks/validate.py --rows 1000000 [--plot FILE]

Writes N rows of about 1 kB as JSON Lines, validates them with all row rules and writes the canonical table;
then looks for near-duplicates among the same rows. Prints one JSON line; with `--plot` one for each of
several sizes up to N, and draws the cost.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from rlhf.data.near import signatures, similar_to_earlier
from rlhf.data.validation import validate_file
from schemas.config.data import DataChecks

WORDS = 20_000


def write_rows(path: Path, rows: int) -> None:
    """Write conversational preference rows, no two alike; a tenth of a percent has a defect of some kind."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(WORDS)]
    phrases = [" ".join(draw.choices(words, k=10)) for _ in range(WORDS)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            prompt, chosen, rejected = (
                " ".join(draw.choices(phrases, k=k)) for k in (4, draw.randint(4, 7), draw.randint(4, 7))
            )
            if number % 1_000 == 999:
                chosen = ("", rejected, f"{chosen} <|im_end|>", f"{chosen} mail me: {words[0]}@example.com")[
                    number // 1_000 % 4
                ]
            row = {
                "prompt": [{"role": "user", "content": f"{prompt}?"}],
                "chosen": [{"role": "assistant", "content": chosen and f"{chosen}."}],
                "rejected": [{"role": "assistant", "content": f"{rejected}."}],
            }
            file.write(json.dumps(row) + "\n")


def peak_gb(workers: int) -> float:
    """Return an upper bound of the memory of this process and its workers together."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + workers * largest) / 1e6


def processor_seconds() -> float:
    """Return the processor time of this process and its workers: what counts on a busy machine."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(rows: int) -> dict[str, float]:
    """Validate this many rows, then look for near-duplicates among them."""
    from rlhf.data.parallel import cores

    with tempfile.TemporaryDirectory(prefix="rlhf-benchmark-") as folder:
        source, out = Path(folder) / "rows.jsonl", Path(folder) / "out"
        write_rows(source, rows)
        size = source.stat().st_size
        before, started = processor_seconds(), time.perf_counter()
        report = validate_file(
            str(source), kind="preferences", out=out, config=DataChecks(near_duplicates=False)
        )
        seconds, used = time.perf_counter() - started, processor_seconds() - before
        assert report.rows == rows == report.kept + report.quarantined + report.dropped
        peak = peak_gb(cores())
        texts = pl.scan_parquet(out / "preferences.parquet").select(
            text=pl.col("prompt").list.first().struct.field("content") + "\n" + pl.col("chosen")
        )
        found = texts.collect()["text"]
        started = time.perf_counter()
        similar_to_earlier(signatures(found))
        near = time.perf_counter() - started
    return {
        "rows": rows,
        "bytes_per_row": round(size / rows),
        "rows_per_s": round(rows / seconds),
        "peak_gb": round(peak, 3),
        "near_duplicates_rows_per_s": round(found.len() / near),
        "seconds": round(seconds, 2),
        "processor_us_per_row": round(used / rows * 1e6, 1),
        "near_duplicates_seconds": round(near, 2),
        "kept": report.kept,
        "quarantined": report.quarantined,
    }


def plot(points: list[dict[str, float]], path: Path) -> None:
    """Draw seconds over rows, with the straight line through the largest point."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    rows = [point["rows"] for point in points]
    for name, label in (("seconds", "all row rules"), ("near_duplicates_seconds", "near-duplicates")):
        axes.loglog(rows, [point[name] for point in points], marker="o", label=label)
    axes.loglog(
        rows,
        [points[-1]["seconds"] * n / rows[-1] for n in rows],
        linestyle=":",
        color="grey",
        label="linear",
    )
    axes.set(xlabel="rows of about 1 kB", ylabel="seconds", title="Validation: seconds to start, then linear")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--plot", type=Path, help="draw the cost from ten thousand rows to --rows into this file"
    )
    arguments = parser.parse_args()
    if not arguments.plot:
        sys.stdout.write(json.dumps(measure(arguments.rows)) + "\n")
        return
    points = []
    for size in [n for n in (10_000, 30_000, 100_000, 300_000) if n < arguments.rows] + [arguments.rows]:
        # A process each: a peak of memory is for life, and the second import costs nothing.
        command = [sys.executable, __file__, "--rows", str(size)]
        line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        points.append(json.loads(line))
        sys.stdout.write(line)
        sys.stdout.flush()
    plot(points, arguments.plot)


if __name__ == "__main__":
    main()
