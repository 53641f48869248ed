"""What one recommendation of 10 costs after a history of 50 events, and what others' ways cost beside it.

    OMP_NUM_THREADS=1 python benchmarks/latency.py --backbone smollm2 --rectools

One process asks `Recommender.recommend` for distinct histories with times and ratings, and prints a line of
JSON per way of answering: p50, p95 and p99 of the wall clock and of the processor's time in milliseconds.

- compact: the default configuration, with nothing retrieved, as validation has it on such a log.
- compact, retrieving: the same with every kind of entry that the data has, asked about items that were no
  anchor before, and once more about the same.
- cold: a pretrained backbone that reads the whole history.
- warm: the same after the first 49 events were read; what is timed is the request with one more. Also with
  the exact projections instead of those in 8 bits.
- one LLM pass per code token and beam: how an item is generated as three tokens of a vocabulary of codes. The
  same decoder reads the history, then every one of 20 beams once for each further code, its keys and values
  kept; nothing is said of which codes are an item, and none of the work around it is counted. The history is
  given as one position per event, then as three codes per event.
- RecTools: SASRecModel as it comes, its session as long as the history; `recommend` for a person of a data
  set of one, which is made before the clock starts. Needs `pip install 'rectools[torch]'`.

Models are fitted for one epoch on a made-up log: their weights do not change what an answer costs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from llm4rec.data.catalog import Catalog
    from llm4rec.data.events import EventLog
    from llm4rec.model.pretrained import PretrainedBackbone
    from llm4rec.recommender import Recommender
    from llm4rec.types import Query

HISTORY, N = 50, 10
CODES, CODEBOOK, BEAM = 3, 256, 20
SHELVES = 20
START, DAY = 1_700_000_000, 86_400
WARM_UP = 10
"""Requests before the clock counts: the first make the item vectors."""
LLM_PEOPLE = 200
"""Of the log, who a pretrained backbone is fitted to."""


def make(n_items: int, n_people: int, seed: int) -> tuple[EventLog, Catalog]:
    """A log in which every item occurs and everybody did `HISTORY` things, each near the one before."""
    from llm4rec.data.catalog import Catalog, Field
    from llm4rec.data.events import build_log

    rng = np.random.default_rng(seed)
    n_events = n_people * HISTORY
    starts = np.concatenate([np.arange(n_items), rng.integers(n_items, size=max(n_events - n_items, 0))])
    items = np.sort(rng.permutation(starts)[:n_events].reshape(n_people, HISTORY), axis=1)
    times = START + np.sort(rng.integers(365 * DAY, size=(n_people, HISTORY)), axis=1)
    names = pl.Series([f"u{person}" for person in range(n_people) for _ in range(HISTORY)])
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(n_items)],
        "shelf": [[f"s{item % SHELVES}"] for item in range(n_items)],
        "price": rng.lognormal(size=n_items),
    })
    log = build_log(
        names,
        items.ravel(),
        times=times.ravel(),
        ratings=rng.integers(1, 6, size=n_events).astype(np.float32),
    )
    return log, Catalog(table, (Field("shelf", "categorical"), Field("price", "numerical")))


def requests(n_items: int, n: int, seed: int) -> list[Query]:
    """Distinct histories with times and ratings, each asked an hour after its last event."""
    from llm4rec.types import Context, Query

    rng = np.random.default_rng([seed, 1])
    made: list[Query] = []
    for _ in range(n):
        times = START + np.sort(rng.integers(365 * DAY, size=HISTORY))
        made.append(
            Query(
                history=tuple(f"i{item}" for item in rng.choice(n_items, size=HISTORY, replace=False)),
                timestamps=tuple(times.tolist()),
                ratings=tuple(rng.integers(1, 6, size=HISTORY).astype(float).tolist()),
                context=Context(time=int(times[-1]) + 3600),
            )
        )
    return made


def beginning(query: Query) -> Query:
    """The same person's request before the last event."""
    assert query.timestamps is not None and query.ratings is not None
    return replace(
        query, history=query.history[:-1], timestamps=query.timestamps[:-1], ratings=query.ratings[:-1]
    )


