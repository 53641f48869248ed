"""Items added after training: are they recommended to those who took them next?

    python benchmarks/cold_items.py --data ml-100k --cold 500 --seed 0 --out cold.json

Of the items with at least five events, 500 are drawn and kept from training with all their events. The
model is fitted on the rest, given those items by `upsert_items`, and nothing is trained again. Each of
their events that has something before it is a case: what the person did before it (cold items included)
is the history, and only cold items that are not in it are ranked. HR@10, cases averaged per person first,
with bootstrap intervals over people; ties count against the right answer. Beside it:

    counted       the same model, told with `count_new_items` how often the cold items were taken: anew at
                  each of 20 moments of the log, of all events before it. It needs a clock.
    popularity    events on each cold item before the case's time, in the whole log: what a shop would
                  know at that moment. Without a clock it is left out too, since before their first event
                  all cold items are alike.
    content-knn   mean cosine of an item's frozen content with that of the history's items: each text and
                  image field and the category values, scaled to length 1 and put side by side.
    random        what drawing ten of the ranked items would give.

Events that come later than a case are in the training data, but for those on cold items: nothing of these is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from llm4rec.data.catalog import Catalog
    from llm4rec.data.events import EventLog
    from llm4rec.data.split import Cases
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config

K = 10
FEWEST = 5
CHUNK = 256
MOMENTS = 20
"""At which new items are counted."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def compare(  # the data and the ways to cut it
    log: EventLog,
    catalog: Catalog,
    config: Config,
    *,
    people: Catalog | None,
    n_cold: int,
    seed: int,
    most: int = 20_000,
) -> dict[str, Any]:
    """HR@10 of every way on the cold items, and ours less each other one, person by person."""
    from llm4rec.evaluate.protocol import person_means
    from llm4rec.evaluate.significance import interval, paired
    from llm4rec.recommender import Recommender

    log, catalog, n_warm = cold_last(log, catalog, n_cold, seed)
    numbers = np.arange(len(catalog))
    start = time.perf_counter()
    model = Recommender.fit(
        log.select(log.items < n_warm), catalog.take(numbers[:n_warm]), config, people=people
    )
    fitted = time.perf_counter()
    model = model.upsert_items(catalog.take(numbers[n_warm:]))
    assert model.item_vectors.shape[0] == len(catalog)
    ended = time.perf_counter()
    cases = cold_cases(log, n_warm, most, seed)
    scored = {"content-knn": content_scores(model, cases, n_warm)}
    if log.times is not None:
        scored = {"popularity": popularity_scores(log, cases, n_warm, len(catalog)), **scored}
    legal = unseen(cases, n_warm, len(catalog))
    hits = {"ours": our_hits(model, cases, n_warm)}
    if log.times is not None:
        hits["counted"] = counted_hits(model, log, cases, n_warm)
    hits |= {name: hits_of(scores, legal, cases.targets - n_warm) for name, scores in scored.items()}
    hits["random"] = np.minimum(1, K / legal.sum(axis=1))
    per_person = {name: person_means(values, cases.rows) for name, values in hits.items()}
    table: dict[str, Any] = {}
    for name, values in per_person.items():
        low, high = interval(values, seed)
        table[name] = {f"hr@{K}": float(values.mean()), "low": low, "high": high}
        for way in ("ours", "counted"):
            if way in per_person and name not in ("ours", "counted"):
                gap = paired(per_person[way], values, seed)
                table[name][f"{way}_less_this"] = [gap.difference, gap.low, gap.high]
    return {
        "cold_items": len(catalog) - n_warm,
        "warm_items": n_warm,
        "cases": len(cases),
        "people": len(per_person["ours"]),
        "fit_seconds": round(fitted - start, 1),
        "upsert_seconds": round(ended - fitted, 2),
        "models": table,
    }


def cold_last(log: EventLog, catalog: Catalog, n_cold: int, seed: int) -> tuple[EventLog, Catalog, int]:
    """The same data with the items that are kept from training at the end, and how many come before."""
    able = np.flatnonzero(log.item_counts(len(catalog)) >= FEWEST)
    if len(able) <= n_cold:
        sys.exit(
            f"Only {len(able)} items have {FEWEST} events or more: keep fewer than {n_cold} back (--cold)."
        )
    cold = np.sort(np.random.default_rng([seed, 5]).permutation(able)[:n_cold])
    order = np.concatenate([np.setdiff1d(np.arange(len(catalog)), cold), cold])
    numbers = np.empty(len(catalog), dtype=np.int64)
    numbers[order] = np.arange(len(catalog))
    return replace(log, items=numbers[log.items]), catalog.take(order), len(catalog) - n_cold


