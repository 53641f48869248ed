"""Recent popularity as a prior: what is said where a history says little.

p(i | history) = (1 − s) · p_network(i | history) + s · p_recent(i). The share s and the window of p_recent
belong to a class of history lengths. They are those that make held-out next items most likely, unless
others rank these items higher by more than three standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.evaluate.protocol import person_means
from llm4rec.evaluate.significance import Gain
from llm4rec.model.lifts import log_add
from llm4rec.types import Array, Bools, Floats, Ints

BOUNDS = (1, 3, 10)
"""First history lengths of the classes 1, 2, 3; class 0 is the empty history."""
WINDOWS = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Windows tried, as shares of the newest training events."""
SHARES = np.concatenate([[0.0], np.geomspace(0.005, 0.95, 24), [1.0]])
RANKED = SHARES[[0, 10, 14, 17, 19, 21, 22, 23, 24, 25]]
"""Shares tried by how high they rank, which costs the catalogue for each."""
TOP = 10
FEWEST = 20
SURE = 3.0
"""Standard errors by which another choice has to be better: it is the best of fifty."""
MOST_RANKED = 500
"""Cases of a class that are ranked at each window and share."""
FEWEST_EVENTS = 500
"""Events a window must hold: fewer say more of chance than of what is popular."""


@dataclass(frozen=True)
class Prior:
    """Recent popularity and its share, for each of the k classes of history lengths.

    Attributes:
        log_popularity: log-probabilities [k, i].
        shares: of the prior in the mixture [k].
        windows: shares of the newest events that popularity was counted in [k].
        floors: log-probability of an item without an event, half an event's [k]; None where not known.
    """

    log_popularity: Floats
    shares: tuple[float, ...]
    windows: tuple[float, ...]
    floors: tuple[float, ...] | None = None

    def mix(self, log_scores: Floats, lengths: Ints, items: Ints | None = None) -> Floats:
        """Log-probabilities [b, i] of the mixture, for histories of `lengths` [b] events.

        With `items` [c], `log_scores` and what is returned are of those alone, [b, c].
        """
        of_row = classes(lengths)
        popularity = self.log_popularity if items is None else self.log_popularity[:, items]
        share = np.array(self.shares, dtype=np.float32)[of_row][:, None]
        with np.errstate(divide="ignore"):
            return log_add(np.log1p(-share) + log_scores, np.log(share) + popularity[of_row])

    def commonest(self, length: int) -> Ints:
        """All items [i], for a history of that length the most popular first; of equal ones the first."""
        number = int(classes(np.array(length)))
        if number not in self._orders:
            self._orders[number] = np.argsort(-self.log_popularity[number], kind="stable")
        return self._orders[number]

    @cached_property
    def _orders(self) -> dict[int, Ints]:
        """Class → its items in that order, of those asked for: sorting a large catalogue takes a while."""
        return {}

    def extended(self, n: int) -> Prior:
        """With `n` further items, each given half an event; probabilities still sum to 1."""
        floors = np.array(self.log_popularity.min(axis=1) if self.floors is None else self.floors)
        more = np.repeat(floors[:, None].astype(np.float32), n, axis=1)
        grown = np.log1p(n * np.exp(floors)).astype(np.float32)
        popularity = np.concatenate([self.log_popularity, more], axis=1) - grown[:, None]
        return replace(self, log_popularity=popularity, floors=tuple((floors - grown).tolist()))

    def counted(self, log: EventLog) -> Prior:
        """The same shares and windows, popularity counted anew in `log`."""
        n_items = self.log_popularity.shape[1]
        counts = {window: _recent_counts(log, n_items, window) for window in dict.fromkeys(self.windows)}
        popularity = {window: np.log(each / each.sum()).astype(np.float32) for window, each in counts.items()}
        floors = tuple(float(np.log(0.5 / counts[window].sum())) for window in self.windows)
        of_class = np.stack([popularity[window] for window in self.windows])
        return replace(self, log_popularity=of_class, floors=floors)


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
        newest = log.times >= log.moment(1 - window) if window < 1 else np.ones(log.n_events, bool)
    else:
        left = np.repeat(log.offsets[1:], log.lengths) - np.arange(log.n_events)
        newest = left <= np.ceil(window * np.repeat(log.lengths, log.lengths))
    return np.bincount(log.items[newest], minlength=n_items) + 0.5


