"""Popularity as a prior: by hand, in range, a distribution, and chosen by likelihood."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.events import EventLog
from llm4rec.model.prior import FEWEST, SHARES, WINDOWS, Prior, classes, fit_prior, recent_popularity, windows


def log(items: list[int], times: list[int] | None = None, lengths: list[int] | None = None) -> EventLog:
    lengths = [len(items)] if lengths is None else lengths
    return EventLog(
        user_ids=pl.Series([f"u{row}" for row in range(len(lengths))]),
        offsets=np.cumsum([0, *lengths]),
        items=np.array(items),
        times=None if times is None else np.array(times),
    )


def test_classes_of_history_lengths() -> None:
    assert classes(np.array([0, 1, 2, 3, 9, 10, 500])).tolist() == [0, 1, 1, 2, 2, 3, 3]


def test_popularity_by_hand() -> None:
    events = log([0, 0, 1, 2], times=[1, 2, 3, 4])
    assert np.exp(recent_popularity(events, 4, 1.0)).tolist() == pytest.approx([
        2.5 / 6,
        1.5 / 6,
        1.5 / 6,
        0.5 / 6,
    ])
    # the newest half: times from the median 2.5 on
    assert np.exp(recent_popularity(events, 4, 0.5)).tolist() == pytest.approx([0.125, 0.375, 0.375, 0.125])


def test_recent_without_a_clock_is_each_persons_newest() -> None:
    events = log([0, 0, 0, 1, 2, 2], lengths=[4, 2])
    # half of four and half of two: items 0, 1 of the one, 2 of the other
    assert np.exp(recent_popularity(events, 3, 0.5)).tolist() == pytest.approx([1.5 / 4.5] * 3)


def test_mixture_by_hand() -> None:
    prior = Prior(np.log(np.array([0.5, 0.5], dtype=np.float32)), (1.0, 0.4, 0.0, 0.25), 1.0)
    network = np.log(np.array([[0.9, 0.1]] * 4, dtype=np.float32))
    mixed = np.exp(prior.mix(network, np.array([0, 2, 5, 50])))
    assert mixed[:, 0].tolist() == pytest.approx([0.5, 0.6 * 0.9 + 0.2, 0.9, 0.75 * 0.9 + 0.125], abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(2, 30), st.lists(st.sampled_from(list(SHARES)), min_size=4, max_size=4)
)
def test_a_mixture_is_a_distribution_and_keeps_the_order_of_both(
    seed: int, n_items: int, shares: list[float]
) -> None:
    draw = np.random.default_rng(seed)

    def distribution(rows: int) -> np.ndarray:
        logits = draw.normal(scale=4, size=(rows, n_items))
        return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)

    prior = Prior(distribution(1)[0], tuple(shares), 1.0)
    network, lengths = distribution(5), draw.integers(0, 20, size=5)
    mixed = prior.mix(network, lengths)
    assert np.logaddexp.reduce(mixed, axis=1) == pytest.approx(np.zeros(5), abs=1e-4)
    better = (network[:, :, None] >= network[:, None, :]) & (
        prior.log_popularity[:, None] >= prior.log_popularity[None, :]
    )
    assert (mixed[:, :, None] - mixed[:, None, :] >= -1e-5)[better].all()


def fitted(right: float, lengths: int, n: int = 200) -> Prior:
    """A prior fitted where the network gives the target `right` and popularity gives it ½."""
    events = log([0, 1] * 50)
    targets = np.zeros(n, dtype=np.int64)
    return fit_prior(events, 2, targets, np.full(n, lengths), np.full(n, math.log(right), dtype=np.float32))


def test_a_network_that_knows_better_gets_no_prior() -> None:
    assert fitted(0.9, lengths=5).shares[2] == 0


def test_a_network_that_knows_nothing_gives_way() -> None:
    assert fitted(0.01, lengths=5).shares[2] == pytest.approx(SHARES[-1])


def test_classes_seen_too_rarely_follow_the_next_longer_one() -> None:
    shares = fitted(0.01, lengths=5).shares
    assert shares[3] == 0  # nothing longer was seen
    assert shares[1] == shares[2]
    assert shares[0] == shares[2]
    assert fitted(0.9, lengths=5).shares[0] == 0.5  # an empty history is half popularity at least
    assert fitted(0.01, lengths=5, n=FEWEST - 1).shares == (0.5, 0, 0, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_no_other_share_or_window_makes_the_held_out_items_likelier(seed: int) -> None:
    draw = np.random.default_rng(seed)
    n, n_items = 60, 6
    events = log(draw.integers(0, n_items, 100).tolist(), times=np.sort(draw.integers(0, 1000, 100)).tolist())
    targets = draw.integers(0, n_items, n)
    network = np.log(draw.dirichlet(np.ones(n_items), size=n)).astype(np.float32)
    lengths = np.full(n, 12)
    likely = network[np.arange(n), targets]
    prior = fit_prior(events, n_items, targets, lengths, likely)
    assert prior.window in WINDOWS
    assert all(0 <= share < 1 for share in prior.shares)
    chosen = prior.mix(network, lengths)[np.arange(n), targets].sum()
    for window in windows(events.n_events):
        popularity = recent_popularity(events, n_items, window)
        for share in SHARES[::4]:
            other = Prior(popularity, (float(share),) * 4, window)
            assert other.mix(network, lengths)[np.arange(n), targets].sum() <= chosen + 1e-3


def test_a_window_of_few_events_is_not_tried() -> None:
    assert windows(100) == (1.0,)
    assert windows(5000) == (1.0, 0.3, 0.1)
    assert windows(50_000) == WINDOWS
