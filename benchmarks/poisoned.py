"""Poisoned feedback: what a learner takes from false events, a flooding person and a planted bad update.

    python benchmarks/poisoned.py --data world --events 20000 --draws 3 --out poisoned.json
    python benchmarks/poisoned.py --data ml-100k --model poisoned/model --out ml.json

--data is a folder as `llm4rec data get` writes it, or `world`: a synthetic world of --events events. In time
order the first 80% are the past, on which a model is fitted; it is kept in a folder beside --out, or taken
from --model. The rest is the stream. Its first three quarters come to an event log, from which the model
learns as `llm4rec learn` does. The last quarter is told to nobody, and nothing is chosen by it: it is the
holdout.

    clean     as it was: kind "rating" with its stars, "view" where the data have no ratings
    inverted  a tenth of the events (--inverted) name another item than the one that was taken: one of the
              hundred that the fitted model ranks last for the person after their history. Every second of
              them at random comes as "like", which is no kind of any true event; the others as the true do.
    left out  the tenth is left out instead: what could be reached if all that is false were known
    flooded   beside that, one new person gives random items, as many events as a quarter of the stream, of
              the true events' kind and spread at random among the others
    planted   clean, but half a period before the last judgement at which the guard would keep what was
              learnt, the learner's weights, and the same that are served, are changed: normal noise of a
              share of each tensor's root mean square is added (0: nothing is), or a share of the items
              exchange the vectors that behaviour taught

Inverted and flooded are learnt also by a learner that trusts (`online.reliability` off, `independence` 0);
its clean case is its own.

NDCG@10 of the holdout is measured twice, always after the true history of who is asked, up to just before
the event, the holdout's own events too. `weights`: what was learnt is put beside memories and counts of the
clean case, so that weights alone differ. `whole`: the model as it came out, whose memories and recent
popularity hold what was false as well. Differences to the clean case are paired by person, with 95% bootstrap
intervals over people; each case's figure is first averaged over the draws of the poison (--draws, seeds
--seed, --seed + 1, …).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from llm4rec.data.catalog import Catalog
    from llm4rec.data.events import EventLog
    from llm4rec.data.split import Cases
    from llm4rec.evaluate.prequential import Stream
    from llm4rec.observing import Learnt
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config
    from llm4rec.types import Feedback

Array = npt.NDArray[Any]
K = 10
LAST = 100
"""Items ranked lowest, of which an inverted event names one."""
FLOODER = "flooding person"
TRUSTING: dict[str, Any] = {"reliability": False, "independence": 0.0}
PLANTS = (
    ("noise", 0.0), ("noise", 0.1), ("noise", 0.3), ("noise", 1.0),
    ("exchanged items", 0.1), ("exchanged items", 0.5),
)  # fmt: skip


class Data(NamedTuple):
    """A log with its items and people."""

    log: EventLog
    catalog: Catalog
    people: Catalog | None


class Setting(NamedTuple):
    """What all cases share.

    Attributes:
        model: fitted on the past.
        stream: what comes after it.
        told: the first three quarters of the stream, in the order of time.
        holdout: what is asked of the last quarter.
        clean: the model that remembers what was told, and has learnt none of it.
    """

    model: Recommender
    stream: Stream
    told: list[Feedback]
    holdout: Cases
    clean: Recommender


class Outcome(NamedTuple):
    """What came of learning.

    Attributes:
        model: as it came out.
        learnt: what was told of it.
        weights: NDCG@10 of each case of the holdout beside clean memories [c].
        whole: that of the model as it is [c].
    """

    model: Recommender
    learnt: Learnt
    weights: Array
    whole: Array


def feedback(log: EventLog, catalog: Catalog) -> list[Feedback]:
    """The events of a log in the order of time, as feedback."""
    from llm4rec.evaluate.prequential import in_order
    from llm4rec.types import Feedback

    order = in_order(log)
    users, items = log.user_ids[log.rows[order]].to_list(), catalog.ids[log.items[order]].to_list()
    values = [None] * len(order) if log.ratings is None else log.ratings[order].tolist()
    times = log.clock[order].tolist()
    return [
        Feedback(f"e{n}", user, item, "view" if value is None else "rating", value, time)
        for n, (user, item, value, time) in enumerate(zip(users, items, values, times, strict=True))
    ]


def setting(model: Recommender, stream: Stream) -> Setting:
    """Cut the stream into what is told and the holdout."""
    cut = len(stream.order) * 3 // 4
    told = stream.told(0, cut)
    return Setting(model, stream, feedback(told, model.catalog), stream.cases(cut), model.remember(told))


def inverted(given: Setting, share: float, seed: int) -> list[Feedback]:
    """What was told, a share of the events naming an item that the person would take last."""
    from llm4rec.data.split import next_event_cases

    rng = np.random.default_rng([seed, 21])
    stream, told = given.stream, list(given.told)
    chosen = np.sort(rng.choice(len(told), round(share * len(told)), replace=False))
    places = stream.order[chosen]
    rows = stream.log.rows[places]
    cases = next_event_cases(stream.log, rows, places - stream.log.offsets[rows])
    ranked = given.model.rank(cases.histories(), len(given.model.catalog)).items
    likes = rng.permutation(len(chosen)) < len(chosen) // 2
    for number, line, like in zip(chosen.tolist(), ranked, likes.tolist(), strict=True):
        item = str(given.model.catalog.ids[int(rng.choice(line[line >= 0][-LAST:]))])
        changed = replace(told[number], item=item)
        told[number] = replace(changed, kind="like", value=None) if like else changed
    return told


def flooded(told: Sequence[Feedback], given: Setting, seed: int) -> list[Feedback]:
    """The same with the events of one new person in between."""
    rng = np.random.default_rng([seed, 22])
    n = len(given.stream.order) // 4
    items = rng.integers(len(given.model.catalog), size=n)
    stars = None if given.stream.log.ratings is None else rng.choice(given.stream.log.ratings, n)
    before = np.sort(rng.integers(len(told), size=n)).tolist()
    found: list[Feedback] = []
    number = 0
    for place, each in enumerate(told):
        while number < n and before[number] == place:
            item = str(given.model.catalog.ids[int(items[number])])
            true = given.told[place]
            value = None if stars is None else float(stars[number])
            found.append(replace(true, event_id=f"f{number}", user=FLOODER, item=item, value=value))
            number += 1
        found.append(each)
    return found


def with_online(model: Recommender, options: Mapping[str, Any]) -> Recommender:
    """The model with other options of learning."""
    config = model.config
    online = type(config.online).model_validate(config.online.model_dump() | dict(options))
    return type(model)(replace(model.fitted, config=config.model_copy(update={"online": online})))


def learn(model: Recommender, told: Sequence[Feedback], *steps: tuple[int, Callable[[Any], Any]]) -> Any:
    """The model that has learnt all that is told from an event log, and what was said of it.

    Args:
        model: that learns.
        told: in the order of the log.
        steps: (position of the log, what is made of the model there), ascending.
    """
    from llm4rec.store.eventlog import FeedbackLog

    with tempfile.TemporaryDirectory() as folder:
        log = FeedbackLog.open(Path(folder) / "events.db")
        try:
            start = 0
            for stop, change in (*steps, (len(told), lambda same: same)):
                log.append(told[start:stop])
                model, learnt = model.learn(log)
                model, start = change(model), stop
        finally:
            log.close()
    return model, learnt


def beside(learnt: Recommender, clean: Recommender) -> Recommender:
    """What a model has learnt, with the memories and counts of another."""
    own, other = learnt.fitted, clean.fitted
    return type(learnt)(
        replace(
            own,
            histories=other.histories,
            memories=other.memories,
            prior=other.prior,
            popularity=other.popularity,
            scorer=own.scorer.carrying(other.scorer.carried),
        )
    )


def ndcg(model: Recommender, cases: Cases) -> Array:
    """NDCG@10 of each case [c]."""
    from llm4rec.evaluate.metrics import per_case
    from llm4rec.evaluate.protocol import cases_at_once

    step, found = cases_at_once(len(model.catalog)), [np.zeros(0)]
    for start in range(0, len(cases), step):
        part = cases.take(np.arange(start, min(start + step, len(cases))))
        found.append(per_case(model.rank(part.histories(), 2 * K), part, (K,))[f"ndcg@{K}"])
    return np.concatenate(found)


def outcome(given: Setting, told: Sequence[Feedback], options: Mapping[str, Any]) -> Outcome:
    """What comes of learning what is told."""
    model, learnt = learn(with_online(given.model, options), told)
    weights = ndcg(beside(model, given.clean), given.holdout)
    return Outcome(model, learnt, weights, ndcg(model, given.holdout))


def trust(found: Outcome) -> dict[str, Any]:
    """How far kinds and people are trusted at the end, and how often the guard judged and undid."""
    state = found.model.fitted.online
    assert state is not None  # it has learnt
    reliability = state.reliability
    honest = [user for user in reliability.people if user != FLOODER]
    weights = np.array([reliability.of_person(user) for user in honest])
    leads = np.array([reliability.people[user].value for user in honest])
    told: dict[str, Any] = {
        "kinds": reliability.told(),
        "all events": {"reliability": reliability.every.value},
        "median person": {"reliability": float(np.median(leads)), "weight": float(np.median(weights))},
        "people": len(honest),
        "people below half": float((weights < 0.5).mean()),
        "judged": state.guard.judged,
        "undone": state.guard.undone,
        "mended": state.guard.mended,
        "drifts": state.drift.found,
    }
    if FLOODER in reliability.people:
        lead = reliability.people[FLOODER].value
        told[FLOODER] = {"reliability": lead, "weight": reliability.of_person(FLOODER)}
    return told


def difference(own: Array, clean: Array, people: Array) -> dict[str, Any]:
    """NDCG@10 over people, and how far it is from that of the clean case."""
    from llm4rec.evaluate.protocol import person_means
    from llm4rec.evaluate.significance import paired

    a, b = person_means(own, people), person_means(clean, people)
    gap, base = paired(a, b), float(b.mean())
    share = None if base == 0 else [each / base for each in (gap.difference, gap.low, gap.high)]
    return {
        f"ndcg@{K}": float(a.mean()),
        "difference": gap.difference,
        "interval": [gap.low, gap.high],
        "share": None if share is None else share[0],
        "share's interval": None if share is None else share[1:],
    }


def disturbed(model: Recommender, kind: str, size: float, seed: int) -> Recommender:
    """The model whose learner, and what it serves, was changed for the worse.

    Raises:
        ValueError: where there is no change of that kind.
    """
    import torch

    from llm4rec.online.progressed import TABLE

    assert model.fitted.online is not None  # it has learnt
    state, network = copy.deepcopy(model.fitted.online), copy.deepcopy(model.fitted.scorer.network)
    served, generator = dict(network.named_parameters()), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, theta in state.theta.items():
            if kind == "noise":
                noise = torch.randn(theta.shape, generator=generator) * theta.square().mean().sqrt() * size
                theta += noise
                served[name] += noise
            elif kind == "exchanged items":
                if name != TABLE:
                    continue
                some = torch.randperm(len(theta), generator=generator)[: round(size * len(theta))]
                for table in (theta, served[name]):
                    table[some] = table[some.roll(1)]
            else:
                raise ValueError(f"A planted update is noise or exchanged items, not {kind!r}.")
    scorer = replace(model.fitted.scorer, network=network)
    return type(model)(replace(model.fitted, scorer=scorer, online=state))


def place(given: Setting) -> tuple[int, int]:
    """Positions of the log: of a planted update, and of the guard's judgement half a period after it.

    It is the last judgement at which the guard keeps what was learnt where nothing is planted, so that
    going back says something.
    """
    options = given.model.config.online
    period = options.period * options.batch_size
    undone: list[int] = []

    def count(model: Recommender) -> Recommender:
        state = model.fitted.online
        assert state is not None  # it has learnt
        undone.append(state.guard.undone)
        return model

    ends = range(period, len(given.told) + 1, period)
    learn(given.model, given.told, *((end, count) for end in ends))
    kept = [end for end, gone in zip(ends, np.diff(undone[: len(ends)], prepend=0), strict=True) if not gone]
    if not kept:
        sys.exit(
            f"Of the {len(ends)} judgements of {len(given.told)} events (one every {period}, online.period) "
            "the guard keeps none: what is planted would not be seen. Give more events or a shorter period."
        )
    return kept[-1] - options.period // 2 * options.batch_size, kept[-1]


def planted(
    given: Setting, clean: Outcome, kind: str, size: float, seed: int, where: tuple[int, int]
) -> dict[str, Any]:
    """What becomes of a planted bad update: what it would cost, whether the guard goes back, and after."""
    stop, judged = where
    told: dict[str, Any] = {"kind": kind, "size": size, "after": stop, "judged after": judged}
    kept: dict[str, Any] = {}

    def plant(model: Recommender) -> Recommender:
        bad = disturbed(model, kind, size, seed)
        state = model.fitted.online
        assert state is not None  # it has learnt
        kept.update(undone=state.guard.undone, mended=state.guard.mended)
        before, after = (ndcg(beside(each, given.clean), given.holdout) for each in (model, bad))
        told["at once"] = difference(after, before, given.holdout.rows)
        return bad

    def look(model: Recommender) -> Recommender:
        state = model.fitted.online
        assert state is not None  # it has learnt
        told["undone"] = state.guard.undone - kept["undone"]
        told["mended"] = state.guard.mended - kept["mended"]
        return model

    model, learnt = learn(given.model, given.told, (stop, plant), (judged, look))
    told["undone by the end"] = learnt.undone - kept["undone"]
    own = ndcg(beside(model, given.clean), given.holdout)
    return told | {"at the end": difference(own, clean.weights, given.holdout.rows)}


def report(given: Setting, share: float, draws: int, seed: int) -> dict[str, Any]:
    """All cases but the planted ones."""
    people = given.holdout.rows
    frozen = ndcg(given.clean, given.holdout)
    told: dict[str, Any] = {}
    for name, options in {"ours": {}, "trusting": TRUSTING}.items():
        clean = outcome(given, given.told, options)
        told[name] = {
            "clean": {
                "weights": difference(clean.weights, clean.weights, people),
                "whole": difference(clean.whole, clean.whole, people),
                "minus frozen": difference(clean.weights, frozen, people),
                "trust": trust(clean),
            }
        }
        if name == "ours":
            told["clean outcome"] = clean
        poisoned: dict[str, list[Outcome]] = {"left out": [], "inverted": [], "flooded": []}
        for draw in range(seed, seed + draws):
            false = inverted(given, share, draw)
            true = [each for each, told in zip(given.told, false, strict=True) if each == told]
            poisoned["left out"].append(outcome(given, true, options))
            poisoned["inverted"].append(outcome(given, false, options))
            poisoned["flooded"].append(outcome(given, flooded(false, given, draw), options))
        for case, found in poisoned.items():
            told[name][case] = {
                "weights": difference(np.mean([each.weights for each in found], 0), clean.weights, people),
                "whole": difference(np.mean([each.whole for each in found], 0), clean.whole, people),
                "trust": [trust(each) for each in found],
            }
            print(json.dumps([name, case, told[name][case]]), flush=True)
    return told


def opened(given: argparse.Namespace, config: Config) -> Data:
    """The data that the command line names."""
    from llm4rec.bench import job
    from llm4rec.data.ingest import ingest
    from llm4rec.data.world import WorldConfig, make_world

    if given.data != "world":
        where = job.Source.folder(Path(given.data))
        read = ingest(where.interactions, where.items, where.users, config=config.data)
        return Data(read.log, read.catalog, read.people)
    settings = {"seed": given.seed, "n_events": given.events, "n_impressions": 0, "n_trial": 0}
    world = make_world(WorldConfig.model_validate(settings))
    return Data(world.log, world.catalog, world.people)


def fitted(data: Data, stream: Stream, config: Config, folder: Path, *, given: bool) -> Recommender:
    """The model of the past, which is fitted and kept where it is not there yet, with options of learning."""
    from llm4rec.recommender import Recommender

    if not folder.exists():
        if given:
            sys.exit(f"There is no model {folder}: name one, or leave --model out.")
        made = Recommender.fit(stream.past, data.catalog, config, people=data.people)
        folder.parent.mkdir(parents=True, exist_ok=True)
        made.save(folder)
    model = Recommender.load(folder)
    known = model.fitted.histories
    alike = known is not None and known.n_events == stream.past.n_events
    if not alike or not model.catalog.ids.equals(data.catalog.ids):
        sys.exit(f"The model {folder} was fitted on another past or other items: name another, or remove it.")
    if not given and model.config.model_dump(exclude={"online"}) != config.model_dump(exclude={"online"}):
        sys.exit(f"The model {folder} was fitted with other settings: name another --out, or remove it.")
    return with_online(model, config.online.model_dump())


def wanted(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="world", help="folder as `llm4rec data get` writes it, or `world`")
    parser.add_argument("--events", type=int, default=20_000, help="events of the world")
    parser.add_argument("--seed", type=int, default=0, help="of the world and the first draw of the poison")
    parser.add_argument("--draws", type=int, default=3, help="draws of the poison")
    parser.add_argument("--inverted", type=float, default=0.1, help="share of the events that are inverted")
    parser.add_argument("--past", type=float, default=0.8, help="share of the events that is the past")
    parser.add_argument("--model", type=Path, help="a model fitted on the same past, instead of fitting one")
    parser.add_argument("--config", type=Path, help="configuration file (TOML)")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.config import load
    from llm4rec.evaluate import prequential
    from llm4rec.settings import Config
    from llm4rec.store import files

    given = wanted()
    config = load(Config, file=given.config, settings=given.set)
    data = opened(given, config)
    stream = prequential.stream(data.log, len(data.catalog), past=given.past, holdout=0, seed=given.seed)
    folder = given.model or given.out.with_suffix("") / "model"
    model = fitted(data, stream, config, folder, given=given.model is not None)
    case = setting(model, stream)
    counts = {
        "past": stream.past.n_events,
        "told": len(case.told),
        "cases of the holdout": len(case.holdout),
        "people of the holdout": len(np.unique(case.holdout.rows)),
        "items": len(data.catalog),
    }
    found = report(case, given.inverted, given.draws, given.seed)
    clean = found.pop("clean outcome")
    told = {
        "command": " ".join(sys.argv),
        "protocol": {"inverted": given.inverted, "draws": given.draws, "past": given.past, **counts},
        "seeds": {"data and first draw": given.seed, "training": model.config.train.seed, "intervals": 0},
        "cases": found,
        "planted": [],
    }
    files.write_json(told, given.out)
    where = place(case)
    for kind, size in PLANTS:
        told["planted"].append(planted(case, clean, kind, size, given.seed, where))
        print(json.dumps(told["planted"][-1]), flush=True)
        files.write_json(told, given.out)


if __name__ == "__main__":
    main()
