"""Popularity as a prior: by hand, in range, a distribution, and chosen by likelihood."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.events import EventLog
from llm4rec.model.prior import (
    FEWEST,
    RANKED,
    SHARES,
    WINDOWS,
    Prior,
    Trial,
    classes,
    recent_popularity,
    windows,
)


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


def test_popularity_is_counted_anew_in_later_events_by_hand() -> None:
    nothing = np.log(np.full((2, 4), 0.25, dtype=np.float32))
    prior = Prior(nothing, (0.2, 0.7), (1.0, 0.5), floors=(0.0, 0.0))
    found = prior.counted(log([0, 0, 1, 2], times=[1, 2, 3, 4]))
    # 2.5, 1.5, 1.5 and .5 of 6 in the whole log; .5, 1.5, 1.5 and .5 of 4 in its newer half
    expected = [[2.5 / 6, 1.5 / 6, 1.5 / 6, 0.5 / 6], [0.125, 0.375, 0.375, 0.125]]
    np.testing.assert_allclose(np.exp(found.log_popularity), expected, rtol=1e-6)
    assert found.floors == pytest.approx((np.log(0.5 / 6), np.log(0.5 / 4)))
    assert (found.shares, found.windows) == (prior.shares, prior.windows)


def test_recent_without_a_clock_is_each_persons_newest() -> None:
    events = log([0, 0, 0, 1, 2, 2], lengths=[4, 2])
    # half of four and half of two: items 0, 1 of the one, 2 of the other
    assert np.exp(recent_popularity(events, 3, 0.5)).tolist() == pytest.approx([1.5 / 4.5] * 3)


def test_mixture_by_hand() -> None:
    popularity = np.log(np.array([[0.5, 0.5], [0.2, 0.8], [0.5, 0.5], [0.4, 0.6]], dtype=np.float32))
    prior = Prior(popularity, (1.0, 0.4, 0.0, 0.25), (1.0, 0.1, 1.0, 1.0))
    network = np.log(np.array([[0.9, 0.1]] * 4, dtype=np.float32))
    mixed = np.exp(prior.mix(network, np.array([0, 2, 5, 50])))
    by_hand = [0.5, 0.6 * 0.9 + 0.4 * 0.2, 0.9, 0.75 * 0.9 + 0.25 * 0.4]
    assert mixed[:, 0].tolist() == pytest.approx(by_hand, abs=1e-6)
    some = prior.mix(network[:, 1:], np.array([0, 2, 5, 50]), np.array([1]))
    np.testing.assert_allclose(np.exp(some[:, 0]), mixed[:, 1], atol=1e-6)
    assert prior.commonest(0).tolist() == [0, 1]  # of equal ones the first
    assert prior.commonest(2).tolist() == [1, 0]


@settings(max_examples=50)
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

    prior = Prior(distribution(4), tuple(shares), (1.0,) * 4)
    network, lengths = distribution(5), draw.integers(0, 20, size=5)
    mixed = prior.mix(network, lengths)
    assert np.logaddexp.reduce(mixed, axis=1) == pytest.approx(np.zeros(5), abs=1e-4)
    popularity = prior.log_popularity[classes(lengths)]
    better = (network[:, :, None] >= network[:, None, :]) & (popularity[:, :, None] >= popularity[:, None, :])
    assert (mixed[:, :, None] - mixed[:, None, :] >= -1e-5)[better].all()


def chosen(events: EventLog, targets: np.ndarray, lengths: np.ndarray, network: np.ndarray) -> Prior:
    """The prior for cases whose network says log p `network` [c, i] and who have seen nothing."""
    trial = Trial(events, network.shape[1], targets, lengths, np.arange(len(targets)))
    for rows in np.array_split(np.arange(len(targets)), 3):  # asked in parts, as a fit asks
        trial.ask(rows, network[rows], np.ones((len(rows), network.shape[1]), dtype=bool))
    return trial.prior()


def fitted(right: float, lengths: int, n: int = 200) -> Prior:
    """A prior fitted where the network gives the target `right` and popularity gives it ½."""
    network = np.log(np.tile(np.array([right, 1 - right], dtype=np.float32), (n, 1)))
    return chosen(log([0, 1] * 50), np.zeros(n, dtype=np.int64), np.full(n, lengths), network)


def test_a_network_that_knows_better_gets_no_prior() -> None:
    assert fitted(0.9, lengths=5).shares[2] == 0


def test_a_network_that_knows_nothing_gives_way() -> None:
    assert fitted(0.01, lengths=5).shares[2] == 1


def test_classes_seen_too_rarely_follow_the_next_longer_one() -> None:
    shares = fitted(0.01, lengths=5).shares
    assert shares[3] == 0  # nothing longer was seen
    assert shares[1] == shares[2]
    assert shares[0] == shares[2]
    assert fitted(0.9, lengths=5).shares[0] == 0.5  # an empty history is half popularity at least
    assert fitted(0.01, lengths=5, n=FEWEST - 1).shares == (0.5, 0, 0, 0)


@settings(max_examples=25)
@given(st.integers(0, 2**31))
def test_the_likeliest_unless_another_ranks_higher_by_three_standard_errors(seed: int) -> None:
    draw = np.random.default_rng(seed)
    n, n_items = 60, 6
    events = log(draw.integers(0, n_items, 100).tolist(), times=np.sort(draw.integers(0, 1000, 100)).tolist())
    targets = draw.integers(0, n_items, n)
    network = np.log(draw.dirichlet(np.ones(n_items), size=n)).astype(np.float32)
    lengths = np.full(n, 12)
    prior = chosen(events, targets, lengths, network)
    mixed = prior.mix(network, lengths)
    assert set(prior.windows) <= set(WINDOWS)

    def of(share: float, window: float) -> np.ndarray:
        popularity = np.tile(recent_popularity(events, n_items, window), (4, 1))
        return Prior(popularity, (share,) * 4, (window,) * 4).mix(network, lengths)

    def likelihood(scores: np.ndarray) -> float:
        return float(scores[np.arange(n), targets].sum())

    pairs = [(float(share), window) for share in SHARES for window in windows(events.n_events)]
    share, window = max(pairs, key=lambda pair: likelihood(of(*pair)))
    if likelihood(mixed) < likelihood(of(share, window)) - 1e-3:
        ranked = of(float(min(RANKED, key=lambda other: abs(other - share))), window)
        gain = ndcg(mixed, targets) - ndcg(ranked, targets)
        assert gain.mean() > 3 * gain.std() / np.sqrt(n) - 1e-6


def ndcg(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    level = (scores >= scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
    return np.where(level <= 10, 1 / np.log2(level + 1), 0)


def test_a_network_that_is_certain_and_wrong_does_not_lead_the_list() -> None:
    """It gives each target .045 and eleven other items .055; popularity gives a target .04, others less."""
    n, n_items = 104, 60
    events = log([i for i in range(8) for _ in range(40)] + [i for i in range(8, n_items) for _ in range(13)])
    targets, empty = np.arange(n) % 8, np.zeros(n, dtype=np.int64)
    network = np.full((n, n_items), (1 - 8 * 0.045 - 11 * 0.055) / 41, dtype=np.float32)
    network[:, :8], network[:, 8:19] = 0.045, 0.055
    prior = chosen(events, targets, empty, np.log(network))
    assert ndcg(np.log(network), targets).max() == 0  # though its likelihood is the better one
    mixed = prior.mix(np.log(network), empty)
    assert mixed[np.arange(n), targets].sum() < np.log(0.045) * n
    assert ndcg(mixed, targets).min() > 0


@pytest.mark.parametrize(("n_gain", "leads"), [(5, True), (12, False)])
def test_a_gain_has_to_be_sure(n_gain: int, leads: bool) -> None:
    """As before, but few cases gain: with k of them the gain is about √k standard errors."""
    n, n_items = 104, 60
    events = log([i for i in range(8) for _ in range(40)] + [i for i in range(8, n_items) for _ in range(13)])
    targets, empty = np.arange(n) % 8, np.zeros(n, dtype=np.int64)
    network = np.full((n, n_items), (1 - 8 * 0.045 - 11 * 0.055) / 41, dtype=np.float32)
    network[:, :8], network[:, 8:19] = 0.045, 0.055
    unseen = np.ones((n, n_items), dtype=bool)
    unseen[np.arange(n_gain, n), targets[n_gain:]] = False  # what must not be ranked gains nothing
    trial = Trial(events, n_items, targets, empty, np.arange(len(targets)))
    trial.ask(np.arange(n), np.log(network), unseen)
    mixed = trial.prior().mix(np.log(network), empty)
    assert (ndcg(mixed, targets).max() == 0) == leads


def test_what_ranks_higher_may_be_of_another_window() -> None:
    """Of all events a target has .045, eleven others .055; of the newest tenth a target .04, others less."""
    n, n_items, draw = 104, 60, np.random.default_rng(0)
    of_old = np.repeat(np.arange(19), [410] * 8 + [520] * 11)
    of_new = np.repeat(np.arange(n_items), [40] * 8 + [30] * 11 + [8] * 41)
    items = np.concatenate([draw.permutation(of_old), draw.permutation(of_new)]).tolist()
    targets, empty = np.arange(n) % 8, np.zeros(n, dtype=np.int64)
    network = np.full((n, n_items), -np.log(n_items), dtype=np.float32)
    prior = chosen(log(items, times=list(range(len(items)))), targets, empty, network)
    assert prior.windows[0] < 0.3
    assert prior.log_popularity[0, :8].sum() < 8 * np.log(0.044)  # of the whole log they are likelier
    assert ndcg(prior.mix(network, empty), targets).mean() > 0.3


def test_classes_choose_windows_of_their_own() -> None:
    """New people take what is new, the others what always was liked."""
    n, n_items = 120, 30
    old, new = [0] * 900, [1] * 100
    events = log(old + [2] * 8000 + new * 10, times=list(range(9900)))
    network = np.full((2 * n, n_items), -np.log(n_items), dtype=np.float32)
    lengths = np.repeat([0, 50], n)
    prior = chosen(events, np.repeat([1, 2], n), lengths, network)
    assert prior.windows[0] == 0.1
    assert prior.windows[3] > 0.1


def test_what_was_seen_is_not_ranked() -> None:
    """Ten items that a person has had stand before the target: it leads all the same."""
    n, n_items = 50, 40
    network = np.full((n, n_items), 0.01, dtype=np.float32)
    network[:, :10], network[:, 20] = 0.05, 0.02
    trial = Trial(log(list(range(n_items))), n_items, np.full(n, 20), np.full(n, 10), np.arange(n))
    unseen = np.ones((n, n_items), dtype=bool)
    trial.ask(np.arange(n), np.log(network), unseen)
    assert trial.ndcg[:, 0, 0].tolist() == [0] * n
    unseen[:, :10] = False
    trial.ask(np.arange(n), np.log(network), unseen)
    assert trial.ndcg[:, 0, 0].tolist() == [1] * n


def test_a_window_of_few_events_is_not_tried() -> None:
    assert windows(100) == (1.0,)
    assert windows(5000) == (1.0, 0.3, 0.1)
    assert windows(50_000) == WINDOWS
