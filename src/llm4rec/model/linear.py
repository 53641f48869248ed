"""The linear part: what people who took these items took as well, beside what the network says.

log p(i | history) = τ · log p_network(i | history) + w · Σ_{j ∈ H} B_ji + constant

The sum is 0 for items i of H. B is EASE, the ridge regression of each item on all others over the sets of
what people took, of which every item's strongest entries are kept. The network reads order, time and content;
a set of two hundred items says more about a person than a decoder trained on few people learns to keep, and
where order means nothing such a decoder is surer than it may be. Strength w and exponent τ belong to a class
of history lengths, for the sum over a short history is small.

Source: H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, equation 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field as Option
from scipy import sparse
from scipy.linalg import get_lapack_funcs

from llm4rec.config import Section
from llm4rec.data.events import EventLog
from llm4rec.errors import TrainingError
from llm4rec.model.lifts import lift, temper
from llm4rec.model.prior import BOUNDS, classes
from llm4rec.types import Array, Floats, Ints

STRENGTHS = np.concatenate([[0.0], 2.0 ** (np.arange(-8, 29) / 4)])
"""Strengths w tried [nats per unit of the linear score]."""
EXPONENTS = 2.0 ** (-np.arange(9) / 2)
"""Exponents τ of the network's probabilities tried."""
BLOCK = 1024
"""Rows of a square that are worked on at once."""


class LinearConfig(Section):
    """The linear part beside the network (section `linear`)."""

    items: int = Option(
        default=15_000,
        ge=0,
        le=2**16,
        description="Most popular items it knows; a square of them is held while fitting, 0.9 GB for 15,000. "
        "0 leaves it out [items].",
    )
    ridge: float = Option(
        default=100.0,
        ge=1e-3,  # less is lost in rounding beside the counts
        le=1e9,
        description="λ of the regression: the larger, the less few people count [people].",
    )
    neighbours: int = Option(
        default=256, ge=1, description="Strongest entries kept of what one item says of the others [items]."
    )


