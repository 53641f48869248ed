"""What a recommendation costs against the size of the catalogue, with the default configuration.

    OMP_NUM_THREADS=1 python benchmarks/catalogue_size.py --sizes 1e3,1e4,1e5,1e6 --out catalogue-size

A model of random weights whose item vectors lie in clusters, with biases and popularity long-tailed, is
asked through `Recommender.recommend` for 10 items after a history of 50 events that stays near three
clusters. Every size runs in a process of its own. Recall@10 is against scoring every item; the error of
scores is that of the estimated sum over the catalogue. Writes figures.json and chart.html to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from llm4rec.model.linear import Linear

HISTORY, N = 50, 10
SHELVES = 20


def clusters(n_items: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors [i, d] in clusters of clusters, about 500 items each, and the cluster of each [i]."""
    coarse = rng.normal(size=(100, size))
    n_fine = max(n_items // 500, 10)
    fine = coarse[rng.integers(100, size=n_fine)] + 0.7 * rng.normal(size=(n_fine, size))
    member = rng.integers(n_fine, size=n_items)
    vectors = np.empty((n_items, size), dtype=np.float32)
    for start in range(0, n_items, 65_536):
        rows = member[start : start + 65_536]
        vectors[start : start + len(rows)] = fine[rows] + 0.7 * rng.normal(size=(len(rows), size))
    vectors[:, 0] = rng.normal(size=n_items) / np.sqrt(size)  # a bias of one nat
    return vectors, member


def build(n_items: int, seed: int) -> tuple[Any, np.ndarray]:
    """A recommender over a synthetic catalogue, and the cluster of each item [i]."""
    import torch

    from llm4rec.data.catalog import Catalog, Field
    from llm4rec.encode.tokens import TokenSpace
    from llm4rec.fitted import Fitted, Spaces, new_network
    from llm4rec.model.events import EventSpace
    from llm4rec.model.prior import Prior
    from llm4rec.model.scorer import Scorer
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config

    rng = np.random.default_rng(seed)
    config = Config()
    spaces = Spaces(TokenSpace({}, {}, {}, {}, {}), None, EventSpace((), 0.0, 1.0, ()))
    table = pl.DataFrame({"item_id": pl.Series(np.arange(n_items)).cast(pl.String)}).with_columns(
        shelf=pl.concat_list(pl.format("s{}", pl.Series(rng.integers(SHELVES, size=n_items)))),
        side=pl.concat_list(pl.format("s{}", pl.Series(rng.integers(2, size=n_items)))),
    )
    fields = (Field("shelf", "categorical"), Field("side", "categorical"))
    network = new_network(config, spaces, n_items)
    vectors, member = clusters(n_items, config.model.embedding_size, rng)
    network.load_state_dict({"fusion.encoders.behaviour.table": torch.from_numpy(vectors)}, strict=False)
    network.eval()
    items, _ = spaces.tokens(Catalog(table), {}, torch.ones(n_items, dtype=torch.bool), None)
    counts = rng.permutation(1e6 / np.arange(1, n_items + 1)) + 0.5
    popularity = np.log(counts / counts.sum()).astype(np.float32)
    fitted = Fitted(
        config=config,
        catalog=Catalog(table, fields),
        people=None,
        histories=None,
        vectors={},
        spaces=spaces,
        scorer=Scorer(network, items, None, spaces.events),
        linear=linear_part(popularity, rng),
        prior=Prior(np.stack([popularity] * 4), (0.5, 0.2, 0.1, 0.02), (1.0,) * 4),
        generator=None,
        about={"text_encoder": None},
    )
    return Recommender(fitted), member


def linear_part(popularity: np.ndarray, rng: np.random.Generator) -> Linear:
    """A linear part of the default size over the most popular items, its entries drawn at random."""
    from llm4rec.model.linear import Linear, LinearConfig

    config = LinearConfig()
    known = np.sort(np.argsort(-popularity, kind="stable")[: config.items])
    kept = min(config.neighbours, len(known) - 1)
    places = rng.integers(len(known), size=len(known) * kept).astype(np.uint16)
    weights = rng.exponential(0.02, size=len(places)).astype(np.float16)
    return Linear(known, np.arange(len(known) + 1) * kept, places, weights, strengths=(4.0,) * 4)


def histories(member: np.ndarray, n: int, seed: int) -> list[tuple[str, ...]]:
    """Histories of 50 events, each from three clusters."""
    rng = np.random.default_rng([seed, 1])
    order = np.argsort(member, kind="stable")
    ends = np.append(np.searchsorted(member[order], np.arange(member.max() + 1)), len(member))
    told: list[tuple[str, ...]] = []
    for _ in range(n):
        liked = rng.integers(member.max() + 1, size=3)
        pool = np.concatenate([order[ends[each] : ends[each + 1]] for each in liked])
        told.append(tuple(str(item) for item in rng.choice(pool, size=HISTORY)))
    return told


def timed(ask: Callable[[Any], Any], queries: list[Any]) -> tuple[dict[str, float], list[Any]]:
    """p50, p95 and p99 in milliseconds, the first tenth left out, and the answers.

    The processor's time is given beside the clock's: on a busy machine it is the steadier one.
    """
    taken = np.empty((len(queries), 2))
    answers: list[Any] = []
    for place, query in enumerate(queries):
        start = time.perf_counter(), time.process_time()
        answers.append(ask(query))
        taken[place] = time.perf_counter() - start[0], time.process_time() - start[1]
    found: dict[str, float] = {}
    for column, name in enumerate(("", "cpu_")):
        kept = 1000 * taken[len(taken) // 10 :, column]
        found |= {f"{name}p{p}_ms": round(float(np.percentile(kept, p)), 2) for p in (50, 95, 99)}
    return found, answers


def measure(n_items: int, n_requests: int, seed: int) -> dict[str, Any]:
    """The figures of one size."""
    from dataclasses import replace

    from llm4rec.recommender import Recommender
    from llm4rec.types import Query

    model, member = build(n_items, seed)
    whole = n_items <= model.config.generate.exact_up_to
    queries = [Query(history) for history in histories(member, n_requests, seed)]
    start = time.perf_counter()
    model.recommend(queries[0], N)
    figures: dict[str, Any] = {
        "items": n_items,
        "way": "every item" if whole else "candidates",
        "first_request_s": round(time.perf_counter() - start, 2),
    }
    figures["recommend"], found = timed(lambda query: model.recommend(query, N), queries)
    for name, where in (("where_1_of_20", {"shelf": ("s3",)}), ("where_1_of_2", {"side": ("s1",)})):
        model.recommend(replace(queries[0], where=where), N)  # the categories are sorted once
        figures[name], _ = timed(
            lambda query, where=where: model.recommend(replace(query, where=where), N), queries[:100]
        )
    figures["vectors_MiB"] = round(model.item_vectors.nbytes / 2**20, 1)
    figures["index_MiB"] = 0.0 if whole else round(model.fitted.index.n_bytes / 2**20, 1)
    if not whole:
        start = time.perf_counter()
        del model.fitted.__dict__["index"]
        assert model.fitted.index.n_bytes
        figures["index_build_s"] = round(time.perf_counter() - start, 2)
    figures["peak_MiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    section = model.config.generate.model_copy(update={"exact_up_to": n_items})
    exact = Recommender(replace(model.fitted, config=model.config.model_copy(update={"generate": section})))
    exact.recommend(queries[0], N)
    figures["every_item"], expected = timed(lambda query: exact.recommend(query, N), queries[:200])
    figures |= compared(found, expected)
    return figures


def compared(found: list[Any], expected: list[Any]) -> dict[str, float]:
    """Recall@10 against exact lists, and how far the scores of what both hold differ (nats)."""
    recalls: list[float] = []
    errors: list[float] = []
    for one, other in zip(found, expected, strict=False):
        exact = dict(zip(other.item_ids, other.scores, strict=True))
        shared = [
            score - exact[item] for item, score in zip(one.item_ids, one.scores, strict=True) if item in exact
        ]
        recalls.append(len(shared) / len(exact))
        errors += shared
    size = np.abs(errors)
    return {
        "recall@10": round(float(np.mean(recalls)), 4),
        "score_error_mean": round(float(np.mean(size)), 4),
        "score_error_max": round(float(size.max()), 4),
    }


def chart(rows: list[dict[str, Any]]) -> str:
    """The cost against the size, both axes logarithmic."""
    from llm4rec.bench.charts import growth

    lines = {
        "as served, p50": [(row["items"], row["recommend"]["p50_ms"]) for row in rows],
        "as served, p99": [(row["items"], row["recommend"]["p99_ms"]) for row in rows],
        "every item scored, p50": [(row["items"], row["every_item"]["p50_ms"]) for row in rows],
    }
    return growth(lines, "One request for 10 items, history of 50 events", "items", "milliseconds")


def main() -> None:
    """Run every size in a process of its own; print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="1e3,1e4,1e5,1e6", help="catalogue sizes, with commas between")
    parser.add_argument("--requests", type=int, default=500, help="requests per size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("catalogue-size"))
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.requests, arguments.seed)))
        return
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes.split(","):
        command = [sys.executable, __file__, "--measure", str(int(float(size)))]
        command += ["--requests", str(arguments.requests), "--seed", str(arguments.seed)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    by_size = {row["items"]: row["recommend"] for row in rows}
    largest, smallest = by_size[max(by_size)], by_size[min(by_size)]
    summary = {
        "command": " ".join(sys.argv),
        "seed": arguments.seed,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "largest_over_smallest": {
            name: round(largest[name] / smallest[name], 2) for name in ("p50_ms", "cpu_p50_ms")
        },
        "sizes": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "figures.json").write_text(json.dumps(summary, indent=1))
    (arguments.out / "chart.html").write_text(f"<!doctype html><meta charset=utf-8>{chart(rows)}")
    print(json.dumps({key: value for key, value in summary.items() if key != "sizes"}))


if __name__ == "__main__":
    main()
