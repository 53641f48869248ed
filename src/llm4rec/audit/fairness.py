"""How differently groups of people are served: who is shown what, how well, and what states tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.data.columns import is_protected
from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.errors import InputError
from llm4rec.evaluate.attacker import Attack, attack
from llm4rec.evaluate.exposure import ExposureDrift, ExposureParity, exposure_drift, exposure_parity
from llm4rec.evaluate.fairness import Disparity, metric_gap, metric_gap_of_items, miscalibration
from llm4rec.evaluate.groups import Groups, ItemGroups, by_category, by_popularity, groups_of
from llm4rec.evaluate.protocol import Evaluation
from llm4rec.recommender import Recommender
from llm4rec.types import Ints

CALIBRATION = "miscalibration, nats"


@dataclass(frozen=True)
class OfAttribute:
    """What one attribute of people makes a difference to.

    Attributes:
        attribute: its name.
        exposure: by kind of item group, what each group of people is shown.
        accuracy: equal opportunity, NDCG gap, and calibration where items have categories.
        attack: how well it is read from the states; None where it can't be tried, of which notes tell.
        notes: sentences.
    """

    attribute: str
    exposure: dict[str, ExposureParity]
    accuracy: tuple[Disparity, ...]
    attack: Attack | None
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
    histories = cases.histories()
    of_items = {
        each.kind: metric_gap_of_items("hr@10", found.per_case["hr@10"], cases.rows, answers, each)
        for each in grouped
    }
    calibrated = None
    if len(grouped) > 1:
        calibrated = miscalibration(found.lists.items, histories, grouped[0])
    times = cases.times
    drift = {} if times is None else {
        each.kind: exposure_drift(found.lists.items, cases.rows, times, each) for each in grouped
    }  # fmt: skip
    return Fairness(
        tuple(_of(each, found, cases, grouped, calibrated, states) for each in values), of_items, drift
    )


def _of(
    values: pl.Series,
    found: Evaluation,
    cases: Cases,
    grouped: Sequence[ItemGroups],
    calibrated: np.ndarray | None,
    states: tuple[Ints, np.ndarray],
) -> OfAttribute:
    groups = groups_of(values)
    exposure = {each.kind: exposure_parity(found.lists.items, cases.rows, groups, each) for each in grouped}
    accuracy = [metric_gap(name, found.per_case[name], cases.rows, groups) for name in ("hr@10", "ndcg@10")]
    if calibrated is not None:
        accuracy.append(metric_gap(CALIBRATION, calibrated, cases.rows, groups))
    tried, notes = _attacked(values, states)
    said = [*exposure[grouped[-1].kind].groups.notes, *notes]
    return OfAttribute(str(values.name), exposure, tuple(accuracy), tried, tuple(said))


def _attacked(values: pl.Series, states: tuple[Ints, np.ndarray]) -> tuple[Attack | None, list[str]]:
    rows, read = states
    halves = groups_of(values, bands=2)  # of numbers: above and below the median
    try:
        found = attack(read, Groups(halves.attribute, halves.names, halves.members[rows]))
    except InputError as error:
        return None, [str(error)]
    return found, []


def _states(model: Recommender, cases: Cases) -> tuple[Ints, np.ndarray]:
    """People with a case [p], and the state after the history of the first one of each [p, d]."""
    people, first = np.unique(cases.rows, return_index=True)
    histories = cases.take(first).histories()
    histories = histories.select(histories.items >= 0)
    scorer = model.fitted.scorer
    found = np.empty((len(people), scorer.vectors.shape[1]), dtype=np.float32)
    rows = model.fitted.person_rows(histories)
    for part, chosen in scorer.chunks(histories):
        found[part] = scorer.states(chosen, rows[part]).numpy()
    return people, found
