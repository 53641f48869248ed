"""Who is shown what: exposure of item groups, between groups of people and over time.

A largest difference grows with noise: that between groups which are alike is not 0, and its percentile
interval leans upwards. `ExposureParity.chance` says how large it is when people are dealt to the groups at
random.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from llm4rec.errors import InputError
from llm4rec.evaluate.groups import LEAST, Compared, Groups, ItemGroups, exposures
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


@dataclass(frozen=True)
class ExposureParity:
    """Equation (18): how much of the top n each item group gets in the lists of each group of people.

    Attributes:
        groups: of people [a].
        items: names of the item groups [g].
        shares: P(Ŷ | A = a), mean over people of the share of exposure [a, g].
        pairs: groups (a, b) that are compared [q].
        differences: P(Ŷ | A = a) − P(Ŷ | A = b) by pair and item group [q, g]; (18) bounds their size.
        low: lower ends of their intervals [q, g].
        high: upper ends [q, g].
        largest: the size of the largest difference; None where no two groups are compared.
        chance: the mean of that when the people compared are dealt to their groups at random.
        p: share of such deals, counting this one, whose largest difference is at least as large.
    """

    groups: Compared
    items: tuple[str, ...]
    shares: Array
    pairs: tuple[tuple[int, int], ...]
    differences: Array
    low: Array
    high: Array
    largest: Estimate | None
    chance: float
    p: float

    @property
    def fairness(self) -> Estimate | None:
        """1 − the largest difference: the fairness figure of the paper's table II."""
        gap = self.largest
        return None if gap is None else Estimate(1 - gap.value, 1 - gap.high, 1 - gap.low)

    @property
    def ratios(self) -> Array:
        """The least share of each item group among the compared ÷ the largest [g]; NaN where that is 0."""
        shares = self.shares[self.groups.among]
        if not len(shares):
            return np.full(len(self.items), np.nan)
        return ratio(shares.min(axis=0), shares.max(axis=0))


def exposure_parity(
    lists: Ints,
    people: Ints,
    groups: Groups,
    items: ItemGroups,
    *,
    n: int = 10,
    least: int = LEAST,
    seed: int = 0,
    draws: int = 2000,
) -> ExposureParity:
    """Exposure of item groups in the lists of groups of people: the share of their first `n` places.

    Args:
        lists: items, best first [c, at least n]; -1 marks an empty place.
        people: whose list it is [c], a row of `groups`; the lists of a person are averaged first.
        groups: of the people.
        items: groups of the items.
        n: places that are looked at, each alike.
        least: people below which a group is not compared.
        seed: of the draws, which are made within each group.
        draws: of the bootstrap.
    """
    owners, shares = by_person(exposures(lists, items, n), people)
    shown, codes = Compared.people(groups, owners, least)
    found = means(shares, codes, len(shown.names))
    order = np.flatnonzero(shown.among)
    if len(order) < 2:
        none = np.zeros((0, len(items.names)))
        return ExposureParity(
            shown, items.names, found, (), none, none, none, None, chance=float("nan"), p=float("nan")
        )
    drawn = np.stack([draws_of_means(shares[codes == a], [seed, int(a)], draws) for a in order])
    places = list(combinations(range(len(order)), 2))
    reach = [ends(drawn[a] - drawn[b]) for a, b in places]
    gap = float(spread(found[order]).max())
    chance, p = by_chance(gap, shares, codes, shown.among, seed)
    pairs = tuple((int(order[a]), int(order[b])) for a, b in places)
    return ExposureParity(
        groups=shown,
        items=items.names,
        shares=found,
        pairs=pairs,
        differences=np.stack([found[a] - found[b] for a, b in pairs]),
        low=np.stack([low for low, _ in reach]),
        high=np.stack([high for _, high in reach]),
        largest=Estimate.of(gap, spread(drawn).max(axis=1)),
        chance=chance,
        p=p,
    )


@dataclass(frozen=True)
class ExposureDrift:
    """What each item group gets in consecutive stretches of time: the paper's temporal fairness.

    Those who ask, and what there is to show, change between stretches too: a difference tells that exposure
    moved, not why.

    Attributes:
        starts: first moment of each stretch [w], UTC seconds.
        stretches: people with a list in each [w].
        items: names of the item groups [g].
        shares: mean share of exposure over the lists of a stretch [w, g].
        differences: of each stretch from the one before [w − 1, g].
        low: lower ends of their intervals [w − 1, g].
        high: upper ends [w − 1, g].
        largest: the size of the largest; None where no two neighbours are compared.
    """

    starts: Ints
    stretches: Compared
    items: tuple[str, ...]
    shares: Array
    differences: Array
    low: Array
    high: Array
    largest: Estimate | None


def exposure_drift(  # noqa: PLR0913  # lists, their people and times, and how they are measured
    lists: Ints,
    people: Ints,
    times: Ints,
    items: ItemGroups,
    *,
    windows: int = 4,
    n: int = 10,
    least: int = LEAST,
    seed: int = 0,
    draws: int = 2000,
) -> ExposureDrift:
    """Exposure of item groups in consecutive stretches of time with about as many lists each.

    A person may have lists in several stretches, so people are drawn for all of them at once.

    Args:
        lists: items, best first [c, at least n]; -1 marks an empty place.
        people: whose list it is [c].
        times: when it was asked for [c], UTC seconds; -1 unknown, which leaves it out.
        items: groups of the items.
        windows: stretches; fewer where many lists were asked for at one moment.
        n: places that are looked at, each alike.
        least: people below which a stretch is not compared.
        seed: of the draws.
        draws: of the bootstrap.

    Raises:
        InputError: where no list that is not empty has a time.
    """
    shares = exposures(lists, items, n)
    keep = (times >= 0) & ~np.isnan(shares).any(axis=1)
    if not keep.any():
        raise InputError("Exposure over time needs the time of at least one list that is not empty.")
    shares, times = shares[keep], times[keep]
    cuts = np.unique(np.quantile(times, np.linspace(0, 1, windows + 1)[1:-1], method="higher"))
    held, window = np.unique(np.searchsorted(cuts, times, side="right"), return_inverse=True)
    _, person = np.unique(people[keep], return_inverse=True)
    shape = (int(person.max()) + 1, len(held))
    total = sums(shares, person * shape[1] + window, shape[0] * shape[1])
    counts = np.bincount(person * shape[1] + window, minlength=shape[0] * shape[1]).reshape(shape)
    above = total.reshape(shape[0], -1)
    below = np.repeat(counts, len(items.names), axis=1).astype(np.float64)
    mean = ratio(above.sum(axis=0), below.sum(axis=0)).reshape(shape[1], -1)
    drawn = np.diff(draws_of_ratios(above, below, [seed], draws).reshape(draws, *mean.shape), axis=1)
    low, high = ends(drawn)
    names = [f"stretch {w + 1}" for w in range(shape[1])]
    stretches = Compared.of("time", names, np.count_nonzero(counts, axis=0), least)
    steps = np.diff(mean, axis=0)
    both = [w for w, (a, b) in enumerate(pairwise(stretches.among)) if a and b]
    largest = None
    if both:
        largest = Estimate.of(np.abs(steps[both]).max(), np.abs(drawn[:, both]).max(axis=(1, 2)))
    starts = np.array([times[window == w].min() for w in range(shape[1])], dtype=np.int64)
    return ExposureDrift(starts, stretches, items.names, mean, steps, low, high, largest)
