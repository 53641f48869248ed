"""Events in the network's terms: classes of gaps, ratings and kinds, and windows cut out of a log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.events import EventLog, build_log
from llm4rec.model.context import N_GAPS, gap_classes
from llm4rec.model.events import EventSpace, event_arrays, fit_events

NAN = float("nan")


def log(
    *, times: bool = True, ratings: list[float] | None = None, kinds: list[str] | None = None
) -> EventLog:
    """Three people with 3, 0 and 2 events."""
    return EventLog(
        user_ids=pl.Series(["a", "b", "c"]),
        offsets=np.array([0, 3, 3, 5]),
        items=np.array([4, 0, 2, 1, 1]),
        times=np.array([100, 100, 107, 50, 50 + 86_400]) if times else None,
        ratings=None if ratings is None else np.array(ratings, dtype=np.float32),
        kinds=None if kinds is None else np.array([sorted(set(kinds)).index(kind) for kind in kinds]),
        kind_names=() if kinds is None else tuple(sorted(set(kinds))),
    )


def test_gap_classes_by_hand() -> None:
    seconds = [-1, 0, 1, 2, 3, 4, 7, 8, 86_400, 4_194_303, 4_194_304, 2**40]
    # class 1 + ⌈log₂(1 + s)⌉; a day is 18, half a year 23, and so is everything beyond 2²¹ seconds
    expected = [0, 1, 2, 3, 3, 4, 4, 5, 18, 23, 23, 23]
    assert gap_classes(torch.tensor(seconds)).tolist() == expected


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**45), min_size=1, max_size=20))
def test_longer_gaps_are_never_of_a_lower_class(seconds: list[int]) -> None:
    classes = gap_classes(torch.tensor(sorted(seconds))).numpy()
    assert (np.diff(classes) >= 0).all()
    assert classes.min() >= 1 and classes.max() < N_GAPS


def test_few_distinct_ratings_are_a_class_each() -> None:
    space = fit_events(log(ratings=[1, 5, 3, 3, NAN]))
    assert space.rating_cuts == (1, 3)
    assert space.n_ratings == 3
    assert space.rating_mean == 3 and space.rating_std == pytest.approx(2**0.5)
    asked = np.array([NAN, 1, 3, 5, 0, 2, 4, 99], dtype=np.float32)
    assert space.rating_classes(asked).tolist() == [0, 1, 2, 3, 1, 2, 3, 3]


def test_half_stars_keep_their_classes_and_many_values_become_tenths() -> None:
    halves = np.arange(0.5, 5.5, 0.5, dtype=np.float32)
    users = pl.Series(["u"] * 10)
    space = fit_events(build_log(users, np.zeros(10, dtype=np.int64), ratings=halves))
    assert space.rating_classes(halves).tolist() == list(range(1, 11))
    many = np.arange(1000, dtype=np.float32)
    wide = fit_events(build_log(pl.Series(["u"] * 1000), np.zeros(1000, dtype=np.int64), ratings=many))
    assert wide.n_ratings == 10
    assert np.bincount(wide.rating_classes(many), minlength=11).tolist() == [0] + [100] * 10


@pytest.mark.parametrize("ratings", [None, [NAN] * 5])
def test_without_ratings_every_class_is_unknown(ratings: list[float] | None) -> None:
    space = fit_events(log(ratings=ratings))
    assert space == EventSpace((), 0.0, 1.0, ())
    assert event_arrays(log(ratings=ratings), space, np.full(3, -1)).ratings.tolist() == [0] * 6


def test_equal_ratings_have_a_deviation_to_divide_by() -> None:
    assert fit_events(log(ratings=[4] * 5)).rating_std == 1


def test_kinds_keep_their_meaning_in_a_later_log() -> None:
    space = fit_events(log(kinds=["view", "buy", "view", "view", "buy"]))
    assert space.kind_names == ("buy", "view")
    # in the later log "like" is kind 0, "view" kind 1; only the name says what it is
    later = log(kinds=["view", "like", "view", "like", "like"])
    assert space.kind_classes(later).tolist() == [2, 0, 2, 0, 0]
    assert space.kind_classes(log()).tolist() == [0] * 5


def test_kinds_in_a_space_without_any_are_unknown() -> None:
    assert fit_events(log()).kind_classes(log(kinds=["a", "b", "a", "a", "b"])).tolist() == [0] * 5


def test_a_log_by_hand() -> None:
    told = log(ratings=[1, 5, NAN, 5, 1])
    arrays = event_arrays(told, fit_events(told), np.array([7, 8, -1]))
    assert arrays.items.tolist() == [4, 0, 2, 1, 1, -1]
    assert arrays.gaps.tolist() == [0, 1, 4, 0, 18, 0]  # a person's first has no gap; 0, 7 and 86,400 seconds
    assert arrays.ratings.tolist() == [1, 2, 0, 2, 1, 0]
    batch = arrays.batch(np.array([0, 1, 2]), np.array([1, 3, 3]), np.array([2, 0, 2]))
    assert batch.items.tolist() == [[0, 2], [-1, -1], [1, 1]]
    assert batch.gaps.tolist() == [[0, 4], [0, 0], [0, 18]]  # a cut history's first gap is unknown
    assert batch.ratings.tolist() == [[2, 0], [0, 0], [2, 1]]
    assert batch.people.tolist() == [7, 8, -1]
    assert arrays.gaps.tolist() == [0, 1, 4, 0, 18, 0]  # and the log itself is left alone


def test_without_a_clock_every_gap_is_unknown() -> None:
    told = log(times=False)
    assert event_arrays(told, fit_events(told), np.full(3, -1)).gaps.tolist() == [0] * 6


def test_a_time_that_was_not_given_makes_no_gap() -> None:
    told = log()
    assert told.times is not None
    some = replace(told, times=np.where(np.arange(5) < 3, -1, told.times))
    gaps = event_arrays(some, fit_events(told), np.full(3, -1)).gaps
    assert gaps.tolist() == [0, 0, 0, 0, 18, 0]


def test_an_empty_log_is_only_padding() -> None:
    empty = log().heads(np.zeros(3, dtype=np.int64))
    arrays = event_arrays(empty, fit_events(log(ratings=[1, 2, 3, 4, 5])), np.full(3, -1))
    assert arrays.items.tolist() == [-1] and arrays.gaps.tolist() == [0]
    assert arrays.batch(np.array([0, 1]), np.array([0, 0]), np.array([0, 0])).items.shape == (2, 0)
