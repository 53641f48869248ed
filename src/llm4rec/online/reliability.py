"""How far feedback is to be trusted, by its kind and by who gave it, equations (28), (31) and (32).

Before the model learns an event it is asked where the item would have stood: lead = 2 · (share of the
catalogue that scores lower) − 1, which is 1 for the first of all and 0 on average for an item taken at
random. Of what speaks against an item it is how far below the mean the rating head had seen it: people are
shown what stands high, so that where it stands says nothing of a dislike. The
reliability of a kind is the running mean of the leads of its events, and its weight, equation (32), is
proportional to that, the most reliable kind weighing 1. The events of a person weigh less where
their mean lead is less than half that of everybody, and soon next to nothing: tastes that are hard to foresee
are no bad faith, answers at random are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llm4rec.types import Array, Floats

FLOOR = 0.01
"""The least weight of an event: who is not trusted is still listened to, and can be trusted again."""
KIND_PRIOR, KIND_MOST = 32.0, 1_000.0
"""Events that what is expected counts for beside those of a kind, and the most that its mean remembers."""
PERSON_PRIOR, PERSON_MOST = 8.0, 100.0
"""The same of a person."""


@dataclass(frozen=True)
class Mean:
    """A running mean that forgets: of `count` events, as far as they are remembered."""

    value: float
    count: float

    def after(self, value: float, most: float) -> Mean:
        """With one more event, remembering at most as many."""
        count = min(self.count + 1, most)
        return Mean(self.value + (value - self.value) / count, count)


@dataclass
class Reliability:
    """Running means of leads.

    Attributes:
        every: that of all events.
        kinds: by kind of feedback.
        people: by person.
    """

    every: Mean
    kinds: dict[str, Mean] = field(default_factory=dict[str, Mean])
    people: dict[str, Mean] = field(default_factory=dict[str, Mean])

    @classmethod
    def begin(cls, lead: float) -> Reliability:
        """One that expects a mean lead until it has seen events."""
        return cls(Mean(lead, KIND_PRIOR))

    def of_kind(self, kind: str) -> float:
        """The weight w_f of a kind, from 0 to 1, equation (32)."""
        most = max((mean.value for mean in self.kinds.values()), default=0.0)
        return _share(self.kinds.get(kind, self.every).value, most)

    def of_person(self, person: str) -> float:
        """What the events of a person count for beside that, from 0 to 1.

        It is the square of how near their mean lead comes to half that of everybody: by chance alone that of
        who answers at random stands at a tenth or a fifth of it.
        """
        mean = self.people.get(person)
        return 1.0 if mean is None else _share(mean.value, self.every.value / 2) ** 2

    def weights(self, kinds: Sequence[str], people: Sequence[str]) -> Floats:
        """The weight of each event as a target [n], `FLOOR` at least."""
        found = [
            max(self.of_kind(kind) * self.of_person(person), FLOOR)
            for kind, person in zip(kinds, people, strict=True)
        ]
        return np.array(found, dtype=np.float32)

    def of_people(self, people: Sequence[str]) -> Floats:
        """What the events of each of some people count for [n], `FLOOR` at least."""
        return np.array([max(self.of_person(person), FLOOR) for person in people], dtype=np.float32)

    def saw(self, kinds: Sequence[str], people: Sequence[str], leads: Array) -> None:
        """Let events [n] count, in their order, with the lead [n] that each had before it was learnt."""
        for kind, person, lead in zip(kinds, people, leads.tolist(), strict=True):
            known = self.kinds.get(kind, Mean(self.every.value, KIND_PRIOR))
            self.kinds[kind] = known.after(lead, KIND_MOST)
            known = self.people.get(person, Mean(self.every.value, PERSON_PRIOR))
            self.people[person] = known.after(lead, PERSON_MOST)
            self.every = self.every.after(lead, KIND_MOST)

    def spoke_against(self, kinds: Sequence[str], leads: Array) -> None:
        """Let events [n] that speak against items count for their kinds, with their leads [n].

        They say nothing of their people: that somebody dislikes what was seen high is the model's fault.
        """
        for kind, lead in zip(kinds, leads.tolist(), strict=True):
            known = self.kinds.get(kind, Mean(self.every.value, KIND_PRIOR))
            self.kinds[kind] = known.after(lead, KIND_MOST)

    def met(self, people: Sequence[str]) -> None:
        """Know people whose events are not weighed, but judge what others taught."""
        for person in people:
            self.people.setdefault(person, Mean(self.every.value, PERSON_PRIOR))

    def told(self) -> dict[str, dict[str, float]]:
        """Weights and reliabilities of the kinds, for a person to read."""
        return {
            kind: {"reliability": mean.value, "weight": self.of_kind(kind)}
            for kind, mean in sorted(self.kinds.items())
        }


def _share(value: float, of: float) -> float:
    """How much one reliability is of another, from 0 to 1; 1 where there is nothing to compare with."""
    return 1.0 if of <= 0 else float(np.clip(value / of, 0, 1))


def quality(weights: Floats, people: Sequence[str], independence: float) -> float:
    """How much a step may rely on its feedback, equation (28), from 0 to 1.

    It is the mean weight times (n_eff / n)^independence, where n_eff = (Σ_e w_e)² / Σ_u (Σ_{e of u} w_e)² is
    the number of people that would tell as much if each gave one event: thirty events of one sitting are no
    thirty witnesses.

    Args:
        weights: of each event, above 0 [n].
        people: who gave it [n].
        independence: 0 counts every event alike, 1 every person.
    """
    total = float(weights.sum())
    _, owners = np.unique(np.array(people), return_inverse=True)
    shares = np.bincount(owners, weights=weights) / total
    effective = 1 / float(np.square(shares).sum())
    return float(weights.mean()) * (effective / len(weights)) ** independence
