"""How long ingestion, validation and a leave-last-out split take, and at what peak memory.

    python benchmarks/ingest_scale.py --events 10000000 --items 60000

A log is drawn with numpy (popularity and activity both long-tailed, rows in no order), written once per
format, and read in a fresh process, so that the peak is that of the work alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl


def write(directory: Path, n_events: int, n_people: int, n_items: int, form: str) -> None:
    """Draw a log and its items; `form` is parquet, csv or csv.gz."""
    rng = np.random.default_rng(0)
    people = (n_people * rng.random(n_events) ** 2).astype(np.int64)
    items = (n_items * rng.random(n_events) ** 3).astype(np.int64)
    frame = pl.DataFrame({"user": people, "item": items}).select(
        user_id=pl.format("person-{}", "user"),
        item_id=pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9)),
        timestamp=pl.Series(rng.integers(1_500_000_000, 1_700_000_000, n_events)),
        rating=pl.Series(rng.integers(1, 6, n_events).astype(np.float32)),
    )
    table = pl.DataFrame({"item": np.arange(n_items)}).select(
        item_id=pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9)),
        title=pl.format("A thing numbered {}", "item"),
        category=pl.format("category {}", pl.col("item") % 50),
    )
    for name, each in (("interactions", frame), ("items", table)):
        if form == "parquet":
            each.write_parquet(directory / f"{name}.parquet")
        else:
            each.write_csv(directory / f"{name}.csv")


def measure(directory: Path, form: str) -> None:
    """Ingest and split; print seconds and peak memory as JSON."""
    from llm4rec.data.ingest import ingest
    from llm4rec.data.split import leave_last_out

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    data = ingest(str(directory / f"interactions.{form}"), str(directory / f"items.{form}"))
    ingested = time.perf_counter()
    split = leave_last_out(data.log)
    end = time.perf_counter()
    figures = {
        "events": data.log.n_events,
        "people": data.log.n_users,
        "items": len(data.catalog),
        "cases": len(split.test),
        "ingest_s": round(ingested - start, 1),
        "split_s": round(end - ingested, 1),
        "total_s": round(end - start, 1),
        "cpu_s": round(time.process_time(), 1),
        "imports_mib": before // 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figures))


def main() -> None:
    """Read the arguments, write the data and measure each format in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--people", type=int, help="by default one for every 50 events")
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--formats", default="parquet,csv")
    parser.add_argument("--measure", nargs=2, metavar=("DIR", "FORMAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), arguments.measure[1])
        return
    for form in arguments.formats.split(","):
        with tempfile.TemporaryDirectory() as directory:
            # a process of its own: what drawing the data takes is given back before the measurement
            script = [
                sys.executable,
                "-c",
                _WRITE,
                directory,
                str(arguments.events),
                str(arguments.people or max(arguments.events // 50, 1)),
                str(arguments.items),
                form,
            ]
            subprocess.run(script, check=True, cwd=Path(__file__).parent)
            command = [sys.executable, __file__, "--measure", directory, form]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(json.dumps({"format": form, **json.loads(done.stdout)}))


_WRITE = (
    "import sys, pathlib, ingest_scale as s; "
    "s.write(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5])"
)

if __name__ == "__main__":
    main()
