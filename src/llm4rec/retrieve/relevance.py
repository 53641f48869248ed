"""How relevant retrieved entries are (equations 9 and 10), and what that adds to the items they speak for.

log p(i | history) = log p_before(i | history) + Σ_{c speaks for i} rel(c) + constant,
rel(c) = λ₁ s(c) + λ₂ temporal(c) + λ₃ quality(c) + λ₄ overlap(c)

with weights λ ≥ 0 for each kind of entry. Items of the history get nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.model.lifts import lift
from llm4rec.retrieve.entries import FACTORS, KINDS, Entries, Kind
from llm4rec.retrieve.repository import Repository
from llm4rec.types import Floats, Ints


@dataclass(frozen=True)
class Relevance:
    """The weights of equation (9) for each kind of entry, and γ of equation (10).

    Attributes:
        weights: λ [kind, factor], in the order of `KINDS` and `FACTORS` (nats per unit of the factor).
        gamma: γ [1 / day].
    """

    weights: tuple[tuple[float, ...], ...] = ((0.0,) * len(FACTORS),) * len(KINDS)
    gamma: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything retrieved changes a score."""
        return len(self.kinds) > 0

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds whose entries change a score."""
        return tuple(kind for place, kind in enumerate(KINDS) if self.weighs(place))

    @property
    def ages(self) -> bool:
        """Whether time since an entry changes a score."""
        return any(row[FACTORS.index("temporal")] > 0 for row in self.weights)

    def weighs(self, kind: int) -> bool:
        """Whether entries of a kind, a place in `KINDS`, change a score."""
        return any(weight > 0 for weight in self.weights[kind])

    def without(self, kind: int) -> Relevance:
        """The same with no weight for entries of a kind."""
        nothing = (0.0,) * len(FACTORS)
        weights = (nothing if place == kind else row for place, row in enumerate(self.weights))
        return replace(self, weights=tuple(weights))

    def told(self) -> dict[str, Any]:
        """The same as values JSON can hold; `of` reads them."""
        weights = {
            kind: dict(zip(FACTORS, row, strict=True)) for kind, row in zip(KINDS, self.weights, strict=True)
        }
        return {"weights": {kind: weights[kind] for kind in self.kinds}, "gamma": self.gamma}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Relevance:
        """What `told` gave; a weight that is not named is 0."""
        weights = [
            [float(told["weights"].get(kind, {}).get(factor, 0)) for factor in FACTORS] for kind in KINDS
        ]
        return cls(tuple(map(tuple, weights)), told.get("gamma", 0.0))

    def contributions(self, entries: Entries) -> Floats:
        """What each factor of each entry adds to the score of its item [e, 4] (nats)."""
        return entries.factors(self.gamma) * np.array(self.weights, dtype=np.float32)[entries.kinds]


@dataclass(frozen=True)
class Grounding:
    """Retrieval as a part of the score; without a repository it adds nothing."""

    repository: Repository | None = None
    relevance: Relevance = field(default_factory=Relevance)

    def lifts(self, histories: EventLog, row: int) -> tuple[Ints, Floats]:
        """Items [j], ascending, and what is added to the log-score of each [j], above 0 (nats)."""
        if self.repository is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        entries = self.repository.retrieve(histories, row)
        lifts = entries.sums(self.relevance.contributions(entries).sum(axis=1, keepdims=True))[:, 0]
        moved = lifts > 0
        return entries.spoken_for[0][moved], lifts[moved]

    def add(self, log_scores: Floats, histories: EventLog) -> Floats:
        """Log-scores [b, i] with what was retrieved for each of b histories.

        Probabilities of a row sum to what they summed to before.
        """
        if self.repository is None:
            return log_scores
        found = log_scores.copy()
        for row, scores in enumerate(found):
            lift(scores, *self.lifts(histories, row))
        return found
