"""Popularity taken out of the scores, equation (15)."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.config import load
from llm4rec.data.events import EventLog
from llm4rec.debias.popularity import Popularity, PopularityConfig
from llm4rec.errors import ConfigError, InputError
from llm4rec.settings import Config


def _log(items: list[int], times: list[int] | None) -> EventLog:
    return EventLog(
        pl.Series("user_id", ["a"]),
        np.array([0, len(items)]),
        np.array(items),
        None if times is None else np.array(times),
    )


def _log_p(probabilities: list[float]) -> np.ndarray:
    return np.log(np.array([probabilities], dtype=np.float32))


def test_a_power_of_popularity_is_divided_out_and_the_rest_sums_to_one() -> None:
    found = Popularity(0.5, np.array([9.0, 1.0])).adjust(_log_p([0.6, 0.4]))
    # .6 / √.9 : .4 / √.1 = .6325 : 1.2649 = 1 : 2
    np.testing.assert_allclose(np.exp(found), [[1 / 3, 2 / 3]], rtol=1e-5)


def test_expected_popularity_takes_the_place_of_todays() -> None:
    found = Popularity(1.0, np.array([8.0, 2.0]), np.array([4.0, 6.0])).adjust(_log_p([0.8, 0.2]))
    np.testing.assert_allclose(np.exp(found), [[0.4, 0.6]], rtol=1e-5)  # .8/.8·.4 : .2/.2·.6


def test_of_two_stretches_the_newer_is_counted_and_carried_on() -> None:
    # of ten events at 0 … 9 the newest three are at 7, 8, 9 and the three before at 4, 5, 6
    log = _log([0, 0, 0, 0, 0, 0, 1, 1, 1, 2], list(range(10)))
    np.testing.assert_array_equal(Popularity.of(log, 3, PopularityConfig()).counts, [6.5, 3.5, 1.5])
    now = Popularity.of(log, 3, PopularityConfig(window=0.3))
    np.testing.assert_array_equal(now.counts, [0.5, 2.5, 1.5])
    assert now.expected is None
    ahead = Popularity.of(log, 3, PopularityConfig(window=0.3, expected=True))
    # twice [.5, 2.5, 1.5] less [2.5, 1.5, .5], none below half an event
    assert ahead.expected is not None
    np.testing.assert_array_equal(ahead.expected, [0.5, 3.5, 2.5])


def test_without_a_clock_the_whole_log_is_counted_and_nothing_can_be_expected() -> None:
    log = _log([0, 0, 1], None)
    np.testing.assert_array_equal(Popularity.of(log, 2, PopularityConfig()).counts, [2.5, 1.5])
    with pytest.raises(InputError, match=r"debias.popularity.expected needs .* no times"):
        Popularity.of(log, 2, PopularityConfig(window=0.5, expected=True))
    with pytest.raises(ConfigError, match="compares two windows"):
        load(Config, settings=["debias.popularity.expected=true"], environment={})


def test_a_strength_to_be_chosen_begins_as_the_identity() -> None:
    assert Popularity.of(_log([0], None), 1, PopularityConfig(strength=0.5, choose=True)).strength == 0


def test_an_item_nobody_has_taken_counts_half_an_event() -> None:
    grown = Popularity(0.5, np.array([2.5]), np.array([1.5])).extended(2)
    np.testing.assert_array_equal(grown.counts, [2.5, 0.5, 0.5])
    assert grown.expected is not None
    np.testing.assert_array_equal(grown.expected, [1.5, 0.5, 0.5])


def test_events_count_for_new_items_alone() -> None:
    counted = Popularity(0.5, np.array([2.5, 0.5, 0.5])).counted(np.array([0, 1, 1]), np.array([1, 2]))
    np.testing.assert_array_equal(counted.counts, [2.5, 2.5, 0.5])
    assert not Popularity().counted(np.array([0]), np.array([0])).known


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 12))
    logits = rng.normal(0, 3, (draw(st.integers(1, 3)), n))
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return log_p.astype(np.float32), rng.integers(0, 50, n) + 0.5


@settings(max_examples=60, deadline=None)
@given(scored(), st.floats(0, 1))
def test_laws(given_: tuple[np.ndarray, np.ndarray], strength: float) -> None:
    log_p, counts = given_
    found = Popularity(strength, counts).adjust(log_p)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-4)
    assert Popularity(0.0, counts).adjust(log_p) is log_p
    even = Popularity(strength, np.full(log_p.shape[1], 7.5)).adjust(log_p)
    np.testing.assert_allclose(even, log_p, atol=1e-4)  # popularity that is all alike moves nothing
    # of every two items the rarer gains on the other, by γ · ln of how much rarer it is
    gained = (found - log_p)[0]
    np.testing.assert_allclose(
        gained[0] - gained, strength * np.log(counts / counts[0]), atol=1e-3 * (1 + np.abs(log_p).max())
    )


@settings(max_examples=30, deadline=None)
@given(scored(), st.floats(0.01, 1))
def test_candidates_that_are_all_items_are_scored_as_all_items(
    given_: tuple[np.ndarray, np.ndarray], strength: float
) -> None:
    log_p, counts = given_
    made = Popularity(strength, counts)
    np.testing.assert_allclose(made.adjust(log_p, np.arange(len(counts))), made.adjust(log_p), atol=1e-3)


def test_what_no_candidate_holds_is_estimated_from_popularity() -> None:
    counts = np.array([10.0, 5.0, 4.0, 1.0])
    log_p = _log_p([0.5, 0.25, 0.2, 0.05])  # as popular as they are: the estimate is exact
    made = Popularity(0.5, counts)
    np.testing.assert_allclose(
        made.adjust(log_p[:, :2], np.array([0, 1])), made.adjust(log_p)[:, :2], atol=1e-5
    )


def test_what_was_kept_is_checked() -> None:
    made = Popularity(0.25, np.array([1.5, 0.5]), np.array([0.5, 2.5]))
    again = Popularity.from_tensors(made.tensors(), 0.25, 2)
    np.testing.assert_array_equal(again.counts, made.counts)
    np.testing.assert_array_equal(again.expected, made.expected)
    with pytest.raises(ValueError, match="not 3 positive counts"):
        Popularity.from_tensors(made.tensors(), 0.25, 3)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        Popularity.from_tensors(made.tensors(), 1.5, 2)
