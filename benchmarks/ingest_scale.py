"""How long ingestion, validation and a leave-last-out split take, and at what peak memory.

    python benchmarks/ingest_scale.py --events 10000000 --items 60000
    python benchmarks/ingest_scale.py --events 10000000 --people 200000 --items 60000 --double 5

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
        "ingest_s": round(ingested - start, 2),
        "split_s": round(end - ingested, 2),
        "total_s": round(end - start, 2),
        "cpu_s": round(time.process_time(), 1),
        "imports_mib": before // 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figures))


def draw(directory: str, events: int, people: int, items: int, form: str) -> None:
    """Write the data from a process of its own, so that what drawing takes is given back."""
    script = [sys.executable, "-c", _WRITE, directory, str(events), str(people), str(items), form]
    subprocess.run(script, check=True, cwd=Path(__file__).parent)


def measured(directory: str, form: str) -> dict[str, float]:
    """The figures of one reading in a fresh process."""
    command = [sys.executable, __file__, "--measure", directory, form]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Read the arguments, write the data and measure each format in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--people", type=int, help="by default one for every 50 events")
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--formats", default="parquet,csv")
    parser.add_argument(
        "--double",
        type=int,
        metavar="TIMES",
        choices=range(1, 100),
        help="read twice the events too (of twice the people, unless --people says how many), in turns, so "
        "many times each, and print the ratio of the medians",
    )
    parser.add_argument("--measure", nargs=2, metavar=("DIR", "FORMAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), arguments.measure[1])
        return
    sizes = [arguments.events, 2 * arguments.events] if arguments.double else [arguments.events]
    for form in arguments.formats.split(","):
        seconds: dict[int, list[float]] = {size: [] for size in sizes}
        with tempfile.TemporaryDirectory() as directory:
            for size in sizes:
                (Path(directory) / str(size)).mkdir()
                people = arguments.people or max(size // 50, 1)
                draw(f"{directory}/{size}", size, people, arguments.items, form)
            for _ in range(arguments.double or 1):
                for size in sizes:
                    figures = measured(f"{directory}/{size}", form)
                    print(json.dumps({"format": form, **figures}), flush=True)
                    seconds[size].append(figures["total_s"])
        if arguments.double:
            one, two = (float(np.median(seconds[size])) for size in sizes)
            print(
                json.dumps({"format": form, "median_s": [one, two], "ratio": round(two / one, 2)}), flush=True
            )


_WRITE = (
    "import sys, pathlib, ingest_scale as s; "
    "s.write(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5])"
)

if __name__ == "__main__":
    main()