def fitted(log: EventLog, catalog: Catalog, backbone: str) -> Recommender:
    """One epoch of training; a pretrained decoder stays as it is.

    The log is drawn at random, so that its linear part would be left out; it is put in, for it costs time.
    """
    from llm4rec.model.linear import LinearConfig, fit_linear
    from llm4rec.recommender import Config, Recommender

    config = Config.model_validate({
        "model": {"backbone": backbone, "pretrained": {"tuning": "frozen"}},
        "train": {
            "epochs": 1,
            "attention_epochs": 1 if backbone == "compact" else 0,
            "context_epochs": 1,
            "validation_people": 20,
        },
    })
    model = Recommender.fit(log, catalog, config).fitted
    linear = replace(fit_linear(log, len(catalog), LinearConfig()), strengths=(4.0,) * 4)
    return Recommender(replace(model, linear=linear))


def retrieving(model: Recommender, log: EventLog) -> Recommender:
    """The model with all that can be retrieved from such data, every weight 1."""
    from llm4rec.recommender import Recommender
    from llm4rec.retrieve.entries import FACTORS
    from llm4rec.retrieve.relevance import Relevance

    weights = {kind: dict.fromkeys(FACTORS, 1.0) for kind in ("item_text", "similar_item", "memory")}
    every = Relevance.of({"weights": weights, "gamma": 0.01})
    return Recommender(replace(model.fitted, memories=log, relevance=every))


def timed(
    ask: Callable[[Any], Any], asked: Iterable[Any], before: Callable[[Any], Any] | None = None
) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds of the clock and of the processor, `before` and the first left out."""
    taken: list[tuple[float, float]] = []
    for query in asked:
        if before is not None:
            before(query)
        start = time.perf_counter(), time.process_time()
        ask(query)
        taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    kept = 1000 * np.array(taken[WARM_UP:])
    return {
        f"{name}p{p}_ms": round(float(np.percentile(kept[:, column], p)), 2)
        for column, name in enumerate(("", "cpu_"))
        for p in (50, 95, 99)
    }


def beam_search(backbone: PretrainedBackbone, codes: int, asked_with: int, seed: int) -> Callable[[Any], Any]:
    """Ten items as codes, the decoder run for every code of every beam: history [1, t, d] → codes [10, l].

    Args:
        backbone: what reads history and codes.
        codes: l, how many make an item.
        asked_with: positions the history takes.
        seed: of the codes' embeddings and of the head over them, which have learnt nothing.
    """
    import torch
    from transformers import DynamicCache

    draw = torch.Generator().manual_seed(seed)
    size = backbone.leave[-1].out_features
    vocabulary = torch.randn(codes, CODEBOOK, size, generator=draw)
    heads = torch.randn(codes, size, CODEBOOK, generator=draw) / size**0.5

    @torch.inference_mode()
    def search(events: torch.Tensor) -> torch.Tensor:
        assert events.shape[1] == asked_with
        past = DynamicCache()
        log_p = (backbone(events, past)[:, -1] @ heads[0]).log_softmax(dim=-1)
        best, found = log_p[0].topk(min(BEAM, CODEBOOK))
        found = found.unsqueeze(1)
        past.batch_repeat_interleave(len(found))
        for level in range(1, codes):
            state = backbone(vocabulary[level - 1, found[:, -1:]], past)[:, -1]
            log_p = best.unsqueeze(1) + (state @ heads[level]).log_softmax(dim=-1)
            best, place = log_p.flatten().topk(min(BEAM, log_p.numel()))
            beam, code = place // CODEBOOK, place % CODEBOOK
            found = torch.cat([found[beam], code.unsqueeze(1)], dim=1)
            if level < codes - 1:
                past.reorder_cache(beam)
        return found[:N]

    return search


def rectools(log: EventLog, catalog: Catalog) -> tuple[Any, Callable[[Query], Any]]:
    """RecTools' SASRec fitted to the log, and what makes its data set of one request."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    for name in ("lightning.pytorch", "pytorch_lightning"):  # which set a level when they are imported
        logging.getLogger(name).setLevel(logging.ERROR)

    def dataset(users: Any, items: Any, times: Any) -> Any:
        frame = pd.DataFrame({Columns.User: users, Columns.Item: items, Columns.Weight: 1.0})
        frame[Columns.Datetime] = pd.to_datetime(times, unit="s")
        return Dataset.construct(frame)

    frame = log.to_frame(catalog.ids)
    model = SASRecModel(epochs=1, session_max_len=HISTORY, recommend_torch_device="cpu")
    model.fit(dataset(frame["user_id"].to_list(), frame["item_id"].to_list(), frame["timestamp"].to_numpy()))
    return model, lambda query: dataset("asker", list(query.history), np.array(query.timestamps))


