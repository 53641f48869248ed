"""From what moved a score to evidence, and how much each kind of reason weighs (equations 24 and 25).

Of the three amounts (nats) that speak for an item, each 0 where it speaks against it,

- similarity is what its score owes to the one item j* of the history that it owes most to,
- preference what it owes to the other items that share a trait with it, above what it owes to as many of them
  on average, for the trait where that is most,
- context what recent popularity, the time of asking, a wish and what the person said they want more or less
  of add,

each divided by their sum is a weight w. All enter through what they really did to the score, not through how
well they seem to fit: equation (22) is taken with that in the place of the cosine, (20) with what the items
that share a trait add in the place of p_u,k q_i,k, and (23) with what circumstances add in the place of
attention to them. p_u of (19) itself is told in a profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from llm4rec.data.catalog import Catalog
from llm4rec.explain.influence import Influence
from llm4rec.retrieve.entries import KINDS, Kind
from llm4rec.types import Evidence, Floats, Ints, Reason

CIRCUMSTANCES = {
    "wish": "what you asked for",
    "recent_popularity": "recent popularity",
    "time_of_asking": "the time of asking",
    "correction": "what you said you want more or less of",
}
"""Pieces of evidence of the type `context`, and what to call each."""
ITEMS, ASPECTS, FOUND = 3, 2, 2
"""Pieces of evidence of each type at most: items of the history, traits, what was retrieved."""
SHOWN = 3
"""Items of the history that a text names at most, which are evidence too."""
PART = 0.25
"""What another item of the history must add beside the first to be named, of what that adds."""
FURTHER, LEAST = 2, 0.01
"""Items that a last sentence names at most, and what each of them must add: of a nat, and of what the
strongest adds. What adds less lowers the score too seldom, when it is taken out, to speak for an item."""
FEWEST = 2
"""Items of the history that must share a trait to be a preference for it."""
MOST_TRAITS = 64
"""Traits of an item that are looked at."""
Way = Literal["network", "linear"] | Kind
WAYS: tuple[Way, ...] = ("network", "linear", *KINDS)
"""Ways in which a score can owe something to an item of the history."""


@dataclass(frozen=True)
class Trait:
    """A trait of the item that other items of the history share.

    Attributes:
        field: of the catalogue.
        value: of that field.
        items: places in `Influence.history` of those that share it, what the score owes most to first [p].
        owed: what the score owes to them above what it owes to as many on average (nats).
        beside: the same without the item that it owes most to of all.
    """

    field: str
    value: str
    items: Ints
    owed: float
    beside: float


@dataclass(frozen=True)
class Case:
    """What speaks for one item.

    Attributes:
        item: its number.
        order: places in `Influence.history`, what the score owes most to first [u].
        owed: what the score owes to each, in that order [u] (nats).
        ways: how it came from each: by the network, by the linear part, by kinds of what was retrieved
            [u, 2 + kinds].
        traits: those that speak for it, the strongest first.
        circumstances: what each of `CIRCUMSTANCES` adds (nats).
    """

    item: int
    order: Ints
    owed: Floats
    ways: Floats
    traits: tuple[Trait, ...]
    circumstances: Mapping[str, float]

    @property
    def amounts(self) -> dict[Reason, float]:
        """What each kind of reason adds, at least 0 (nats)."""
        return {
            "preference": max(self.traits[0].beside, 0.0) if self.traits else 0.0,
            "similarity": max(float(self.owed[0]), 0.0) if len(self.owed) else 0.0,
            "context": max(sum(self.circumstances.values()), 0.0),
        }

    @cached_property
    def weights(self) -> dict[Reason, float]:
        """The weights w of equation (24); all on context where nothing speaks for the item."""
        amounts = self.amounts
        total = sum(amounts.values())
        if total <= 0:
            return {"preference": 0.0, "similarity": 0.0, "context": 1.0}
        return {reason: amount / total for reason, amount in amounts.items()}

    @property
    def kind(self) -> Reason:
        """The reason that weighs most, equation (25)."""
        weights = self.weights
        return max(weights, key=lambda reason: weights[reason])

    @property
    def way(self) -> Way:
        """By which way the score owes most to the item of the history that it owes most to."""
        return WAYS[int(np.argmax(self.ways[0]))]

    @cached_property
    def cited(self) -> Ints:
        """Places in `Influence.history` of the items of the history that a text names, in its order."""
        if self.kind == "context":
            return self.order[:0]
        among = np.ones(len(self.order), dtype=bool)
        if self.kind == "preference":
            among = np.isin(self.order, self.traits[0].items)
        elif self.way in KINDS:
            among[1:] = False  # what was retrieved was found by one
        elif self.way == "linear":
            among = self.ways[:, WAYS.index("linear")] > 0
        places = np.flatnonzero(among)[:SHOWN]
        least = max(PART * float(self.owed[places[0]]), 0.0)
        return self.order[places[self.owed[places] > least]]

    @cached_property
    def further(self) -> tuple[Ints, Ints]:
        """Places of what a text names beside `cited`: what adds a fair part, and what adds a little.

        They are what the score owes most to of the others, as far as `SHOWN` items in all leave room.
        """
        cited, owed = self.cited, self.owed.astype(np.float64)
        told = self.circumstances.values() if self.kind == "context" else ()
        left = ~np.isin(self.order, cited) & (owed > little(strongest := max([*owed[:1], *told, 0.0])))
        places = np.flatnonzero(left)[: min(FURTHER, SHOWN - len(cited))]
        much = owed[places] > PART * strongest
        return self.order[places[much]], self.order[places[~much]]


def little(strongest: float) -> float:
    """What an item must add (nats) to be named beside what adds `strongest`."""
    return LEAST * max(strongest, 1.0)


Held = Mapping[tuple[str, str], list[int]]
"""Field and value → places of the items of a history that have it, ascending."""


def held(history: Ints, catalog: Catalog) -> Held:
    """The values of categorical fields that the items of a history [u] have."""
    found: dict[tuple[str, str], list[int]] = {}
    for field in catalog.by_modality("categorical"):
        for place, values in enumerate(catalog.table[field.name].gather(history).to_list()):
            for value in dict.fromkeys(values or ()):
                found.setdefault((field.name, value), []).append(place)
    return found


def case(found: Influence, place: int, item: int, catalog: Catalog, traits: Held | None = None) -> Case:
    """What speaks for an item, the one of `place` in `found`.

    `traits` are what `held` gives for its history; looked up where None.
    """
    traits = held(found.history, catalog) if traits is None else traits
    others = found.history != item  # where items of the history may come back
    owed = np.where(others, found.owed[place], -np.inf)
    order = np.argsort(-owed, kind="stable")[: others.sum()]
    ways = np.concatenate(
        [found.network[place, :, None], found.linear[place, :, None], found.retrieved[place]], axis=1
    )
    trend, time, wish = (float(each[place]) for each in (found.trend, found.time, found.wish))
    correction = float(found.correction[place])
    return Case(
        item=item,
        order=order,
        owed=owed[order],
        ways=ways[order],
        traits=_traits(traits, owed, order, item, catalog),
        circumstances={
            "wish": wish,
            "recent_popularity": trend,
            "time_of_asking": time,
            "correction": correction,
        },
    )


def _traits(held: Held, owed: Floats, order: Ints, item: int, catalog: Catalog) -> tuple[Trait, ...]:
    """Traits of an item that speak for it, the strongest first."""
    if len(order) < FEWEST:
        return ()
    mean, mean_beside = float(owed[order].mean()), float(owed[order[1:]].mean())
    found: list[Trait] = []
    for field in catalog.by_modality("categorical"):
        values = catalog.table[field.name][item]
        for value in dict.fromkeys([] if values is None else values.to_list()[:MOST_TRAITS]):
            items = order[np.isin(order, held.get((field.name, value), []))]
            if len(items) < FEWEST:
                continue
            above = float((owed[items] - mean).sum())
            beside = float((owed[items[items != order[0]]] - mean_beside).sum())
            found.append(Trait(field.name, value, items, above, beside))
    speaking = [each for each in found if min(each.owed, each.beside, owed[each.items[0]]) > 0]
    return tuple(sorted(speaking, key=lambda trait: -trait.beside))


def evidence(found: Influence, case: Case, catalog: Catalog) -> tuple[Evidence, ...]:
    """The evidence of a case, what adds most first; only what speaks for the item."""
    named = np.concatenate([case.cited, *case.further, case.order[:ITEMS]]).tolist()
    pieces = [
        chosen(catalog, int(item), float(owed))
        for place, item, owed in zip(case.order.tolist(), found.history[case.order], case.owed, strict=True)
        if place in named
    ]
    pieces += [
        Evidence("aspect", f"{trait.field}={trait.value}", trait.value, trait.owed)
        for trait in case.traits[:ASPECTS]
    ]
    by_kind = case.ways[:, 2:]
    found_by = np.argsort(-by_kind, axis=None, kind="stable")[:FOUND].tolist()
    if case.kind == "similarity" and case.way in KINDS:  # the text says how, so that is evidence too
        found_by.append(KINDS.index(case.way))
    for flat in dict.fromkeys(found_by):
        place, kind = np.unravel_index(flat, by_kind.shape)
        anchor = int(found.history[case.order[place]])
        by = f"{KINDS[kind]}:{catalog.ids[anchor]}"
        pieces.append(Evidence("retrieved", by, catalog.titles[anchor], float(by_kind[place, kind])))
    pieces += [
        Evidence("context", name, CIRCUMSTANCES[name], added) for name, added in case.circumstances.items()
    ]
    return tuple(
        sorted((each for each in pieces if each.contribution > 0), key=lambda each: -each.contribution)
    )


def chosen(catalog: Catalog, item: int, contribution: float) -> Evidence:
    """An item of the history as evidence; what it adds is in nats."""
    return Evidence("history_item", catalog.ids[item], catalog.titles[item], contribution)
