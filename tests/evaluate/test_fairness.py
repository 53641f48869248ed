"""Groups, exposure and accuracy by group, against figures worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog
from llm4rec.errors import InputError
from llm4rec.evaluate.exposure import exposure_drift, exposure_parity
from llm4rec.evaluate.fairness import metric_gap, metric_gap_of_items, miscalibration
from llm4rec.evaluate.groups import (
    Groups,
    ItemGroups,
    by_category,
    by_popularity,
    exposures,
    groups_of,
    numbers_of,
)

CATALOG = Catalog(
    pl.DataFrame({
        "item_id": list("abcd"),
        "genre": [["drama"], ["drama", "war", "war"], ["war"], []],
    }),
    (Field("genre", "categorical"),),
)


def genres() -> ItemGroups:
    found = by_category(CATALOG)
    assert found is not None
    return found


def two(*members: int) -> Groups:
    return Groups("side", ("left", "right"), np.array(members))


def test_categories_and_missing_values() -> None:
    found = groups_of(pl.Series("gender", ["M", " F ", None, "", "M"]))
    assert (found.attribute, found.names) == ("gender", ("F", "M"))
    assert found.members.tolist() == [1, 0, -1, -1, 1]
    assert found.of_rows(np.array([1, -1, 0])).members.tolist() == [0, -1, 1]
    binary = groups_of(pl.Series("student", [True, None, False]))
    assert (binary.names, binary.members.tolist()) == (("false", "true"), [1, -1, 0])
    listed = groups_of(pl.Series("job", [["a"], [], None, ["c", "b"]], dtype=pl.List(pl.String)))
    assert (listed.names, listed.members.tolist()) == (("a", "b, c"), [0, -1, -1, 1])
    assert groups_of(pl.Series("code", [1, 0, None, 1])).names == ("0", "1")
    assert groups_of(pl.Series("code", [1.0, 0.0, float("nan")])).members.tolist() == [1, 0, -1]


@pytest.mark.parametrize("kind", [pl.Int32, pl.Float64, pl.String], ids=str)
def test_numbers_are_cut_at_quantiles(kind: Any) -> None:
    """Quartiles of 10 … 80 lie at 27.5, 45 and 62.5; the median of all but the missing is 45."""
    ages = pl.Series("age", [10, 20, 30, 40, 50, 60, 70, 80, None]).cast(kind)
    found = groups_of(ages)
    assert found.names == ("10 to 20", "30 to 40", "50 to 60", "70 to 80")
    assert found.members.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, -1]
    assert groups_of(ages, 2).members.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, -1]


def test_equal_numbers_stay_together() -> None:
    found = groups_of(pl.Series("age", [1, 2, 3, 4, 9, 9, 9, 9]), 4)
    assert found.members.tolist() == [0, 0, 1, 1, 2, 2, 2, 2]  # cuts at 2.75, 6.5 and 9


def test_what_is_no_attribute_is_refused() -> None:
    with pytest.raises(InputError, match=r"the column 'born', which is of the type Date"):
        groups_of(pl.Series("born", ["2000-01-01"]).str.to_date())
    assert numbers_of(pl.Series("zip", ["1", "2", "3", "4", "5", "T8H"])) is None


def test_an_item_belongs_to_its_categories_in_equal_parts() -> None:
    assert genres().names == ("drama", "war")
    assert genres().shares.toarray().tolist() == [[1, 0], [0.5, 0.5], [0, 1], [0, 0]]
    rest = by_category(CATALOG, "genre", most=1)
    assert rest is not None and rest.names == ("drama", "all others")
    assert by_category(Catalog(CATALOG.table)) is None
    with pytest.raises(InputError, match=r"can't be grouped by 'brand'\. Fields for that: genre\."):
        by_category(CATALOG, "brand")


def test_popularity_keeps_equal_items_together() -> None:
    found = by_popularity(np.array([0, 7, 3, 0, 9, 0]), 3)
    # mean ranks from the most popular: 9 → 0.5, 7 → 1.5, 3 → 2.5, the three 0 → 4.5, of 6
    assert found.names == ("1st of 3 by popularity", "2nd of 3 by popularity", "3rd of 3 by popularity")
    assert found.shares.toarray().argmax(axis=1).tolist() == [2, 0, 1, 2, 0, 2]


def test_exposure_is_a_share_of_the_filled_places() -> None:
    lists = np.array([[0, 1, 2, 3], [1, -1, -1, -1], [-1, -1, -1, -1]])
    found = exposures(lists, genres(), 3)
    assert found[:2].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert np.isnan(found[2]).all()
    assert exposures(lists, genres(), 4)[0].tolist() == [0.375, 0.375]  # item 3 is of no group


def test_exposure_parity_by_hand() -> None:
    """Left: people 0 (lists all drama, half drama: 3/4) and 1 (1): 7/8. Right: 0, 0 and 1 of drama: 1/3."""
    lists = np.array([[0, 0], [0, 2], [0, 0], [2, 2], [2, 2], [0, 0], [2, 2]])
    people = np.array([0, 0, 1, 2, 3, 4, 5])
    groups = two(0, 0, 1, 1, 1, -1)
    found = exposure_parity(lists, people, groups, genres(), n=2, least=2)
    assert found.groups.names == ("left", "right", "unknown")
    assert found.groups.sizes.tolist() == [2, 3, 1]
    assert found.groups.among.tolist() == [True, True, False]
    assert found.groups.notes == ("side: 1 people have no value; they are shown and not compared.",)
    np.testing.assert_allclose(found.shares, [[7 / 8, 1 / 8], [1 / 3, 2 / 3], [0, 1]])
    assert found.pairs == ((0, 1),)
    np.testing.assert_allclose(found.differences, [[13 / 24, -13 / 24]])
    assert found.largest is not None and found.fairness is not None
    assert found.largest.value == pytest.approx(13 / 24)
    assert found.fairness.value == pytest.approx(11 / 24)
    assert found.fairness.low == pytest.approx(1 - found.largest.high)
    np.testing.assert_allclose(found.ratios, [(1 / 3) / (7 / 8), (1 / 8) / (2 / 3)])
    # left is 3/4, 7/8, 1 in 1, 2, 1 of 4 draws; right is 1 in 1 of 27 and 0 in 8. So 3/4 − 1 comes in 0.9% of
    # the draws, 7/8 − 1 in 1.9%, which is beyond 2.5% together, and the most, 1 − 0, in 7.4%
    assert (found.low[0, 0], found.high[0, 0]) == (-0.125, 1)


def test_a_small_group_is_shown_and_not_compared() -> None:
    lists = np.array([[0], [0], [2], [2]])
    found = exposure_parity(lists, np.arange(4), two(0, 0, 0, 1), genres(), n=1, least=2)
    assert found.groups.notes == ("side: 'right' has 1 people, fewer than 2; it is shown and not compared.",)
    assert found.shares[1].tolist() == [0, 1]
    assert found.pairs == () and found.largest is None and found.fairness is None
    assert np.isnan(found.chance) and np.isnan(found.p)


def test_chance_tells_alike_from_apart() -> None:
    draw = np.random.default_rng(0)
    groups = two(*([0] * 60 + [1] * 60))
    alike = draw.choice([0, 2], size=(120, 10))
    apart = alike.copy()
    apart[:60] = np.where(draw.random((60, 10)) < 0.3, 0, apart[:60])
    same = exposure_parity(alike, np.arange(120), groups, genres())
    other = exposure_parity(apart, np.arange(120), groups, genres())
    assert same.largest is not None and other.largest is not None
    assert same.p > 0.05 and same.largest.low < 2 * same.chance
    assert other.p < 0.01 and other.largest.low > 2 * other.chance
    assert (same.low[0] < 0).all() and (same.high[0] > 0).all()
    assert other.low[0, 0] > 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_parity_is_bounded_and_does_not_depend_on_order(seed: int, n_groups: int) -> None:
    draw = np.random.default_rng(seed)
    n = 40
    lists, members = draw.integers(-1, 4, size=(n, 5)), draw.integers(-1, n_groups, n)
    groups = Groups("g", tuple(map(str, range(n_groups))), members)
    found = exposure_parity(lists, np.arange(n), groups, genres(), n=5, least=3, draws=50)
    if found.largest is not None:
        assert 0 <= found.largest.value <= 1
        assert found.largest.value == pytest.approx(np.abs(found.differences).max())
        assert (found.low <= found.high).all()
    order = draw.permutation(n)
    shuffled = Groups("g", groups.names, members)
    again = exposure_parity(lists[order], order, shuffled, genres(), n=5, least=3, draws=50)
    np.testing.assert_array_equal(again.shares, found.shares)


def test_metric_gap_follows_fairlearn() -> None:
    """Difference = max − min, ratio = min ÷ max; a person's cases count once together."""
    values = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, np.nan], dtype=np.float32)
    people = np.array([0, 0, 1, 2, 3, 4, 5, 5])
    groups = Groups("g", ("a", "b", "c"), np.array([0, 0, 1, 1, 2, -1]))
    found = metric_gap("hr@10", values, people, groups, least=2)
    assert found.metric == "hr@10"
    np.testing.assert_allclose(found.means, [0.75, 0.5, 0, 0])  # c has one person, unknown one
    assert found.difference is not None and found.ratio is not None
    assert found.difference.value == pytest.approx(0.25)
    assert (found.ratio.value, found.ratio.low) == (pytest.approx(2 / 3), 0)
    assert len(found.groups.notes) == 2
    assert metric_gap("hr@10", values, people, groups, least=3).difference is None
    assert metric_gap("hr@10", 0 * values, people, groups, least=2).ratio is None  # of nothing


