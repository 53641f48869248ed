"""Whether reasons are true to the ranking: what is lost when what they name is taken out of the history.

    python benchmarks/faithfulness.py --data ml-100k --models m1 --out faithfulness.json
    python benchmarks/faithfulness.py --data office --config configs/sparse.toml --models m2 --out o.json

Two models, of seeds 0 and 1, are fitted on the training part of leave-last-out. `--people` people with at
least two different items are drawn, all they did but the last event is their history, and each of their `--n`
recommendations by the first model is explained. All explanations count; one that names no item of the history
counts as without a citation. Then histories are read and scored anew by the whole model, without:

- the item of the history that the text names first,
- a random other one,
- the one that is most like the recommended item by its vector, equation (22), of those that its reason does
  not name (of all others where it names every one); what a last sentence adds counts as not named,

and how often the first costs the recommended item more log-probability than the others is told, also with a
random item in the place of the one named (the control), and where the second model scores instead of the
first (the judge). Of what a last sentence says to speak for the item too, or a little, is told how often
taking it out lowers the score. Comprehensiveness is what is lost without the k items that the score owes most
to, sufficiency what is lost with nothing but them, each beside as many random ones. Agreement is Spearman's
correlation, over the items of a history, of what the explanation says each adds and what deleting it costs,
and how often both name the same first. Intervals are bootstrapped over people.

Personal: the share of pairs of people with a recommendation in common whose evidence for it differs; and
different texts among all, and where people of the very same items count as one for an item. Grounded: texts
in which the check of texts finds nothing that is not evidence.
Times are medians and 95th percentiles: of influence on one item, on all of a list, of choosing and writing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from llm4rec.bench.job import Study
    from llm4rec.data.events import EventLog
    from llm4rec.explain.evidence import Case
    from llm4rec.explain.influence import Influence
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config

Array = npt.NDArray[Any]
TAKEN = (1, 2, 3, 5)
"""Numbers of items that are taken out, or left alone."""
DELETED = 50
"""Items of a history that agreement is asked of, at most."""


class Told(NamedTuple):
    """One explained recommendation.

    Attributes:
        person: row of the person.
        item: that was recommended.
        case: what speaks for it.
        found: what moved the scores of this person's recommendations.
        text: of the explanation.
        evidence: ids of it.
        holds: whether the check of texts finds nothing wrong.
    """

    person: int
    item: int
    case: Case
    found: Influence
    text: str
    evidence: frozenset[str]
    holds: bool


def fitted(study: Study, config: Config, seed: int, models: Path | None) -> Recommender:
    """The model of a seed, read from `models` where it is there, else fitted and left there."""
    from llm4rec.recommender import Recommender

    place = None if models is None else models / f"seed-{seed}"
    if place is not None and place.exists():
        return Recommender.load(place)
    own = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
    people, valid = study.data.people, study.split.valid
    found = Recommender.fit(study.split.train, study.catalog, own, people=people, valid=valid)
    if place is not None:
        found.save(place)
    return found


def explained(
    model: Recommender, histories: EventLog, n: int, rng: np.random.Generator
) -> tuple[list[Told], dict[str, list[float]]]:
    """Each person's recommendations with what is said of them, and milliseconds of each step."""
    from llm4rec import answering, explaining
    from llm4rec.data.legal import legal_items
    from llm4rec.explain.evidence import case, evidence, held
    from llm4rec.explain.influence import influence
    from llm4rec.explain.verify import Names, unfounded

    fitted, names = model.fitted, Names.of(model.catalog)
    told: list[Told] = []
    took: dict[str, list[float]] = defaultdict(list)
    for person in range(histories.n_users):
        history = histories.histories(np.array([person]), histories.lengths[[person]])
        people = fitted.person_rows(history)
        parts = explaining.parts(fitted, people)
        items = answering.answer(fitted, history, legal_items(model.catalog, 1, [history]), n).items[0]
        items = items[items >= 0]
        with timed(took["one"]):
            influence(parts, history, people, items[rng.integers(len(items), size=1)])
        with timed(took["all"]):
            found = influence(parts, history, people, items)
        with timed(took["traits"]):
            traits = held(found.history, model.catalog)
        writer = explaining.writer(fitted, history)
        for place, item in enumerate(items.tolist()):
            with timed(took["words"]):
                speaks = case(found, place, item, model.catalog, traits)
                _, text = writer.write(found, speaks)
                pieces = evidence(found, speaks, model.catalog)
            wrong = unfounded(text, model.catalog.titles[item], pieces, names)
            ids = frozenset(piece.id for piece in pieces if piece.type != "context")
            told.append(Told(person, item, speaks, found, text, ids, not wrong))
    return told, took


