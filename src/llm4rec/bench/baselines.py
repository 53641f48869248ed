"""The models every recommender must beat: fitted on train, their settings chosen on validation.

All read a history as a set, count a person's item once, and rank by popularity where a history holds
nothing they know. Each tuned one tries a small grid of about equal size and keeps what has the highest
NDCG@10 over the same (at most `VALID_PEOPLE`) people; without validation cases it keeps the
first of its grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases, Split
from llm4rec.evaluate.beyond import people_share
from llm4rec.evaluate.protocol import cases_at_once, mean_ndcg
from llm4rec.model.linear import ease_weights, item_sets, most_taken, taken_together
from llm4rec.topn import top_n
from llm4rec.types import Floats, Ints, Progress, Rankings, Recommends, silent

VALID_PEOPLE = 2000
WINDOWS = (30, 1, 3, 7, 14, 90, 180, 365)  # days; the whole log is tried besides
NEIGHBOURS = (50, 10, 200)  # k
SHRINKAGE = (20.0, 0.0, 100.0)  # people
RIDGES = (100.0, 10.0, 30.0, 300.0, 1000.0, 3000.0)  # λ
MOST_ITEMS = 20_000  # EASE holds three dense squares of them: 4.8 GB
DAY = 86_400

Chosen = dict[str, float]
Model = TypeVar("Model", bound=Recommends)


@dataclass(frozen=True)
class Popularity:
    """One score per item [i], the same for everybody; `chosen` holds the settings validation chose."""

    scores: Floats
    chosen: Chosen = field(default_factory=dict[str, float])

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        scores = np.broadcast_to(self.scores, (histories.n_users, len(self.scores)))
        return top_n(scores, n, None if keep_seen else histories)


def fit_popularity(split: Split, catalog: Catalog, *, progress: Progress = silent) -> Popularity:
    """Items by the share of people who took them in training."""
    return Popularity(people_share(split.train, len(catalog)).astype(np.float32))


def fit_recent_popularity(split: Split, catalog: Catalog, *, progress: Progress = silent) -> Popularity:
    """Items by the share of people who took them in the last days of training.

    Items that are level there are ordered by their share of the whole log. The number of days is the
    one of `WINDOWS`, or all there are, that does best on validation.

    Raises:
        ClockError: if the log has no times.
    """
    train, times = split.train, split.train.clock
    end = int(times.max(initial=0))
    span = max(1, -(-(end - int(times.min(initial=end))) // DAY))
    always = people_share(train, len(catalog)) / (2 * max(train.n_users, 1))  # under any step of a share

    def fit(chosen: Chosen) -> Popularity:
        recent = train.select(times >= end - chosen["window_days"] * DAY)
        return Popularity((people_share(recent, len(catalog)) + always).astype(np.float32), chosen)

    grid = [{"window_days": float(days)} for days in (*(w for w in WINDOWS if w < span), span)]
    return _best(grid, fit, split.valid, len(catalog), "recent popularity", progress)


@dataclass(frozen=True)
class ItemKNN:
    """Scores an item by its similarity to those of the history that are among its nearest neighbours.

    Attributes:
        weights: scipy sparse [i, i]; column j holds the similarities of item j's neighbours.
        popularity: share of people [i]; orders the items that no history item speaks for, after all
            that one does, so that an empty history gets the popular items.
        chosen: `k` and `shrink`.
    """

    weights: Any
    popularity: Floats
    chosen: Chosen

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        scores = (item_sets(histories, len(self.popularity)) @ self.weights).toarray()
        scores = np.where(scores > 0, scores, self.popularity - 1).astype(np.float32)
        return top_n(scores, n, None if keep_seen else histories)


def fit_item_knn(split: Split, catalog: Catalog, *, progress: Progress = silent) -> ItemKNN:
    """Item neighbours by cosine with shrinkage: sim(i, j) = n_ij / (√(n_i n_j) + shrink), n in people.

    Of each item its k nearest neighbours are kept. k and shrink are chosen on validation.
    """
    n_items = len(catalog)
    people = item_sets(split.train, n_items)
    share = people_share(split.train, n_items).astype(np.float32)
    nearest = _neighbours(people, max(NEIGHBOURS), progress)

    def fit(chosen: Chosen) -> ItemKNN:
        items, similarity = nearest[chosen["shrink"]]
        items, similarity = items[:, : int(chosen["k"])], similarity[:, : int(chosen["k"])]
        row, place = np.nonzero(items >= 0)
        entries = (similarity[row, place], (items[row, place], row))
        return ItemKNN(sparse.csr_array(entries, shape=(n_items, n_items)), share, chosen)

    grid = [{"k": float(k), "shrink": shrink} for k, shrink in product(NEIGHBOURS, SHRINKAGE)]
    return _best(grid, fit, split.valid, n_items, "item neighbours", progress)


def _neighbours(people: Any, most: int, progress: Progress) -> dict[float, tuple[Ints, Floats]]:
    """For each shrinkage the `most` nearest items [i, most] of every item and their similarities."""
    n_items = people.shape[1]
    counts = np.asarray(people.sum(axis=0)).ravel()
    by_item = people.T.tocsr()
    found: dict[float, list[Rankings]] = {shrink: [] for shrink in SHRINKAGE}
    step = cases_at_once(n_items)
    for start in range(0, n_items, step):
        together = (by_item[start : start + step] @ people).tocoo()
        row, item = together.coords
        keep = row + start != item  # no item is its own neighbour
        row, item, both = row[keep], item[keep], together.data[keep]
        expected = np.sqrt(counts[row + start] * counts[item])
        for shrink, parts in found.items():
            similarity = np.full(together.shape, -np.inf, dtype=np.float32)
            similarity[row, item] = both / (expected + shrink)
            parts.append(top_n(similarity, most, None))
        progress("item neighbours", min(start + step, n_items), n_items)
    return {
        shrink: (np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts]))
        for shrink, parts in found.items()
    }


@dataclass(frozen=True)
class EASE:
    """A linear map from the set of a history to a score of every item.

    Attributes:
        weights: [j, j] float32, zero on the diagonal, over the items the map knows.
        known: their item numbers [j]; all others score 0.
        popularity: share of people [i]; ranks for a history without a known item.
        chosen: `ridge`, the λ.
    """

    weights: Floats
    known: Ints
    popularity: Floats
    chosen: Chosen

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        read = item_sets(histories, len(self.popularity))[:, self.known]
        scores = np.zeros((histories.n_users, len(self.popularity)), dtype=np.float32)
        scores[:, self.known] = read @ self.weights
        scores[read.sum(axis=1) == 0] = self.popularity
        return top_n(scores, n, None if keep_seen else histories)


def fit_ease(split: Split, catalog: Catalog, *, progress: Progress = silent) -> EASE:
    """EASE: the ridge regression of each item on all others, in closed form.

    With G = XᵀX and P = (G + λI)⁻¹ the weights are B_ij = −P_ij / P_jj off the diagonal and 0 on it.
    λ is chosen on validation. Where more than `MOST_ITEMS` items have events, the map is over the most
    popular of them.

    Source: H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, equation 8.
    """
    share = people_share(split.train, len(catalog)).astype(np.float32)
    taken = item_sets(split.train, len(catalog))
    known = most_taken(taken, MOST_ITEMS)
    together = taken_together(taken[:, known])

    def fit(chosen: Chosen) -> EASE:
        return EASE(ease_weights(together.copy(), chosen["ridge"]), known, share, chosen)

    return _best([{"ridge": ridge} for ridge in RIDGES], fit, split.valid, len(catalog), "ease", progress)


def _best(
    grid: Sequence[Chosen],
    fit: Callable[[Chosen], Model],
    valid: Cases,
    n_items: int,
    stage: str,
    progress: Progress,
) -> Model:
    """The model of `grid` with the highest NDCG@10 on validation; the earlier one where two are level."""
    if not len(valid):
        return fit(grid[0])
    people = np.unique(valid.rows)
    if len(people) > VALID_PEOPLE:
        asked = np.random.default_rng(0).choice(people, VALID_PEOPLE, replace=False)
        valid = valid.take(np.flatnonzero(np.isin(valid.rows, asked)))
    best, highest = None, -np.inf
    for tried, chosen in enumerate(grid, start=1):
        model = fit(chosen)
        figure = mean_ndcg(model, valid, n_items)
        if best is None or figure > highest:
            best, highest = model, figure
        progress(stage, tried, len(grid), ndcg=highest)
    assert best is not None
    return best