def test_the_ratio_of_groups_that_all_score() -> None:
    values = np.array([0.5, 0.5, 1.0, 1.0])
    found = metric_gap("ndcg@10", values, np.arange(4), two(0, 0, 1, 1), least=2)
    assert found.ratio is not None and found.difference is not None
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (0.5, 0.5, 0.5)
    assert (found.difference.value, found.difference.low) == (0.5, 0.5)
    # six deals of two and two: in two of them they are apart as here, and 0 in the other four
    assert found.chance == pytest.approx(1 / 6, abs=0.06)
    assert found.p == pytest.approx(1 / 3, abs=0.12)


def test_opportunity_of_categories() -> None:
    """Drama is asked for by cases 0 and half of 1, war by the other half and case 2."""
    hits = np.array([1.0, 0.0, 1.0, 1.0])
    found = metric_gap_of_items(
        "hr@10", hits, np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3]), genres(), least=2
    )
    np.testing.assert_allclose(found.means, [1 / 1.5, 1 / 1.5])
    assert found.groups.sizes.tolist() == [1, 2]
    assert found.groups.notes == ("genre: 'drama' has 1 people, fewer than 2; it is shown and not compared.",)
    both = metric_gap_of_items(
        "hr@10", np.array([1.0, 0.0, 0.0]), np.array([0, 1, 2]), np.array([0, 2, 2]), genres(), least=1
    )
    assert both.means.tolist() == [1, 0] and both.difference is not None
    assert both.difference.value == 1


