"""What is remembered: what others took next, nothing later than now, nothing of one's own."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.events import EventLog, build_log
from llm4rec.retrieve.entries import DAY, Asked, Entries
from llm4rec.retrieve.memories import SHRUNK, Memories

ALONE = np.ones(1, dtype=np.float32)


def log(*events: tuple[str, int, int, float]) -> EventLog:
    users, items, times, ratings = zip(*events, strict=True)
    return build_log(
        pl.Series(users),
        np.array(items),
        times=np.array(times) * DAY,
        ratings=np.array(ratings, dtype=np.float32),
    )


PAST = log(
    ("ann", 0, 1, 5), ("ann", 1, 2, 1), ("ann", 2, 3, 3),
    ("bob", 0, 4, 2), ("bob", 2, 5, 5),
    ("cyd", 3, 6, 4), ("cyd", 0, 9, 4),
)  # fmt: skip


def asked(item: int, owner: str = "", day: int | None = 10, past: EventLog = PAST, most: int = 10) -> Entries:
    now = None if day is None else day * DAY
    return Memories(past, 4, most).entries(Asked(np.array([item]), ALONE, owner=owner, now=now))


def test_a_memory_is_what_somebody_took_next() -> None:
    found = asked(0)
    assert found.items.tolist() == [1, 2]  # cyd took nothing after it
    assert found.sources.tolist() == [1, 4] and found.anchors.tolist() == [0, 0]
    assert found.ages.tolist() == [8, 5]
    np.testing.assert_allclose(found.quality, [0, 1])  # ratings 1 and 5 of 1 to 5
    np.testing.assert_allclose(found.weights, 1 / (2 + SHRUNK))


def test_nothing_of_ones_own_is_remembered() -> None:
    assert asked(0, "ann").items.tolist() == [2] and asked(0, "bob").items.tolist() == [1]


@pytest.mark.parametrize(("day", "items"), [(1, []), (2, [1]), (4, [1]), (5, [1, 2])])
def test_nothing_later_than_now_is_remembered(day: int, items: list[int]) -> None:
    assert asked(0, day=day).items.tolist() == items


def test_a_planted_leak_is_not_remembered() -> None:
    leak = log(*[(f"spy{n}", item, 10 + item, 5) for n in range(5) for item in (0, 3)])
    assert asked(0, past=leak, day=12).items.tolist() == []  # they take 3 on day 13
    assert asked(0, past=leak, day=13).items.tolist() == [3] * 5


def test_of_many_memories_the_newest_are_kept() -> None:
    assert asked(0, most=1).items.tolist() == [2]


def test_overlap_is_what_else_of_the_history_the_same_person_took() -> None:
    weights = np.array([1, 0.5], dtype=np.float32)
    found = Memories(PAST, 4, 10).entries(Asked(np.array([0, 1]), weights, now=10 * DAY))
    # ann after 0, bob after 0, ann after 1: ann took both
    assert found.items.tolist() == [1, 2, 2]
    np.testing.assert_allclose(found.overlap, [0.5 / 1.5, 0, 1 / 1.5])
    np.testing.assert_allclose(found.weights, [1 / 3, 1 / 3, 0.5 / 2])


def test_without_a_clock_memories_have_no_age_and_without_ratings_no_quality() -> None:
    bare = EventLog(PAST.user_ids, PAST.offsets, PAST.items)
    found = asked(0, past=bare, day=None)
    assert found.items.tolist() == [1, 2]
    assert np.isnan(found.ages).all() and np.isnan(found.quality).all()
    np.testing.assert_allclose(found.temporal(0.1), 0)


def test_an_empty_history_finds_nothing() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert len(Memories(PAST, 4, 10).entries(Asked(nothing, nothing.astype(np.float32), owner="ann"))) == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=30))
def test_law_memories_are_every_others_next_event_by_now(events: list[tuple[int, int, int]]) -> None:
    past = log(*[(f"u{user}", item, day, 3) for user, item, day in events])
    found = Memories(past, 5, 100).entries(Asked(np.array([2]), ALONE, owner="u0", now=5 * DAY))
    expected = [
        int(past.items[place + 1])
        for place in range(past.n_events - 1)
        if past.rows[place] == past.rows[place + 1]
        and past.items[place] == 2
        and past.times is not None
        and past.times[place + 1] <= 5 * DAY
        and past.user_ids[int(past.rows[place])] != "u0"
    ]
    assert found.items.tolist() == expected
