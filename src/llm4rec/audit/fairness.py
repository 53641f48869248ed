"""How differently groups of people are served: who is shown what, how well, and what states tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.data.columns import is_protected
from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.debias.parity import fit_parity
from llm4rec.errors import InputError
from llm4rec.evaluate.attacker import Attack, attack
from llm4rec.evaluate.exposure import ExposureDrift, ExposureParity, exposure_drift, exposure_parity
from llm4rec.evaluate.fairness import Disparity, metric_gap, metric_gap_of_items, miscalibration
from llm4rec.evaluate.groups import Groups, ItemGroups, by_category, by_popularity, groups_of
from llm4rec.evaluate.metrics import per_case
from llm4rec.evaluate.protocol import SHOWN, Evaluation, cases_at_once
from llm4rec.evaluate.significance import paired
from llm4rec.recommender import Recommender
from llm4rec.types import Array, Ints, Rankings

POOL = 100
"""Candidates of each list that are put in another order where exposure is held."""
CALIBRATION = "miscalibration, nats"


@dataclass(frozen=True)
class OfAttribute:
    """What one attribute of people makes a difference to.

    Attributes:
        attribute: its name.
        exposure: by kind of item group, what each group of people is shown.
        accuracy: equal opportunity, NDCG gap, and calibration where items have categories.
        attack: how well it is read from the states; None where it can't be tried, of which notes tell.
        cost: what a correction changed NDCG@10 by, with the ends of its interval; None without one.
        notes: sentences.
    """

    attribute: str
    exposure: dict[str, ExposureParity]
    accuracy: tuple[Disparity, ...]
    attack: Attack | None
    cost: tuple[float, float, float] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fairness:
    """What people and items of different groups get.

    Attributes:
        people: by attribute.
        items: accuracy by kind of group of the right answer.
        drift: by kind of item group, how its exposure moved over time; empty without times.
    """

    people: tuple[OfAttribute, ...]
    items: dict[str, Disparity]
    drift: dict[str, ExposureDrift]


def attributes(people: Catalog | None, named: Sequence[str], protected: Sequence[str]) -> list[str]:
    """The columns that people are grouped by: those named, or where none are, the protected ones.

    Raises:
        InputError: where a named one is not there.
    """
    columns = [] if people is None else [name for name in people.table.columns if name != people.key]
    unknown = [name for name in named if name not in columns]
    if unknown:
        raise InputError(
            f"People can't be grouped by {', '.join(unknown)}: known of them are "
            f"{', '.join(columns) or 'no columns; give a table with --users'}."
        )
    return list(named) or [name for name in columns if is_protected(name, protected)]


def item_groups(catalog: Catalog, train: EventLog) -> list[ItemGroups]:
    """The groups that items are told apart by: the first field of categories, and tenths by popularity."""
    popular = by_popularity(train.item_counts(len(catalog)))
    categories = by_category(catalog)
    return [popular] if categories is None else [categories, popular]


def measure(
    model: Recommender,
    found: Evaluation,
    cases: Cases,
    grouped: Sequence[ItemGroups],
    values: Sequence[pl.Series],
) -> Fairness:
    """What the lists of an evaluation say of groups.

    Args:
        model: what was evaluated; its states are what an attribute is read from.
        found: the evaluation of `cases`.
        cases: questions with known answers.
        grouped: groups of items, categories first.
        values: attributes [u], a value for each row of the cases' log.
    """
    states = _states(model, cases)
    answers = cases.targets[cases.target_offsets[:-1]]
    of_items = {
        each.kind: metric_gap_of_items("hr@10", found.per_case["hr@10"], cases.rows, answers, each)
        for each in grouped
    }
    times = cases.times
    drift = {} if times is None else {
        each.kind: exposure_drift(found.lists.items, cases.rows, times, each) for each in grouped
    }  # fmt: skip
    calibrated = _calibrated(found, cases, grouped)
    people = (_attacked(_of(each, found, cases, grouped, calibrated), each, states) for each in values)
    return Fairness(tuple(people), of_items, drift)


def held(
    model: Recommender,
    cases: Cases,
    grouped: Sequence[ItemGroups],
    values: Sequence[pl.Series],
    epsilon: float,
) -> Fairness:
    """The same with exposure of the first of the item groups held at ε between groups of people, re-ranked.

    Offsets are found on the lists of half of the people and measured on those of the other half, both ways.
    States are what they were, so nothing is read from them anew.

    Args:
        model: what is asked for candidates.
        cases: questions with known answers.
        grouped: groups of items.
        values: attributes [u], each held by itself.
        epsilon: the largest difference of exposure, from 0 to 1.
    """
    pool = _ranked(model, cases, POOL)
    plain = _as_evaluation(pool, cases)
    people: list[OfAttribute] = []
    for each in values:
        groups = groups_of(each).of_rows(cases.rows)
        found = _as_evaluation(_cross_fitted(pool, groups, cases.rows, grouped[0], epsilon), cases)
        gap = paired(found.per_person("ndcg@10"), plain.per_person("ndcg@10"))
        of = _of(each, found, cases, grouped, _calibrated(found, cases, grouped))
        people.append(replace(of, cost=(gap.difference, gap.low, gap.high)))
    return Fairness(tuple(people), {}, {})


def _cross_fitted(
    pool: Rankings, groups: Groups, people: Ints, items: ItemGroups, epsilon: float
) -> Rankings:
    """The pool in another order, as offsets found on the lists of other people have it."""
    _, person = np.unique(people, return_inverse=True)
    half = np.random.default_rng(0).integers(2, size=int(person.max()) + 1)[person]
    ranked = pool.items.copy()
    scores = pool.scores.copy()
    for part in range(2):
        others, mine = np.flatnonzero(half != part), np.flatnonzero(half == part)
        parity = fit_parity(pool.items[others], pool.scores[others], groups.of_rows(others), items, epsilon)
        found = parity.reordered(Rankings(pool.items[mine], pool.scores[mine]), groups.members[mine])
        ranked[mine], scores[mine] = found.items, found.scores
    return Rankings(ranked, scores)


def _ranked(model: Recommender, cases: Cases, n: int) -> Rankings:
    """The best n for every case."""
    step = cases_at_once(len(model.catalog))
    parts = [
        model.rank(cases.histories(start, min(start + step, len(cases))), n)
        for start in range(0, len(cases), step)
    ]
    return Rankings(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("items", "scores"))
    )


def _as_evaluation(ranked: Rankings, cases: Cases) -> Evaluation:
    lists = Rankings(ranked.items[:, :SHOWN], ranked.scores[:, :SHOWN])
    return Evaluation(per_case(ranked, cases, (SHOWN,)), cases.rows, {}, lists)


def _calibrated(found: Evaluation, cases: Cases, grouped: Sequence[ItemGroups]) -> Array | None:
    """Miscalibration of each list [c]; None where items have no categories."""
    if len(grouped) < 2:
        return None
    return miscalibration(found.lists.items, cases.histories(), grouped[0])


def _of(
    values: pl.Series,
    found: Evaluation,
    cases: Cases,
    grouped: Sequence[ItemGroups],
    calibrated: Array | None,
) -> OfAttribute:
    groups = groups_of(values)
    exposure = {each.kind: exposure_parity(found.lists.items, cases.rows, groups, each) for each in grouped}
    accuracy = [metric_gap(name, found.per_case[name], cases.rows, groups) for name in ("hr@10", "ndcg@10")]
    if calibrated is not None:
        accuracy.append(metric_gap(CALIBRATION, calibrated, cases.rows, groups))
    notes = exposure[grouped[-1].kind].groups.notes
    return OfAttribute(str(values.name), exposure, tuple(accuracy), None, None, notes)


def _attacked(of: OfAttribute, values: pl.Series, states: tuple[Ints, Array]) -> OfAttribute:
    rows, read = states
    halves = groups_of(values, bands=2)  # of numbers: above and below the median
    try:
        found = attack(read, Groups(halves.attribute, halves.names, halves.members[rows]))
    except InputError as error:
        return replace(of, notes=(*of.notes, str(error)))
    return replace(of, attack=found)


def _states(model: Recommender, cases: Cases) -> tuple[Ints, Array]:
    """People with a case [p], and the state after the history of the first one of each [p, d]."""
    people, first = np.unique(cases.rows, return_index=True)
    histories = cases.take(first).histories()
    histories = histories.select(histories.items >= 0)
    scorer = model.fitted.scorer
    found = np.empty((len(people), scorer.vectors.shape[1]), dtype=np.float32)
    rows, attend = model.fitted.person_rows(histories), model.fitted.attend
    for part, chosen in scorer.chunks(histories):
        states = scorer.states(chosen, rows[part])
        found[part] = (states if attend is None else attend(states, chosen)).numpy()
    return people, found
