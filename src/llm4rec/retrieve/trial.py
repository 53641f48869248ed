"""What retrieved entries should weigh: a conditional logit of held-out next items, judged by other people.

Each half of the people is ranked with the weights that the other half's answers chose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from llm4rec.data.events import EventLog
from llm4rec.evaluate.protocol import person_means
from llm4rec.evaluate.significance import Gain
from llm4rec.model.lifts import log_sum
from llm4rec.model.prior import FEWEST, TOP
from llm4rec.retrieve.entries import FACTORS, KINDS, Entries
from llm4rec.retrieve.relevance import Relevance
from llm4rec.retrieve.repository import Repository
from llm4rec.types import Array, Bools, Floats, Ints

GAMMAS = tuple(float(np.log(2) / days) for days in (7, 30, 180, 730))
"""γ tried [1 / day]: half of the temporal relevance is lost in a week, a month, half a year, two years."""
MOST = 3000
"""Cases that are asked at most: what is retrieved for each is held in memory."""
FOLDS = 2
LEAST = 1e-4
"""A weight that adds less than this at the root mean square of its factor is none [nats]."""


class Trial:
    """Held-out next items, asked with what is retrieved for their histories.

    Args:
        repository: where entries come from.
        targets: the held-out items [c].
        people: who each case is of [c].
        tried: which factors may weigh [kind, factor].
    """

    def __init__(self, repository: Repository, targets: Ints, people: Ints, tried: Bools) -> None:
        self.repository, self.targets, self.people, self.tried = repository, targets, people, tried
        self.asked = np.zeros(len(targets), dtype=bool)
        self.asked[np.linspace(0, len(targets) - 1, min(len(targets), MOST)).astype(np.int64)] = True
        self._told: list[_Case] = []

    def ask(self, cases: Ints, log_scores: Floats, histories: EventLog) -> None:
        """Take the log-probabilities [b, i] that some cases [b] have without retrieval."""
        for row, case in enumerate(cases.tolist()):
            history = histories.history(row)
            target = int(self.targets[case])
            if not self.asked[case] or target in history:
                continue
            entries = self.repository.retrieve(histories, row)
            items, values = entries.spoken_for[0], entries.sums(_by_kind(entries))
            self._told.append(_case(log_scores[row], history, target, items, values, int(self.people[case])))

    def chosen(self) -> tuple[Relevance, Gain | None]:
        """The weights that make the cases most likely, and what NDCG@10 gains by such weights.

        For the gain each half of the people is ranked with the weights of the other half. The weights are all
        0 where its mean is not above its standard error, or where there are too few cases to tell, of which
        no gain is known.
        """
        owners = np.array([case.person for case in self._told])
        fold = np.unique(owners, return_inverse=True)[1] % FOLDS
        if len(self._told) < FEWEST or len(np.unique(fold)) < FOLDS:
            return Relevance(), None
        gain = np.zeros(len(owners))
        for number in range(FOLDS):
            of_others = _Stack([case for case, f in zip(self._told, fold, strict=True) if f != number])
            judged = _Stack([case for case, f in zip(self._told, fold, strict=True) if f == number])
            model = _fitted(of_others, self.tried)
            gain[fold == number] = judged.ndcg(model) - judged.ndcg(_Model(model.columns, 0 * model.weights))
        found = Gain.of(person_means(gain, owners))
        if not found.exceeds():
            return Relevance(), found
        best = _fitted(_Stack(self._told), self.tried)
        return Relevance(tuple(map(tuple, best.weights.reshape(len(KINDS), -1).tolist())), best.gamma), found


@dataclass(frozen=True)
class _Case:
    """One case outside its history: the items that are spoken for [j], and all others as one.

    Attributes:
        scores: log-probability of each [j], and of all others together at the end [j + 1] (nats).
        values: the factors of each [j + 1, f], by kind, temporal relevance at each γ; 0 at the end.
        target: place of the right answer in `scores`; the end where nothing speaks for it.
        own: its log-probability.
        best: the highest of the others, but the right answer, descending [≤ 10].
        person: whose case it is.
    """

    scores: Floats
    values: Floats
    target: int
    own: float
    best: Floats
    person: int


@dataclass(frozen=True)
class _Model:
    """Weights of the columns of `_Case.values` that `columns` names."""

    columns: Ints
    weights: Array
    gamma: float = 0.0


def _fitted(stack: _Stack, tried: Bools) -> _Model:
    """The weights, and of the γ tried the one, that make the cases most likely."""
    found = []
    for place, gamma in enumerate(GAMMAS):
        columns = np.array([
            kind * _WIDTH + (len(FACTORS) - 1 + place if factor == "temporal" else _PLAIN.index(factor))
            for kind in range(len(KINDS))
            for factor in FACTORS
        ])
        likely, weights = stack.most_likely(columns, tried.ravel())
        found.append((likely, _Model(columns, weights, gamma)))
    return max(found, key=lambda each: each[0])[1]


_PLAIN = tuple(factor for factor in FACTORS if factor != "temporal")
_WIDTH = len(_PLAIN) + len(GAMMAS)


def _by_kind(entries: Entries) -> Floats:
    """Factors of entries [e, kinds · width]: of each kind all but temporal, then that at each γ tried."""
    plain = entries.factors(GAMMAS[0])[:, [FACTORS.index(factor) for factor in _PLAIN]]
    temporal = np.stack([entries.temporal(gamma) * entries.weights for gamma in GAMMAS], axis=1)
    columns = np.concatenate([plain, temporal], axis=1)
    wide = np.zeros((len(entries), len(KINDS), _WIDTH), dtype=np.float32)
    wide[np.arange(len(entries)), entries.kinds] = columns
    return wide.reshape(len(entries), len(KINDS) * _WIDTH)


def _case(log_scores: Floats, history: Ints, target: int, items: Ints, values: Floats, person: int) -> _Case:
    others = log_scores.copy()
    others[history] = -np.inf
    spoken = others[items]
    others[items] = -np.inf
    rest = log_sum(others)
    others[target] = -np.inf
    top = min(TOP, len(others))
    place = int(np.searchsorted(items, target))
    return _Case(
        scores=np.append(spoken, np.float32(rest)),
        values=np.concatenate([values, np.zeros((1, values.shape[1]), dtype=np.float32)]),
        target=place if place < len(items) and items[place] == target else len(items),
        own=float(log_scores[target]),
        best=np.sort(np.partition(others, -top)[-top:])[::-1],
        person=person,
    )


class _Stack:
    """Cases one after the other."""

    def __init__(self, cases: list[_Case]) -> None:
        lengths = np.array([len(case.scores) for case in cases])
        self.starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.owners = np.repeat(np.arange(len(cases)), lengths)
        self.scores = np.concatenate([case.scores for case in cases]).astype(np.float64)
        self.values = np.concatenate([case.values for case in cases])
        self.targets = self.starts + np.array([case.target for case in cases])
        self.ends = self.starts + lengths - 1
        self.own = np.array([case.own for case in cases])
        self.best = [case.best for case in cases]

    def most_likely(self, columns: Ints, tried: Bools) -> tuple[float, Array]:
        """The largest mean log-probability of the answers that weights ≥ 0 of `columns` reach, and these.

        Those that are not `tried` stay 0.
        """
        values = self.values[:, columns].astype(np.float64)
        scale = np.sqrt(np.square(values).mean(axis=0))
        usable = tried & (scale > 0)
        values = values[:, usable] / scale[usable]
        wanted = values[self.targets]

        def loss(weights: Array) -> tuple[float, Array]:
            scores = self.scores + values @ weights
            top = np.maximum.reduceat(scores, self.starts)
            odds = np.exp(scores - top[self.owners])
            total = np.add.reduceat(odds, self.starts)
            likely = self.own + wanted @ weights - top - np.log(total)
            expected = (odds / total[self.owners]) @ values / len(total)
            return -float(likely.mean()), expected - wanted.mean(axis=0)

        start = np.zeros(values.shape[1])
        if not len(start):
            return -np.inf, np.zeros(len(columns))
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
        weights = np.zeros(len(columns))
        weights[usable] = np.where(found.x < LEAST, 0, found.x) / scale[usable]
        return -float(found.fun), weights

    def ndcg(self, model: _Model) -> Array:
        """NDCG@10 of each case."""
        lifts = self.values[:, model.columns] @ model.weights
        scores, own = self.scores + lifts, self.own + lifts[self.targets]
        ahead = scores >= own[self.owners]
        ahead[self.targets] = False
        ahead[self.ends] = False
        level = np.add.reduceat(ahead.astype(np.int64), self.starts)
        level += np.array([int((best >= mine).sum()) for best, mine in zip(self.best, own, strict=True)])
        return np.where(level < TOP, 1 / np.log2(level + 2.0), 0)
