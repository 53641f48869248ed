"""Test, then train: NDCG@10 of ways to take up what happens, over the last fifth of a log in time order.

    python benchmarks/prequential.py --data ml-100k --strategies frozen still refit --out prequential.json
    python benchmarks/prequential.py --data world --strategies frozen refit --out world.json

--data is a folder as `llm4rec data get` writes it, or `world`: a synthetic world of --events events. As its
stream begins, a share of the items (--exchanged) exchange what they are: from then on each is chosen by whom,
after what and as often as another of them was before. Names and words stay, so only events can tell.

Events come in time order, those of one instant as the log has them. The first 80% are the past, on which the
first model is fitted (the fit holds out its own validation). Before that the last event of a fifth of the
people of the past is taken out of the log: no strategy is ever told of it; it is the old holdout. The rest is
the stream, cut where a refit is due, and in between into rounds of at most --round events. Of each round

1. test: each event on an item that the person has not taken before is a case. The whole catalogue is ranked
   but what they took, after their history up to just before it, events of the same round too, by all
   strategies alike: a model that reads a history follows a person without being trained. No case says when
   it is asked.
2. train: the strategy is told of the events of the round.

A refit is due where --refit-every weeks of the stream's clock have ended and --refit-least events or
more came since the last one. Strategies:

    frozen    weights as they were fitted; histories, memories and recent popularity take each round
    still     not even that: nothing but the history of who is asked
    counting  frozen, and items that training has not seen are counted (`count_new_items`)
    refit     fitted anew on everything so far where a refit is due, remembering in between
    warm      the same, but begun with the weights of the last fit, as `llm4rec refit` does
    reweighed frozen, but where a refit is due the linear part is fitted anew, and what it and recent
              popularity weigh is chosen anew, on last events; `reweighed always`: after every round
    ours      the model learns from an event log, as `llm4rec learn` does (section `online`)
    finetune  the same by momentum alone: nothing held back, learnt again, weighed, averaged or undone
    replay    finetune, and 16 earlier events learnt again at each step
    linear, prior, network, linear+prior, linear+network
              frozen, with these parts of the refit: the linear part and its strengths; windows and shares of
              recent popularity; all else

The last tell what of the refit's gain is whose, and take its models, which are kept in a folder beside --out.
So are the figures of each strategy: a run that was stopped goes on with the strategies (and refits) it lacks.
Differences are paired by person, with 95% bootstrap intervals over people. Learning is timed where it
happens, apart from remembering.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from llm4rec.data.catalog import Catalog
    from llm4rec.data.events import EventLog
    from llm4rec.data.split import Cases
    from llm4rec.evaluate.prequential import Stream
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config
    from llm4rec.types import Feedback

Array = npt.NDArray[Any]
K = 10


class Data(NamedTuple):
    """A log with its items and people; `moved` [i] tells which items become others as the stream begins."""

    log: EventLog
    catalog: Catalog
    people: Catalog | None
    moved: Array | None = None


class Spent:
    """Seconds that were spent on something, by the clock and of the processor, and how often."""

    def __init__(self) -> None:
        self.wall, self.cpu, self.times = 0.0, 0.0, 0

    def add(self, wall: float, cpu: float) -> None:
        """Once more."""
        self.wall, self.cpu, self.times = self.wall + wall, self.cpu + cpu, self.times + 1

    @contextmanager
    def once(self) -> Iterator[None]:
        """What is done inside counts."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.add(time.perf_counter() - wall, time.process_time() - cpu)

    def said(self) -> dict[str, float]:
        """As JSON holds it."""
        return {"seconds": round(self.wall, 3), "cpu seconds": round(self.cpu, 3), "times": self.times}


class Strategy(Protocol):
    """What is made of a stream, round by round."""

    learning: Spent
    remembering: Spent

    def after(self, number: int) -> Recommender:
        """The model that answers once round `number` is over; it is asked of every round in turn."""
        ...


class Setting(NamedTuple):
    """What a strategy is made of: the model of the past, the stream, and models fitted on more of it.

    Attributes:
        model: fitted on the past.
        stream: what is told.
        config: what it was fitted with, and the strategy's own options.
        fitted: (events of the stream) → the model fitted on them and the past, seconds and CPU seconds.
    """

    model: Recommender
    stream: Stream
    config: Config
    fitted: Callable[[int], tuple[Recommender, float, float]]


