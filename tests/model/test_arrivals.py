"""Items that came after training: what is counted of them, and what it adds to their scores."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.events import EventLog, build_log
from llm4rec.errors import ClockError
from llm4rec.model.arrivals import Arrivals, count
from llm4rec.model.lifts import lift


def log(items: list[int], times: list[int] | None = None) -> EventLog:
    people = pl.Series([f"u{place}" for place in range(len(items))])
    return build_log(people, np.array(items), times=None if times is None else np.array(times))


def test_counts_by_hand() -> None:
    # item 7 comes at time 10: of the 6 events after it (times 20 to 50) two are on 7. With a promised share
    # of .25 its content is worth 1.5 of them: log((2 + 1) / (1.5 + 1)). Item 8 comes last: nothing is known.
    # Item 9 nobody has taken. Item 6 comes at 20, with the second event of 7 at the same time, and is not
    # taken again in the 5 other events since: log((0 + 1) / (5 · .5 + 1)).
    events = log([1, 7, 7, 6, 2, 1, 7, 8], [5, 10, 20, 20, 30, 40, 40, 50])
    found = count(events, np.array([6, 7, 8, 9]), np.array([0.5, 0.25, 0.9, 0.1]))
    assert found.items.tolist() == [6, 7]
    np.testing.assert_allclose(found.lifts, np.log([1 / 3.5, 3 / 2.5]), rtol=1e-6)


def test_the_first_day_counts_where_times_are_days() -> None:
    # item 1 is taken 20 times on its first day and never in the 19 events of the next: of 38 others since its
    # first, 19 are on it
    events = log([1] * 20 + [0] * 19, [86_400] * 20 + [172_800] * 19)
    found = count(events, np.array([1]), np.array([0.1]))
    np.testing.assert_allclose(found.lifts, np.log([20 / 4.8]), rtol=1e-6)


def test_what_is_taken_as_often_as_its_content_promises_stays_as_it_is() -> None:
    draw = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.15, 0.05])
    events = log(draw.choice(4, 20_000, p=shares).tolist(), list(range(20_000)))
    found = count(events, np.array([1, 2, 3]), shares[1:])
    assert np.abs(found.lifts).max() < 0.1
    other = count(events, np.array([1, 2, 3]), shares[1:] / [2, 1, 0.5])
    np.testing.assert_allclose(other.lifts, np.log([2, 1, 0.5]), atol=0.1)


def test_without_times_nobody_knows_since_when_an_item_is_there() -> None:
    with pytest.raises(ClockError, match="needs the time of every event"):
        count(log([1, 2, 1]), np.array([1]), np.array([0.5]))


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 60.0), st.booleans())
def test_what_probabilities_sum_to_stays_and_others_keep_their_proportions(
    seed: int, size: float, reached: bool
) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(3, 9)).astype(np.float32) * 3
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    if not reached:
        scores[:, [1, 4]] = -np.inf  # as where a beam reached neither
    lifts = (draw.normal(size=3) * size).astype(np.float32)
    before = np.exp(scores.astype(np.float64)).sum(axis=1)
    found = Arrivals(np.array([1, 5, 8]), lifts).add(scores)
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(axis=1), before, rtol=1e-4)
    if lifts.any():
        np.testing.assert_allclose(found[:, 2] - found[:, 0], scores[:, 2] - scores[:, 0], atol=1e-3)
        np.testing.assert_allclose(
            (found[:, 5] - found[:, 0]) - (scores[:, 5] - scores[:, 0]), lifts[1], atol=1e-3
        )
    assert np.isneginf(found[:, 4]).all() == (not reached)


@pytest.mark.parametrize(
    ("lifts", "expected"),
    [
        ([0.0, 1280.0, 2000.0], [np.log(0.5 / 0.25) - 1280, 0, np.log(0.25 / 0.25) - 1280]),
        ([0.0, -1280.0, 0.0], [np.log(2 / 3), -1280 + np.log(1 / 3), np.log(1 / 3)]),
        ([0.0, 0.0, 0.0], np.log([0.5, 0.25, 0.25])),
    ],
)
def test_a_lift_beyond_any_number_leaves_a_distribution(lifts: list[float], expected: list[float]) -> None:
    scores = np.append(np.log([0.5, 0.25, 0.25]), -np.inf).astype(np.float32)
    lift(scores, np.array([0, 1, 3]), np.array(lifts, dtype=np.float32))  # item 3 is out of reach
    np.testing.assert_allclose(scores, [*expected, -np.inf], atol=1e-3)


def test_an_empty_one_changes_nothing() -> None:
    scores = np.zeros((2, 3), dtype=np.float32)
    assert Arrivals().add(scores) is scores
    assert not len(count(log([1], [5]), np.zeros(0, dtype=np.int64), np.zeros(0)).items)


@pytest.mark.parametrize(
    ("items", "lifts", "wrong"),
    [
        ([3, 3], [0.1, 0.1], "ascending"),
        ([3, 9], [0.1, 0.1], "of the 9 items"),
        ([-1, 3], [0.1, 0.1], "ascending"),
        ([3], [0.1, 0.1], "as many"),
        ([3], [np.nan], "finite"),
    ],
)
def test_stored_arrays_are_checked(items: list[int], lifts: list[float], wrong: str) -> None:
    kept = {"items": np.array(items, dtype=np.int64), "lifts": np.array(lifts, dtype=np.float32)}
    with pytest.raises(ValueError, match=wrong):
        Arrivals.from_tensors(kept, 9)
