"""A few events that stand for all: what was done before is learnt again beside what is new.

Source: Vitter, Random Sampling with a Reservoir, 1985 (algorithm R). Every draw is seeded by the place of the
event, so that who reads the same events keeps the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from llm4rec.data.events import EventLog
from llm4rec.types import Ints

SCHEMA = {"user_id": pl.String, "item": pl.Int64, "time": pl.Int64}
"""What is kept of an event; its history is looked up when it is needed. −1: no time."""


@dataclass(frozen=True)
class Reservoir:
    """An even sample of a growing sequence of events.

    Attributes:
        events: those kept, with the columns of `SCHEMA` [s].
        most: the most that are kept.
        passed: how many there have been.
        seed: of the draws.
    """

    events: pl.DataFrame
    most: int
    passed: int
    seed: int

    @classmethod
    def of(cls, log: EventLog, most: int, seed: int) -> Reservoir:
        """A sample of the events of a log."""
        rng = np.random.default_rng([seed, 0])
        chosen = np.sort(rng.choice(log.n_events, min(most, log.n_events), replace=False))
        return cls(events_at(log, chosen), most, log.n_events, seed)

    def took(self, events: pl.DataFrame) -> Reservoir:
        """With further events [n], each of which stays with the same chance as any before it."""
        if not events.height or not self.most:
            return self
        places = np.arange(self.events.height)
        known = np.arange(self.events.height + events.height)
        for number in range(events.height):
            passed = self.passed + number
            if len(places) < self.most:
                places = np.append(places, self.events.height + number)
                continue
            place = int(np.random.default_rng([self.seed, 1, passed]).integers(passed + 1))
            if place < self.most:
                places[place] = known[self.events.height + number]
        every = pl.concat([self.events, events.select(*SCHEMA)])
        return Reservoir(every[places], self.most, self.passed + events.height, self.seed)

    def drawn(self, n: int, step: int) -> pl.DataFrame:
        """At most n of them, drawn for a step."""
        rng = np.random.default_rng([self.seed, 2, step])
        return self.events[self.places(n, rng)]

    def places(self, n: int, rng: np.random.Generator) -> Ints:
        """Different places of at most n of them, ascending."""
        return np.sort(rng.choice(self.events.height, min(n, self.events.height), replace=False))

    def without(self, user: str) -> Reservoir:
        """Without the events of a person."""
        return Reservoir(self.events.filter(pl.col("user_id") != user), self.most, self.passed, self.seed)


def events_at(log: EventLog, places: Ints) -> pl.DataFrame:
    """Some events of a log [n], with the columns of `SCHEMA`."""
    return pl.DataFrame(
        {
            "user_id": log.user_ids[log.rows[places]],
            "item": log.items[places],
            "time": np.full(len(places), -1) if log.times is None else log.times[places],
        },
        schema=SCHEMA,
    )
