"""The repository: what of the data set is retrieved for a history (equations 7 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field as Option

from llm4rec.config import Section
from llm4rec.data.events import EventLog
from llm4rec.errors import InputError
from llm4rec.retrieve.entries import FACTORS, ITEM_TEXT, KINDS, Entries, Factor, Kind, joined
from llm4rec.retrieve.memories import DAY, Memories
from llm4rec.retrieve.texts import ItemTexts
from llm4rec.types import Bools, Floats, Ints


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
        default=200, ge=1, description="Items alike that one item finds by meaning, and as many by words."
    )
    memories: int = Option(default=1000, ge=1, description="Newest memories that one item finds [events].")
    kinds: tuple[Kind, ...] | None = Option(
        default=None,
        min_length=1,
        description="Kinds of entries tried, of item_text and memory; all that the data has where not given.",
    )
    factors: tuple[Factor, ...] | None = Option(
        default=None,
        min_length=1,
        description="Terms of equation (9) tried, of semantic, temporal, quality and overlap; all that the "
        "data has where not given.",
    )

    def tried(self, *, said: bool, clock: bool, rated: bool) -> Bools:
        """Which factors [kind, factor] get a weight, in the order of `KINDS` and `FACTORS`.

        Args:
            said: whether the items have features.
            clock: whether events have times.
            rated: whether events have ratings.

        Raises:
            InputError: where one that is asked for can't be had from such data.
        """
        lacking = {
            "item_text": None if said else "items with features",
            "temporal": None if clock else "the time of every event",
            "quality": None if rated else "ratings",
        }
        for asked in (*(self.kinds or ()), *(self.factors or ())) if self.enabled else ():
            if (lack := lacking.get(asked)) is not None:
                raise InputError(
                    f"retrieve can't weigh {asked!r}: that needs {lack}, and the data has none. "
                    "Leave it out of retrieve.kinds or retrieve.factors."
                )
        kinds = np.array([each in (self.kinds or KINDS) for each in KINDS])
        factors = np.array([each in (self.factors or FACTORS) for each in FACTORS])
        return kinds[:, None] & factors


@dataclass(frozen=True)
class Repository:
    """Where entries come from.

    Attributes:
        texts: what items say about themselves; None where they say nothing.
        memories: what people did; None where it is not remembered.
        config: how much is retrieved.
    """

    texts: ItemTexts | None
    memories: Memories | None
    config: RetrieveConfig

    def retrieve(self, histories: EventLog, row: int) -> Entries:
        """The entries for one history; nothing in them is later than its time of asking, or its last event.

        Items of the history itself are not spoken for.
        """
        history = histories.history(row)
        anchors, places = _newest(history, self.config.anchors)
        weights = (np.float32(self.config.fading) ** np.arange(len(anchors))).astype(np.float32)
        times = None if histories.times is None else histories.times[histories.offsets[row] + places]
        now = _now(histories, row)
        parts = [] if self.texts is None else self._texts(self.texts, anchors, weights, times, now)
        if self.memories is not None:
            parts.append(self.memories.following(anchors, weights, str(histories.user_ids[row]), now))
        found = joined(parts)
        return found.only(~np.isin(found.items, history))

    def _texts(
        self, texts: ItemTexts, anchors: Ints, weights: Floats, times: Ints | None, now: int | None
    ) -> list[Entries]:
        parts: list[Entries] = []
        for place, anchor in enumerate(anchors.tolist()):
            alike = texts.alike(anchor)
            n = len(alike.items)
            age = np.nan if times is None or now is None or times[place] < 0 else (now - times[place]) / DAY
            parts.append(
                Entries(
                    kinds=np.full(n, ITEM_TEXT),
                    items=alike.items,
                    anchors=np.full(n, anchor),
                    sources=alike.items,
                    weights=np.full(n, weights[place]),
                    semantic=alike.meaning,
                    ages=np.full(n, age, dtype=np.float32),
                    quality=np.full(n, np.nan, dtype=np.float32),
                    overlap=alike.words,
                )
            )
        return parts


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