def rectools_line(log: EventLog, catalog: Catalog, queries: list[Query]) -> dict[str, Any]:
    """The figures of RecTools' own call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own pandas and lightning
        model, made = rectools(log, catalog)
        datasets = [made(query) for query in queries]
        return {"way": "RecTools SASRec"} | timed(
            lambda dataset: model.recommend(["asker"], dataset, N, filter_viewed=True), datasets
        )


def pretrained_lines(model: Recommender, queries: list[Query], seed: int) -> Iterable[dict[str, Any]]:
    """The figures of a pretrained backbone, and of beam search with the same decoder."""
    import torch

    from llm4rec.recommender import Recommender, ServeConfig

    def asking(serve: ServeConfig) -> Callable[[Query], Any]:
        """What asks a model that has read nothing yet."""
        scorer = replace(model.fitted.scorer, serve=serve)
        fresh = Recommender(replace(model.fitted, scorer=scorer))
        return lambda query: fresh.recommend(query, N)

    yield {"way": "cold"} | timed(asking(ServeConfig()), queries)
    for way, serve in (("warm", ServeConfig()), ("warm, exact", ServeConfig(int8=False))):
        ask = asking(serve)
        yield {"way": way} | timed(ask, queries, lambda query, ask=ask: ask(beginning(query)))
    backbone: Any = model.fitted.scorer.network.backbone
    draw = torch.Generator().manual_seed(seed)
    for way, positions in (("one position per event", HISTORY), ("three codes per event", CODES * HISTORY)):
        events = (torch.randn(1, positions, model.item_vectors.shape[1], generator=draw) for _ in queries)
        search = beam_search(backbone, CODES, positions, seed)
        yield {"way": f"one LLM pass per code token and beam, {way}"} | timed(search, events)


def main() -> None:
    """Print the machine, then a line per way."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--people", type=int, default=1_000, help="people in the log that is fitted")
    parser.add_argument("--requests", type=int, default=500, help=f"timed; {WARM_UP} more come first")
    parser.add_argument("--backbone", help="a pretrained one beside compact, as model.backbone")
    parser.add_argument("--rectools", action="store_true", help="RecTools' SASRec beside them")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.people * HISTORY < arguments.items:
        parser.error(f"--people {arguments.people} do too little for {arguments.items} items to occur.")

    log, catalog = make(arguments.items, arguments.people, arguments.seed)
    queries = requests(arguments.items, arguments.requests + WARM_UP, arguments.seed)
    about = {
        "items": arguments.items,
        "requests": arguments.requests,
        "seed": arguments.seed,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}",
    }
    print(json.dumps(about), flush=True)
    compact = fitted(log, catalog, "compact")
    figures = timed(lambda query: compact.recommend(query, N), queries)
    print(json.dumps({"way": "compact"} | figures), flush=True)
    grounded = retrieving(compact, log)
    for way in ("anchors new", "anchors known"):
        figures = timed(lambda query: grounded.recommend(query, N), queries)
        print(json.dumps({"way": f"compact, retrieving, {way}"} | figures), flush=True)
    if arguments.backbone:
        part = log.histories(np.arange(LLM_PEOPLE), np.full(LLM_PEOPLE, HISTORY))
        model = fitted(part, catalog, arguments.backbone)
        for line in pretrained_lines(model, queries, arguments.seed):
            print(json.dumps({"backbone": arguments.backbone} | line), flush=True)
    if arguments.rectools:
        print(json.dumps(rectools_line(log, catalog, queries)), flush=True)


if __name__ == "__main__":
    main()