class Still:
    """Nothing is taken up."""

    def __init__(self, given: Setting) -> None:
        self.given, self.model = given, given.model
        self.learning, self.remembering = Spent(), Spent()

    def after(self, number: int) -> Recommender:
        """The model as it was."""
        return self.model


class Frozen(Still):
    """What happens is remembered, and nothing learnt."""

    def after(self, number: int) -> Recommender:
        """The model that remembers the round, too."""
        told = self.given.stream.rounds[number]
        with self.remembering.once():
            self.model = self.model.remember(self.given.stream.told(told.start, told.stop))
        return self.model


class Counting(Frozen):
    """It is remembered, and items that training has not seen are counted in the stream."""

    def after(self, number: int) -> Recommender:
        """The model that remembers the round and has counted up to its end."""
        told = super().after(number)
        with self.learning.once():
            return told.count_new_items(self.given.stream.told(0, self.given.stream.rounds[number].stop))


class Refit(Frozen):
    """A model fitted on everything so far, from time to time."""

    def after(self, number: int) -> Recommender:
        """The model of a refit where one is due; else the one there is, which remembers the round."""
        if not self.given.stream.rounds[number].due:
            return super().after(number)
        fitted, wall, cpu = self.given.fitted(self.given.stream.rounds[number].stop)
        self.learning.add(wall, cpu)
        self.model = self.taken(fitted)
        return self.model

    def taken(self, fitted: Recommender) -> Recommender:
        """What is taken of a refit."""
        return fitted


class Warm(Frozen):
    """The model that remembers, fitted anew from time to time with the weights it has."""

    def after(self, number: int) -> Recommender:
        """The model that remembers the round and, where a refit is due, is fitted anew."""
        super().after(number)
        if self.given.stream.rounds[number].due:
            with self.learning.once():
                self.model = self.model.refit()
        return self.model


class Parts(Refit):
    """The frozen model with some parts of a refit.

    Args:
        given: what it starts from, and where the refits come from.
        parts: of `linear` (with its strengths and the network's exponents), `prior` (its windows and shares;
            what is popular is counted by all alike) and `network` (all else).
    """

    def __init__(self, given: Setting, parts: Container[str]) -> None:
        super().__init__(given)
        self.parts, self.frozen = parts, Frozen(given)

    def after(self, number: int) -> Recommender:
        """The frozen model remembers the round, whether a refit is due or not."""
        self.frozen.after(number)
        return super().after(number)

    def taken(self, fitted: Recommender) -> Recommender:
        """The frozen model as it is by now, with those parts."""
        before, made = self.frozen.model.fitted, fitted.fitted
        linear = (made if "linear" in self.parts else before).linear
        prior = (made if "prior" in self.parts else before).prior
        whole = made if "network" in self.parts else before
        assert whole.histories is not None  # a fit keeps them
        found = replace(whole, linear=linear, prior=prior.counted(whole.histories))
        return type(fitted)(found)


class Reweighed(Frozen):
    """The network stays; the linear part is fitted anew, and what it and the prior weigh is chosen anew.

    Args:
        given: what it starts from.
        always: after every round, not only where a refit is due.
    """

    def __init__(self, given: Setting, *, always: bool) -> None:
        super().__init__(given)
        self.always = always

    def after(self, number: int) -> Recommender:
        """The model that remembers the round and, if it is time, is weighed anew."""
        each, stream = self.given.stream.rounds[number], self.given.stream
        super().after(number)
        if each.due or self.always:
            with self.learning.once():
                self.model = reweighed(self.model, stream, each.stop)
        return self.model


def reweighed(model: Recommender, stream: Stream, stop: int) -> Recommender:
    """The model with a linear part of all up to the stream's event `stop`, weighed anew by last events.

    The last events of people of the stream, and of those whom the first fit held out, are the questions: of
    them neither the network nor the linear part was told. Where there are too few, all stays. Only of the
    stream's people they would be newer, but so few that weights chosen by them go to extremes.
    """
    from llm4rec.choosing import Questions, sample
    from llm4rec.data.split import next_event_cases
    from llm4rec.fitting import hold_out
    from llm4rec.model.linear import fit_linear
    from llm4rec.model.prior import FEWEST

    fitted, n_items, so_far = model.fitted, len(model.catalog), stream.so_far(stop)
    lengths, train = so_far.lengths, fitted.config.train
    untrained = stream.told(0, stop).lengths > 0
    untrained[hold_out(stream.past, train.validation_people, train.seed)[1].rows] = True
    rows = np.flatnonzero(untrained & (lengths > 1))
    cases = sample(next_event_cases(so_far, rows, lengths[rows] - 1), train.validation_people, train.seed)
    if len(cases) < FEWEST:
        return model
    lengths[cases.rows] -= 1
    events = so_far.heads(lengths)
    questions = Questions(cases, fitted.people, n_items, fitted.scorer)
    linear = questions.linear(fitted.scorer, fit_linear(events, n_items, fitted.config.linear))
    prior = questions.prior(fitted.scorer, linear, fitted.grounding, events, fitted.attend)
    return type(model)(replace(fitted, linear=linear, prior=prior.counted(so_far)))


