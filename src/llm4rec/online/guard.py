"""What judges whether something that was learnt is kept: events that are never trained on, and old ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from torch import Tensor

from llm4rec.online.options import OnlineConfig
from llm4rec.online.reservoir import SCHEMA
from llm4rec.types import Array, Floats

FEWEST = 8
"""Fewer events than that judge nothing."""
SURE = 2.0
"""Standard errors by which newer events must be foreseen worse."""


@dataclass
class Guard:
    """Judges what was learnt by events it was not learnt from.

    Attributes:
        old: events of before learning began, with the columns of `reservoir.SCHEMA` [o].
        reference: their losses then [o] (nats); NaN where one could not be asked for.
        new: the newest events that were held out [n].
        good: the weights that were last found good, by name.
        most: the most events held in `new`.
        tolerance: share by which the losses of the old may grow beyond `reference`.
        judged: how often it has judged.
        undone: how often what was learnt was undone.
        mended: how often of these it was kept once it had been learnt again.
    """

    old: pl.DataFrame
    reference: Array
    new: pl.DataFrame
    good: dict[str, Tensor]
    most: int
    tolerance: float
    judged: int = 0
    undone: int = 0
    mended: int = 0

    @classmethod
    def begin(
        cls, old: pl.DataFrame, reference: Array, weights: Mapping[str, Tensor], options: OnlineConfig
    ) -> Guard:
        """One that finds the present weights good."""
        good = {name: tensor.detach().clone() for name, tensor in weights.items()}
        return cls(old, reference, old.clear(), good, options.judges, options.tolerance)

    @property
    def cases(self) -> pl.DataFrame:
        """All events that judge, the old ones first."""
        return pl.concat([self.old, self.new])

    def took(self, events: pl.DataFrame) -> None:
        """Let further events judge in the place of the oldest of the new ones."""
        self.new = pl.concat([self.new, events.select(*SCHEMA)]).tail(self.most)

    def worse(self, now: Array, before: Array, trust: Floats | None = None) -> bool:
        """Whether the losses of `cases` [o + n] say that what was learnt has to be undone.

        It has where new events are foreseen worse than `before` by more than `SURE` standard errors, and
        where old ones are foreseen worse than before and, by more than the tolerance, than when learning
        began.

        Args:
            now: their losses.
            before: those of the weights that were last found good.
            trust: what each of the new ones counts for [n]; None for all alike.
        """
        self.judged += 1
        n_old = self.old.height
        grown = (now - before)[n_old:]
        told = np.isfinite(grown)
        bad = False
        if told.sum() >= FEWEST:
            share = np.ones(len(grown)) if trust is None else trust
            bad = _above_zero(grown[told], share[told] / share[told].sum())
        told = np.isfinite(now[:n_old]) & np.isfinite(before[:n_old]) & np.isfinite(self.reference)
        if told.sum() >= FEWEST:
            after, least = now[:n_old][told].mean(), before[:n_old][told].mean()
            bad |= bool(after > least and after > (1 + self.tolerance) * self.reference[told].mean())
        bad |= bool(np.isinf(now).any() or (np.isnan(now) & ~np.isnan(before)).any())
        return bad

    def without(self, user: str) -> None:
        """Let no event of a person judge."""
        others = (self.old["user_id"] != user).to_numpy()
        self.old, self.reference = self.old.filter(others), self.reference[others]
        self.new = self.new.filter(pl.col("user_id") != user)


def _above_zero(values: Array, shares: Array) -> bool:
    """Whether a mean lies more than `SURE` standard errors above 0, its values [n] having `shares` of it.

    Alike ones give the usual error of a mean, with n − 1.
    """
    mean = float((shares * values).sum())
    n = len(values)
    error = np.sqrt(np.square(shares * (values - mean)).sum() * n / (n - 1))
    return bool(mean > SURE * error)