@dataclass(frozen=True)
class Linear:
    """B by rows of the item in the history, its strengths, and what the network counts beside it.

    Attributes:
        known: numbers of the items it knows, ascending [j].
        offsets: row r of B is the half-open slice `offsets[r]:offsets[r + 1]` of what follows [j + 1].
        places: the other item, as a place in `known` [k].
        weights: B_ji, float16 [k].
        strengths: w for each class of history lengths; all 0 where there is none.
        exponents: τ for each class; all 1 where there is none.
    """

    known: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    offsets: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    places: Array = field(default_factory=lambda: np.zeros(0, dtype=np.uint16))
    weights: Array = field(default_factory=lambda: np.zeros(0, dtype=np.float16))
    strengths: tuple[float, ...] = (0.0,) * (len(BOUNDS) + 1)
    exponents: tuple[float, ...] = (1.0,) * (len(BOUNDS) + 1)

    def scores(self, history: Ints) -> Floats:
        """Σ_{j ∈ H} B_ji of the known items [j] for one history of item numbers [t].

        The items of the history itself get 0: of whether one is taken again it says nothing.
        """
        if not len(self.known):
            return np.zeros(0, dtype=np.float32)
        rows, _, places, weights = self.said(history)
        total = np.bincount(places, weights=weights.astype(np.float64), minlength=len(self.known))
        total[rows] = 0
        return total.astype(np.float32)

    def said(self, history: Ints) -> tuple[Ints, Ints, Ints, Array]:
        """What the items of a history [t] say of others, one by one.

        Returns:
            The different items of the history that are known, as places in `known`, ascending [r]; then for
            each of k entries of B the place among them of the item that says it, that of the other item in
            `known`, and B_ji.
        """
        if not len(self.known):
            nothing = np.zeros(0, dtype=np.int64)
            return nothing, nothing, nothing, self.weights
        rows = np.searchsorted(self.known, history).clip(max=len(self.known) - 1)
        rows = np.unique(rows[self.known[rows] == history])
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        ends = np.cumsum(lengths)
        index = np.arange(ends[-1] if len(rows) else 0) + np.repeat(starts - (ends - lengths), lengths)
        return rows, np.repeat(np.arange(len(rows)), lengths), self.places[index], self.weights[index]

    def lifts(self, history: Ints) -> Floats:
        """What is added to the log-scores of the known items [j] for one history (nats)."""
        return np.float32(self.strength(len(history))) * self.scores(history)

    def strength(self, length: int) -> float:
        """Strength w after a history of `length` events [nats per unit of the linear score]."""
        return self.strengths[int(classes(np.array(length)))]

    def exponent(self, length: int) -> float:
        """τ after a history of `length` events; 1 where there is no linear part."""
        return self.exponents[int(classes(np.array(length)))] if any(self.strengths) else 1.0

    def add(self, log_scores: Floats, histories: EventLog) -> Floats:
        """Log-scores [b, i] of both, given the network's [b, i] for b histories.

        Probabilities of a row sum to what they summed to before.
        """
        if not any(self.strengths):
            return log_scores
        found = log_scores.copy()
        for row, scores in enumerate(found):
            history = histories.history(row)
            temper(scores, self.exponent(len(history)))
            lift(scores, self.known, self.lifts(history))
        return found

    def tensors(self) -> dict[str, Array]:
        """The arrays of an artefact; `from_tensors` reads them."""
        return {"known": self.known, "offsets": self.offsets, "places": self.places, "weights": self.weights}

    @classmethod
    def from_tensors(
        cls, arrays: Mapping[str, Array], strengths: Sequence[float], exponents: Sequence[float]
    ) -> Linear:
        """What `tensors` gave, with its strengths and exponents."""
        return cls(**arrays, strengths=tuple(strengths), exponents=tuple(exponents))

    def checked(self, n_items: int) -> Linear:
        """Itself, if its arrays are those of a linear part of a catalogue of `n_items`.

        Raises:
            ValueError: saying what is wrong with them.
        """
        kinds = {name: array.dtype for name, array in Linear().tensors().items()}
        for name, array in self.tensors().items():
            if array.dtype != kinds[name] or array.ndim != 1:
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not {kinds[name]} [n]")
        if (np.diff(self.known, prepend=-1, append=n_items) <= 0).any():
            raise ValueError(f"known does not name different ones of the {n_items} items, ascending")
        ends = self.offsets[[0, -1]].tolist() if len(self.offsets) == len(self.known) + 1 else None
        if ends != [0, len(self.places)] or (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets do not cut places into a slice for each known item")
        if len(self.weights) != len(self.places) or not np.isfinite(self.weights).all():
            raise ValueError("weights are not finite, or not as many as places")
        if (self.places >= len(self.known)).any():
            raise ValueError(f"places lie beyond the {len(self.known)} known items")
        for name, tried in (("strengths", STRENGTHS), ("exponents", EXPONENTS)):
            told = np.array(getattr(self, name), dtype=np.float64)
            if len(told) != len(BOUNDS) + 1 or not ((told >= tried.min()) & (told <= tried.max())).all():
                raise ValueError(f"the {name} {getattr(self, name)} are not one for each class of lengths")
        return self


def fit_linear(log: EventLog, n_items: int, config: LinearConfig) -> Linear:
    """The linear part of a log of training events, its strengths not yet chosen.

    Args:
        log: who took what; order and repeats say nothing here.
        n_items: catalogue size.
        config: how much of it is kept.

    Raises:
        TrainingError: where the ridge is too small for the regression to be solved.
    """
    if not config.items or not log.n_events:
        return Linear()
    taken = item_sets(log, n_items)
    known = most_taken(taken, config.items)
    square = ease_weights(taken_together(taken[:, known]), config.ridge)
    kept = min(config.neighbours, max(len(known) - 1, 0))
    places: list[Array] = []
    weights: list[Array] = []
    for start in range(0, len(known), BLOCK):
        block = square[start : start + BLOCK]
        best = np.sort(np.argpartition(-np.abs(block), kept, axis=1)[:, :kept], axis=1)
        places.append(best.astype(np.uint16))
        weights.append(np.take_along_axis(block, best, axis=1).astype(np.float16))
    return Linear(
        known,
        np.arange(len(known) + 1) * kept,
        np.concatenate(places).ravel(),
        np.concatenate(weights).ravel(),
    )


def item_sets(log: EventLog, n_items: int) -> Any:
    """Each row's items as a scipy sparse [u, i] of ones."""
    pairs = np.unique(log.rows * n_items + log.items)
    rows, items = pairs // max(n_items, 1), pairs % max(n_items, 1)
    return sparse.csr_array(
        (np.ones(len(pairs), dtype=np.float32), (rows, items)), shape=(log.n_users, n_items)
    )


def most_taken(taken: Any, most: int) -> Ints:
    """The at most `most` items of a sparse [u, i] that most people took, ascending; none that nobody took."""
    counts = np.asarray(taken.sum(axis=0)).ravel()
    order = np.argsort(-counts, kind="stable")[:most]
    return np.sort(order[counts[order] > 0])


def taken_together(taken: Any) -> Floats:
    """How many people took both of two items, [j, j], of a sparse [u, j]."""
    by_item = taken.T.tocsr()
    square = np.empty((by_item.shape[0],) * 2, dtype=np.float32)
    for start in range(0, len(square), BLOCK):  # on dense data the whole as a sparse array would be larger
        square[start : start + BLOCK] = (by_item[start : start + BLOCK] @ taken).toarray()
    return square


def ease_weights(together: Floats, ridge: float) -> Floats:
    """B [j, j] of EASE: B_ji = −P_ji / P_ii off the diagonal and 0 on it, where P = (G + λI)⁻¹.

    Args:
        together: G [j, j] as `taken_together` gives it; it is overwritten.
        ridge: λ.

    Raises:
        TrainingError: where G + λI can't be inverted.
    """
    n_items = len(together)
    if not n_items:
        return together
    square: Array = together.T  # the column-major form LAPACK works in; G is symmetric
    np.einsum("jj->j", square)[:] += ridge
    factorise, invert = get_lapack_funcs(("potrf", "potri"), (square,))
    factor, trouble = factorise(square, lower=1, overwrite_a=1)
    inverse, singular = invert(factor, lower=1, overwrite_c=1)
    if trouble or singular:
        raise TrainingError(
            f"EASE can't invert its matrix at ridge {ridge:g}: raise the ridge (linear.ridge), or leave the "
            "linear part out (linear.items=0)."
        )
    weights: Array = inverse.T  # row-major, and the upper triangle of the symmetric P
    for start in range(0, n_items, BLOCK):  # mirrored in blocks, to hold no second square
        stop = min(start + BLOCK, n_items)
        corner = np.triu(weights[start:stop, start:stop])
        weights[start:stop, start:stop] = corner + np.triu(corner, 1).T
        weights[stop:, start:stop] = weights[start:stop, stop:].T
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0)
    return weights