class Trial:
    """Held-out next items, asked of the network and of popularity in every window.

    Args:
        log: training events.
        n_items: catalogue size.
        targets: the held-out items [c].
        lengths: history lengths [c].
        people: who each case is of [c].
    """

    def __init__(self, log: EventLog, n_items: int, targets: Ints, lengths: Ints, people: Ints) -> None:
        self.log, self.targets, self.classes, self.people = log, targets, classes(lengths), people
        self.windows = windows(log.n_events)
        self.popularity = np.stack([recent_popularity(log, n_items, window) for window in self.windows])
        self._recent = np.exp(self.popularity)
        self.likely = np.full(len(targets), np.nan, dtype=np.float32)
        self.ndcg = np.full((len(targets), len(self.windows), len(RANKED)), np.nan, dtype=np.float32)
        self.ranked = np.zeros(len(targets), dtype=bool)
        for number in range(len(BOUNDS) + 1):
            members = np.flatnonzero(self.classes == number)
            spread = np.linspace(0, len(members) - 1, min(len(members), MOST_RANKED)).astype(np.int64)
            self.ranked[members[spread]] = True

    def ask(self, cases: Ints, log_scores: Floats, unseen: Bools) -> None:
        """Take the network's log-probabilities [b, i] of some cases [b]; `unseen` [b, i] may be ranked."""
        targets = self.targets[cases]
        self.likely[cases] = log_scores[np.arange(len(cases)), targets]
        for row in np.flatnonzero(self.ranked[cases]):  # all of them at once would fill the memory
            if unseen[row, targets[row]]:
                self.ndcg[cases[row]] = _ndcg(log_scores[row], self._recent, targets[row], unseen[row])
            else:
                self.ndcg[cases[row]] = 0

    def prior(self) -> Prior:
        """The prior whose windows and shares suit the cases.

        A class seen in fewer than 20 cases takes the choice of the next longer one, an empty history at
        least an even share: nothing was held out to learn it from.
        """
        number_of_classes = len(BOUNDS) + 1
        chosen, shares = [0] * number_of_classes, [0.0] * number_of_classes
        for number in range(number_of_classes - 1, -1, -1):
            members = np.flatnonzero(self.classes == number)
            if len(members) >= FEWEST:
                chosen[number], shares[number] = self._best(members)
                continue
            if number < number_of_classes - 1:
                chosen[number], shares[number] = chosen[number + 1], shares[number + 1]
            if number == 0:
                shares[0] = max(shares[0], 0.5)
        used = tuple(self.windows[window] for window in chosen)
        return Prior(self.popularity[chosen], tuple(shares), used).counted(self.log)

    def _best(self, members: Ints) -> tuple[int, float]:
        """Number of the window and share for these cases [m].

        Likelihood is sure of its choice from few cases. But a network that is certain and wrong leads
        the list of a mixture however small its share; so by NDCG@10 another choice wins that is better
        by more than `SURE` standard errors of the difference.
        """
        model = self.likely[members]
        with np.errstate(divide="ignore"):
            likely = np.stack([
                np.logaddexp(np.log1p(-s) + model, np.log(s) + self.popularity[:, self.targets[members]])
                for s in SHARES
            ]).sum(axis=-1)  # [s, w]
        share, window = np.unravel_index(int(np.argmax(likely)), likely.shape)
        ndcg = self.ndcg[members[self.ranked[members]]]
        nearest = int(np.argmin(np.abs(RANKED - SHARES[share])))
        better, higher = np.unravel_index(int(np.argmax(ndcg.mean(axis=0))), ndcg.shape[1:])
        gain = ndcg[:, better, higher] - ndcg[:, window, nearest]
        if Gain.of(person_means(gain, self.people[members[self.ranked[members]]])).exceeds(SURE):
            return int(better), float(RANKED[higher])
        return int(window), float(SHARES[share])


def _ndcg(network: Floats, popularity: Floats, target: int, unseen: Bools) -> Floats:
    """NDCG@10 [w, s] of one target, for every window and share.

    Args:
        network: log-probabilities [i].
        popularity: probabilities [w, i].
        target: the item.
        unseen: [i]; only these are ranked.
    """
    share = RANKED.astype(np.float32)[:, None]
    of_network = (1 - share) * np.exp(network)
    found = np.empty((len(popularity), len(RANKED)), dtype=np.float32)
    for window, recent in enumerate(popularity):
        mixed = of_network + share * recent
        level = ((mixed >= mixed[:, target, None]) & unseen).sum(axis=1)  # of ties it is the last
        found[window] = np.where(level <= TOP, 1 / np.log2(level + 1), 0)
    return found
