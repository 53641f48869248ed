"""What people say they want more or less of, joined with what a state says of them: equations (31) and (20).

What is said of an aspect k is feedback of a type of its own, y_k = 1 for more and 0 for less. By (31) it and
the prediction p_k of (19) are summed by their reliabilities, w and 1 − w:

    u_k = w y_k + (1 − w) p_k  where something is said,  u_k = p_k elsewhere,  p'_k = u_k / Σ_j u_j

u_k hangs on y_k alone, so several "more" take nothing from each other: each adds w (1 − p_k) before all are
divided by the same sum, and they stand beside each other evenly. By (20), with q_ik = 1/m for the m aspects
of an item, its log-score changes by

    log(Σ_k p'_k q_ik / Σ_k p_k q_ik) = log(P'_i / P_i),  P_i = Σ p_k over the aspects of i.

For an item of one aspect that is Jeffrey's rule: where the items of k have p_k in all, they have p'_k then.
"Less" never lifts an item that has the aspect above one that has not, for (P − c) / (1 − c) ≤ P, and "more"
never the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import polars as pl

from llm4rec.explain.aspects import Aspects, Vocabulary
from llm4rec.types import Floats

LEAST = 1e-6
"""What an item's aspects are taken to share at least, before and after: none changes by more than 14 nats."""
SCHEMA = {"user_id": pl.String(), "field": pl.String(), "value": pl.String(), "more": pl.Boolean()}
"""The columns of the table that corrections are kept in."""

Said = Mapping[int, bool]
"""Aspect → whether more of it is wanted, or less."""


def corrected(p: Floats, said: Said, weight: float) -> Floats:
    """The p' [k] of p [k], equation (31); what is said with a `weight` of 0 leaves p as it is, to the bit."""
    if not said or not weight:
        return p
    found = p.astype(np.float64)
    aspects = np.fromiter(said, dtype=np.int64, count=len(said))
    y = np.fromiter(said.values(), dtype=np.float64, count=len(said))
    found[aspects] = weight * y + (1 - weight) * found[aspects]
    return (found / found.sum()).astype(np.float32)


def log_factors(before: Floats, after: Floats, vocabulary: Vocabulary) -> Floats:
    """By how much the log-score of each item changes [i] (nats), equation (20); 0 where it has no aspect.

    Args:
        before: p [k].
        after: p' [k].
        vocabulary: the aspects of the items.
    """
    was, now = (np.maximum(vocabulary.shares(p), LEAST) for p in (before, after))
    return np.log(now / was).astype(np.float32)


@dataclass(frozen=True)
class Corrections:
    """What people said, by the aspects of one model.

    Attributes:
        said: user_id → what they said.
    """

    said: Mapping[str, Said] = field(default_factory=dict[str, Said])

    def __len__(self) -> int:
        """How many people said anything."""
        return len(self.said)

    def of(self, user: str) -> Said:
        """What one person said."""
        return self.said.get(user, {})

    def rows(self, user_ids: pl.Series) -> dict[int, Said]:
        """Row of `user_ids` [b] → what that person said; only of those who said anything."""
        if not self.said:
            return {}
        return {row: self.said[user] for row, user in enumerate(user_ids.to_list()) if user in self.said}

    def saying(self, user: str, told: Mapping[int, bool | None]) -> Self:
        """The same with what a person says of some aspects; None takes back what they said of one."""
        now = {**self.of(user), **told}
        kept = {aspect: more for aspect, more in sorted(now.items()) if more is not None}
        rest = {name: said for name, said in self.said.items() if name != user}
        return type(self)({**rest, user: kept} if kept else rest)

    def without(self, user: str) -> Self:
        """The same without a person."""
        return type(self)({name: said for name, said in self.said.items() if name != user})

    def to_frame(self, aspects: Aspects) -> pl.DataFrame:
        """The table that is kept: a row for each aspect a person spoke of; `from_frame` reads it."""
        rows = [
            (user, aspects.fields[aspect], aspects.values[aspect], more)
            for user, said in sorted(self.said.items())
            for aspect, more in said.items()
        ]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")

    @classmethod
    def from_frame(cls, table: pl.DataFrame, aspects: Aspects | None) -> Self:
        """What `to_frame` gave.

        Raises:
            ValueError: saying what is wrong with it.
        """
        if dict(table.schema) != SCHEMA:
            raise ValueError(f"corrections have the columns {table.schema}, not {SCHEMA}")
        if table.null_count().row(0) != (0,) * len(SCHEMA) or (table["user_id"] == "").any():
            raise ValueError("a correction lacks a value")
        if table.select("user_id", "field", "value").is_duplicated().any():
            raise ValueError("a person said two things of one aspect")
        places = {} if aspects is None else aspects.places
        found: dict[str, dict[int, bool]] = {}
        for user, name, value, more in table.iter_rows():
            if (name, value) not in places:
                raise ValueError(f"the model has no aspect {name} = {value}, which was corrected")
            found.setdefault(user, {})[places[name, value]] = more
        return cls({user: dict(sorted(said.items())) for user, said in found.items()})
