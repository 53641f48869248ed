"""When a request is asked: classes by hand, always in UTC, and an unknown time that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.events import EventLog
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import TokenSpace
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.context import QueryContext, moments
from llm4rec.model.events import EventSpace, event_arrays
from llm4rec.model.network import Network
from llm4rec.model.scorer import Scorer

N_ITEMS, MOST = 9, 5
TUESDAY_EVENING = 1_795_543_200  # 2026-11-24T18:00:00Z
SPACE = EventSpace((3.0,), 3.0, 1.0, ())


@pytest.mark.parametrize(
    ("asked_at", "last", "expected"),
    [
        (0, -1, (0, 1, 4)),  # midnight of Thursday, 1 January 1970; no event before
        (3_599, 0, (13, 1, 4)),  # 1 + ⌈log₂ 3600⌉
        (3_600, 3_600, (1, 2, 4)),
        (86_399, 86_392, (4, 24, 4)),  # 7 seconds
        (86_400, 0, (18, 1, 5)),
        (3 * 86_400, -1, (0, 1, 7)),  # Sunday
        (4 * 86_400, -1, (0, 1, 1)),  # Monday
        (TUESDAY_EVENING, TUESDAY_EVENING - 86_400, (18, 19, 2)),
        (TUESDAY_EVENING, TUESDAY_EVENING + 1, (0, 19, 2)),  # an event later than the asking
        (-1, 5, (0, 0, 0)),
        (-1, -1, (0, 0, 0)),
    ],
)
def test_moments_by_hand(asked_at: int, last: int, expected: tuple[int, int, int]) -> None:
    found = moments(torch.tensor([asked_at]), torch.tensor([last]))
    assert (found.gaps.item(), found.hours.item(), found.weekdays.item()) == expected


@given(st.datetimes(datetime(1970, 1, 2), datetime(2099, 12, 30)), st.integers(-12, 14))
def test_hour_and_weekday_are_those_of_utc(moment: datetime, offset: int) -> None:
    """The calendar's own answer, from wherever the moment is told."""
    local = moment.replace(tzinfo=timezone(timedelta(hours=offset)))
    utc = local.astimezone(timezone.utc)  # noqa: UP017  # beside the other zones
    found = moments(torch.tensor(int(local.timestamp())), torch.tensor(-1))
    assert (found.hours.item(), found.weekdays.item()) == (utc.hour + 1, utc.isoweekday())


def test_one_time_for_all_states_of_a_row() -> None:
    found = moments(torch.tensor([[10], [-1]]), torch.tensor([[-1, 3, 9], [-1, 3, 9]]))
    assert found.gaps.tolist() == [[0, 4, 2], [0, 0, 0]]
    assert found.hours.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert found.weekdays.tolist() == [[4, 4, 4], [0, 0, 0]]


def test_a_new_context_says_nothing_and_draws_nothing() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    context = QueryContext(8)
    assert torch.equal(torch.rand(2), expected)
    assert not context(moments(torch.tensor([TUESDAY_EVENING]), torch.tensor([0]))).any()


def test_the_unknown_never_learns() -> None:
    context = QueryContext(4)
    optimiser = torch.optim.AdamW(context.parameters(), lr=0.1)
    some = moments(torch.tensor([TUESDAY_EVENING, -1, 50]), torch.tensor([5, 5, -1]))
    for _ in range(5):
        optimiser.zero_grad()
        (context(some) - 1).square().sum().backward()
        optimiser.step()
    for table in (context.gap, context.hour, context.weekday):
        assert table.weight.any() and not table.weight[0].any()
    assert not context(moments(torch.tensor([-1]), torch.tensor([5]))).any()


def test_targets_are_asked_for_at_their_own_times() -> None:
    log = EventLog(
        pl.Series(["a", "b"]), np.array([0, 3, 4]), np.array([4, 0, 2, 1]), np.array([100, 100, 107, 50])
    )
    arrays = event_arrays(log, SPACE, np.full(2, -1))
    starts, lengths = np.array([0, 1, 3]), np.array([2, 1, 0])  # of inputs; one target more
    times = arrays.next_times(starts, lengths)
    assert times.tolist() == [[100, 100, 107], [100, 107, -1], [50, -1, -1]]
    asked = arrays.batch(np.array([0, 0, 1]), starts, lengths, times).asked
    assert asked is not None
    # nothing precedes the first state; then as the log's own gaps: 0 and 7 seconds
    assert asked.gaps.tolist() == [[0, 1, 4], [0, 4, 0], [0, 0, 0]]
    assert asked.hours.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert arrays.batch(np.array([0, 0, 1]), starts, lengths).asked is None


