"""Full-catalogue evaluation: a model ranks every item for every case, chunk by chunk.

Nothing of the size users × items is ever held: per chunk a model answers with lists of n, of which the
metrics of each case, the first ten items and the exposure counts are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.evaluate import beyond
from llm4rec.evaluate.metrics import KS, per_case
from llm4rec.types import Array, Bools, Floats, Ints, Progress, Rankings, Recommends, silent

SHOWN = 10  # the list a person sees: what diversity, novelty, exposure and lift are measured on
SCORES_AT_ONCE = 12_000_000  # of cases × items: 48 MB per array of them


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        per_case: metric name → value of each case [c].
        people: the row of the log that each case asks about [c].
        summary: means over people of their cases' means, and the figures that belong to all lists
            together. A figure that can't be had (diversity without categories) is absent.
        lists: the first ten items and scores of each case [c, 10].
    """

    per_case: dict[str, Floats]
    people: Ints
    summary: dict[str, float]
    lists: Rankings

    def per_person(self, metric: str, where: Bools | None = None) -> Array:
        """The mean of a metric over each person's cases [p], people in ascending order.

        `where` [c] keeps some of the cases, and the people who have one among them: the same `where`
        gives the same people for every model, as a paired test needs.
        """
        return person_means(self.per_case[metric], self.people, where)


def person_means(values: Array, people: Ints, where: Bools | None = None) -> Array:
    """The mean of `values` [c] over each person's cases [p]; NaN values are no cases at all."""
    keep = ~np.isnan(values) if where is None else where & ~np.isnan(values)
    _, person = np.unique(people[keep], return_inverse=True)
    return np.bincount(person, weights=values[keep]) / np.bincount(person)


def cases_at_once(n_items: int) -> int:
    """How many cases to rank at a time, so that their scores of all items stay small in memory."""
    return max(1, min(1024, SCORES_AT_ONCE // max(n_items, 1)))


def mean_ndcg(model: Recommends, cases: Cases, n_items: int, k: int = 10) -> float:
    """NDCG@k alone, the mean over cases: what epochs and settings are chosen by on validation.

    Reported figures are means over people. As a guide the mean over cases is steadier where people have
    very different numbers of cases: on the validation stretches of MovieLens the standard error of a
    paired difference between two settings is about half as large.
    """
    return float(case_ndcg(model, cases, n_items, k).mean())


def case_ndcg(model: Recommends, cases: Cases, n_items: int, k: int = 10, *, timed: bool = False) -> Floats:
    """NDCG@k of each case [c].

    With `timed` the model is told when each case's answer happened, as the time it is asked at: that is how
    the context of a request is judged, and no evaluation is made that way.
    """
    step = cases_at_once(n_items)
    values: list[Floats] = []
    for start in range(0, len(cases), step):
        part = cases.take(np.arange(start, min(start + step, len(cases))))
        histories = part.histories()
        if timed:
            histories = replace(histories, asked_at=part.times)
        values.append(per_case(model.rank(histories, 2 * k), part, (k,))[f"ndcg@{k}"])
    return np.concatenate(values)


def evaluate(
    model: Recommends,
    cases: Cases,
    *,
    train: EventLog,
    catalog: Catalog,
    ks: Sequence[int] = KS,
    n: int = 100,
    similarity: Array | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Rank the whole catalogue for every case and measure the lists.

    Seen items are left out, so a case whose answer is a repeat is missed by every model alike.

    Args:
        model: what is measured; it is asked for n items per case.
        cases: questions with known answers.
        train: what popularity and novelty are counted on.
        catalog: all items there are.
        ks: list lengths of the accuracy metrics, all below n.
        n: list length asked of the model; coverage is given at 10 and at n.
        similarity: item vectors [i, d] for intra-list diversity; multi-hot categories when None.
        progress: told after each chunk.
    """
    found: list[dict[str, Floats]] = []
    tops: list[Rankings] = []
    histories_share: list[Array] = []
    share = beyond.people_share(train, len(catalog))
    exposed = np.zeros(len(catalog), dtype=np.int64)
    step = cases_at_once(len(catalog))
    for start in range(0, len(cases), step):
        part = cases.take(np.arange(start, min(start + step, len(cases))))
        histories = part.histories()
        ranked = model.rank(histories, n)
        found.append(per_case(ranked, part, ks))
        tops.append(Rankings(ranked.items[:, :SHOWN], ranked.scores[:, :SHOWN]))
        exposed += beyond.exposure(ranked.items, len(catalog))
        histories_share.append(beyond.history_popularity(histories, share))
        progress("evaluate", start + len(part), len(cases))
    values = {name: np.concatenate([part[name] for part in found]) for name in (found[0] if found else ())}
    lists = Rankings(
        np.concatenate([np.empty((0, min(SHOWN, n)), dtype=np.int64), *(top.items for top in tops)]),
        np.concatenate([np.empty((0, min(SHOWN, n)), dtype=np.float32), *(top.scores for top in tops)]),
    )
    summary = {name: float(person_means(value, cases.rows).mean()) for name, value in values.items()}
    summary |= _beyond(lists.items, cases.rows, np.concatenate([np.empty(0), *histories_share]), share, train)
    summary |= _variety(lists.items, cases.rows, catalog, similarity)
    summary[f"coverage@{n}"] = beyond.coverage(exposed)
    return Evaluation(values, cases.rows, summary, lists)


def _beyond(lists: Ints, people: Ints, before: Array, share: Array, train: EventLog) -> dict[str, float]:
    """Coverage, inequality, novelty and popularity lift of the lists people see."""
    exposed = beyond.exposure(lists, len(share))
    figures = {f"coverage@{SHOWN}": beyond.coverage(exposed), f"gini@{SHOWN}": beyond.gini(exposed)}
    new = person_means(beyond.novelty(lists, share, int(np.count_nonzero(train.lengths))), people)
    if len(new):
        figures[f"novelty@{SHOWN}"] = float(new.mean())
    shown = beyond.popularity(lists, share)
    both = ~np.isnan(before) & ~np.isnan(shown)  # an empty history has nothing to be lifted from
    taken = person_means(before, people, both)
    if len(taken) and taken.mean() > 0:
        lift = person_means(shown, people, both).mean() / taken.mean()
        figures[f"popularity_lift@{SHOWN}"] = float(lift)
    return figures


def _variety(lists: Ints, people: Ints, catalog: Catalog, similarity: Array | None) -> dict[str, float]:
    vectors = beyond.category_vectors(catalog) if similarity is None else similarity
    if vectors is None:
        return {}
    varied = person_means(beyond.diversity(lists, vectors), people)
    return {f"ild@{SHOWN}": float(varied.mean())} if len(varied) else {}
