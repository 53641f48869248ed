"""Values that pass between rooms, and the protocols models satisfy.

Shape legend of the whole package: `b` batch, `t` time, `i` items, `m` modalities, `l` code levels,
`d` embedding, `v` vocabulary. `item_id` and `user_id` are outside names (strings); `item` and `user`
are dense numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

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
    it has any of the values of each field.
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


@dataclass(frozen=True)
class Ranking:
    """The answer to one query in outside names, best first; a score is a log-probability (nats)."""

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.item_ids)


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
