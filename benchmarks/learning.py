"""What one step of the learner costs, and how soon a recommendation knows of an event.

    OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python benchmarks/learning.py --model MODEL \
        --interactions ml-100k/interactions.parquet --out learning.json

The model forgets what the log tells from its last fifth on (by time), and learns it again, `--steps` steps
of `online.batch_size` events: once as the events came, and once so that all events of a step are of
different people, each person's in their order. Weights do not change what a step costs, so it does not
matter that the model was fitted on those events too.

Told are milliseconds per step by the clock and of the processor: of every step, of those that only learn, and
on average what a step spends on its gradient (looking up the histories among it), on the Fisher information
and on judging, which happen once in `online.fisher_every` and `online.period` steps. Further what it takes to
begin, before the first step of a model that never learnt. The first steps are not counted.

Then --observed events are acknowledged by an event log, observed and answered, as benchmarks/eventlog.py
measures it. Writes the figures as JSON into --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from llm4rec.data.events import EventLog
    from llm4rec.fitted import Fitted
    from llm4rec.online.learner import Learner

WARM_UP = 4
"""Steps that are not counted."""
SHARE = 0.8
"""Of the events, what the model is to know when learning begins."""


class Spent:
    """Seconds [clock, processor] of everything that is done under a name."""

    def __init__(self) -> None:
        self.parts = defaultdict[str, list[tuple[float, float]]](list)

    def timed(self, name: str, of: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with its calls counted."""

        def call(*given: Any) -> Any:
            clock, cpu = time.perf_counter(), time.process_time()
            try:
                return of(*given)
            finally:
                self.parts[name].append((time.perf_counter() - clock, time.process_time() - cpu))

        return call

    def all(self, name: str) -> tuple[float, float]:
        """The sum of a name's."""
        found = self.parts.get(name, [])
        return sum(each[0] for each in found), sum(each[1] for each in found)