def test_miscalibration_by_hand() -> None:
    """History: drama, drama and war: p = (2/3, 1/3). Lists: the same, all drama, and nothing known."""
    log = EventLog(
        pl.Series(["u", "v", "w", "x"]), np.array([0, 3, 6, 9, 9]), np.array([0, 0, 2, 0, 0, 2, 0, 0, 2])
    )
    lists = np.array([[0, 0, 2], [0, 0, 0], [3, 3, 3], [0, 0, 2]])
    found = miscalibration(lists, log, genres(), 3)
    drama, war = 0.99 + 0.01 * 2 / 3, 0.01 / 3
    expected = 2 / 3 * np.log(2 / 3 / drama) + 1 / 3 * np.log(1 / 3 / war)
    np.testing.assert_allclose(found[:2], [0, expected], atol=1e-12)
    assert np.isnan(found[2:]).all()


def test_exposure_moves_between_stretches_of_time() -> None:
    """Two people; drama at first, then half, then none: shares 1, 1/2, 0 and steps of −1/2."""
    lists = np.array([[0, 0], [0, 0], [0, 2], [2, 0], [2, 2], [2, 2], [0, 0]])
    people, times = np.array([0, 1, 0, 1, 0, 1, 1]), np.array([1, 2, 11, 12, 21, 22, -1])
    found = exposure_drift(lists, people, times, genres(), windows=3, n=2, least=2)
    assert found.starts.tolist() == [1, 11, 21]
    assert found.shares.tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    assert found.differences.tolist() == [[-0.5, 0.5], [-0.5, 0.5]]
    assert found.largest is not None and found.largest.value == 0.5
    few = exposure_drift(lists, people, times, genres(), windows=3, n=2, least=3)
    assert few.largest is None and len(few.stretches.notes) == 3
    with pytest.raises(InputError, match="needs the time of at least one list"):
        exposure_drift(lists, people, np.full(7, -1), genres())


def test_intervals_are_repeatable_and_cover() -> None:
    """A 95% interval of a known difference holds it in most sets of 60 people, and is no wider than it need.

    The error of a difference of shares of 4 places is √(.21/120 + .24/120) = .0612, and 3.92 of it are .24.
    """
    held, width = 0, 0.0
    groups = two(*([0] * 30 + [1] * 30))
    items = ItemGroups("kind", ("x", "y"), sparse.csr_array(np.eye(2)))
    for seed in range(50):
        draw = np.random.default_rng(seed)
        lists = np.where(draw.random((60, 4)) < np.repeat([[0.7], [0.4]], 30, axis=0), 0, 1)
        found = exposure_parity(lists, np.arange(60), groups, items, n=4, draws=200)
        held += found.low[0, 0] <= 0.3 <= found.high[0, 0]
        width += (found.high[0, 0] - found.low[0, 0]) / 50
    assert held >= 43
    assert width == pytest.approx(0.24, rel=0.1)
    again = exposure_parity(lists, np.arange(60), groups, items, n=4, draws=200)
    assert again.largest == found.largest
