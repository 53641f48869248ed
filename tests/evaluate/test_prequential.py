"""A log that is told bit by bit: what is past, what is asked, and when a refit is due."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.events import EventLog, build_log
from llm4rec.errors import ClockError, InputError
from llm4rec.evaluate.prequential import Round, in_order, rounds, stream
from llm4rec.types import Ints


def drawn(seed: int, n_events: int = 200) -> EventLog:
    draw = np.random.default_rng(seed)
    users = pl.Series([f"u{u}" for u in draw.integers(12, size=n_events)])
    return build_log(users, draw.integers(9, size=n_events), times=draw.integers(60, size=n_events))


def test_what_is_past_asked_and_held_out_by_hand() -> None:
    # in time order: a0 a1 b0 a2 b1 | b2 a0 c3 b0 c4, where the numbers are items
    users = pl.Series([*"aabab", *"bacbc"])
    log = build_log(users, np.array([0, 1, 0, 2, 1, 2, 0, 3, 0, 4]), times=np.arange(10))
    made = stream(log, 5, past=0.5, holdout=1.0, every=2)
    # a alone has three events in the past, and its last one is the old holdout
    assert made.holdout.targets.tolist() == [2] and made.holdout.histories().items.tolist() == [0, 1]
    assert made.past.to_frame(pl.Series(range(5)))["item_id"].to_list() == [0, 1, 0, 1]
    assert made.log.n_events == 9 and made.rounds == (
        Round(0, 1, False),
        Round(1, 3, False),
        Round(3, 5, False),
    )
    asked = made.cases()
    # b2, c3 and c4: a took 0 before and b did, too
    assert asked.targets.tolist() == [2, 3, 4]
    assert [asked.histories().history(row).tolist() for row in range(3)] == [[0, 1], [], [3]]
    assert made.told(1, 3).to_frame(pl.Series(range(5))).select("user_id", "item_id").rows() == [
        ("a", 0),
        ("c", 3),
    ]
    assert made.so_far(2).n_events == 6 and made.so_far(0).n_events == made.past.n_events


def test_rounds_by_hand() -> None:
    times = np.array([5, 6, 7, 8, 9, 15, 16, 40, 44])
    assert rounds(times, 3, 10) == (
        Round(0, 2, False), Round(2, 5, True), Round(5, 7, True), Round(7, 9, False)
    )  # fmt: skip
    # two events are too few, and wait for the next period's end
    assert rounds(times, 9, 10, least=3) == (Round(0, 5, True), Round(5, 9, False))
    assert rounds(times, 9, 10, least=6) == (Round(0, 7, True), Round(7, 9, False))


@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=80),
    st.integers(1, 9),
    st.integers(1, 99),
    st.integers(0, 20),
)
def test_rounds_cover_the_stream_once(times: list[int], every: int, period: int, least: int) -> None:
    clock = np.sort(np.array(times, dtype=np.int64))
    made = rounds(clock, every, period, least)
    assert made[0].start == 0 and made[-1].stop == len(times) and not made[-1].due
    assert all(a.stop == b.start for a, b in pairwise(made))
    assert all(1 <= each.stop - each.start <= every for each in made)
    number = (clock - clock[0]) // period
    last = 0
    for each in made[:-1]:
        between = number[each.stop] > number[each.stop - 1]
        if between and each.stop - last >= least:
            assert each.due
        if each.due:
            assert between and each.stop - last >= least
            last = each.stop


@given(st.integers(0, 40))
def test_nothing_is_told_before_it_is_asked(seed: int) -> None:
    log = drawn(seed)
    made = stream(log, 9, every=13, period=7, seed=seed)
    begins = np.sort(log.clock)[160]
    assert made.log.n_events + len(made.holdout) == log.n_events
    assert len(made.order) == 40 and made.past.n_events == made.log.n_events - 40
    assert made.past.clock.max() <= begins <= made.log.clock[made.order].min()
    assert (np.diff(made.log.clock[made.order]) >= 0).all()
    for each in made.rounds:
        asked, known = made.cases(each.start, each.stop), made.so_far(each.start)
        histories = asked.histories()
        for row, target in enumerate(asked.targets):
            before = histories.history(row)
            assert target not in before
            # all they did before the round begins the history, and what follows is of this round
            told = known.history(int(asked.rows[row]))
            assert before[: len(told)].tolist() == told.tolist()
            assert len(before) - len(told) < each.stop - each.start
    repeats = sum(_repeated(made.log.history(row), made.past.lengths[row]) for row in range(made.log.n_users))
    assert len(made.cases()) == 40 - repeats


def _repeated(items: Ints, start: int) -> int:
    """How many of the items from `start` on stood before."""
    return sum(items[place] in items[:place] for place in range(start, len(items)))


def test_the_old_holdout_is_no_ones_to_learn() -> None:
    log = drawn(3)
    made = stream(log, 9, holdout=0.5)
    old = log.select(np.isin(np.arange(log.n_events), in_order(log)[:160]))
    able = np.flatnonzero(old.lengths >= 3)
    assert len(made.holdout) == round(len(able) / 2)
    lengths = old.lengths - made.past.lengths
    assert np.flatnonzero(lengths).tolist() == made.holdout.rows.tolist() and lengths.max() == 1
    assert made.holdout.targets.tolist() == [old.history(row)[-1] for row in made.holdout.rows]
    assert (
        made.holdout.histories().items.tolist()
        == made.past.histories(made.holdout.rows, made.past.lengths[made.holdout.rows]).items.tolist()
    )
    assert not len(stream(log, 9, holdout=0).holdout)


def test_a_stream_needs_a_clock_and_a_past() -> None:
    log = build_log(pl.Series(["a", "a"]), np.array([0, 1]))
    with pytest.raises(ClockError, match="timestamp"):
        stream(log, 2)
    with pytest.raises(InputError, match="Of 200 events, a share of 1 can't be the past"):
        stream(drawn(0), 9, past=1.0)
