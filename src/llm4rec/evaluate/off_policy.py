"""What a policy would have earned on the traffic of another that was logged.

A policy shows an item (an action) in a context. The log holds the actions of one policy with the
probabilities it gave them; another is valued by weighing each logged reward r with w = π(a | x) / π₀(a | x).
This needs π₀ > 0 wherever π > 0, and probabilities that are those the log was drawn with: of both, `check`
tells what the log itself can show.

Sources: Horvitz and Thompson, 1952 (IPS); Swaminathan and Joachims, The Self-Normalized Estimator for
Counterfactual Learning, 2015 (SNIPS); Dudík, Langford and Li, Doubly Robust Policy Evaluation and Learning,
2011 (DR); Wang, Agarwal and Dudík, Optimal and Adaptive Off-policy Evaluation, 2017 (switch).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from llm4rec.errors import InputError
from llm4rec.evaluate.significance import holm
from llm4rec.types import Array, Ints

REJECTED = 0.001
"""Corrected p-value below which logged probabilities are taken for wrong."""
FEWEST = 50
"""Times an action must be logged and be expected for the mean of its weights to be nearly normal."""


@dataclass(frozen=True)
class Logged:
    """Events of one policy, and what another would have done in their place.

    Attributes:
        rewards: r [e].
        actions: a, the item that was shown [e].
        propensities: π₀(a | x) in (0, 1], the probability with which the log's policy showed it [e].
        probabilities: π(a | x), that with which the other would have shown the same [e].
        people: who saw it [e]; events of one person are not independent of each other.
        predicted: q̂(x, a), the reward a model expects of what was shown [e]; None without a model.
        expected: Σ_a π(a | x) q̂(x, a), the reward it expects of the other policy [e]; None as above.
    """

    rewards: Array
    actions: Ints
    propensities: Array
    probabilities: Array
    people: Ints
    predicted: Array | None = None
    expected: Array | None = None

    def __post_init__(self) -> None:
        if not len(self.rewards):
            raise InputError("A policy can't be valued without logged events.")
        for name, values in vars(self).items():
            if values is not None and (len(values) != len(self.rewards) or not np.isfinite(values).all()):
                raise InputError(f"Of every logged event {name} must be known, as a finite number.")
        bad = np.flatnonzero((self.propensities <= 0) | (self.propensities > 1))
        if len(bad):
            raise InputError(
                f"The propensity of event {bad[0] + 1} is {self.propensities[bad[0]]:g}: what was shown had "
                "a probability above 0 and at most 1."
            )
        if (self.predicted is None) != (self.expected is None):
            raise InputError("A model says what it expects of both, what was shown and the other policy.")

    @property
    def weights(self) -> Array:
        """The weights π(a | x) / π₀(a | x) [e]."""
        return self.probabilities / self.propensities


@dataclass(frozen=True)
class Value:
    """An estimate of a policy's mean reward.

    Attributes:
        mean: the estimate.
        error: its standard error, over people.
        low: lower end of its normal interval.
        high: upper end.
    """

    mean: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Weighing:
    """How much weighing asks of a log.

    Attributes:
        effective: (Σ w)² / Σ w², the size of an unweighted log that says as much [events].
        largest: the largest weight.
        clipped: share of the events whose weight a bound has cut.
        mean: mean weight, 1 where the probabilities are right and the log covers what the other policy shows.
        p: that it is 1, by chance alone.
        action_p: the least p-value, Holm-corrected, that an action is logged as often as its propensities
            say; NaN where no action is common enough to tell.
    """

    effective: float
    largest: float
    clipped: float
    mean: float
    p: float
    action_p: float

    @property
    def rejected(self) -> bool:
        """Whether the log contradicts its propensities, or does not cover what the other policy shows."""
        return any(p < REJECTED for p in (self.p, self.action_p))


def mean_of(terms: Array, people: Ints, *, level: float = 0.95) -> Value:
    """The mean of what was logged [e], the events of a person [e] drawn together."""
    mean, error = _mean(terms, people)
    reach = float(norm.ppf(0.5 + level / 2)) * error
    return Value(mean, error, mean - reach, mean + reach)


def naive(log: Logged, *, level: float = 0.95) -> Value:
    """The mean reward of the log as it is: the value of the policy that made it, and of no other."""
    return mean_of(log.rewards, log.people, level=level)


def ips(log: Logged, *, clip: float = np.inf, level: float = 0.95) -> Value:
    """1/n Σ w r: unbiased where propensities are right and no weight is above `clip`."""
    return mean_of(np.minimum(log.weights, clip) * log.rewards, log.people, level=level)


def snips(log: Logged, *, clip: float = np.inf, level: float = 0.95) -> Value:
    """Σ w r / Σ w: biased by little, and of less variance where weights differ much.

    Its error is that of the first term of its expansion, w (r − estimate) / mean w.

    Raises:
        InputError: where the other policy shows nothing that was logged.
    """
    weights = np.minimum(log.weights, clip)
    total = float(weights.mean())
    if not total:
        raise InputError("The other policy shows nothing of what was logged, so the log says nothing of it.")
    mean = float((weights * log.rewards).mean()) / total
    around = mean_of(weights * (log.rewards - mean) / total, log.people, level=level)
    return Value(mean, around.error, mean + around.low - around.mean, mean + around.high - around.mean)


def doubly_robust(log: Logged, *, clip: float = np.inf, level: float = 0.95) -> Value:
    """1/n Σ (expected + w (r − predicted)): unbiased where either propensities or the model are right.

    Raises:
        InputError: where there is no model.
    """
    predicted, expected = _modelled(log)
    return mean_of(
        expected + np.minimum(log.weights, clip) * (log.rewards - predicted), log.people, level=level
    )


def switch(log: Logged, *, most: float, level: float = 0.95) -> Value:
    """As `doubly_robust`, but events of a weight above `most` count by the model alone.

    Raises:
        InputError: where there is no model.
    """
    predicted, expected = _modelled(log)
    weights = np.where(log.weights <= most, log.weights, 0)
    return mean_of(expected + weights * (log.rewards - predicted), log.people, level=level)


def check(log: Logged, *, clip: float = np.inf) -> Weighing:
    """What weighing asks of the log, and whether the log contradicts it.

    E[w] = 1, and for every action a, E[1{A = a} / π₀(a | x)] = 1 where π₀ could always show it: each is
    tested by a normal approximation, the least p-value of the actions after Holm's correction.
    """
    weights = log.weights
    square = float(np.square(weights).sum())
    return Weighing(
        effective=float(weights.sum()) ** 2 / square if square else 0.0,
        largest=float(weights.max()),
        clipped=float((weights > clip).mean()),
        mean=float(weights.mean()),
        p=_p_of_one(weights, log.people),
        action_p=_least_of_actions(log),
    )


def _modelled(log: Logged) -> tuple[Array, Array]:
    if log.predicted is None or log.expected is None:
        raise InputError("This estimate needs a model of the rewards: Logged.predicted and Logged.expected.")
    return log.predicted, log.expected


def _mean(terms: Array, people: Ints) -> tuple[float, float]:
    """Mean over events and its standard error, with the events of a person drawn together."""
    mean = float(np.mean(terms))
    _, person = np.unique(people, return_inverse=True)
    sums = np.bincount(person, weights=terms - mean)
    n_people = len(sums)
    if n_people == 1:
        return mean, float("inf")
    return mean, float(np.sqrt(np.square(sums).sum() * n_people / (n_people - 1)) / len(terms))


def _p_of_one(terms: Array, people: Ints) -> float:
    """Two-sided p-value that the mean of the terms [e] is 1."""
    mean, error = _mean(terms, people)
    if not error:
        return float(mean == 1)
    return float(2 * norm.sf(abs(mean - 1) / error))


def _least_of_actions(log: Logged) -> float:
    """As `_p_of_one` of each common action's 1{A = a} / π₀, all at once; the least by Holm."""
    _, action, counts = np.unique(log.actions, return_inverse=True, return_counts=True)
    _, person, own = np.unique(log.people, return_inverse=True, return_counts=True)
    n, n_people, inverse = len(action), len(own), 1 / log.propensities
    if n_people == 1:
        return float("nan")
    total = np.bincount(action, weights=inverse)
    mean = total / n
    pair, place = np.unique(action * n_people + person, return_inverse=True)
    sums = np.bincount(place, weights=inverse)
    whose, who = pair // n_people, pair % n_people
    # Σ over people of (their sum − mean · their events)², also of those who never saw the action
    squares = np.bincount(whose, weights=np.square(sums)) + np.square(mean) * np.square(own).sum()
    squares -= 2 * mean * np.bincount(whose, weights=sums * own[who])
    error = np.sqrt(np.maximum(squares, 0) * n_people / (n_people - 1)) / n
    # as often as an action of its mean propensity would be shown
    expected = n * counts / total
    common = (np.minimum(counts, expected) >= FEWEST) & (error > 0)
    return min(holm((2 * norm.sf(np.abs(mean - 1)[common] / error[common])).tolist()), default=float("nan"))
