"""What new memories are worth to a model that is not trained again: NDCG@10 in later windows of time.

    python benchmarks/drift.py --data ml-latest-small --set data.modalities.tags=ignore --out drift
    python benchmarks/drift.py --world 0 --out drift-world

The first 60% of all events (global time) fit a frozen model, their last sixth by choosing its epochs. The
next tenth is nobody's question; the last three tenths are three windows. In each the model is asked for
every event (or --cases of them, evenly drawn), whatever answers knowing all that the person did before:

- frozen: the model as it was fitted;
- remembering: the same, which has been told of all events between the fit and the window: they are
  memories, and recent popularity is counted in them;
- counting: the same once more, with the items that training has not seen counted in all events since;
- retrained: a model fitted in the same way on all events before the window.

All of them remember what chose their epochs, too. Differences are paired by person, intervals are
bootstrapped over people. Writes drift.json and drift.svg into --out.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import pairwise
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

Array = npt.NDArray[Any]
CHOSEN = 0.1
WAYS = ("frozen", "remembering", "counting", "retrained")


def compare(
    log: EventLog, catalog: Catalog, config: Config, *, people: Catalog | None, cases: int
) -> dict[str, Any]:
    """NDCG@10 of each way in each window, and what it adds to the frozen one."""
    ordered = np.sort(log.clock)
    tenths = [int(ordered[len(ordered) * tenth // 10]) for tenth in (6, 7, 8, 9)]
    start, moments = tenths[0], [*tenths[1:], int(ordered[-1]) + 1]
    frozen = fitted_before(log, start, catalog, config, people)
    windows: list[dict[str, Any]] = []
    for begin, end in pairwise(moments):
        since = log.select((log.clock >= start) & (log.clock < begin))
        untrained = log.select((log.clock >= trained_until(log, start)) & (log.clock < begin))
        told = frozen.remember(since)
        models = {
            "frozen": frozen,
            "remembering": told,
            "counting": told.count_new_items(untrained),
            "retrained": fitted_before(log, begin, catalog, config, people),
        }
        asked = asked_between(log, begin, end, cases)
        windows.append({"from": begin, "to": end, "remembered": since.n_events, **measured(models, asked)})
        print(json.dumps(windows[-1]), flush=True)
    return {"windows": windows, "retrieval": frozen.meta["retrieval"]}


def trained_until(log: EventLog, moment: int) -> int:
    """When the stretch begins that chooses the epochs of what is fitted before `moment`."""
    past = np.sort(log.clock[log.clock < moment])
    return int(past[len(past) - int(CHOSEN * log.n_events)])


def fitted_before(
    log: EventLog, moment: int, catalog: Catalog, config: Config, people: Catalog | None
) -> Recommender:
    """A model fitted on the events before `moment`, those of the last stretch choosing its epochs.

    They choose what is retrieved, too: each is asked with memories of all that came before it, newer than the
    network, as the windows are.
    """
    from llm4rec.choosing import Questions, sample
    from llm4rec.data.split import next_event_cases
    from llm4rec.fitting import ground
    from llm4rec.recommender import Recommender

    past = log.select(log.clock < moment)
    chosen = past.clock >= trained_until(log, moment)
    ends = np.arange(past.n_events) - past.offsets[past.rows]
    valid = next_event_cases(past, past.rows[chosen], ends[chosen])
    train = past.select(~chosen)
    retrieve = config.retrieve.model_copy(update={"enabled": False})
    off = config.model_copy(update={"retrieve": retrieve})
    fitted = Recommender.fit(train, catalog, off, people=people, valid=valid, histories=past).fitted
    asked = sample(valid, config.train.validation_people, config.train.seed)
    questions = Questions(asked, fitted.people, len(catalog), fitted.scorer)
    found = ground(replace(fitted, config=config), questions, train, past)
    return Recommender(replace(found, prior=found.prior.counted(past)))


def asked_between(log: EventLog, begin: int, end: int, most: int) -> Cases:
    """A case for each event in [begin, end), or `most` of them evenly drawn."""
    from llm4rec.data.split import next_event_cases

    found = np.flatnonzero((log.clock >= begin) & (log.clock < end))
    found = found[np.linspace(0, len(found) - 1, min(most, len(found))).astype(np.int64)]
    rows = log.rows[found]
    return next_event_cases(log, rows, found - log.offsets[rows])


def measured(models: dict[str, Recommender], asked: Cases) -> dict[str, Any]:
    """NDCG@10 by name, each one's difference from the frozen model, and the share of retraining's gain."""
    from llm4rec.evaluate.protocol import case_ndcg, person_means
    from llm4rec.evaluate.significance import interval, paired

    n_items = len(models["frozen"].catalog)
    values = {
        name: person_means(case_ndcg(model, asked, n_items), asked.rows) for name, model in models.items()
    }
    told: dict[str, Any] = {"cases": len(asked), "people": len(values["frozen"])}
    for name, each in values.items():
        gap = paired(each, values["frozen"])
        told[name] = {
            "ndcg@10": float(each.mean()),
            "interval": interval(each),
            "difference": [gap.difference, gap.low, gap.high],
        }
    gain = told["retrained"]["difference"][0]
    for name in ("remembering", "counting"):
        told[name]["recovered"] = told[name]["difference"][0] / gain if gain > 0 else None
    return told


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.bench import charts, job
    from llm4rec.config import load
    from llm4rec.data.ingest import ingest
    from llm4rec.data.world import WorldConfig, make_world
    from llm4rec.settings import Config
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="as `llm4rec data get` writes it")
    source.add_argument("--world", type=int, help="seed of a synthetic world whose tastes turn by π")
    parser.add_argument("--events", type=int, default=60_000, help="events of the world")
    parser.add_argument("--config", type=Path, help="configuration file (TOML)")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, may be repeated")
    parser.add_argument("--cases", type=int, default=4000, help="questions of a window at most")
    parser.add_argument("--out", type=Path, required=True, help="directory for drift.json and drift.svg")
    given = parser.parse_args()
    config = load(Config, file=given.config, settings=given.set)
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    if given.data is not None:
        where = job.Source.folder(given.data)
        data = ingest(where.interactions, where.items, where.users, config=config.data)
        log, catalog, people = data.log, data.catalog, data.people
    else:
        options = {"seed": given.world, "n_events": given.events, "drift": float(np.pi), "wave": 0.8}
        world = make_world(WorldConfig.model_validate(options | {"n_impressions": 0, "n_trial": 0}))
        log, catalog, people = world.log, world.catalog, world.people
    found = compare(log, catalog, config, people=people, cases=given.cases)
    found["seconds"] = round(time.perf_counter() - began, 1)
    files.write_text(json.dumps(found, indent=1), given.out / "drift.json")
    lines = {way: [window[way]["ndcg@10"] for window in found["windows"]] for way in WAYS}
    chart = charts.curves(lines, "NDCG@10 in later windows", "window", "NDCG@10")
    files.write_text(chart, given.out / "drift.svg")


if __name__ == "__main__":
    main()
