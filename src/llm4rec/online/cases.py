"""Events that are asked for after what their people had done before, and what a step foresees of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from torch import Tensor

from llm4rec.data.events import EventLog
from llm4rec.model.network import Network, Offer
from llm4rec.online.reliability import FLOOR
from llm4rec.types import Bools, Floats, Ints


@dataclass(frozen=True)
class Cases:
    """Stretches of history in which some events are asked for.

    Attributes:
        log: a row per stretch that is read [b].
        first: whether the stretch begins with the person's first event [b].
        weights: of every event as a target [e]; 0 where it is only read.
        index: place of each event that is asked for in the arrays of the log, ascending [p].
        asked: which of the events given it is [p].
        against: whether each speaks against its item [e]; empty where none does.
    """

    log: EventLog
    first: Bools
    weights: Floats
    index: Ints
    asked: Ints
    against: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))

    @property
    def opposing(self) -> Bools:
        """Which of what is asked for speaks against its item [p]."""
        return self.against[self.index] if len(self.against) else np.zeros(len(self.index), dtype=np.bool_)


def cases(known: EventLog, events: pl.DataFrame, weights: Floats, most: int, together: int) -> Cases:
    """Ask for events in the histories that hold them.

    Args:
        known: the histories of their people.
        events: with the columns of `reservoir.SCHEMA` [n]. One whose history does not hold it is left out,
            and one that lies so far before another of the same stretch that it is not read.
        weights: above 0 [n].
        most: the most events that a stretch reads before the last that is asked for.
        together: the first so many events share a stretch where they are of one person; the others have one
            each.
    """
    rows, places = _places(known, events)
    found = np.flatnonzero(places >= 0)
    # a key per stretch: the person, or the event itself
    keys = np.where(found < together, rows[found], known.n_users + found)
    _, stretch = np.unique(keys, return_inverse=True)
    n_rows = int(stretch.max(initial=-1)) + 1
    last = np.zeros(n_rows, dtype=np.int64)
    np.maximum.at(last, stretch, places[found])
    owner = np.zeros(n_rows, dtype=np.int64)
    owner[stretch] = rows[found]
    log = known.histories(owner, last + 1, most + 1)
    begin = last + 1 - log.lengths
    inside = places[found] - begin[stretch]
    read = (inside > 0) | ((inside == 0) & (begin[stretch] == 0))
    index = (log.offsets[:-1][stretch] + inside)[read]
    index, unique = np.unique(index, return_index=True)
    marked = np.zeros(log.n_events, dtype=np.float32)
    asked = found[read][unique]
    marked[index] = weights[asked]
    return Cases(log, begin == 0, marked, index, asked)


def _places(known: EventLog, events: pl.DataFrame) -> tuple[Ints, Ints]:
    """The row of each event's person and the event's place in it [n]; −1 where it is not there."""
    row_of = known.row_of
    owners = np.array([row_of.get(name, -1) for name in events["user_id"].to_list()], dtype=np.int64)
    found = np.full(events.height, -1, dtype=np.int64)
    items, times = events["item"].to_numpy(), events["time"].to_numpy()
    for number, row in enumerate(owners.tolist()):
        if row < 0:
            continue
        part = slice(known.offsets[row], known.offsets[row + 1])
        same = known.items[part] == items[number]
        if known.times is not None:
            same &= known.times[part] == times[number]
        if same.any():
            found[number] = int(np.flatnonzero(same)[-1])
    return owners, found


@dataclass
class Foresight:
    """Notes what a step foresees before it changes anything, and doubts what is hardly likely.

    Attributes:
        n_items: catalogue size.
        vectors: gives vectors of some items.
        carried: what their logits carry [i]; None for nothing.
        doubted: which of what is asked for may be doubted [p].
        doubt: how far above the last place of all an item has to stand to be believed wholly, as a lead.
        losses: −log p of each (nats) [p]; where negatives are sampled, an estimate.
        leads: 2 · (share of the scored items below it) − 1 [p].
        likely: what each counts for [p].
        low: how far below the mean the rating head sees each, from −1 to 1 [p]; empty without that head.
    """

    n_items: int
    vectors: Callable[[Tensor], Tensor]
    carried: Tensor | None
    doubted: Tensor
    doubt: float
    losses: Tensor = field(default_factory=lambda: torch.zeros(0))
    leads: Tensor = field(default_factory=lambda: torch.zeros(0))
    likely: Tensor = field(default_factory=lambda: torch.ones(0))
    low: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __call__(self, network: Network, states: Tensor, offer: Offer, items: Tensor) -> Tensor:
        with torch.no_grad():
            logits = network.head(states, offer.vectors)
            every = len(offer.items) == self.n_items
            wanted = offer.vectors[items] if every else self.vectors(items)
            if network.pointwise is not None:
                self.low = -network.pointwise(states, wanted).tanh()
            prepared, wanted = network.head.prepared(states, wanted)
            own = (prepared * wanted).sum(dim=1)
            if self.carried is not None:
                logits = logits + self.carried[offer.items]
                own = own + self.carried[items]
            among = math.log(self.n_items / len(offer.items))
            self.losses = torch.logsumexp(logits, dim=1) + among - own
            lower = (logits < own.unsqueeze(1)).float().mean(dim=1)
            self.leads = 2 * lower - 1
            self.likely = torch.where(self.doubted, likely(self.leads, self.doubt), 1.0)
        return self.likely


def likely(leads: Tensor, doubt: float) -> Tensor:
    """What events count for by where their items would have stood [p], a part of quality, equation (28).

    An event whose item stood last of all is worth next to nothing, one that stood `doubt` above that as much
    as any: between a mistake, a false event and a taste that turned wholly over night the first two are the
    likelier, and a taste that turns is believed as soon as its first events have been.

    Args:
        leads: from −1 to 1 [p].
        doubt: from 0, where each counts alike, to 2.
    """
    return ((1 + leads) / doubt).clamp(FLOOR, 1) if doubt else torch.ones_like(leads)


@dataclass
class Drawing:
    """Draws an item of what is foreseen.

    Attributes:
        seed: of the draw.
        item: what was drawn for the first state; −1 where its logits are no finite numbers.
    """

    seed: int
    item: int = -1

    def __call__(self, network: Network, states: Tensor, offer: Offer, items: Tensor) -> Tensor:
        logits = network.head(states[:1], offer.vectors)
        if offer.carried is not None:
            logits = logits + offer.carried
        shares = logits.softmax(dim=1)[0]
        if bool(shares.isfinite().all()):
            generator = torch.Generator().manual_seed(self.seed)
            self.item = int(offer.items[torch.multinomial(shares, 1, generator=generator)])
        return torch.ones(len(items))