@pytest.fixture
def scorer() -> Scorer:
    """With random weights everywhere, also for the context: a law must not rest on small ones."""
    torch.manual_seed(0)
    network = Network(
        TokenSpace({}, {}, {}, {}, {}), None, n_items=N_ITEMS, n_ratings=2, n_kinds=0, max_history=MOST,
        backbone=BackboneConfig(embedding_size=8, layers=1, heads=1), fusion=FusionConfig(),
    )  # fmt: skip
    with torch.no_grad():
        for table in (network.gap, network.rating, *network.context.children()):
            table.get_parameter("weight")[1:].normal_()
    tokens = {BEHAVIOUR: behaviour_tokens(torch.ones(N_ITEMS, dtype=torch.bool))}
    return Scorer(network, tokens, None, SPACE)


def histories(lengths: list[int], *, times: bool = True) -> EventLog:
    draw = np.random.default_rng(2)
    n = sum(lengths)
    moments = TUESDAY_EVENING - 86_400 + np.sort(draw.integers(0, 80_000, n))
    return EventLog(
        pl.Series(["u"] * len(lengths)),
        np.cumsum([0, *lengths]),
        draw.integers(0, N_ITEMS, n),
        moments if times else None,
    )


LENGTHS = [3, 0, 12, 1, 5, 7]
STRANGERS = np.full(len(LENGTHS), -1)


def without_context(scorer: Scorer) -> Scorer:
    """The same model as if it had never had a context."""

    class Deaf(torch.nn.Module):
        def forward(self, asked: object) -> torch.Tensor:
            raise AssertionError("there is no context to ask")

    scorer.network.context = Deaf()  # type: ignore[assignment]
    return scorer


def test_a_request_without_a_time_is_answered_as_by_a_model_without_context(scorer: Scorer) -> None:
    """The law, bit for bit, in company of requests that do say when they ask."""
    asked = histories(LENGTHS)
    silent = np.array([True, True, False, True, False, True])
    some = replace(asked, asked_at=np.where(silent, -1, TUESDAY_EVENING))
    nobody = replace(asked, asked_at=np.full(len(LENGTHS), -1))
    mixed, alone = scorer.log_scores(some, STRANGERS), scorer.log_scores(nobody, STRANGERS)
    without = without_context(scorer).log_scores(asked, STRANGERS)
    np.testing.assert_array_equal(alone, without)
    np.testing.assert_array_equal(mixed[silent], without[silent])
    assert (np.abs(mixed[~silent] - without[~silent]).max(axis=1) > 1e-3).all()


def test_the_time_is_that_of_the_row_that_asks(scorer: Scorer) -> None:
    times = TUESDAY_EVENING + 7_200 * np.arange(len(LENGTHS))
    asked = replace(histories(LENGTHS), asked_at=times)
    together = scorer.log_scores(asked, STRANGERS)
    for rows, chosen in scorer.chunks(asked):
        assert chosen.asked_at is not None and chosen.asked_at.tolist() == times[rows].tolist()
        np.testing.assert_allclose(scorer.log_scores(chosen, STRANGERS), together[rows], atol=2e-5)
    for row in range(len(LENGTHS)):
        alone = asked.histories(np.array([row]), np.array([LENGTHS[row]]))
        np.testing.assert_allclose(scorer.log_scores(alone, STRANGERS[:1])[0], together[row], atol=2e-5)


def test_an_empty_history_hears_hour_and_weekday_alone(scorer: Scorer) -> None:
    def scores(time: int) -> np.ndarray:
        return scorer.log_scores(replace(histories([0]), asked_at=np.array([time])), STRANGERS[:1])

    week = 7 * 86_400
    np.testing.assert_array_equal(scores(TUESDAY_EVENING), scores(TUESDAY_EVENING + week))
    np.testing.assert_array_equal(scores(TUESDAY_EVENING), scores(TUESDAY_EVENING + 3_599))
    for other in (3_600, 86_400):
        assert np.abs(scores(TUESDAY_EVENING) - scores(TUESDAY_EVENING + other)).max() > 1e-3


def test_a_history_without_times_leaves_the_gap_unknown(scorer: Scorer) -> None:
    def scores(time: int) -> np.ndarray:
        bare = histories([3], times=False)
        return scorer.log_scores(replace(bare, asked_at=np.array([time])), STRANGERS[:1])

    before = scores(TUESDAY_EVENING)
    with torch.no_grad():
        scorer.network.context.gap.weight[1:] += 100
    np.testing.assert_array_equal(scores(TUESDAY_EVENING), before)


def test_only_the_last_event_of_a_long_history_makes_the_gap(scorer: Scorer) -> None:
    asked = replace(histories([12]), asked_at=np.array([TUESDAY_EVENING]))
    cut = asked.histories(np.array([0]), np.array([12]), most=MOST)
    np.testing.assert_array_equal(
        scorer.log_scores(asked, STRANGERS[:1]), scorer.log_scores(cut, STRANGERS[:1])
    )
