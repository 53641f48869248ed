"""Propensities e_ui = P(O_ui = 1 | x_u, x_i), the weights made of them, and what they are worth.

The paper's O is "interacted" (equation 13). For ratings, O is whether a pair was rated at all, and that is
what is estimated here. For clicks it is whether a person was exposed, which no click log shows of what was
not clicked: `of_popularity` is the usual stand-in, and `looks` tells what the place of an item did where it
was logged. Where a log has the probabilities it was drawn with, nothing is estimated: they go into `weights`
as they are. `exposure` learns propensities from features and factors.

Sources: Schnabel et al., Recommendations as Treatments, ICML 2016 (clipping);
Saito et al., Unbiased Recommender Learning from Missing-Not-At-Random Implicit Feedback, WSDM 2020
(popularity); Richardson, Dominowska and Ragno, Predicting Clicks, WWW 2007 (looks by position); Kish, Survey
Sampling, 1965 (effective size).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm4rec.errors import InputError
from llm4rec.types import Array, Ints

ROUNDS = 1000
"""The most rounds in which looks and liking are fitted to each other."""


def of_popularity(counts: Array, power: float = 0.5) -> Array:
    """(n_i / max n)^power [i] of how often each item was taken: exposure up to a factor, 1 for the commonest.

    What was never taken counts as taken half a time, since a propensity is above 0.

    Raises:
        InputError: where nothing was ever taken.
    """
    if not counts.max(initial=0) > 0:
        raise InputError("Popularity needs events: no item was ever taken.")
    return (np.maximum(counts, 0.5) / counts.max()) ** power


def looks(positions: Ints, items: Ints, clicked: Array) -> Array:
    """P(look | position) [k] relative to the first place, from a log of what was shown where [e].

    A click is a look and a liking, P(click | i, k) = look_k · like_i: both are fitted, each given the other,
    as the most likely ones of Poisson counts. Items that stood in several places tell them apart, and it is
    right where an item's place had nothing to do with who was asked.

    Args:
        positions: places from 1 [e].
        items: dense numbers [e].
        clicked: whether each was clicked [e].

    Raises:
        InputError: where a place was never shown, or the first never clicked.
    """
    if not len(positions) or positions.min() < 1:
        raise InputError("Looks need a log with places that start at 1.")
    shown = np.zeros((int(positions.max()), int(items.max()) + 1))
    np.add.at(shown, (positions - 1, items), 1)
    by_place = np.bincount(positions - 1, weights=clicked)
    by_item = np.bincount(items, weights=clicked)
    empty = np.flatnonzero(shown.sum(axis=1) == 0)
    if len(empty) or not by_place[0]:
        place, lacks = (int(empty[0]) + 1, "shown") if len(empty) else (1, "clicked")
        raise InputError(
            f"Nothing was {lacks} in place {place}: leave such places out and number the others anew."
        )
    look = np.ones(len(shown))
    for _ in range(ROUNDS):
        exposure = look @ shown
        like = by_item / np.where(exposure > 0, exposure, 1)
        new = by_place / np.maximum(shown @ like, 1e-12)
        new /= new[0]
        done = np.abs(new - look).max() < 1e-9
        look = new
        if done:
            break
    return look


def weights(propensities: Array, *, clip: float = 0.0, density: float | None = None) -> Array:
    """Inverse propensities 1 / max(e, clip) of every event [e] for the `weights` of a training loop.

    With `density`, the share of pairs that are observed, they are times it: then the mean over the events of
    weight · loss is L_IPS of equation (14), the sum over the events by the number of pairs. Without, they
    are divided by their mean: then it is SNIPS, and the size of a step does not depend on them.

    Raises:
        InputError: where a propensity is not above 0 and at most 1.
    """
    bad = np.flatnonzero(~((propensities > 0) & (propensities <= 1)))
    if len(bad):
        raise InputError(
            f"The propensity of event {bad[0] + 1} is {propensities[bad[0]]:g}: what was observed had a "
            "probability above 0 and at most 1."
        )
    inverse = 1 / np.maximum(propensities, clip)
    return inverse * density if density is not None else inverse / inverse.mean()


def effective_size(weights: Array) -> float:
    """(Σ w)² / Σ w² [events]: the size of an unweighted sample that says as much (Kish).

    >>> effective_size(np.array([1.0, 1.0, 2.0]))
    2.6666666666666665
    """
    square = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / square if square else 0.0


@dataclass(frozen=True)
class Clipping:
    """What a bound on propensities does to the weights.

    Attributes:
        clip: the bound c; weights are 1 / max(e, c).
        clipped: share of the events below it.
        kept: share of the sum of weights that is left. 1 − kept bounds the bias of a mean of losses in 0..1.
        effective: effective sample size [events]: the variance that is left.
        largest: the largest weight.
        mean: mean weight.
    """

    clip: float
    clipped: float
    kept: float
    effective: float
    largest: float
    mean: float


def clippings(propensities: Array, bounds: Sequence[float]) -> list[Clipping]:
    """Bias against variance: a line for each bound."""
    free = 1 / propensities
    found: list[Clipping] = []
    for bound in bounds:
        inverse = 1 / np.maximum(propensities, bound)
        found.append(
            Clipping(
                clip=float(bound),
                clipped=float((propensities < bound).mean()),
                kept=float(inverse.sum() / free.sum()),
                effective=effective_size(inverse),
                largest=float(inverse.max()),
                mean=float(inverse.mean()),
            )
        )
    return found


@dataclass(frozen=True)
class Calibration:
    """How often what was held likely happened.

    Attributes:
        predicted: mean predicted probability of each bin [b], ascending.
        observed: share of the bin that happened [b].
        counts: how much fell into it, weights counted [b].
        brier: mean squared difference of prediction and what happened, over all.
        constant: the same of predicting the mean for all, what a model that knows nothing gets.
    """

    predicted: Array
    observed: Array
    counts: Array
    brier: float
    constant: float

    @property
    def error(self) -> float:
        """Mean |predicted − observed| over what fell into the bins."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.counts))


def calibration(
    probabilities: Array, happened: Array, sample_weights: Array | None = None, *, bins: int = 10
) -> Calibration:
    """Compare predictions [p] with what happened [p], in bins of equal weight.

    Args:
        probabilities: predictions in 0..1.
        happened: 0 or 1.
        sample_weights: how many each stands for; None counts one for each.
        bins: how many; fewer come back where many predictions are equal.
    """
    weight = np.ones(len(probabilities)) if sample_weights is None else sample_weights
    order = np.argsort(probabilities, kind="stable")
    before = np.cumsum(weight[order]) - weight[order] / 2
    place = np.minimum((before * bins / weight.sum()).astype(np.int64), bins - 1)
    p, y, w = probabilities[order], happened[order].astype(np.float64), weight[order]
    # equal predictions share a bin, that of the first
    same = np.r_[True, np.diff(p) > 0]
    place = place[np.maximum.accumulate(np.where(same, np.arange(len(p)), 0))]
    _, number = np.unique(place, return_inverse=True)
    counts = np.bincount(number, weights=w)
    mean = float(np.average(y, weights=w))
    return Calibration(
        predicted=np.bincount(number, weights=w * p) / counts,
        observed=np.bincount(number, weights=w * y) / counts,
        counts=counts,
        brier=float(np.average(np.square(p - y), weights=w)),
        constant=float(np.average(np.square(mean - y), weights=w)),
    )