@contextmanager
def timed(to: list[float]) -> Generator[None]:
    """Add the milliseconds of a block to a list."""
    began = time.perf_counter()
    yield
    to.append((time.perf_counter() - began) * 1e3)


def scores(model: Recommender, history: EventLog, item: int, left_out: list[Array]) -> Array:
    """Log-probability of an item without each of some sets of items [s]."""
    from llm4rec import answering

    events = history.items
    n = len(left_out)
    copies = history.histories(np.zeros(n, dtype=np.int64), np.full(n, len(events)))
    keep = np.concatenate([~np.isin(events, out) for out in left_out])
    changed, found = copies.select(keep), np.empty(n)
    for rows, chosen in model.fitted.scorer.chunks(changed):
        found[rows] = answering.scores(model.fitted, chosen)[:, item]
    return found


def judged(
    told: Told, histories: EventLog, models: list[Recommender], rng: np.random.Generator, *, every: bool
) -> dict[str, float]:
    """What deletions say of one recommendation; those of the first model, and of the others by number."""
    history = histories.histories(np.array([told.person]), histories.lengths[[told.person]])
    known, order = told.found.history, told.case.order
    first = told.case.cited[0] if len(told.case.cited) else order[0]
    others = np.setdiff1d(np.arange(len(known)), [first])
    uncited = np.setdiff1d(others, told.case.cited)
    uncited = uncited if len(uncited) else others
    scorer = models[0].fitted.scorer
    directions = scorer.network.head.directions(scorer.vectors).numpy()
    close = directions[known[uncited]] @ directions[told.item]
    control = rng.integers(len(known))
    beside = rng.choice(np.setdiff1d(np.arange(len(known)), [control]))
    out = [
        known[:0],
        known[[first]],
        known[[rng.choice(others)]],
        known[[uncited[close.argmax()]]],
        known[[control]],
        known[[beside]],
    ]
    for k in TAKEN:
        some = rng.permutation(len(known))[:k]
        out += [known[order[:k]], known[some], known[order[k:]], np.delete(known, some)]
    further = told.case.further
    out += [known[[place]] for places in further for place in places]
    found: dict[str, float] = {"cited": float(len(told.case.cited) > 0)}
    for number, model in enumerate(models):
        lost = scores(model, history, told.item, out if number == 0 else out[:4])
        lost = lost[0] - lost
        judge = "" if number == 0 else f" (seed {number})"
        found[f"over random{judge}"] = float(lost[1] > lost[2])
        found[f"over most similar{judge}"] = float(lost[1] > lost[3])
        if number:
            continue
        found["control over random"] = float(lost[4] > lost[5])
        ends = np.split(lost[len(lost) - sum(map(len, further)) :], [len(further[0])])
        for said, some in zip(("too", "a little"), ends, strict=True):
            if len(some):
                found[f"{said} lowers the score"] = float((some > 0).mean())
        for place, k in enumerate(TAKEN):
            curves = ("comprehensiveness", "of random", "sufficiency", "of random alone")
            for name, value in zip(curves, lost[6 + 4 * place :], strict=False):
                found[f"{name} {k}"] = float(value)
    if every:
        found |= agreement(told, history, models[0], rng)
    return found


