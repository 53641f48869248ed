"""Propensities by hand, in a world of known looks, and what weighing by them gives back."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from llm4rec.data.world import WorldConfig, make_world
from llm4rec.debias.propensity import (
    calibration,
    clippings,
    effective_size,
    looks,
    of_popularity,
    weights,
)
from llm4rec.errors import InputError
from llm4rec.evaluate.off_policy import Logged, doubly_robust, ips, naive


def test_popularity_by_hand() -> None:
    """√(16/16), √(4/16), and half an event where there was none."""
    assert of_popularity(np.array([16, 4, 0])) == pytest.approx([1, 0.5, np.sqrt(0.5 / 16)])
    assert of_popularity(np.array([16, 4, 1]), 0.0) == pytest.approx([1, 1, 1])
    with pytest.raises(InputError, match="no item was ever taken"):
        of_popularity(np.zeros(3))


def test_weights_by_hand() -> None:
    e = np.array([0.5, 0.25, 0.125])
    assert weights(e, density=0.25) == pytest.approx([0.5, 1, 2])
    assert weights(e) == pytest.approx(np.array([2, 4, 8]) * 3 / 14)
    assert weights(e, clip=0.25, density=1.0) == pytest.approx([2, 4, 4])


def test_the_mean_of_ips_weighted_losses_is_equation_14() -> None:
    """Σ over what is observed of loss / e by the number of pairs, by hand: (1/.5 + 3/.25) / 8."""
    e, losses = np.array([0.5, 0.25]), np.array([1.0, 3.0])
    assert np.mean(weights(e, density=2 / 8) * losses) == pytest.approx((1 / 0.5 + 3 / 0.25) / 8)


@given(st.lists(st.floats(0.001, 0.5), min_size=1, max_size=30), st.floats(0.1, 2))
def test_normalised_weights_are_of_mean_one_and_know_no_scale(e: list[float], factor: float) -> None:
    found = weights(np.array(e))
    assert found.mean() == pytest.approx(1)
    assert weights(np.array(e) * factor) == pytest.approx(found)


@pytest.mark.parametrize("bad", [0.0, 1.5, np.nan])
def test_what_is_no_propensity_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="propensity of event 2 is"):
        weights(np.array([0.5, bad]))


def test_clipping_by_hand() -> None:
    """Inverse 2, 4 and 10; raised to .25 they are 2, 4 and 4."""
    free, bound = clippings(np.array([0.5, 0.25, 0.1]), (0.0, 0.25))
    assert astuple(free) == pytest.approx((0, 0, 1, 16**2 / 120, 10, 16 / 3))
    assert astuple(bound) == pytest.approx((0.25, 1 / 3, 10 / 16, 10**2 / 36, 4, 10 / 3))


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_bound_keeps_less_and_varies_less(e: list[float], one: float, other: float) -> None:
    low, high = clippings(np.array(e), sorted((one, other)))
    assert high.kept <= low.kept + 1e-12 and high.largest <= low.largest
    assert high.effective >= low.effective - 1e-9
    assert effective_size(np.array(e)) <= len(e) + 1e-9


def test_calibration_by_hand() -> None:
    told = calibration(np.array([0.2, 0.8, 0.2, 0.6]), np.array([0, 1, 1, 1]), bins=2)
    assert told.predicted == pytest.approx([0.2, 0.7]) and told.observed == pytest.approx([0.5, 1])
    assert told.counts == pytest.approx([2, 2])
    assert told.brier == pytest.approx((0.04 + 0.04 + 0.64 + 0.16) / 4)
    assert told.constant == pytest.approx(3 * 0.25**2 / 4 + 0.75**2 / 4)
    assert told.error == pytest.approx((0.3 + 0.3) / 2)


def test_calibration_counts_what_each_stands_for() -> None:
    """A pair of weight 3 is three pairs."""
    p, y, n = np.array([0.1, 0.4, 0.4]), np.array([0, 1, 0]), np.array([3.0, 1.0, 1.0])
    one = calibration(p, y, n, bins=2)
    all_told = calibration(np.repeat(p, n.astype(int)), np.repeat(y, n.astype(int)), bins=2)
    for name in ("predicted", "observed", "counts"):
        assert getattr(one, name) == pytest.approx(getattr(all_told, name))
    assert (one.brier, one.constant) == pytest.approx((all_told.brier, all_told.constant))


def test_looks_by_hand() -> None:
    """Item 0 is clicked 8 times in 10 in place 1, 4 in place 2, item 1 by 4 and 2: half as many look."""
    positions = np.repeat([1, 2, 1, 2], 10)
    items = np.repeat([0, 0, 1, 1], 10)
    clicked = np.concatenate([np.arange(10) < n for n in (8, 4, 4, 2)])
    assert looks(positions, items, clicked) == pytest.approx([1, 0.5])


@pytest.mark.parametrize(
    ("positions", "clicked", "sentence"),
    [
        ([1, 3], [True, True], "Nothing was shown in place 2"),
        ([1, 2], [False, True], "Nothing was clicked in place 1"),
        ([0, 1], [True, True], "places that start at 1"),
    ],
)
def test_looks_need_every_place(positions: list[int], clicked: list[bool], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        looks(np.array(positions), np.array([0, 1]), np.array(clicked))


def test_looks_are_told_apart_from_liking_in_the_world() -> None:
    """Popular items stand in better places, so the plain click rates of the places mix both up."""
    world = make_world(
        WorldConfig(seed=1, n_users=200, n_items=40, n_impressions=150_000, n_trial=0, n_events=1000)
    )
    shown, truth = world.impressions, world.truth
    places = np.arange(1, shown.positions.max() + 1)
    right = truth.looked(places) / truth.looked(places[:1])
    found = looks(shown.positions, shown.items, shown.clicked)
    rates = np.array([shown.clicked[shown.positions == place].mean() for place in places])
    plain = rates / rates[0]
    assert np.abs(found - right).max() < 0.6 * np.abs(plain - right).max()
    assert found == pytest.approx(right, abs=0.06)


def test_the_mean_rating_of_random_items_is_covered_by_weighing_and_not_by_the_log_s_mean() -> None:
    """IPS and doubly robust from logged, unclipped propensities, over worlds of 20 seeds."""
    covered = {"ips": 0, "dr": 0}
    for seed in range(20):
        settings = {"inattention": 0.0, "explore": 0.3, "n_events": 1000, "n_trial": 0}
        world = make_world(WorldConfig(seed=seed, n_users=300, n_items=60, n_impressions=10_000, **settings))
        shown, n_items = world.impressions, world.config.items
        # a model of the ratings by item, learnt from half of the people and used for the others
        half = shown.users % 2
        model = np.stack([
            (np.bincount(shown.items[half != h], shown.ratings[half != h], n_items) + 3)
            / (np.bincount(shown.items[half != h], minlength=n_items) + 1)
            for h in (0, 1)
        ])
        log = Logged(
            shown.ratings.astype(float), shown.items, shown.propensities, np.full(len(shown), 1 / n_items),
            shown.users, model[half, shown.items], model.mean(axis=1)[half],
        )  # fmt: skip
        drawn = np.random.default_rng(seed).integers(n_items, size=len(shown))
        felt = 1 + 4 * world.truth.relevance(shown.users, drawn, shown.times)
        # 1 + the chances of being rounded above 1, 2, 3 and 4
        value = 1 + norm.sf(np.arange(1.5, 5)[:, None], loc=felt, scale=world.config.noise).sum(axis=0).mean()
        for name, found in (("ips", ips(log)), ("dr", doubly_robust(log))):
            covered[name] += found.low - 0.01 <= value <= found.high + 0.01  # its own error, of 10,000 draws
        assert naive(log).low > value + 0.01
    assert min(covered.values()) >= 18