class Learning:
    """The model learns from an event log, which takes a round when it is over.

    It does what `llm4rec learn` does, in memory: it remembers the round and trains on it.
    """

    def __init__(self, given: Setting) -> None:
        from llm4rec.store.eventlog import FeedbackLog

        self.given = given
        self.model = type(given.model)(replace(given.model.fitted, config=given.config))
        self.learning, self.remembering = Spent(), Spent()
        self.folder = tempfile.TemporaryDirectory()
        self.log = FeedbackLog.open(Path(self.folder.name) / "events.db")

    def after(self, number: int) -> Recommender:
        """The model that has learnt the round."""
        each = self.given.stream.rounds[number]
        told = feedback(self.given.stream.told(each.start, each.stop), self.model.catalog, each.start)
        self.log.append(told)
        with self.learning.once():
            self.model, learnt = self.model.learn(self.log)
        if each.stop == self.given.stream.rounds[-1].stop:
            print(
                f"undone {learnt.undone} times, drift found {learnt.drifts} times, {learnt.kinds}", flush=True
            )
            self.log.close()
            self.folder.cleanup()
        return self.model


def feedback(log: EventLog, catalog: Catalog, first: int) -> list[Feedback]:
    """The events of a log in the order of time, as feedback; `first` is the number of the first of them."""
    from llm4rec.evaluate.prequential import in_order
    from llm4rec.types import Feedback

    order = in_order(log)
    users, items = log.user_ids[log.rows[order]].to_list(), catalog.ids[log.items[order]].to_list()
    times = log.clock[order].tolist()
    values = [None] * len(order) if log.ratings is None else log.ratings[order].tolist()
    return [
        Feedback(f"e{first + n}", user, item, "view" if value is None else "rating", value, time)
        for n, (user, item, value, time) in enumerate(zip(users, items, values, times, strict=True))
    ]


class Way(NamedTuple):
    """How a strategy is made, and the options (KEY=VALUE) it changes of the configuration it is given."""

    make: Callable[[Setting], Strategy]
    options: tuple[str, ...] = ()


PLAIN = (
    "online.consolidation=0",
    "online.fraction=1",
    "online.replay=0",
    "online.reliability=false",
    "online.independence=0",
    "online.averaging=0",
    "online.holdout=0",
    "online.period=10000000",
    "online.learning_rate=0.005",
)
"""Momentum and the training step alone: nothing held back, nothing learnt again, nothing judged. Of .05, .02,
.005, .002 and .0005 its step size is the best on stretches before those that are reported, with and without
replay, where the learner's options were chosen."""

WAYS = {
    "frozen": Way(Frozen),
    "still": Way(Still),
    "counting": Way(Counting),
    "refit": Way(Refit),
    "warm": Way(Warm),
    "reweighed": Way(partial(Reweighed, always=False)),
    "reweighed always": Way(partial(Reweighed, always=True)),
    "linear": Way(partial(Parts, parts={"linear"})),
    "prior": Way(partial(Parts, parts={"prior"})),
    "network": Way(partial(Parts, parts={"network"})),
    "linear+prior": Way(partial(Parts, parts={"linear", "prior"})),
    "linear+network": Way(partial(Parts, parts={"linear", "network"})),
    "ours": Way(Learning),
    "finetune": Way(Learning, PLAIN),
    "replay": Way(Learning, (*PLAIN, "online.replay=16")),
}


