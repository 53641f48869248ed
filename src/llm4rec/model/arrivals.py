"""Items that training has not seen: how often they were taken since, beside what their content promises.

log p(c | history) = log p_content(c | history) + log((n_c + 1) / (e_c + 1)) + constant

n_c counts the events on item c after its first, and e_c how many its content alone would have had of all
events since: their number times the mean probability of c. This is the mean rate of a Poisson process whose
prior is worth one expected event (a Gamma of mean 1), relative to what content says: who nobody has taken
stays as its content has it, and what is known of a person's taste stays too.

Source: empirical Bayes for relative risks, Clayton and Kaldor, Biometrics 43 (1987).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.model.lifts import lift
from llm4rec.types import Array, Floats, Ints

PRIOR_EVENTS = 1.0
"""Expected events that content is worth."""


@dataclass(frozen=True)
class Arrivals:
    """What the counts add to the log-scores of some items.

    Attributes:
        items: their numbers, ascending [n].
        lifts: what is added to the log-score of each (nats) [n].
    """

    items: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lifts: Floats = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def add(self, log_scores: Floats) -> Floats:
        """Log-scores [b, i] with the lifts."""
        if not len(self.items):
            return log_scores
        found = log_scores.copy()
        for scores in found:
            lift(scores, self.items, self.lifts)
        return found

    def tensors(self) -> dict[str, Array]:
        """The arrays of an artefact; `from_tensors` reads them."""
        return {"items": self.items, "lifts": self.lifts}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array], n_items: int) -> Arrivals:
        """What `tensors` gave, for a catalogue of `n_items`.

        Raises:
            ValueError: saying what is wrong with the arrays.
        """
        found = cls(**arrays)
        if found.items.dtype != np.int64 or (np.diff(found.items, prepend=-1, append=n_items) <= 0).any():
            raise ValueError(f"items does not name different ones of the {n_items} items, ascending")
        if found.lifts.shape != found.items.shape or not np.isfinite(found.lifts).all():
            raise ValueError("lifts are not finite, or not as many as items")
        return found


def count(log: EventLog, new: Ints, promised: Array) -> Arrivals:
    """What a log of events since training says of `new` items.

    Args:
        log: events with times.
        new: items training has not seen, ascending [n].
        promised: the mean probability of each as the next event by its content alone [n].

    Raises:
        ClockError: if the log has only an order within each person.
    """
    clock = np.sort(log.clock)
    on_new = np.isin(log.items, new)
    place, times = np.searchsorted(new, log.items[on_new]), log.clock[on_new]
    first = np.full(len(new), np.iinfo(np.int64).max)
    np.minimum.at(first, place, times)
    # those of the same instant count, all but one: where times are days, an item's first day is one of them
    taken = np.maximum(np.bincount(place, minlength=len(new)) - 1, 0)
    since = np.maximum(len(clock) - np.searchsorted(clock, first) - 1, 0)  # 0 for what nobody has taken
    lifts = np.log((taken + PRIOR_EVENTS) / (since * promised + PRIOR_EVENTS)).astype(np.float32)
    told = lifts != 0
    return Arrivals(new[told], lifts[told])