def stream(log: EventLog, since: int, n: int, *, different: bool, size: int) -> pl.DataFrame:
    """The first n events from a time on, as a log would hold them: with `position`, and an id of each.

    Args:
        log: of the catalogue's items, with times.
        since: UTC seconds.
        n: events wanted.
        different: whether those of a step are of different people, else they come in the order of time.
        size: events of a step.

    Raises:
        RuntimeError: where there are not as many.
    """
    clock = log.clock
    rows = pl.DataFrame({
        "user_id": log.user_ids[log.rows],
        "item": log.items,
        "time": clock,
        "rating": np.full(log.n_events, np.nan, dtype=np.float32) if log.ratings is None else log.ratings,
    })
    rows = rows.filter(pl.col("time") >= since).sort("time", maintain_order=True)
    if different:
        rows = rows.with_columns(turn=pl.int_range(pl.len()).over("user_id"))
        rows = rows.sort("turn", maintain_order=True)
        rounds = [
            part[: part.height // size * size] for part in rows.partition_by("turn", maintain_order=True)
        ]
        rows = pl.concat(rounds).drop("turn")
    if rows.height < n:
        raise RuntimeError(f"The log has {rows.height} such events, and {n} are wanted: name fewer --steps.")
    rows = rows[:n].with_columns(position=pl.int_range(1, n + 1), kind=pl.lit("rating"))
    return rows.with_columns(event_id=pl.format("event-{}", "position"))


def steps(fitted: Fitted, events: pl.DataFrame) -> dict[str, Any]:
    """Let a model learn events, whose number is a multiple of a step's; the figures."""
    from llm4rec import learning, lifecycle
    from llm4rec.data.events import build_log
    from llm4rec.store.eventlog import PAGE

    size, spent = fitted.config.online.batch_size, Spent()
    histories = fitted.histories
    assert histories is not None

    def as_log(some: pl.DataFrame) -> EventLog:
        return build_log(
            some["user_id"],
            some["item"].to_numpy(),
            times=some["time"].to_numpy(),
            ratings=None if histories.ratings is None else some["rating"].to_numpy(),
            event_types=None if histories.kinds is None else some["kind"],
        )

    learner: Learner = spent.timed("begin", learning.begun)(fitted, 0)
    people = list[int]()
    kinds = list[str]()
    _listen(learner, spent)
    page = PAGE // size * size  # of the log, as learning reads it
    for first in range(0, events.height, page):
        came = events[first : first + page]
        assert fitted.histories is not None
        since = learning.Since(fitted.histories, came, as_log)
        for start in range(0, came.height, size):
            batch = came[start : start + size]
            end = int(batch["position"][-1])
            before = {name: len(spent.parts[name]) for name in ("judging", "fisher")}
            known = spent.timed("looking up", since.known(end))
            spent.timed("step", learner.take)(batch, end, known)
            done = [name for name, n in before.items() if len(spent.parts[name]) > n]
            kinds.append(" and ".join(["learning", *done]))
            people.append(batch["user_id"].n_unique())
            if len(kinds) == WARM_UP:
                for name in ("judging", "fisher", "looking up"):
                    spent.parts[name].clear()
        fitted = lifecycle.remember(fitted, as_log(came))
    return _told(spent, kinds[WARM_UP:], people[WARM_UP:])


def _listen(learner: Learner, spent: Spent) -> None:
    """Time what a learner does beside its gradient."""
    vars(learner).update(
        _judge=spent.timed("judging", learner._judge),
        _sampled_gradients=spent.timed("fisher", learner._sampled_gradients),
    )


def _told(spent: Spent, kinds: list[str], people: list[int]) -> dict[str, Any]:
    every = np.array(spent.parts["step"][WARM_UP:])
    plain = np.array([kind == "learning" for kind in kinds])
    parts = {name: np.array(spent.all(name)) for name in ("fisher", "judging", "looking up")}
    parts["gradient"] = every.sum(axis=0) - parts["fisher"] - parts["judging"]
    found: dict[str, Any] = {
        "steps": len(every),
        "people_per_step": round(float(np.mean(people)), 1),
        "begin_s": round(spent.parts["begin"][0][0], 2),
        "judged": len(spent.parts["judging"]),
        "fisher_examples": len(spent.parts["fisher"]),
    }
    for number, by in enumerate(("clock", "cpu")):
        figures = {f"p{p}": np.percentile(every[:, number], p) for p in (50, 95)}
        figures |= {f"learning_only_p{p}": np.percentile(every[plain, number], p) for p in (50, 95)}
        figures["mean"] = every[:, number].mean()
        figures |= {f"mean_{name}": whole[number] / len(every) for name, whole in parts.items()}
        found[f"{by}_ms"] = {
            name.replace(" ", "_"): round(1000 * float(each), 2) for name, each in figures.items()
        }
    return found


def begun_before(fitted: Fitted, since: int) -> Fitted:
    """A model that never learnt, with the histories as they were before a time."""
    from llm4rec.fitted import as_indexed

    histories = fitted.histories
    if histories is None or histories.times is None:
        raise RuntimeError("The model has no histories with times: name one that was fitted with them.")
    before = histories.select(histories.times < since)
    rows = np.flatnonzero(before.lengths)
    before = before.histories(rows, before.lengths[rows])
    return as_indexed(fitted, replace(fitted, histories=before, memories=before, online=None, learnt=None))


def main() -> None:
    """Measure what the command line names."""
    import eventlog  # the script beside this one

    from llm4rec.data.ingest import ingest
    from llm4rec.recommender import Recommender
    from llm4rec.store import files
    from llm4rec.store.eventlog import FeedbackLog

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a model with histories; it is only read")
    parser.add_argument("--interactions", required=True, help="the log it was fitted on")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--observed", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    model = Recommender.load(given.model)
    log, _, _ = ingest(given.interactions, config=model.config.data).numbered_by(model.catalog)
    since = int(np.quantile(log.clock, SHARE))
    fitted, size = begun_before(model.fitted, since), model.config.online.batch_size
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "items": len(model.catalog.ids),
        "remembered": 0 if fitted.histories is None else fitted.histories.n_events,
        "online": model.config.online.model_dump(),
    }
    for name, different in (("in time order", False), ("of different people", True)):
        events = stream(log, since, (given.steps + WARM_UP) * size, different=different, size=size)
        found[name] = steps(fitted, events)
        print(json.dumps({name: found[name]}), flush=True)
    with tempfile.TemporaryDirectory() as folder, FeedbackLog.open(Path(folder, "observed.db")) as place:
        found["observe"] = eventlog.observed(model, place, given.observed, given.seed)
    print(json.dumps({"observe": found["observe"]}), flush=True)
    files.write_text(json.dumps(found, indent=1), given.out)


if __name__ == "__main__":
    main()
