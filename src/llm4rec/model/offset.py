"""Popularity that the logits of the dense head carry, so that it learns liking beyond that, equation (15).

P(y | u, i, z) is proportional to exp(s(h, i)) · z_i(t)^γ, z being popularity in the stretch of time of the
event. Training gives the logits γ · log z_i(t): what is popular needs no high s to be likely, and s is left
with what popularity does not explain. A served state is asked in the newest stretch, so its logits carry the
z of that one; dividing by z^γ afterwards (`debias.popularity.strength`) leaves s.

Source: Zhang et al., Causal Intervention for Leveraging Popularity Bias in Recommendation, SIGIR 2021 (PDA).
Unlike there, scores are a softmax over the catalogue, so that log z is added where PDA multiplies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from llm4rec.data.events import EventLog
from llm4rec.types import Array, Bools, Floats, Ints

STRETCHES = 10
"""Stretches of equally many events that a log with times is cut into. Popularity is taken to stand still in
each: fewer would blur what rises and falls, in more of them most items are counted in single events."""


@dataclass(frozen=True)
class Carried:
    """Popularity that served logits carry.

    Attributes:
        power: γ, above 0.
        counts: events per item in the newest stretch, and half an event [i].
    """

    power: float
    counts: Array

    @classmethod
    def of(cls, log: EventLog, n_items: int, power: float) -> Self | None:
        """That of the newest stretch of `log`; None where `power` is 0."""
        return cls(power, _newest_counts(log, n_items)) if power else None

    @cached_property
    def logits(self) -> Tensor:
        """γ · log z [i], around its mean (nats).

        The same for all items it would change no probability, but an index goes by what is far from 0.
        """
        found = torch.from_numpy(_log_shares(self.counts, self.power))
        return found - found.mean()

    def extended(self, n: int) -> Self:
        """With `n` further items that nobody has taken."""
        return replace(self, counts=np.append(self.counts, np.full(n, 0.5)))

    def renewed(self, log: EventLog, seen: Bools) -> Self:
        """Counted in the newest stretch of `log`, but for items that training has not `seen` [i].

        What is known of those is added to their scores as it is (`Arrivals`): it must not come in twice.
        """
        return replace(self, counts=np.where(seen, _newest_counts(log, len(seen)), self.counts))

    def tensors(self) -> dict[str, Array]:
        """What is kept of it, beside the power."""
        return {"counts": self.counts}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array], power: float, n_items: int) -> Self:
        """What `tensors` gave.

        Raises:
            ValueError: where it is not one positive count per item.
        """
        counts = arrays["counts"]
        if counts.shape != (n_items,) or not np.isfinite(counts).all() or (counts <= 0).any():
            raise ValueError(f"the popularity that logits carry is not {n_items} positive counts")
        return cls(power, counts)


@dataclass(frozen=True)
class Offsets:
    """What the logits of targets are given while the dense head is trained; no gradient flows to it.

    Attributes:
        table: γ · log z by stretch and item [k, i] (nats).
        rows: the stretch of each event, or of each target [p].
    """

    table: Tensor
    rows: Tensor

    @classmethod
    def of(cls, log: EventLog, n_items: int, power: float) -> Self | None:
        """Those of every event of `log` as a target [e]; None where `power` is 0."""
        if not power:
            return None
        counts, rows = _counts(log, n_items)
        return cls(torch.from_numpy(_log_shares(counts, power)), torch.from_numpy(rows))

    def of_events(self, events: Tensor) -> Self:
        """Those of some events [p] alone."""
        return replace(self, rows=self.rows[events])

    @property
    def newest(self) -> Tensor:
        """What the logits of all items get in the newest stretch [i]: what they carry when served."""
        return self.table[-1]

    def own(self, items: Tensor) -> Tensor:
        """What the logit of each target's own item gets [p], `items` being those [p]."""
        return self.table[self.rows, items]

    def at(self, items: Tensor) -> Tensor:
        """What the logits of `items` [s] get [p, s]."""
        return self.table[:, items][self.rows]


def _counts(log: EventLog, n_items: int) -> tuple[Array, Ints]:
    """Events per stretch and item, and half an event [k, i], and the stretch of each event [e]."""
    if log.times is None or not log.n_events:
        return np.bincount(log.items, minlength=n_items)[None] + 0.5, np.zeros(log.n_events, dtype=np.int64)
    # an event at a border is in the later stretch, so that the newest is `debias.popularity.window` = 1 / k
    borders = np.quantile(log.times, np.arange(1, STRETCHES) / STRETCHES)
    rows = np.searchsorted(borders, log.times, side="right")
    counts = np.bincount(rows * n_items + log.items, minlength=STRETCHES * n_items)
    return counts.reshape(STRETCHES, n_items) + 0.5, rows


def _newest_counts(log: EventLog, n_items: int) -> Array:
    """Events per item in the newest stretch alone, and half an event [i], as `_counts` has them last."""
    newest = slice(None)
    if log.times is not None and log.n_events:
        newest = log.times >= log.moment((STRETCHES - 1) / STRETCHES)
    return np.bincount(log.items[newest], minlength=n_items) + 0.5


def _log_shares(counts: Array, power: float) -> Floats:
    return (power * np.log(counts / counts.sum(axis=-1, keepdims=True))).astype(np.float32)