def agreement(
    told: Told, history: EventLog, model: Recommender, rng: np.random.Generator
) -> dict[str, float]:
    """How far what is said of each item of a history agrees with deleting it."""
    from scipy.stats import rankdata

    known, owed = told.found.history, told.case.owed
    some = rng.permutation(len(known))[:DELETED]
    lost = scores(
        model, history, told.item, [known[:0], *(known[[place]] for place in told.case.order[some])]
    )
    lost = lost[0] - lost[1:]
    if len(some) < 3 or len(np.unique(lost)) < 2 or len(np.unique(owed[some])) < 2:
        return {}
    return {
        "agreement": float(np.corrcoef(rankdata(owed[some]), rankdata(lost))[0, 1]),
        "same first": float(owed[some].argmax() == lost.argmax()),
    }


def summed(rows: list[dict[str, float]], people: Array) -> dict[str, dict[str, float]]:
    """Means with 95% intervals over people; comparisons are of the recommendations with a citation."""
    from llm4rec.evaluate.protocol import person_means
    from llm4rec.evaluate.significance import interval

    found: dict[str, dict[str, float]] = {}
    cited = np.array([row["cited"] > 0 for row in rows])
    for name in dict.fromkeys(name for row in rows for name in row):
        values = np.array([row.get(name, np.nan) for row in rows])
        among = ~np.isnan(values) & (cited if " over " in f" {name} " else True)
        means = person_means(values[among], people[among])
        low, high = interval(means)
        found[name] = {"mean": float(means.mean()), "low": low, "high": high, "n": int(among.sum())}
        print(f"{name:32} {means.mean():.3f} [{low:.3f}, {high:.3f}], {among.sum():,}", flush=True)
    return found


def personal(told: list[Told]) -> dict[str, float]:
    """How much explanations differ between people and among all."""
    by_item: dict[int, list[frozenset[str]]] = defaultdict(list)
    for each in told:
        by_item[each.item].append(each.evidence)
    alike = {(each.item, tuple(each.found.history.tolist())) for each in told}
    pairs = [a != b for evidence in by_item.values() for a, b in combinations(evidence, 2)]
    found = {
        "pairs that differ": float(np.mean(pairs)) if pairs else float("nan"),
        "pairs": float(len(pairs)),
        "different texts": len({each.text for each in told}) / len(told),
        "of different histories": len({each.text for each in told}) / len(alike),
        "grounded": float(np.mean([each.holds for each in told])),
        "explanations": float(len(told)),
    }
    kinds = [each.case.kind for each in told]
    return found | {kind: kinds.count(kind) / len(kinds) for kind in sorted(set(kinds))}


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.bench import job
    from llm4rec.config import load
    from llm4rec.settings import Config
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="as `llm4rec data get` writes it")
    parser.add_argument("--config", type=Path, help="configuration file (TOML)")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, may be repeated")
    parser.add_argument("--people", type=int, default=200, help="people whose recommendations are judged")
    parser.add_argument("--n", type=int, default=10, help="recommendations of each")
    parser.add_argument("--texts", type=int, default=1000, help="people whose explanations are compared")
    parser.add_argument("--models", type=Path, help="keep fitted models here, and read those that are there")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    config = load(Config, file=options.config, settings=options.set)
    study = job.read(job.Source.folder(options.data), "leave-last-out", config.data)
    models = [fitted(study, config, seed, options.models) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    histories = study.split.test.histories()
    able = np.array([len(np.unique(histories.history(row))) > 1 for row in range(histories.n_users)])
    rows = rng.permutation(np.flatnonzero(able))[: max(options.texts, options.people)]
    histories = histories.histories(rows, histories.lengths[rows])
    told, took = explained(models[0], histories, options.n, rng)
    found: dict[str, Any] = {"personal": personal(told)}
    found["milliseconds"] = {
        step: {"p50": float(np.median(values)), "p95": float(np.quantile(values, 0.95))}
        for step, values in took.items()
    }
    print(json.dumps(found), flush=True)
    some = [each for each in told if each.person < options.people]
    asked_of: set[int] = set()
    judgements: list[dict[str, float]] = []
    for each in some:
        judgements.append(judged(each, histories, models, rng, every=each.person not in asked_of))
        asked_of.add(each.person)
    found["deletion"] = summed(judgements, np.array([each.person for each in some]))
    files.write_json(found, options.out)


if __name__ == "__main__":
    main()
