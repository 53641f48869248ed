"""Exposure of categories balanced between groups of people while a model serves, equation (18)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from pydantic import Field as Option
from pydantic import model_validator

from llm4rec.config import Section
from llm4rec.data.catalog import Catalog
from llm4rec.debias.parity import Parity, fit_parity
from llm4rec.errors import InputError
from llm4rec.evaluate.groups import LEAST, Groups, by_category, groups_of, in_categories
from llm4rec.types import Array, Floats, Ints, Rankings

TOP = 10
POOL = 100
"""Candidates of each list that offsets are found on."""


class ParityConfig(Section):
    """Exposure held equal between groups of people (section `debias.parity`)."""

    attribute: str = Option(
        default="",
        description="Column of the people whose groups are to be shown each category alike; empty for none. "
        "It may be protected: it moves lists and is no feature.",
    )
    epsilon: float = Option(
        default=0.02,
        ge=0,
        le=1,
        description="ε: the largest difference that groups may have in a category's share of the top ten.",
    )
    training: bool = Option(
        default=False,
        description="Whether the network is held to it as well while it is trained, by category and by "
        "popularity.",
    )

    @model_validator(mode="after")
    def _of_somebody(self) -> Self:
        if self.training and not self.attribute:
            raise ValueError("debias.parity.training is set, and debias.parity.attribute names no column")
        return self


@dataclass(frozen=True)
class Balance:
    """Offsets of a parity, and who belongs to which group.

    Attributes:
        parity: the offsets.
        members: the group of each person of the people's table [u], -1 unknown.
    """

    parity: Parity
    members: Ints

    def adjust(self, log_scores: Floats, people: Ints, items: Ints | None = None) -> Floats:
        """Log-probabilities [b, i] with what belongs to the people's groups added, normalised again.

        With `items` [c], `log_scores` and what is returned are of those alone, [b, c]; what the others hold
        of the sum is taken as it was.

        Args:
            log_scores: of lists.
            people: rows of the people's table [b]; -1 for a stranger, of whom nothing is known.
            items: which items are scored; all where None.
        """
        groups = np.append(self.members, -1)[people]
        if not (groups >= 0).any() or not self.parity.changes:
            return log_scores
        here = None if items is None else np.broadcast_to(items, log_scores.shape)
        raised = self.parity.adjust(log_scores, groups, here).astype(np.float64)
        total = np.exp(raised).sum(axis=1, keepdims=True)
        if items is not None:
            total += np.maximum(1 - np.exp(log_scores, dtype=np.float64).sum(axis=1, keepdims=True), 0)
        return (raised - np.log(total)).astype(np.float32)

    def said(self) -> dict[str, float | None]:
        """The largest difference before and with offsets, on the lists they were found on; None of nobody."""
        if not self.parity.compared:
            return {"before": None, "gap": None}
        return {"before": self.parity.before, "gap": self.parity.gap}

    def notes(self) -> list[str]:
        """What did not go as it was asked for, in sentences."""
        parity = self.parity
        if not parity.compared:
            return [
                f"debias.parity: no two groups by {parity.attribute!r} have {LEAST} validation lists, so "
                "exposure is not held."
            ]
        if parity.gap > parity.epsilon:
            return [
                f"debias.parity: exposure by {parity.attribute!r} differs by {parity.gap:.3f} on the "
                f"validation lists, and not by {parity.epsilon:g} at most: their candidates allow no less."
            ]
        return []

    def of_items(self, catalog: Catalog) -> Self:
        """The same offsets on a catalogue that has changed: a new item has those of its categories."""
        items = in_categories(catalog, self.parity.items.kind, self.parity.items.names)
        return replace(self, parity=replace(self.parity, items=items))

    def of_people(self, rows: Ints) -> Self:
        """The same for some of the people [r], in their order."""
        return replace(self, members=self.members[rows])

    def told(self) -> dict[str, Any]:
        """All but arrays; values JSON can hold."""
        parity = self.parity
        numbers = {"epsilon": parity.epsilon, "before": parity.before, "gap": parity.gap}
        numbers |= {"compared": parity.compared}
        names = {"groups": parity.groups, "categories": parity.items.names}
        return {"attribute": parity.attribute, "field": parity.items.kind, **names, **numbers}

    def tensors(self) -> dict[str, Array]:
        """The arrays of it."""
        return {"offsets": self.parity.offsets, "members": self.members}

    @classmethod
    def from_tensors(
        cls, arrays: Mapping[str, Array], told: Mapping[str, Any], catalog: Catalog, n_people: int
    ) -> Self:
        """What `told` and `tensors` gave, of a catalogue and so many people.

        Raises:
            ValueError: where they do not belong together.
        """
        groups, names = tuple(told["groups"]), tuple(told["categories"])
        offsets, members = (arrays.get(name, np.zeros(0)) for name in ("offsets", "members"))
        if offsets.shape != (len(groups), len(names)) or not np.isfinite(offsets).all():
            raise ValueError(f"parity has no finite offset for each of {len(groups)} groups and {len(names)}")
        if members.shape != (n_people,) or ((members < -1) | (members >= len(groups))).any():
            raise ValueError(f"parity does not have one of its groups for each of {n_people} people")
        items = in_categories(catalog, told["field"], names)
        numbers = {name: told[name] for name in ("epsilon", "before", "gap", "compared")}
        return cls(Parity(told["attribute"], groups, items, offsets, **numbers), members)


def grouped(config: ParityConfig, catalog: Catalog, people: Catalog | None) -> Groups | None:
    """The groups of the people whose exposure is to be held equal; None where it is not to be.

    Raises:
        InputError: where people have no such column, or items no categories.
    """
    if not config.attribute:
        return None
    columns = [] if people is None else [name for name in people.table.columns if name != people.key]
    if people is None or config.attribute not in columns:
        raise InputError(
            f"debias.parity.attribute = {config.attribute!r} is no column of the people, who have "
            f"{', '.join(columns) or 'none: give a table of them'}."
        )
    if by_category(catalog) is None:
        raise InputError("debias.parity holds the exposure of categories, and the items have none.")
    if len(catalog) <= TOP:
        raise InputError(
            f"debias.parity chooses {TOP} items of more, and there are {len(catalog)}: leave it out."
        )
    return groups_of(people.table[config.attribute])


def balanced(
    candidates: Rankings, rows: Ints, groups: Groups, catalog: Catalog, config: ParityConfig
) -> Balance:
    """Offsets that hold exposure at ε in lists made of candidates.

    Args:
        candidates: [c, m], best first; their scores are log-probabilities.
        rows: whose they are [c], rows of the people's table; -1 for strangers.
        groups: of the people.
        catalog: the items.
        config: ε.
    """
    categories = by_category(catalog)
    assert categories is not None  # `grouped` has looked
    of_lists = groups.of_rows(rows)
    parity = fit_parity(candidates.items, candidates.scores, of_lists, categories, config.epsilon)
    return Balance(parity, groups.members)
