"""Recent popularity as a prior: what is said where a history says little.

p(i | history) = (1 − s) · p_network(i | history) + s · p_recent(i). The share s belongs to a class of
history lengths and is the one that makes held-out next items most likely; the window is chosen likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.types import Array, Floats, Ints

BOUNDS = (1, 3, 10)
"""First history lengths of the classes 1, 2, 3; class 0 is the empty history."""
WINDOWS = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Windows tried, as shares of the newest training events."""
SHARES = np.concatenate([[0.0], np.geomspace(0.005, 0.95, 24)])
FEWEST = 20
FEWEST_EVENTS = 500
"""Events a window must hold: fewer say more of chance than of what is popular."""


@dataclass(frozen=True)
class Prior:
    """Log-probabilities of recent popularity [i] and the share of each class of history lengths.

    `floor` is the log-probability of an item without an event, half an event's; None where that is not known.
    """

    log_popularity: Floats
    shares: tuple[float, ...]
    window: float
    floor: float | None = None

    def mix(self, log_scores: Floats, lengths: Ints, items: Ints | None = None) -> Floats:
        """Log-probabilities [b, i] of the mixture, for histories of `lengths` [b] events.

        With `items` [c], `log_scores` and what is returned are of those alone, [b, c].
        """
        popularity = self.log_popularity if items is None else self.log_popularity[items]
        share = np.array(self.shares, dtype=np.float32)[classes(lengths)][:, None]
        with np.errstate(divide="ignore"):
            return np.logaddexp(np.log1p(-share) + log_scores, np.log(share) + popularity)

    @cached_property
    def commonest(self) -> Ints:
        """All items [i], the most popular first; of equal ones the first."""
        return np.argsort(-self.log_popularity, kind="stable")

    def extended(self, n: int) -> Prior:
        """With `n` further items, each given half an event; probabilities still sum to 1."""
        floor = float(self.log_popularity.min()) if self.floor is None else self.floor
        more = np.full(n, floor, dtype=np.float32)
        grown = np.float32(np.log1p(n * np.exp(floor)))
        popularity = np.concatenate([self.log_popularity, more]) - grown
        return replace(self, log_popularity=popularity, floor=floor - float(grown))


def classes(lengths: Ints) -> Ints:
    """Class of each history length."""
    return np.searchsorted(np.array(BOUNDS), lengths, side="right")


def windows(n_events: int) -> tuple[float, ...]:
    """The windows worth trying on a log of that size; the whole log is always one."""
    return tuple(window for window in WINDOWS if window == 1 or window * n_events >= FEWEST_EVENTS)


def recent_popularity(log: EventLog, n_items: int, window: float) -> Floats:
    """Recent popularity as log p [i], from the newest `window` share of events.

    Half an event is added to each item, so that none is impossible.
    Without a clock the newest are each person's last.
    """
    counts = _recent_counts(log, n_items, window)
    return np.log(counts / counts.sum()).astype(np.float32)


def _recent_counts(log: EventLog, n_items: int, window: float) -> Array:
    """Events per item [i] in the window, and half an event."""
    if log.times is not None:
        newest = (
            log.times >= np.quantile(log.times, 1 - window) if window < 1 else np.ones(log.n_events, bool)
        )
    else:
        left = np.repeat(log.offsets[1:], log.lengths) - np.arange(log.n_events)
        newest = left <= np.ceil(window * np.repeat(log.lengths, log.lengths))
    return np.bincount(log.items[newest], minlength=n_items) + 0.5


def fit_prior(log: EventLog, n_items: int, targets: Ints, lengths: Ints, log_probability: Array) -> Prior:
    """Choose window and shares by the likelihood of held-out next items.

    Args:
        log: training events.
        n_items: catalogue size.
        targets: the held-out items [c].
        lengths: history lengths [c].
        log_probability: the network's log-probability of each target [c].

    A class seen in fewer than 20 cases takes the share of the next longer one, an empty history at
    least an even share: nothing was held out to learn it from.
    """
    best: tuple[float, Prior] | None = None
    for window in windows(log.n_events):
        popularity = recent_popularity(log, n_items, window)
        total, shares = 0.0, [0.0] * (len(BOUNDS) + 1)
        for number in range(len(BOUNDS), -1, -1):
            chosen = classes(lengths) == number
            if chosen.sum() < FEWEST:
                longer = shares[number + 1] if number < len(BOUNDS) else 0.0
                shares[number] = longer if number else max(longer, 0.5)
                continue
            model, prior = log_probability[chosen], popularity[targets[chosen]]
            with np.errstate(divide="ignore"):
                likely = [np.logaddexp(np.log1p(-s) + model, np.log(s) + prior).sum() for s in SHARES]
            shares[number] = float(SHARES[int(np.argmax(likely))])
            total += float(np.max(likely))
        if best is None or total > best[0]:
            floor = float(np.log(0.5 / _recent_counts(log, n_items, window).sum()))
            best = (total, Prior(popularity, tuple(shares), window, floor))
    assert best is not None  # the whole log was tried
    return best[1]