def exchanged(log: EventLog, n_items: int, past: float, share: float, seed: int) -> tuple[EventLog, Array]:
    """The log in which some items are each other's after the past, and which those are [i].

    From then on what was chosen as item i stands there as item π(i); π has no fixed point among the chosen.
    """
    from llm4rec.evaluate.prequential import in_order

    draw = np.random.default_rng([seed, 12])
    some = draw.permutation(n_items)[: round(share * n_items)]
    becomes = np.arange(n_items)
    becomes[some] = np.roll(some, 1)
    items = log.items.copy()
    later = in_order(log)[int(past * log.n_events) :]
    items[later] = becomes[items[later]]
    return replace(log, items=items), becomes != np.arange(n_items)


def measured(model: Recommender, cases: Cases) -> dict[str, Array]:
    """NDCG@10 and hit rate of each case [c]."""
    from llm4rec.evaluate.metrics import per_case
    from llm4rec.evaluate.protocol import cases_at_once

    step = cases_at_once(len(model.catalog))
    found: dict[str, list[Array]] = {f"ndcg@{K}": [np.zeros(0)], f"hr@{K}": [np.zeros(0)]}
    for start in range(0, len(cases), step):
        part = cases.take(np.arange(start, min(start + step, len(cases))))
        values = per_case(model.rank(part.histories(), 2 * K), part, (K,))
        for name, each in found.items():
            each.append(values[name])
    return {name: np.concatenate(each) for name, each in found.items()}


def follow(strategy: Strategy, given: Setting, name: str = "") -> dict[str, Any]:
    """Test, then train, round by round: the figures of each case, and of the old holdout at the end."""
    model, asking = given.model, Spent()
    found: list[dict[str, Array]] = []
    for number, each in enumerate(given.stream.rounds):
        with asking.once():
            found.append(measured(model, given.stream.cases(each.start, each.stop)))
        model = strategy.after(number)
        shown = f"NDCG@{K} {found[-1][f'ndcg@{K}'].mean():.4f}" if len(found[-1][f"ndcg@{K}"]) else "no case"
        print(
            f"{name} round {number + 1} of {len(given.stream.rounds)}: {shown}{', refit' * each.due}",
            flush=True,
        )
    values = {key: np.concatenate([each[key] for each in found]).round(6).tolist() for key in found[0]}
    old = measured(model, given.stream.holdout)[f"ndcg@{K}"].round(6).tolist()
    spent = {"learning": strategy.learning, "remembering": strategy.remembering, "answering": asking}
    return {**values, "old holdout": old, **{key: each.said() for key, each in spent.items()}}


