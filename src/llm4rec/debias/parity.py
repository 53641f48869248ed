"""Exposure held equal after training: what is added to scores so that equation (18) holds.

Where the largest difference of exposure between groups of people is above ε, every item of a group g is moved
for the people of group a by an offset μ_ag. Offsets are made of dual variables: the lists of the highest mean
score, each group of people weighing alike, with E_ag − E_bg ≤ ε for every item group g and pair (a, b), are
the best n by s_i + Σ_g share_ig μ_ag, where μ_ag = Σ_b (λ_bag − λ_abg) and λ_abg ≥ 0 is the price of that
bound. (Exactly so where lists could be mixed; with whole lists nearly.) As groups weigh alike, the smaller
does not bear all of it.

It takes the attribute of the one who asks: people of whom it is not known are answered as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from llm4rec.errors import InputError
from llm4rec.evaluate.groups import LEAST, Groups, ItemGroups, exposures
from llm4rec.types import Array, Ints, Rankings

STEPS = 80
"""Steps of the ascent of one size."""
SIZES = tuple(0.25**k for k in range(8))
"""Sizes of steps, one after the other; each goes on from the best that was found before it."""
INSIDE = 0.02
"""Part of the bound that the ascent stays below it, since lists change in whole places."""
REACH = 1.96
"""Standard errors of a difference between other people of these groups that are kept from ε."""
LEAST_AIM = 0.5
"""Part of ε that is aimed at where there are too few people for that."""


@dataclass(frozen=True)
class Parity:
    """Offsets by group of people and item group, and how to add them.

    Attributes:
        attribute: what the people are grouped by.
        groups: names of their groups [a].
        items: groups of the items [g], with the share of each item in each.
        offsets: μ [a, g], in nats; 0 for a group that was too small to be compared.
        epsilon: the bound that was asked for.
        before: the largest difference without offsets, on what they were found by.
        gap: that with them; above `epsilon` where no offsets were found that hold it.
        compared: groups that were large enough to be compared; offsets are 0 of fewer than two.
    """

    attribute: str
    groups: tuple[str, ...]
    items: ItemGroups
    offsets: Array
    epsilon: float
    before: float
    gap: float
    compared: int = 0

    @property
    def changes(self) -> bool:
        """Whether it adds anything to any score."""
        return bool(self.offsets.any())

    def adjust(self, scores: Array, groups: Ints, items: Ints | None = None) -> Array:
        """The scores with what belongs to the people's groups added.

        Args:
            scores: [c, i] of all items, or [c, m] of `items`; -inf stays.
            groups: each row's group [c], as numbered here; -1 unknown, which adds nothing.
            items: the items scored [c, m], -1 for none; all, in their order, where None.
        """
        if not self.changes:
            return scores
        by_item = self.by_item[groups]
        added = by_item[:, :-1] if items is None else np.take_along_axis(by_item, items, axis=1)
        return (scores + added).astype(scores.dtype)

    def reordered(self, candidates: Rankings, groups: Ints) -> Rankings:
        """Candidates [c, m] for people of `groups` [c], best first with what belongs to them added."""
        raised = self.adjust(candidates.scores, groups, candidates.items)
        order = np.argsort(-raised, axis=1, kind="stable")
        return Rankings(
            np.take_along_axis(candidates.items, order, axis=1), np.take_along_axis(raised, order, axis=1)
        )

    @cached_property
    def by_item(self) -> Array:
        """What is added by group of people and item [a + 1, i + 1]; the last of either, at -1, is 0."""
        return _by_item(self.offsets, self.items)


def fit_parity(
    items: Ints,
    scores: Array,
    groups: Groups,
    item_groups: ItemGroups,
    epsilon: float,
    *,
    n: int = 10,
    least: int = LEAST,
) -> Parity:
    """Offsets that hold the largest difference of exposure in the top n at `epsilon` on these candidates.

    What is held on these lists is to be held on those of other people: of ε as much is kept back as the
    largest difference may be off by chance among as many of them, up to half of it. λ goes up where a
    difference is above what is left and down to 0 where it is below. Of the offsets on the way that hold that
    those that cost the least score are taken, and where none hold it, those that come closest. Where the
    lists hold it as they are, and at ε = 1, offsets are 0.

    Args:
        items: candidates of each list [c, m], m > n, so that something can come in; -1 marks an empty place.
        scores: theirs [c, m], log-probabilities.
        groups: the group of each list's person [c], in the order of the lists.
        item_groups: groups of the items.
        epsilon: ε, from 0 to 1.
        n: places that exposure is counted in, each alike.
        least: lists below which a group of people is not compared.

    Raises:
        InputError: where ε is out of range, there are no candidates beyond n, or groups are of other lists.
    """
    _checked(items, scores, groups, epsilon, n)
    counts = np.bincount(groups.members[groups.members >= 0], minlength=len(groups.names))
    compared = np.flatnonzero(counts >= least)
    offsets = np.zeros((len(groups.names), len(item_groups.names)))
    if len(compared) < 2:  # there is nothing to be equal to
        return Parity(groups.attribute, groups.names, item_groups, offsets, epsilon, 0.0, 0.0, 0)
    keep = np.isin(groups.members, compared) & (items[:, 0] >= 0)
    mine = np.searchsorted(compared, groups.members[keep])
    lists = _Lists(items[keep], scores[keep].astype(np.float64), mine, len(compared), item_groups, n)
    start = lists.answered(np.zeros((len(compared), len(item_groups.names))))
    found = start
    aim = epsilon
    if epsilon < 1:
        aim = max(epsilon - REACH * lists.error(), LEAST_AIM * epsilon)
    if start.gap > aim:
        found = _ascend(lists, start, aim)
        offsets[compared] = found.offsets
    told = epsilon, start.gap, found.gap, len(compared)
    return Parity(groups.attribute, groups.names, item_groups, offsets, *told)


@dataclass(frozen=True)
class _Answer:
    """What offsets [a, g] make of the lists.

    Attributes:
        offsets: that were added [a, g].
        exposure: of each item group in the lists of each group of people [a, g].
        gap: the largest difference.
        lost: minus the mean score of what is shown, each group of people weighing alike.
    """

    offsets: Array
    exposure: Array
    gap: float
    lost: float


@dataclass(frozen=True)
class _Lists:
    items: Ints
    scores: Array
    groups: Ints
    n_groups: int
    item_groups: ItemGroups
    n: int

    def error(self) -> float:
        """The largest standard error of a difference of exposure between two groups of as many people."""
        shown = exposures(self.items, self.item_groups, self.n)
        of_groups = [shown[self.groups == group] for group in range(self.n_groups)]
        squares = np.stack([each.var(axis=0) / len(each) for each in of_groups])
        two = np.sort(squares, axis=0)[-2:].sum(axis=0)
        return float(np.sqrt(two.max()))

    def answered(self, offsets: Array) -> _Answer:
        """The lists cut to their best n with offsets [a, g] added."""
        added = _by_item(offsets, self.item_groups)
        raised = self.scores + added[self.groups[:, None], self.items]
        # a stable sort of candidates that came best first changes nothing without offsets
        best = np.argsort(-raised, axis=1, kind="stable")[:, : self.n]
        shown = np.take_along_axis(self.items, best, axis=1)
        held = shown >= 0
        part = 1 / held.sum(axis=1)  # of each place of a list in its exposure
        n_items = added.shape[1]
        cells = (self.groups[:, None] * n_items + shown)[held]
        weight = np.broadcast_to(part[:, None], shown.shape)[held]
        by_item = np.bincount(cells, weights=weight, minlength=self.n_groups * n_items)
        people = np.bincount(self.groups, minlength=self.n_groups)[:, None]
        by_item = by_item.reshape(self.n_groups, n_items)[:, :-1] / np.maximum(people, 1)
        exposure = cast(Array, by_item @ self.item_groups.shares)
        score = np.where(held, np.take_along_axis(self.scores, best, axis=1), 0).sum(axis=1) * part
        means = np.bincount(self.groups, weights=score, minlength=self.n_groups) / np.maximum(people[:, 0], 1)
        return _Answer(offsets, exposure, _gap(exposure), -float(means.mean()))


def _ascend(lists: _Lists, start: _Answer, epsilon: float) -> _Answer:
    """The best of the answers on the way up the dual."""
    n_groups, n_items = start.exposure.shape
    bound = epsilon * (1 - INSIDE)
    # with the first size, offsets come to be as far apart as the scores of candidates
    scores = np.where(np.isfinite(lists.scores), lists.scores, np.nan)
    size = float(np.nanmean(np.nanstd(scores, axis=1))) / start.gap
    best, paid = start, np.zeros((n_groups, n_groups, n_items))
    for part in SIZES:
        now, prices = best, paid
        for _ in range(STEPS):
            apart = now.exposure[:, None] - now.exposure[None]
            prices = np.maximum(prices + part * size * (apart - bound), 0)
            now = lists.answered(prices.sum(axis=0) - prices.sum(axis=1))
            if _is_better(now, best, epsilon):
                best, paid = now, prices
    return best


def _is_better(new: _Answer, old: _Answer, epsilon: float) -> bool:
    """Whether it costs less, of answers that hold ε; of others, whether it comes closer."""
    if new.gap <= epsilon and old.gap <= epsilon:
        return new.lost < old.lost
    return new.gap < old.gap


def _gap(exposure: Array) -> float:
    """The largest difference of exposure [a, g] between two groups of people."""
    return float((exposure.max(axis=0) - exposure.min(axis=0)).max()) if len(exposure) else 0.0


def _by_item(offsets: Array, items: ItemGroups) -> Array:
    added = np.asarray((items.shares @ offsets.T).T)
    return np.pad(added, ((0, 1), (0, 1)))


def _checked(items: Ints, scores: Array, groups: Groups, epsilon: float, n: int) -> None:
    if not 0 <= epsilon <= 1:
        raise InputError(f"Exposure can't be held at {epsilon:g}: ε is from 0, no difference, to 1, any.")
    if items.shape != scores.shape or len(items) != len(groups.members):
        raise InputError(
            f"Candidates {items.shape}, their scores {scores.shape} and the groups of {len(groups.members)} "
            "lists do not belong together."
        )
    if items.shape[1] <= n:
        raise InputError(
            f"Lists of {items.shape[1]} candidates leave nothing to put into the first {n} instead: "
            "rank more of them."
        )
