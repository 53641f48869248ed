"""The repository: what of the data set is retrieved for a history (equations 7 and 8)."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from pydantic import Field as Option

from llm4rec.config import Section
from llm4rec.data.events import EventLog
from llm4rec.errors import InputError
from llm4rec.retrieve.entries import FACTORS, KINDS, Asked, Entries, Factor, Kind, Retriever, joined
from llm4rec.types import Bools, Ints


class RetrieveConfig(Section):
    """What is retrieved beside the model (section `retrieve`)."""

    enabled: bool = Option(
        default=True, description="Whether retrieval is tried; validation decides whether it stays."
    )
    anchors: int = Option(
        default=4, ge=1, description="Newest items of a history that entries are found by [items]."
    )
    fading: float = Option(
        default=0.6, gt=0, le=1, description="What each older anchor weighs beside the next newer one."
    )
    neighbours: int = Option(
        default=200,
        ge=1,
        description="Other items that one item finds by meaning, and as many by words, per kind of entry.",
    )
    memories: int = Option(
        default=1000, ge=0, description="Newest memories that one item finds; 0 leaves them out [events]."
    )
    attention: bool = Option(
        default=True,
        description="Whether attention to what is retrieved is tried; validation decides whether it stays.",
    )
    prompt: int = Option(
        default=0,
        ge=0,
        le=64,
        description="Names of retrieved items (their first text field) that a pretrained backbone reads in "
        "words before a history, where validation gains by it; 0 leaves it out [items].",
    )
    kinds: tuple[Kind, ...] | None = Option(
        default=None,
        min_length=1,
        description="Kinds of entries tried, of item_text, similar_item, review, tag and memory; all that "
        "the data has where not given.",
    )
    factors: tuple[Factor, ...] | None = Option(
        default=None,
        min_length=1,
        description="Terms of equation (9) tried, of semantic, temporal, quality and overlap; all that the "
        "data has where not given.",
    )

    def tried(self, *, kinds: Container[str], clock: bool, rated: bool) -> Bools:
        """Which factors [kind, factor] get a weight, in the order of `KINDS` and `FACTORS`.

        Args:
            kinds: those that there are entries of.
            clock: whether events have times.
            rated: whether events or reviews have ratings.

        Raises:
            InputError: where one that is asked for can't be had from such data.
        """
        lacking: dict[str, str] = {kind: need for kind, need in _NEEDS.items() if kind not in kinds}
        lacking |= {"memory": "retrieve.memories above 0"} if not self.memories else {}
        lacking |= {"temporal": "the time of every event"} if not clock else {}
        lacking |= {"quality": "ratings"} if not rated else {}
        for asked in (*(self.kinds or ()), *(self.factors or ())) if self.enabled else ():
            if (lack := lacking.get(asked)) is not None:
                raise InputError(
                    f"retrieve can't weigh {asked!r}: that needs {lack}, and the data has none. "
                    "Leave it out of retrieve.kinds or retrieve.factors."
                )
        wanted = np.array([each in (self.kinds or KINDS) and each not in lacking for each in KINDS])
        factors = np.array([each in (self.factors or FACTORS) and each not in lacking for each in FACTORS])
        return wanted[:, None] & factors


_NEEDS: dict[Kind, str] = {
    "item_text": "items with features",
    "similar_item": "items",
    "review": "reviews",
    "tag": "tags",
    "memory": "events",
}


RECENT = 256
"""Histories whose entries are kept at hand: as many as are answered at once."""


@dataclass(frozen=True)
class Repository:
    """Where entries come from.

    Attributes:
        retrievers: what finds the entries of each kind that there are.
        config: how much is retrieved.
    """

    retrievers: Mapping[Kind, Retriever]
    config: RetrieveConfig

    def only(self, kinds: Container[Kind]) -> Repository:
        """The same with entries of some kinds."""
        return Repository(
            {kind: each for kind, each in self.retrievers.items() if kind in kinds}, self.config
        )

    def retrieve(self, histories: EventLog, row: int) -> Entries:
        """The entries for one history; nothing in them is later than its time of asking, or its last event.

        Items of the history itself are not spoken for.
        """
        times = None
        if histories.times is not None:
            times = histories.times[histories.offsets[row] : histories.offsets[row + 1]].tobytes()
        owner, now = str(histories.user_ids[row]), _now(histories, row)
        return self._found(histories.history(row).tobytes(), times, owner, now)

    @cached_property
    def _found(self) -> Callable[[bytes, bytes | None, str, int | None], Entries]:
        """What was found lately, for attention and relevance ask one after the other."""
        return lru_cache(RECENT)(self._find)

    def _find(self, items: bytes, moments: bytes | None, owner: str, now: int | None) -> Entries:
        history = np.frombuffer(items, dtype=np.int64)
        anchors, places = _newest(history, self.config.anchors)
        weights = (np.float32(self.config.fading) ** np.arange(len(anchors))).astype(np.float32)
        times = None if moments is None else np.frombuffer(moments, dtype=np.int64)[places]
        asked = Asked(anchors, weights, times, owner, now)
        found = joined([each.entries(asked) for each in self.retrievers.values()])
        return found.only(np.flatnonzero(~np.isin(found.items, history)))


def _newest(history: Ints, most: int) -> tuple[Ints, Ints]:
    """The newest different items of a history and the places of their last events, newest first."""
    items, first = np.unique(history[::-1], return_index=True)
    order = np.argsort(first)[:most]
    return items[order], len(history) - 1 - first[order]


def _now(histories: EventLog, row: int) -> int | None:
    """When a history is asked, else its last event [UTC seconds]; None where neither is known."""
    if histories.asked_at is not None and histories.asked_at[row] >= 0:
        return int(histories.asked_at[row])
    start, end = histories.offsets[row], histories.offsets[row + 1]
    if histories.times is None or end == start or histories.times[end - 1] < 0:
        return None
    return int(histories.times[end - 1])