def cold_cases(log: EventLog, n_warm: int, most: int, seed: int) -> Cases:
    """A case for each event on a cold item that is new to the person and has something before it."""
    from llm4rec.data.split import next_event_cases

    ends = np.arange(log.n_events) - log.offsets[log.rows]
    pairs = log.rows * (int(log.items.max()) + 1) + log.items
    first = np.zeros(log.n_events, dtype=bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    asked = np.flatnonzero((log.items >= n_warm) & (ends > 0) & first)
    if len(asked) > most:
        asked = np.sort(np.random.default_rng([seed, 6]).permutation(asked)[:most])
    return next_event_cases(log, log.rows[asked], ends[asked])


def unseen(cases: Cases, n_warm: int, n_items: int) -> npt.NDArray[np.bool_]:
    """Which cold items are not in each case's history [c, cold]."""
    histories = cases.histories()
    legal = np.ones((len(cases), n_items - n_warm), dtype=bool)
    cold = histories.items >= n_warm
    legal[histories.rows[cold], histories.items[cold] - n_warm] = False
    return legal


def our_hits(model: Recommender, cases: Cases, n_warm: int) -> Floats:
    """Whether the model's ten best cold items hold the right one [c]."""
    from llm4rec.answering import answer
    from llm4rec.data.legal import legal_items

    cold = np.arange(n_warm, len(model.catalog))
    hits = np.empty(len(cases))
    for start in range(0, len(cases), CHUNK):
        part = cases.take(np.arange(start, min(start + CHUNK, len(cases))))
        asked = part.histories()
        legal = legal_items(model.catalog, len(part), [asked], dict.fromkeys(range(len(part)), cold))
        found = answer(model.fitted, asked, legal, K).items
        hits[start : start + len(part)] = (found == part.targets[:, None]).any(axis=1)
    return hits


def counted_hits(model: Recommender, log: EventLog, cases: Cases, n_warm: int) -> Floats:
    """As `our_hits`, of the model that counts the new items of the log so far at each of `MOMENTS` [c]."""
    clock = log.clock
    now = clock[log.offsets[cases.rows] + cases.ends]
    moments = np.quantile(clock, np.arange(MOMENTS) / MOMENTS, method="higher")
    latest = np.searchsorted(moments, now, side="right") - 1
    hits = np.empty(len(cases))
    for number, moment in enumerate(moments):
        rows = np.flatnonzero(latest == number)
        if len(rows):
            counted = model.count_new_items(log.select(clock < moment))
            hits[rows] = our_hits(counted, cases.take(rows), n_warm)
    return hits


def hits_of(scores: Floats, legal: npt.NDArray[np.bool_], targets: Ints) -> Floats:
    """Whether fewer than ten others score as high as the right answer [c]."""
    scores = np.where(legal, scores, -np.inf)
    wanted = np.take_along_axis(scores, targets[:, None], axis=1)
    return (np.count_nonzero(scores >= wanted, axis=1) <= K).astype(np.float64)


def popularity_scores(log: EventLog, cases: Cases, n_warm: int, n_items: int) -> Floats:
    """Events on each cold item before each case's own [c, cold]."""
    now = log.clock[log.offsets[cases.rows] + cases.ends]
    scores = np.empty((len(cases), n_items - n_warm))
    for item in range(n_warm, n_items):
        scores[:, item - n_warm] = np.searchsorted(np.sort(log.clock[log.items == item]), now)
    return scores


def content_scores(model: Recommender, cases: Cases, n_warm: int) -> Floats:
    """Mean cosine of each cold item's content with that of each case's history [c, cold]."""
    content = content_vectors(model)
    histories = cases.histories()
    profile = np.zeros((len(cases), content.shape[1]))
    for start in range(0, histories.n_events, 65_536):
        part = slice(start, start + 65_536)
        np.add.at(profile, histories.rows[part], content[histories.items[part]])
    return (profile / histories.lengths[:, None]) @ content[n_warm:].T


def content_vectors(model: Recommender) -> Floats:
    """What an item says of itself as one vector of length 1 [i, w]; zeros where it says nothing."""
    parts = [_unit(vectors) for vectors in model.fitted.vectors.values()]
    tokens = model.fitted.scorer.items.get("categorical")
    if tokens is not None:
        codes = np.zeros((len(model.catalog), model.fitted.spaces.items.n_codes))
        np.put_along_axis(codes, tokens.values.numpy(), 1.0, axis=1)
        parts.append(_unit(codes[:, 1:]))  # 0 is padding
    if not parts:
        sys.exit("These items have no texts, images or categories: nothing is known of a new one.")
    return _unit(np.concatenate(parts, axis=1))


def _unit(vectors: npt.NDArray[Any]) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def main() -> None:
    """Read the data, compare, print and write."""
    from llm4rec import config as configuration
    from llm4rec.bench.job import Source
    from llm4rec.data.ingest import ingest
    from llm4rec.settings import Config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="interactions.parquet, items.parquet, …")
    parser.add_argument("--cold", type=int, default=500, help="items kept from training")
    parser.add_argument("--cases", type=int, default=20_000, help="the most cases, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of training")
    parser.add_argument("--config", type=Path, help="configuration of the model")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    config = configuration.load(
        Config, file=arguments.config, settings=[f"train.seed={arguments.seed}", *arguments.settings]
    )
    source = Source.folder(arguments.data)
    data = ingest(source.interactions, source.items, source.users, config=config.data)
    figures = {
        "command": " ".join(sys.argv),
        "seed": arguments.seed,
        "data": arguments.data.name,
        **compare(
            data.log, data.catalog, config, people=data.people, n_cold=arguments.cold,
            seed=arguments.seed, most=arguments.cases,
        ),
    }  # fmt: skip
    for name, row in figures["models"].items():
        told = "".join(
            "   {} less this: {:+.4f} [{:+.4f}, {:+.4f}]".format(way, *row[f"{way}_less_this"])
            for way in ("ours", "counted")
            if f"{way}_less_this" in row
        )
        print(f"{name:12} HR@{K} {row[f'hr@{K}']:.4f} [{row['low']:.4f}, {row['high']:.4f}]{told}")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1))
    print(json.dumps({key: value for key, value in figures.items() if key != "models"}))


if __name__ == "__main__":
    main()
