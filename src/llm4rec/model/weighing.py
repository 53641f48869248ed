"""How much the linear part and the network count: chosen by what held-out items say of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.evaluate.protocol import person_means
from llm4rec.evaluate.significance import Gain
from llm4rec.model.lifts import lift_of, log_sum
from llm4rec.model.linear import EXPONENTS, STRENGTHS, Linear
from llm4rec.model.prior import BOUNDS, FEWEST, TOP, classes
from llm4rec.types import Array, Floats, Ints

RATIOS = np.concatenate([STRENGTHS, STRENGTHS[-1] * 2.0 ** (np.arange(1, 17) / 4)])
"""Every strength over an exponent: by it items are ranked. Both are powers of a fourth root of two."""


class Trial:
    """Held-out next items, asked of the network with the linear part, at every strength and exponent.

    Args:
        linear: the part; its strengths and exponents are not read.
        targets: the held-out items [c].
        lengths: history lengths [c].
        people: who each case is of [c].
    """

    def __init__(self, linear: Linear, targets: Ints, lengths: Ints, people: Ints) -> None:
        self.linear, self.targets, self.classes, self.people = linear, targets, classes(lengths), people
        self.told = np.zeros(len(targets), dtype=bool)
        self.likely: Array = np.zeros((len(BOUNDS) + 1, len(STRENGTHS)))
        """Log-likelihood of each class of cases at τ = 1 (nats)."""
        self.likely_outside: Array = np.zeros((len(BOUNDS) + 1, len(EXPONENTS), len(STRENGTHS)))
        """The same at every τ among the items outside the history, of the cases whose answer is one."""
        self.ndcg = np.zeros((len(targets), len(RATIOS)), dtype=np.float32)
        """NDCG@10 of each case among those."""

    def ask(self, cases: Ints, log_scores: Floats, histories: EventLog) -> None:
        """Take the network's log-scores [b, i] of some cases [b] with their histories.

        A case whose answer is out of the network's reach tells nothing.
        """
        known = self.linear.known
        for row, case in enumerate(cases):
            history, target, number = histories.history(row), self.targets[case], self.classes[case]
            if not np.isfinite(log_scores[row, target]):
                continue
            self.told[case] = True
            scores = self.linear.scores(history)
            of_target = lift_of(known, scores, np.array([target]))
            alone, lifts = log_scores[row, target].astype(np.float64), STRENGTHS * of_target
            outside = log_scores[row].copy()
            outside[history] = -np.inf
            total = _log_totals(outside, known, scores)
            of_history = log_sum(log_scores[row, np.unique(history)])  # its items have no linear score
            self.likely[number] += alone + lifts - np.logaddexp(total[0], of_history)
            if target not in history:
                self.likely_outside[number] += EXPONENTS[:, None] * alone + lifts - total
                self.ndcg[case] = _ndcg(outside, known, scores, int(target))

    def chosen(self) -> Linear:
        """The linear part with the strengths and exponents that suit the cases.

        With the network in full, τ = 1, strengths are those that make the cases of each class most likely.
        That counts the items of the history, from which any strength takes probability whatever B says; so
        a strength is 0 for a class whose answers outside the history are likeliest without the linear part.
        Instead, strengths and exponents are those that make these answers most likely, a conditional logit
        of two regressors, where that ranks all cases higher by more than a standard error: likelihood
        attends to what stands far down a list as much as to its head.

        A class of fewer than 20 cases takes what suits them all, the empty history τ = 1. There is no linear
        part where every strength is 0, or there are fewer than 20 cases in all: nothing can be said for it
        then.
        """
        members = [self.told & (self.classes == number) for number in range(len(BOUNDS) + 1)]
        if np.count_nonzero(self.told) < FEWEST:
            return Linear()
        full: list[tuple[int, int]] = []
        tempered: list[tuple[int, int]] = []
        for number, each in enumerate(members):
            asked = slice(number, number + 1) if np.count_nonzero(each) >= FEWEST else slice(None)
            outside = self.likely_outside[asked].sum(axis=0)
            helps = outside[0].argmax() > 0
            full.append((0, int(self.likely[asked].sum(axis=0).argmax()) if helps else 0))
            exponent, strength = np.unravel_index(int(outside.argmax()), outside.shape)
            if number == 0 and np.count_nonzero(each) < FEWEST:
                exponent = 0  # what long histories say of the network is not said of an empty one
            tempered.append((int(exponent), int(strength)))
        gain = np.concatenate([
            self.ndcg[each, _ratio(*other)] - self.ndcg[each, _ratio(*one)]
            for each, one, other in zip(members, full, tempered, strict=True)
        ])
        owners = np.concatenate([self.people[each] for each in members])
        best = tempered if Gain.of(person_means(gain, owners)).exceeds() else full
        if not any(strength for _, strength in best):
            return Linear()
        return replace(
            self.linear,
            strengths=tuple(float(STRENGTHS[strength]) for _, strength in best),
            exponents=tuple(float(EXPONENTS[exponent]) for exponent, _ in best),
        )


def _ratio(exponent: int, strength: int) -> int:
    """Place in `RATIOS` of a strength over an exponent, both given by their places."""
    return strength + 2 * exponent if strength else 0


def _ndcg(log_scores: Floats, known: Ints, scores: Floats, target: int) -> Floats:
    """NDCG@10 [r] of one target at every ratio; only items with a finite score are ranked.

    Args:
        log_scores: [i] (nats).
        known: the items that have a score [j]; that of others is 0.
        scores: [j].
        target: the item.
    """
    place = np.flatnonzero(scores)
    own = log_scores[target] + RATIOS * lift_of(known, scores, np.array([target]))
    lifted = log_scores[known[place]] + RATIOS[:, None] * scores[place]
    others = np.delete(log_scores, known[place])
    ahead = np.sort(-others[others >= own.min()])  # a sort of a large catalogue would take longest of all
    level = np.searchsorted(ahead, -own, side="right") + (lifted >= own[:, None]).sum(axis=1)
    return np.where(level <= TOP, 1 / np.log2(np.maximum(level, 1) + 1), 0).astype(np.float32)


def _log_totals(log_scores: Floats, known: Ints, scores: Floats) -> Array:
    """Log Σ_i exp(τ · log_scores_i + w · score_i) for every exponent τ and strength w.

    Args:
        log_scores: [i] (nats).
        known: the items that have a score [j]; that of others is 0.
        scores: [j].
    """
    place = np.flatnonzero(scores)
    still = log_scores.copy()
    still[known[place]] = -np.inf
    reached = scores[place][np.isfinite(log_scores[known[place]])]
    top = float(reached.max(initial=0))  # exp of a lift itself may be beyond any number
    lifted = np.exp(STRENGTHS * np.minimum(scores[place, None].astype(np.float64) - top, 0))
    alone = np.exp(EXPONENTS[:, None] * log_scores[known[place]].astype(np.float64))
    total = alone @ lifted + _power_sums(still)[:, None] * np.exp(-STRENGTHS * top)
    with np.errstate(divide="ignore"):  # a search may have reached nothing but the history
        return np.log(total) + STRENGTHS * top


def _power_sums(log_scores: Floats) -> Array:
    """Σ_i exp(τ · log_scores_i) for every exponent τ, each the square of the next but one."""
    sums = np.zeros(len(EXPONENTS))
    largest = log_scores.max(initial=-np.inf)
    if not np.isfinite(largest):
        return sums
    for last in (len(EXPONENTS) - 1, len(EXPONENTS) - 2):
        power = np.exp((log_scores - largest) * np.float32(EXPONENTS[last]))
        for place in range(last, -1, -2):
            sums[place] = power.sum(dtype=np.float64)
            power *= power
    return sums * np.exp(EXPONENTS * np.float64(largest))
