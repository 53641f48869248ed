"""Values that pass between rooms, and the protocols models satisfy.

Shape legend of the whole package: `b` batch, `t` time, `i` items, `m` modalities, `l` code levels,
`d` embedding, `v` vocabulary. `item_id` and `user_id` are outside names (strings); `item` and `user`
are dense numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llm4rec.data.events import EventLog

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Array = NDArray[Any]


@dataclass(frozen=True)
class Context:
    """The circumstances of a request; what is not known is None and changes nothing.

    `time` is when it is asked, in UTC seconds.
    """

    time: int | None = None


@dataclass(frozen=True)
class Query:
    """One request: who asks, what they did, what they wish for, and in which circumstances.

    `history` is oldest first. `timestamps` (UTC seconds) and `ratings` run along it where known.
    `text` is a free-text wish. `exclude` names items that must not come back, `allow` the only ones that
    may (None: all). `where` names categorical fields of the catalogue and values: an item may come back if
    it has any of the values of each field. `more` and `less` are pairs of such a field and a value that are
    wanted more or less of this once, whatever the person said of them before.
    """

    history: tuple[str, ...] = ()
    user: str | None = None
    text: str | None = None
    timestamps: tuple[int, ...] | None = None
    ratings: tuple[float, ...] | None = None
    exclude: tuple[str, ...] = ()
    keep_seen: bool = False
    context: Context = Context()
    allow: tuple[str, ...] | None = None
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]], hash=False)
    more: tuple[tuple[str, str], ...] = ()
    less: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ranking:
    """The answer to one query in outside names, best first; a score is a log-probability (nats)."""

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True)
class Feedback:
    """What one person did with one item, as it is told while a model serves.

    Attributes:
        event_id: names the event for good: told again, it is the same event.
        user: the person's outside name.
        item: the item's.
        kind: what they did, such as click, purchase, like or rating.
        value: how much of it, as the stars of a rating; None where the kind says all.
        time: when, in UTC seconds.
    """

    event_id: str
    user: str
    item: str
    kind: str
    value: float | None
    time: int


@dataclass(frozen=True)
class Place:
    """How far a reader of an event log has come.

    Attributes:
        log: the identity of the log.
        position: that of the last event read; 0 before the first.
        reader: the name by which the log knows the reader.
    """

    log: str
    position: int
    reader: str


Reason = Literal["preference", "similarity", "context"]
"""What an explanation is about: what a person often chooses, one thing they chose, or the circumstances."""


@dataclass(frozen=True)
class Evidence:
    """One fact that moved the score of a recommended item.

    Attributes:
        type: an item of the history, a trait that several of its items share, what was retrieved for the
            history, or a circumstance.
        id: where it can be looked up: an item id; `field=value` of the catalogue; the kind of what was
            retrieved and the item it was found by (`memory:50`); `recent_popularity`, `time_of_asking`,
            `wish` or `correction`.
        label: what to call it when speaking to a person.
        contribution: what it adds to the item's log-probability (nats). Facts overlap: what was retrieved is
            part of what the item it was found by adds, and so are the items that share a trait.
    """

    type: Literal["history_item", "aspect", "retrieved", "context"]
    id: str
    label: str
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Why an item was recommended, equations (24) and (25).

    Attributes:
        text: for a person; it says nothing that `evidence` does not.
        kind: the reason that weighs most.
        evidence: what moved the score, what moved it most first.
        weights: w of equation (24), from 0 to 1, their sum 1.
    """

    text: str
    kind: Reason
    evidence: tuple[Evidence, ...]
    weights: Mapping[Reason, float]


@dataclass(frozen=True)
class Preference:
    """What a person is expected to choose more of than others do, equation (19).

    Attributes:
        field: of the catalogue.
        value: of that field.
        share: of what they choose next, p_u,k; with what they said of it, p'_u,k of equation (31).
        usual: the same of everybody.
        evidence: items of their history that it comes from, what adds most to log p_u,k (nats) first.
        corrected: what they said that they want of it; None where they said nothing.
    """

    field: str
    value: str
    share: float
    usual: float
    evidence: tuple[Evidence, ...]
    corrected: Literal["more", "less"] | None = None


@dataclass(frozen=True)
class Rankings:
    """Answers to a batch in dense numbers: `items` [b, n] int64 and `scores` [b, n], best first.

    Where fewer than n legal items exist, the tail holds item -1 and score -inf.
    """

    items: Ints
    scores: Floats


class Recommends(Protocol):
    """What an evaluation needs of a model, ours and every baseline alike."""

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        """The best n of the whole catalogue for each row of `histories`, seen items left out."""
        ...


class Progress(Protocol):
    """Told how far a long piece of work has come; `figures` are shown beside it (loss, metric)."""

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None: ...


def silent(stage: str, done: int, total: int, **figures: float) -> None:
    """A `Progress` that shows nothing."""
