"""How differently groups are served: accuracy and calibration by group, with intervals.

The conventions are those of the library `fairlearn`: the difference of a figure is its largest value over the
groups minus its least, the ratio its least divided by its largest. People of whom no group is known are shown
as a group of their own, and a group of fewer than `LEAST` people is shown too; neither takes part in
differences or ratios, for what they show may be chance, and `Compared.notes` says so. Intervals are
percentile bootstraps over people; as a difference between groups that are alike is above 0 too, `chance` says
how large it is then. Who is shown what is measured in `exposure`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.evaluate.groups import LEAST, Compared, Groups, ItemGroups, held_by, places_in
from llm4rec.evaluate.resampling import (
    Estimate,
    by_chance,
    by_person,
    draws_of_means,
    draws_of_ratios,
    ends,
    means,
    ratio,
    spread,
    sums,
)
from llm4rec.types import Array, Ints

SMOOTHING = 0.01
"""Part of the history's categories that is mixed into the list's, so that their divergence is finite."""


@dataclass(frozen=True)
class Disparity:
    """A metric by group.

    Attributes:
        metric: its name.
        groups: of people or items [a].
        means: of the metric [a]; NaN of an empty group.
        low: lower ends of their intervals [a].
        high: upper ends [a].
        difference: largest mean − least; None where no two groups are compared.
        ratio: least mean ÷ largest; None as above, or where the largest may be 0.
        chance: the mean difference when the people compared are dealt to their groups at random; NaN where
            that says nothing.
        p: share of such deals, counting this one, whose difference is at least as large; NaN as above.
    """

    metric: str
    groups: Compared
    means: Array
    low: Array
    high: Array
    difference: Estimate | None
    ratio: Estimate | None
    chance: float = float("nan")
    p: float = float("nan")


def metric_gap(
    metric: str,
    values: Array,
    people: Ints,
    groups: Groups,
    *,
    least: int = LEAST,
    seed: int = 0,
    draws: int = 2000,
) -> Disparity:
    """A metric by group of people.

    With hr@k this is equal opportunity, P(Ŷ = 1 | Y = 1, A = a): how often the list holds what people of a
    group took next. With ndcg@k it is the NDCG gap, with `miscalibration` that of calibration.

    Args:
        metric: name of the metric.
        values: of each case [c]; NaN values are no cases at all.
        people: whose case it is [c], a row of `groups`; the cases of a person are averaged first.
        groups: of the people.
        least: people below which a group is not compared.
        seed: of the draws, which are made within each group.
        draws: of the bootstrap.
    """
    owners, each = by_person(np.asarray(values, dtype=np.float64)[:, None], people)
    shown, codes = Compared.people(groups, owners, least)
    drawn = np.full((draws, len(shown.names)), np.nan)
    for a in np.flatnonzero(shown.sizes):
        drawn[:, a] = draws_of_means(each[codes == a], [seed, int(a)], draws)[:, 0]
    found = _disparity(metric, shown, means(each, codes, len(shown.names))[:, 0], drawn)
    if found.difference is None:
        return found
    chance, p = by_chance(found.difference.value, each, codes, shown.among, seed)
    return replace(found, chance=chance, p=p)


def metric_gap_of_items(
    metric: str,
    values: Array,
    people: Ints,
    targets: Ints,
    items: ItemGroups,
    *,
    least: int = LEAST,
    seed: int = 0,
    draws: int = 2000,
) -> Disparity:
    """A metric by group of the item that was the right answer: with hr@k, equal opportunity of categories.

    A case counts in each group by the share of its answer there. All people are drawn together.

    Args:
        metric: name of the metric.
        values: of each case [c]; NaN values are no cases at all.
        people: whose case it is [c].
        targets: the right answer of each case [c].
        items: groups of the items.
        least: people with an answer in a group below which it is not compared.
        seed: of the draws.
        draws: of the bootstrap.
    """
    known = ~np.isnan(values)
    weights = places_in(targets[known, None], items)
    owners, codes = np.unique(people[known], return_inverse=True)
    total = sums(weights * values[known, None], codes, len(owners))
    weight = sums(weights, codes, len(owners))
    shown = Compared.of(items.kind, items.names, np.count_nonzero(weight, axis=0), least)
    drawn = draws_of_ratios(total, weight, [seed], draws)
    return _disparity(metric, shown, ratio(total.sum(axis=0), weight.sum(axis=0)), drawn)


def miscalibration(lists: Ints, histories: EventLog, items: ItemGroups, n: int = 10) -> Array:
    """How far the categories of each list are from those of the history [c], in nats.

    KL(p ‖ q̃) = Σ_g p_g log (p_g / q̃_g), q̃ = (1 − α) q + α p, where p is the distribution of categories over
    the events of the history, q that over the first n items of the list, and α = 0.01. NaN where either
    holds no item of any group.

    Source: Steck, Calibrated Recommendations, RecSys 2018, without weights of events and places.

    Args:
        lists: items, best first [c, at least n]; -1 marks an empty place.
        histories: a row for each list [c].
        items: groups of the items, such as their categories.
        n: places that are looked at.
    """
    seen = held_by(histories.rows, histories.items, histories.n_users, items)
    shown = places_in(lists[:, :n], items)
    p, q = (ratio(each, each.sum(axis=1, keepdims=True)) for each in (seen, shown))
    mixed = (1 - SMOOTHING) * q + SMOOTHING * p
    terms = np.log(np.divide(p, mixed, out=np.ones_like(p), where=p > 0))
    return (p * terms).sum(axis=1) + 0 * q.sum(axis=1)  # NaN where q is


def _disparity(metric: str, groups: Compared, mean: Array, drawn: Array) -> Disparity:
    """What is to be said of the means [a] and their draws [k, a]."""
    low, high = ends(drawn)
    difference = quotient = None
    if np.count_nonzero(groups.among) >= 2:
        held, value = drawn[:, groups.among], mean[groups.among]
        difference = Estimate.of(float(spread(value)), spread(held, axis=1))
        if (held.max(axis=1) > 0).all() and value.max() > 0:
            drawn_ratio = held.min(axis=1) / held.max(axis=1)
            quotient = Estimate.of(float(value.min() / value.max()), drawn_ratio)
    return Disparity(metric, groups, mean, low, high, difference, quotient)
