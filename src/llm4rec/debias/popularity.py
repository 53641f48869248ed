"""Popularity as a confounder, taken out of the scores by the back door, equation (15).

What is popular is shown more, and what is shown is taken more, whatever a person likes. Given item and time
popularity is fixed, so P(Y | u, i, z) can't be compared over z without a model of it. The separable one is
assumed: P(Y | u, i, z) = f(u, i) · z^γ. Then P(Y | u, do(i)) = f(u, i) · E[z^γ], and E[z^γ] is the same
for every item, so lists are ordered by f alone: by log p(i | history) − γ · log z_i. Where popularity says
something of liking too (it is also quality), γ takes more than the bias; hence a strength that is chosen.

Source: Zhang et al., Causal Intervention for Leveraging Popularity Bias in Recommendation, SIGIR 2021 (PDA).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from pydantic import Field as Option
from pydantic import model_validator

from llm4rec.config import Section
from llm4rec.data.events import EventLog
from llm4rec.errors import InputError
from llm4rec.types import Array, Floats, Ints

STRENGTHS = (0.0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""What is tried where validation chooses."""


class PopularityConfig(Section):
    """How much of popularity is taken out of the scores (section `debias.popularity`)."""

    strength: float = Option(
        default=0.0,
        ge=0,
        le=1,
        description="γ: the power of popularity that probabilities are divided by; 0 leaves them.",
    )
    choose: bool = Option(
        default=False,
        description="Let validation choose the strength instead: the largest up to which none costs more "
        "than `cost`, its 95% interval included.",
    )
    cost: float = Option(
        default=0.02,
        gt=0,
        lt=1,
        description="Share of NDCG@10 on validation that a chosen strength may cost at most.",
    )
    window: float = Option(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the newest events that popularity is counted in, where they have times.",
    )
    expected: bool = Option(
        default=False,
        description="Put the popularity that is expected next in the place of today's, instead of leaving it "
        "out: what is on the rise gains. Needs times, and a window of at most 0.5, which is compared with "
        "the one before it.",
    )
    training: float = Option(
        default=0.0,
        ge=0,
        le=1,
        description="Power of popularity that the dense head's logits are given while it is trained, so that "
        "it learns liking beyond that. They carry it when served, too, and `strength` takes it out. Counted "
        "in the tenth of the events, in time, that the predicted one falls in; in all where they have no "
        "times. The loss of a code head (`generate.mode`) stays as it is. Needs model.cosine.",
    )

    @model_validator(mode="after")
    def _has_two_windows(self) -> Self:
        if self.expected and self.window > 0.5:
            raise ValueError(
                "debias.popularity.expected compares two windows, so debias.popularity.window has to be 0.5 "
                "at most"
            )
        return self


@dataclass(frozen=True)
class Popularity:
    """How often items were taken, and how much of it is taken out of the scores.

    Attributes:
        strength: γ, at which 0 is the identity.
        counts: events per item, and half an event [i].
        expected: the same of the stretch that follows [i]; None where popularity is left out.
    """

    strength: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(0))
    expected: Array | None = None

    @classmethod
    def of(cls, log: EventLog, n_items: int, config: PopularityConfig) -> Self:
        """Popularity in the newest events of `log`, or in all of it where it has no clock.

        The strength is that of `config`, 0 where that is to be chosen.

        Raises:
            InputError: where popularity is to be expected and there are no times.
        """
        if config.expected and log.times is None:
            raise InputError(
                "debias.popularity.expected needs to know when things happened, and the events have no "
                "times. Set it to false, or give times."
            )
        strength = 0.0 if config.choose else config.strength
        if log.times is None or not log.n_events:
            return cls(strength, _counts(log.items, n_items))
        start, middle = log.moment(max(1 - 2 * config.window, 0.0)), log.moment(1 - config.window)
        now = _counts(log.items[log.times >= middle], n_items)
        if not config.expected:
            return cls(strength, now)
        before = _counts(log.items[(log.times >= start) & (log.times < middle)], n_items)
        before *= now.sum() / before.sum()
        return cls(strength, now, np.maximum(2 * now - before, 0.5))

    @property
    def known(self) -> bool:
        """Whether items were counted; a model of an earlier version has no counts."""
        return len(self.counts) > 0

    def at(self, strength: float) -> Self:
        """The same popularity with another strength."""
        return replace(self, strength=strength)

    def extended(self, n: int) -> Self:
        """With `n` further items that nobody has taken."""
        if not self.known:
            return self
        more = np.full(n, 0.5)
        expected = None if self.expected is None else np.append(self.expected, more)
        return replace(self, counts=np.append(self.counts, more), expected=expected)

    def counted(self, items: Ints, of: Ints) -> Self:
        """With further events on `items` [e], as far as they are among `of` [n], which had none before."""
        if not self.known:
            return self
        counts = self.counts.copy()
        counts[of] = np.bincount(items, minlength=len(counts))[of] + 0.5
        return replace(self, counts=counts)

    def adjust(self, log_scores: Floats, items: Ints | None = None) -> Floats:
        """Log-probabilities [b, i] of lists that popularity is taken out of: log p − γ · log z, normalised.

        With `items` [c], `log_scores` and what is returned are of those alone, [b, c]. What the others
        hold of the sum is then estimated as if they were taken in proportion to their popularity.
        """
        if not self.strength:
            return log_scores
        if items is None:
            adjusted = log_scores - self._lifted
            return adjusted - np.logaddexp.reduce(adjusted, axis=1, keepdims=True)
        adjusted = log_scores - self._lifted[items]
        share = np.exp(self._log_share[items], dtype=np.float64)
        others = max(1.0 - share.sum(), 1e-12)
        mean = max(self._mean_divisor - (share * np.exp(-self._lifted[items])).sum(), 0.0) / others
        rest = np.maximum(1 - np.exp(log_scores, dtype=np.float64).sum(axis=1, keepdims=True), 0) * mean
        total = np.exp(adjusted, dtype=np.float64).sum(axis=1, keepdims=True) + rest
        return (adjusted - np.log(total)).astype(np.float32)

    def tensors(self) -> dict[str, Array]:
        """What is kept of it, beside the strength."""
        return {"counts": self.counts} | ({} if self.expected is None else {"expected": self.expected})

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array], strength: float, n_items: int) -> Self:
        """What `tensors` gave.

        Raises:
            ValueError: where the arrays are not one positive count per item.
        """
        counts, expected = arrays["counts"], arrays.get("expected")
        for each in (counts, counts if expected is None else expected):
            if each.shape != (n_items,) or not np.isfinite(each).all() or (each <= 0).any():
                raise ValueError(f"popularity is not {n_items} positive counts")
        if not 0 <= strength <= 1:
            raise ValueError(f"the strength {strength} is not between 0 and 1")
        return cls(strength, counts, expected)

    @cached_property
    def _log_share(self) -> Floats:
        return np.log(self.counts / self.counts.sum()).astype(np.float32)

    @cached_property
    def _lifted(self) -> Floats:
        """γ · log z [i], less the expected where that takes its place (nats)."""
        log_z = self._log_share
        if self.expected is not None:
            log_z = log_z - np.log(self.expected / self.expected.sum()).astype(np.float32)
        return np.float32(self.strength) * log_z

    @cached_property
    def _mean_divisor(self) -> float:
        """Σ_i z_i · exp(−lifted_i)."""
        return float(np.exp(self._log_share.astype(np.float64) - self._lifted).sum())


def _counts(items: Ints, n_items: int) -> Array:
    return np.bincount(items, minlength=n_items) + 0.5
