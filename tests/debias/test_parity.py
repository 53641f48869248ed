"""Offsets that hold exposure equal: by hand, and what holds of all of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from llm4rec.debias.parity import LEAST_AIM, Parity, fit_parity
from llm4rec.errors import InputError
from llm4rec.evaluate.exposure import exposure_parity
from llm4rec.evaluate.groups import Groups, ItemGroups
from llm4rec.types import Array, Ints

KINDS = ItemGroups("kind", ("x", "y"), sparse.csr_array([[1.0, 0], [0, 1.0]]))


def sides(*members: int) -> Groups:
    return Groups("side", ("left", "right"), np.array(members))


def test_by_hand() -> None:
    """Four people each; every left one has x first, by 1, 2, 3 and 4 nats, every right one y by as many.

    Exposure of x is 1 on the left and 0 on the right. To hold a difference of 1/2 two lists have to change,
    the cheapest being one of either side, where 1 nat is to be made up for: half a nat for x and half for y.
    """
    lead = np.array([1.0, 2, 3, 4])
    items = np.array([[0, 1]] * 4 + [[1, 0]] * 4)
    scores = np.column_stack([np.zeros(8), -np.tile(lead, 2)])
    groups = sides(0, 0, 0, 0, 1, 1, 1, 1)
    found = fit_parity(items, scores, groups, KINDS, 0.5, n=1, least=2)
    assert (found.before, found.gap) == (1, 0.5)
    # the pull towards y on the left and towards x on the right is above 1 nat and below 2 on both
    pulled = found.offsets @ [-1, 1]
    assert 1 < pulled[0] < 2 and 1 < -pulled[1] < 2
    # so that it is the lists with a lead of 1 nat that change, and no others
    moved = found.adjust(scores, groups.members, items)
    first = np.take_along_axis(items, moved.argmax(axis=1, keepdims=True), axis=1).ravel()
    assert first.tolist() == [1, 0, 0, 0, 0, 1, 1, 1]


def test_offsets_are_added_by_group_and_share() -> None:
    thirds = ItemGroups("kind", ("x", "y"), sparse.csr_array([[1.0, 0], [0.5, 0.5], [0, 0]]))
    parity = Parity("side", ("left", "right"), thirds, np.array([[1.0, -3], [0, 2]]), 0.1, 0.4, 0.1)
    scores = np.zeros((3, 3), dtype=np.float32)
    scores[0, 0] = -np.inf
    found = parity.adjust(scores, np.array([0, 1, -1]))
    assert found.dtype == np.float32
    assert found.tolist() == [[-np.inf, -1, 0], [0, 1, 0], [0, 0, 0]]
    some = parity.adjust(np.zeros((2, 2)), np.array([1, 0]), np.array([[1, -1], [2, 0]]))
    assert some.tolist() == [[1, 0], [0, 1]]
    assert parity.changes


def lists(seed: int, n_groups: int) -> tuple[Ints, Array, Groups, ItemGroups]:
    """Sixty lists of twelve candidates out of twenty items in three kinds, to which groups lean."""
    draw = np.random.default_rng(seed)
    members = draw.integers(n_groups, size=60)
    kinds = draw.dirichlet(np.full(3, 0.4), size=20)
    leaning = draw.normal(size=(n_groups, 3))
    scores = draw.gumbel(size=(60, 20)) + leaning[members] @ kinds.T
    order = np.argsort(-scores, axis=1)[:, :12]
    groups = Groups("g", tuple(map(str, range(n_groups))), members)
    items = ItemGroups("kind", ("x", "y", "z"), sparse.csr_array(kinds))
    return order, np.take_along_axis(scores, order, axis=1), groups, items


def measured(parity: Parity, order: Ints, scores: Array, groups: Groups, items: ItemGroups) -> float:
    raised = parity.adjust(scores, groups.members, order)
    best = np.take_along_axis(order, np.argsort(-raised, axis=1, kind="stable"), axis=1)
    found = exposure_parity(best, np.arange(len(order)), groups, items, n=4, least=5, draws=2)
    assert found.largest is not None
    return found.largest.value


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_laws(seed: int, n_groups: int) -> None:
    """ε = 1 is the identity; less of it never leaves a larger gap; the gap it tells is that measured."""
    order, scores, groups, items = lists(seed, n_groups)
    gaps: list[float] = []
    for epsilon in (1.0, 0.2, 0.1, 0.05):
        parity = fit_parity(order, scores, groups, items, epsilon, n=4, least=5)
        if epsilon == 1:
            assert not parity.changes
            assert parity.adjust(scores, groups.members, order) is scores
        assert parity.gap == pytest.approx(measured(parity, order, scores, groups, items))
        assert parity.gap <= max(parity.before, epsilon)
        if parity.before <= LEAST_AIM * epsilon:
            assert not parity.changes
        gaps.append(parity.gap)
    # one place of one list of the smallest group is worth this much
    grain = 1 / (4 * np.bincount(groups.members).min())
    assert all(less <= more + grain for more, less in pairwise(gaps))
    assert gaps[-1] <= 0.05 + grain


def test_who_is_unknown_or_in_a_small_group_is_answered_as_before() -> None:
    order, scores, groups, items = lists(3, 2)
    members = groups.members.copy()
    members[:10], members[10:14] = -1, 2
    three = Groups("g", ("0", "1", "2"), members)
    found = fit_parity(order, scores, three, items, 0.02, n=4, least=5)
    assert found.changes and found.gap < found.before
    assert not found.offsets[2].any() and found.offsets[:2].any(axis=1).all()
    moved = found.adjust(scores, members, order)
    assert np.array_equal(moved[:14], scores[:14])
    assert not np.array_equal(moved[14:], scores[14:])
    alone = fit_parity(order, scores, sides(*([0] * 60)), items, 0.0, n=4)
    assert not alone.changes and alone.gap == 0


def test_empty_places_and_lists() -> None:
    order, scores, groups, items = lists(4, 2)
    order, scores = order.copy(), scores.copy()
    order[:5, 3:], scores[:5, 3:] = -1, -np.inf
    order[5], scores[5] = -1, -np.inf
    found = fit_parity(order, scores, groups, items, 0.05, n=4, least=5)
    assert np.isfinite(found.offsets).all()
    assert found.gap == pytest.approx(measured(found, order, scores, groups, items))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epsilon": 1.5}, r"held at 1\.5: ε is from 0"),
        ({"n": 12}, "Lists of 12 candidates leave nothing to put into the first 12"),
        ({"groups": sides(0, 1)}, "groups of 2 lists do not belong together"),
    ],
)
def test_what_is_refused(change: dict[str, object], said: str) -> None:
    order, scores, groups, items = lists(0, 2)
    options = {"epsilon": 0.1, "n": 4, "groups": groups} | change
    with pytest.raises(InputError, match=said):
        fit_parity(order, scores, options["groups"], items, options["epsilon"], n=options["n"])  # type: ignore[arg-type]


def test_as_much_is_kept_back_as_other_people_may_differ_by_chance() -> None:
    order, scores, groups, items = lists(1, 2)
    few = fit_parity(order, scores, groups, items, 0.2, n=4, least=5)
    many = Groups("g", groups.names, np.tile(groups.members, 400))
    found = fit_parity(np.tile(order, (400, 1)), np.tile(scores, (400, 1)), many, items, 0.2, n=4, least=5)
    assert few.before == pytest.approx(found.before) and few.before > 0.2
    assert few.gap < 0.16  # sixty people keep .05 of ε back
    assert 0.18 < found.gap <= 0.2  # 24,000 hardly any