def report(data: Data, stream: Stream, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Over time, by parts, and beside the frozen model and the refit."""
    cases = stream.cases()
    parts = parts_of(data, stream, cases)
    ends = np.searchsorted(np.flatnonzero(stream.first[stream.order]), [each.stop for each in stream.rounds])
    told: dict[str, Any] = {"parts": {}, "rounds": [], "over time": {}, "strategies": {}}
    times = stream.log.clock[stream.order]
    for each, before, end in zip(stream.rounds, [0, *ends[:-1]], ends, strict=True):
        clock = {"from": int(times[each.start]), "to": int(times[each.stop - 1])}
        count = {"events": each.stop - each.start, "cases": int(end - before)}
        told["rounds"].append({**clock, **count, "refit after": each.due})
    for part, where in parts.items():
        count = {"cases": int(where.sum()), "people": len(np.unique(cases.rows[where]))}
        told["parts"][part] = {
            **count,
            **{name: beside(results, name, cases.rows, where) for name in results if count["cases"]},
        }
    for name, found in results.items():
        told["strategies"][name] = cost(results, name) | {
            "old holdout": forgotten(data, stream, results, name)
        }
        values = np.array(found[f"ndcg@{K}"])
        rounds = [part.mean() if len(part) else None for part in np.split(values, ends[:-1])]
        sums = np.concatenate([[0.0], np.cumsum(values)])
        told["over time"][name] = {"round": rounds, "cumulative": (sums[ends] / np.maximum(ends, 1)).tolist()}
    return told


def parts_of(data: Data, stream: Stream, cases: Cases) -> dict[str, Array]:
    """Which cases [c] are of people known from the past, on items seen in it, and so on."""
    known = (stream.past.lengths > 0)[cases.rows]
    seen = (stream.past.item_counts(len(data.catalog)) > 0)[cases.targets]
    parts = {"all": np.ones(len(cases), dtype=bool), "known people": known, "new people": ~known}
    parts |= {"seen items": seen, "new items": ~seen}
    if data.moved is not None:
        parts |= {"exchanged items": data.moved[cases.targets], "other items": ~data.moved[cases.targets]}
    return parts


def beside(
    results: Mapping[str, Mapping[str, Any]], name: str, people: Array, where: Array
) -> dict[str, Any]:
    """A strategy's figures on some cases, its difference from frozen, and what that is of the refit's."""
    from llm4rec.evaluate.protocol import person_means
    from llm4rec.evaluate.significance import interval, paired

    def means(strategy: str, metric: str = f"ndcg@{K}") -> Array:
        return person_means(np.array(results[strategy][metric]), people, where)

    own = means(name)
    told: dict[str, Any] = {
        f"ndcg@{K}": float(own.mean()),
        "interval": list(interval(own)),
        f"ndcg@{K} over cases": float(np.array(results[name][f"ndcg@{K}"])[where].mean()),
        f"hr@{K}": float(means(name, f"hr@{K}").mean()),
    }
    if "frozen" in results:
        gap = paired(own, means("frozen"))
        told["minus frozen"] = {"difference": gap.difference, "interval": [gap.low, gap.high], "p": gap.p}
        if "refit" in results:
            gain = paired(means("refit"), means("frozen"))
            told["of the refit's gain"] = gap.difference / gain.difference if gain.low > 0 else None
    return told


def cost(results: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Seconds by what they were spent on, and learning's as a share of the refit's (processor time)."""
    spent = {key: results[name][key] for key in ("learning", "remembering", "answering")}
    whole = results["refit"]["learning"]["cpu seconds"] if "refit" in results else 0
    return {**spent, "of the refit's cost": spent["learning"]["cpu seconds"] / whole if whole else None}


def forgotten(
    data: Data, stream: Stream, results: Mapping[str, Mapping[str, Any]], name: str
) -> dict[str, Any]:
    """NDCG@10 of the old holdout under the last model, beside the frozen one's."""
    from llm4rec.evaluate.significance import paired

    moved = None if data.moved is None else data.moved[stream.holdout.targets]
    parts = {"all": np.ones(len(stream.holdout), dtype=bool)}
    parts |= {} if moved is None else {"other items": ~moved}
    told: dict[str, Any] = {}
    for part, where in parts.items():
        own = np.array(results[name]["old holdout"])[where]
        told[part] = {"cases": len(own), f"ndcg@{K}": float(own.mean()) if len(own) else None}
        if "frozen" in results and len(own):
            kept = np.array(results["frozen"]["old holdout"])[where]
            gap = paired(own, kept)
            told[part]["minus frozen"] = {"difference": gap.difference, "interval": [gap.low, gap.high]}
            told[part]["loss"] = -gap.difference / float(kept.mean()) if kept.mean() > 0 else None
    return told


class Kept:
    """Models and figures in a folder: what is there is not made again.

    Args:
        folder: where; it belongs to one `key`.
        data: what is measured on.
        stream: the same, cut.
        configured: (options, KEY=VALUE) → the configuration with them.
        key: what all that is kept depends on.
    """

    def __init__(
        self,
        folder: Path,
        data: Data,
        stream: Stream,
        configured: Callable[[Sequence[str]], Config],
        key: Mapping[str, Any],
    ) -> None:
        self.folder, self.data, self.stream, self.configured = folder, data, stream, configured
        told, place = json.dumps(key, sort_keys=True), folder / "key.json"
        folder.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.write_text(told)
        elif place.read_text() != told:
            sys.exit(f"{folder} holds a run on other data or settings: name another --out, or remove it.")

    def fitted(self, stop: int) -> tuple[Recommender, float, float]:
        """The model fitted on the past and the stream's first `stop` events, and seconds of its fit."""
        from llm4rec.recommender import Recommender
        from llm4rec.store import files

        place, note = self.folder / f"fit-{stop}", self.folder / f"fit-{stop}.json"
        if not note.exists():
            spent = Spent()
            with spent.once():
                made = Recommender.fit(
                    self.stream.so_far(stop), self.data.catalog, self.configured(()), people=self.data.people
                )
            made.save(place)
            files.write_json({**spent.said(), "training": made.meta["training"]}, note)
        spent = json.loads(note.read_text())
        return Recommender.load(place), spent["seconds"], spent["cpu seconds"]

    def result(self, name: str) -> dict[str, Any]:
        """The figures of a strategy; those of the same with other options are replaced."""
        from llm4rec.store import files

        place, way = self.folder / f"{name}.json", WAYS[name]
        config = self.configured(way.options)
        options = config.model_dump(mode="json")
        kept = json.loads(place.read_text()) if place.exists() else {}
        if kept.get("options") != options:
            given = Setting(self.fitted(0)[0], self.stream, config, self.fitted)
            kept = follow(way.make(given), given, name) | {"options": options}
            files.write_json(kept, place)
        return kept


def key_of(config: Config) -> dict[str, Any]:
    """Of a configuration, what fits depend on: not how a fitted model learns while it serves."""
    return config.model_dump(mode="json", exclude={"online"})


def opened(given: argparse.Namespace, config: Config) -> tuple[Data, dict[str, Any]]:
    """The data that the command line names, and what tells it from other data."""
    from llm4rec.bench import job
    from llm4rec.data.ingest import ingest
    from llm4rec.data.world import WorldConfig, make_world

    if given.data != "world":
        where = job.Source.folder(Path(given.data))
        read = ingest(where.interactions, where.items, where.users, config=config.data)
        return Data(read.log, read.catalog, read.people), {"content": where.content()}
    settings = {"seed": given.seed, "n_events": given.events, "n_impressions": 0, "n_trial": 0}
    settings |= {"drift": given.drift, "wave": given.wave}
    world = make_world(WorldConfig.model_validate(settings))
    log, moved = exchanged(world.log, len(world.catalog), given.past, given.exchanged, given.seed)
    return Data(log, world.catalog, world.people, moved), {"world": settings, "exchanged": given.exchanged}


def wanted(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder as `llm4rec data get` writes it, or `world`")
    parser.add_argument("--events", type=int, default=30_000, help="events of the world")
    parser.add_argument("--exchanged", type=float, default=0.5, help="share of the world's items that change")
    parser.add_argument(
        "--drift", type=float, default=0.5, help="how far its tastes turn meanwhile [radians]"
    )
    parser.add_argument("--wave", type=float, default=0.3, help="share of its popularity that moves")
    parser.add_argument("--seed", type=int, default=0, help="of the world and the old holdout")
    parser.add_argument("--config", type=Path, help="configuration file (TOML)")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, may be repeated")
    parser.add_argument("--past", type=float, default=0.8, help="share of the events that is the past")
    parser.add_argument("--holdout", type=float, default=0.2, help="share of the people of the old holdout")
    parser.add_argument("--round", type=int, default=500, help="the most events of a round")
    parser.add_argument("--refit-every", type=float, default=1, help="weeks between refits")
    parser.add_argument("--refit-least", type=int, default=0, help="events since the last refit to refit for")
    parser.add_argument(
        "--strategies", nargs="+", choices=WAYS, default=["frozen", "still", "refit"], metavar="NAME",
        help=f"of {', '.join(WAYS)}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write; a plot is put beside it")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.bench import charts
    from llm4rec.config import load
    from llm4rec.evaluate import prequential
    from llm4rec.settings import Config
    from llm4rec.store import files

    given = wanted()

    def configured(options: Sequence[str]) -> Config:
        return load(Config, file=given.config, settings=[*given.set, *options])

    config = configured(())
    data, content = opened(given, config)
    stream = prequential.stream(
        data.log,
        len(data.catalog),
        past=given.past,
        holdout=given.holdout,
        every=given.round,
        period=round(given.refit_every * prequential.WEEK),
        least=given.refit_least,
        seed=given.seed,
    )
    options = ("past", "holdout", "seed", "round", "refit_every", "refit_least")
    protocol = {name: getattr(given, name) for name in options}
    key = {**content, **protocol, "config": key_of(config)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    kept = Kept(given.out.with_suffix(""), data, stream, configured, key)
    results: dict[str, Any] = {}
    for name in given.strategies:
        results[name] = kept.result(name)
        told = {
            "command": " ".join(sys.argv),
            "key": digest,
            "protocol": {**protocol, "stream": len(stream.order), "past": stream.past.n_events},
            "seeds": {"data": given.seed, "training": config.train.seed, "intervals": 0},
            **report(data, stream, results),
        }
        files.write_json(told, given.out)
        lines = {each: over["cumulative"] for each, over in told["over time"].items()}
        title = "NDCG@10 of all cases so far, after each round"
        chart = charts.alone(charts.curves(lines, title, "round", f"NDCG@{K}"))
        files.write_text(chart, given.out.with_suffix(".svg"))
        print(json.dumps([name, told["parts"]["all"][name], told["strategies"][name]]))


if __name__ == "__main__":
    main()
