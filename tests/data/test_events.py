"""The event log: built in a stable order, cut into histories, and read back as it was."""

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from llm4rec.data.events import EventLog, arrange, build_log
from llm4rec.errors import ClockError

# Machines differ in speed: no law depends on a deadline.
law = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

# One flat event: person, item, time, rating, type. Few values each, so that ties are common.
event = st.tuples(
    st.sampled_from(["ann", "bob", "cy", "Дина"]),
    st.integers(0, 5),
    st.integers(-2, 2),
    st.sampled_from([1.0, 4.5, float("nan")]),
    st.sampled_from(["view", "buy", ""]),
)
flat_events = st.lists(event, max_size=25)
ITEM_IDS = pl.Series(["a", "b", "c", "d", "e", "f"])


def log_of(events: list[tuple[str, int, int, float, str]]) -> EventLog:
    users, items, times, ratings, types = zip(*events, strict=True) if events else ((),) * 5
    return build_log(
        pl.Series(users, dtype=pl.String),
        np.array(items, dtype=np.int64),
        times=np.array(times, dtype=np.int64),
        ratings=np.array(ratings, dtype=np.float32),
        event_types=pl.Series(types, dtype=pl.String),
    )


def rows_of(log: EventLog) -> list[tuple[str, list[tuple[object, ...]]]]:
    """Plain Python: (name, events) of every row."""
    result: list[tuple[str, list[tuple[object, ...]]]] = []
    for row in range(log.n_users):
        places = range(int(log.offsets[row]), int(log.offsets[row + 1]))
        result.append((log.user_ids[row], [event_at(log, place) for place in places]))
    return result


def event_at(log: EventLog, place: int) -> tuple[object, ...]:
    values: list[object] = [int(log.items[place])]
    if log.times is not None:
        values.append(int(log.times[place]))
    if log.ratings is not None:
        values.append(str(log.ratings[place]))  # as text, so that NaN equals NaN
    if log.kinds is not None:
        values.append(log.kind_names[log.kinds[place]])
    return tuple(values)


# --- golden --------------------------------------------------------------------------------------


@pytest.fixture
def golden() -> EventLog:
    """Bob: b@1, a@3, a@3 (in file order), Ann: c@2."""
    return build_log(
        pl.Series(["bob", "ann", "bob", "bob"]),
        np.array([0, 2, 1, 0]),
        times=np.array([3, 2, 1, 3]),
        ratings=np.array([5, np.nan, 1, 2], dtype=np.float32),
        event_types=pl.Series(["view", "buy", "buy", None]),
    )


def test_golden_log(golden: EventLog) -> None:
    assert golden.user_ids.to_list() == ["bob", "ann"]
    assert golden.offsets.tolist() == [0, 3, 4]
    assert golden.items.tolist() == [1, 0, 0, 2]
    assert golden.clock.tolist() == [1, 3, 3, 2]
    np.testing.assert_array_equal(golden.ratings, np.array([1, 5, 2, np.nan], dtype=np.float32))
    assert golden.kind_names == ("", "buy", "view")
    assert golden.kinds is not None
    assert golden.kinds.tolist() == [1, 2, 0, 1]
    assert (golden.n_users, golden.n_events) == (2, 4)
    assert golden.lengths.tolist() == [3, 1]
    assert golden.rows.tolist() == [0, 0, 0, 1]
    assert golden.item_counts(5).tolist() == [2, 1, 1, 0, 0]
    assert golden.history(0).tolist() == [1, 0, 0]
    for array in (golden.offsets, golden.items, golden.times, golden.kinds, golden.item_counts(3)):
        assert array is not None
        assert array.dtype == np.int64
    assert golden.ratings is not None
    assert golden.ratings.dtype == np.float32


def test_golden_frame(golden: EventLog) -> None:
    expected = pl.DataFrame({
        "user_id": ["bob", "bob", "bob", "ann"],
        "item_id": ["b", "a", "a", "c"],
        "timestamp": [1, 3, 3, 2],
        "rating": pl.Series([1.0, 5.0, 2.0, None], dtype=pl.Float32),
        "event_type": ["buy", "view", "", "buy"],
    })
    assert_frame_equal(golden.to_frame(ITEM_IDS), expected)


def test_golden_histories(golden: EventLog) -> None:
    asked = golden.histories(np.array([1, 0, 0, 0]), np.array([1, 3, 2, 0]), most=2)
    assert asked.user_ids.to_list() == ["ann", "bob", "bob", "bob"]
    assert asked.offsets.tolist() == [0, 1, 3, 5, 5]
    assert asked.items.tolist() == [2, 0, 0, 1, 0]  # the newest two of each
    assert asked.clock.tolist() == [2, 3, 3, 1, 3]
    assert asked.kind_names == golden.kind_names


def test_a_log_without_times_has_no_clock() -> None:
    log = build_log(pl.Series(["a"]), np.array([0]))
    with pytest.raises(ClockError, match="leave-last-out"):
        _ = log.clock
    assert log.to_frame(ITEM_IDS).columns == ["user_id", "item_id"]


def test_order_sorts_where_there_is_no_clock_and_yields_to_one() -> None:
    users, items, order = pl.Series(["a"] * 3), np.array([0, 1, 2]), np.array([2, 3, 1])
    assert build_log(users, items, order=order).items.tolist() == [2, 0, 1]
    times = np.array([3, 2, 1])
    assert build_log(users, items, order=order, times=times).items.tolist() == [2, 1, 0]
    assert build_log(users, items).items.tolist() == [0, 1, 2]


def test_order_decides_between_equal_times_and_a_missing_one_comes_last() -> None:
    users, items = pl.Series(["a", "b", "a", "a", "b"]), np.array([0, 1, 2, 3, 4])
    order = np.array([np.nan, 2, 5, 1, 1])
    log = build_log(users, items, order=order, times=np.array([4, 4, 4, 4, 4]))
    assert log.items.tolist() == [3, 2, 0, 4, 1]
    assert build_log(users, items, order=order).items.tolist() == [3, 2, 0, 4, 1]
    alone = np.array([np.nan, 1.0])  # the one place where nothing else is out of order
    assert build_log(users[[0, 0]], items[:2], order=alone, times=np.array([4, 4])).items.tolist() == [1, 0]


@law
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from([0.0, 1.0, 2.0, float("nan")])),
        max_size=15,
    )
)
def test_time_then_order_then_row(events: list[tuple[str, int, float]]) -> None:
    users, times, order = zip(*events, strict=True) if events else ((),) * 3
    log = build_log(
        pl.Series(users, dtype=pl.String),
        np.arange(len(events)),
        times=np.array(times, dtype=np.int64),
        order=np.array(order, dtype=np.float64),
    )
    for row in range(log.n_users):
        own = [place for place, user in enumerate(users) if user == log.user_ids[row]]
        expected = sorted(own, key=lambda n: (times[n], float("inf") if order[n] != order[n] else order[n]))
        assert log.history(row).tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.float64])
def test_ranks_of_any_number_type_sort(dtype: type) -> None:
    log = build_log(pl.Series(["a", "a"]), np.array([0, 1]), order=np.array([7, 2], dtype=dtype))
    assert log.items.tolist() == [1, 0]


def test_extreme_times_sort() -> None:
    far = np.iinfo(np.int64)
    log = build_log(pl.Series(["a", "a"]), np.array([0, 1]), times=np.array([far.max, far.min]))
    assert log.items.tolist() == [1, 0]


# --- laws ----------------------------------------------------------------------------------------


@law
@given(flat_events)
def test_building_is_a_stable_sort_within_each_person(events: list[tuple[str, int, int, float, str]]) -> None:
    expected: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    for user, item, time, rating, kind in events:
        expected[user].append((item, time, str(np.float32(rating)), kind))
    by_hand = [(user, sorted(own, key=lambda event: event[1])) for user, own in expected.items()]  # type: ignore
    assert rows_of(log_of(events)) == by_hand


@law
@given(flat_events)
def test_a_frame_builds_the_same_log_again(events: list[tuple[str, int, int, float, str]]) -> None:
    log = log_of(events)
    frame = log.to_frame(ITEM_IDS)
    again = build_log(
        frame["user_id"],
        np.array([ITEM_IDS.to_list().index(item) for item in frame["item_id"]], dtype=np.int64),
        times=frame["timestamp"].to_numpy(),
        ratings=frame["rating"].fill_null(float("nan")).to_numpy(),
        event_types=frame["event_type"],
    )
    assert rows_of(again) == rows_of(log)
    assert again.kind_names == log.kind_names


@law
@given(flat_events, st.randoms(use_true_random=False))
def test_row_order_matters_only_between_ties(events: list[tuple[str, int, int, float, str]], random) -> None:
    apart = [(user, item, place, rating, kind) for place, (user, item, _, rating, kind) in enumerate(events)]
    mixed = list(apart)
    random.shuffle(mixed)
    assert sorted(rows_of(log_of(mixed))) == sorted(rows_of(log_of(apart)))


@law
@given(flat_events, st.data())
def test_heads_keep_the_first_events_of_each_row(events, data: st.DataObject) -> None:
    log = log_of(events)
    lengths = np.array([data.draw(st.integers(0, int(n))) for n in log.lengths], dtype=np.int64)
    cut = log.heads(lengths)
    assert rows_of(cut) == [(name, own[:n]) for (name, own), n in zip(rows_of(log), lengths, strict=True)]
    assert rows_of(log.heads(log.lengths)) == rows_of(log)


@law
@given(flat_events, st.data())
def test_histories_are_the_newest_events_before_an_end(events, data: st.DataObject) -> None:
    log = log_of(events)
    row = st.integers(0, max(log.n_users - 1, 0))
    asked = data.draw(st.lists(row, max_size=6)) if log.n_users else []
    ends = [data.draw(st.integers(0, int(log.lengths[r]))) for r in asked]
    most = data.draw(st.none() | st.integers(0, 4))
    found = log.histories(np.array(asked, dtype=np.int64), np.array(ends, dtype=np.int64), most)
    plain = rows_of(log)
    expected = [
        (plain[r][0], plain[r][1][max(0, end - (end if most is None else most)) : end])
        for r, end in zip(asked, ends, strict=True)
    ]
    assert rows_of(found) == expected
    assert found.n_users == len(asked)


@law
@given(flat_events, st.data())
def test_select_keeps_every_row_and_the_order(events, data: st.DataObject) -> None:
    log = log_of(events)
    keep = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events))), dtype=bool
    )
    chosen = log.select(keep)
    expected = [
        (name, [event_at(log, p) for p in range(int(log.offsets[row]), int(log.offsets[row + 1])) if keep[p]])
        for row, (name, _) in enumerate(rows_of(log))
    ]
    assert rows_of(chosen) == expected
    # what is kept and what is left out are the whole
    assert chosen.n_events + log.select(~keep).n_events == log.n_events
    assert (chosen.item_counts(6) + log.select(~keep).item_counts(6) == log.item_counts(6)).all()


@law
@given(flat_events)
def test_arranging_an_arranged_log_changes_nothing(events: list[tuple[str, int, int, float, str]]) -> None:
    log = log_of(events)
    assert rows_of(arrange(log, log.rows)) == rows_of(log)


def test_rows_without_events_have_a_place() -> None:
    names = pl.Series(["a", "b", "c"])
    flat = EventLog(names, np.zeros(1, dtype=np.int64), np.array([5, 4]), np.array([9, 8]))
    log = arrange(flat, np.array([2, 2]))
    assert rows_of(log) == [("a", []), ("b", []), ("c", [(4, 8), (5, 9)])]
    assert rows_of(log.histories(np.array([1, 2]), np.array([0, 1]))) == [("b", []), ("c", [(4, 8)])]


def test_each_request_keeps_the_time_it_is_asked_at() -> None:
    log = EventLog(
        pl.Series(["a", "b", "c"]), np.array([0, 2, 2, 3]), np.array([4, 0, 2]), asked_at=np.array([5, -1, 7])
    )
    picked = log.histories(np.array([2, 0, 0]), np.array([1, 2, 1]))
    assert picked.asked_at is not None and picked.asked_at.tolist() == [7, 5, 5]
    kept = log.select(np.array([False, True, False]))
    assert kept.asked_at is not None and kept.asked_at.tolist() == [5, -1, 7]


def test_propensities_go_where_their_events_go() -> None:
    log = build_log(
        pl.Series(["bob", "ann", "bob", "bob"]),
        np.array([0, 2, 1, 0]),
        times=np.array([3, 2, 1, 3]),
        propensities=np.array([0.5, 0.125, np.nan, 1], dtype=np.float32),
    )
    np.testing.assert_array_equal(log.propensities, np.float32([np.nan, 0.5, 1, 0.125]))
    np.testing.assert_array_equal(log.heads(np.array([2, 1])).propensities, np.float32([np.nan, 0.5, 0.125]))
    np.testing.assert_array_equal(log.select(log.items == 0).propensities, np.float32([0.5, 1]))
    np.testing.assert_array_equal(log.without("bob").propensities, np.float32([0.125]))
    told = log.to_frame(ITEM_IDS)
    assert told.columns == ["user_id", "item_id", "timestamp", "propensity"]
    assert told["propensity"].to_list() == [None, 0.5, 1, 0.125]
    untold = build_log(pl.Series(["ann"]), np.array([3]), times=np.array([9]))
    assert untold.propensities is None and untold.joined(untold).propensities is None
    both = log.joined(untold)
    assert both.items.tolist() == [1, 0, 0, 2, 3]
    np.testing.assert_array_equal(both.propensities, np.float32([np.nan, 0.5, 1, 0.125, np.nan]))


# --- joined and parted ---------------------------------------------------------------------------


@law
@given(flat_events, st.integers(0, 25))
def test_two_logs_joined_are_the_log_of_all_events(
    events: list[tuple[str, int, int, float, str]], cut: int
) -> None:
    joined = log_of(events[:cut]).joined(log_of(events[cut:]))
    assert rows_of(joined) == rows_of(log_of(events))


def test_what_only_one_log_tells_is_missing_of_the_others() -> None:
    plain = build_log(pl.Series(["ann", "bob"]), np.array([0, 1]))
    told = build_log(
        pl.Series(["bob"]), np.array([2]), ratings=np.array([4.0]), event_types=pl.Series(["buy"])
    )
    assert rows_of(plain.joined(told)) == [
        ("ann", [(0, "nan", "")]),
        ("bob", [(1, "nan", ""), (2, "4.0", "buy")]),
    ]


def test_times_and_no_times_are_not_joined(golden: EventLog) -> None:
    with pytest.raises(ClockError, match="give a timestamp to all"):
        golden.joined(build_log(pl.Series(["ann"]), np.array([0])))


@law
@given(flat_events, st.sampled_from(["ann", "nobody"]))
def test_a_log_without_a_person_has_all_others(
    events: list[tuple[str, int, int, float, str]], name: str
) -> None:
    assert rows_of(log_of(events).without(name)) == [row for row in rows_of(log_of(events)) if row[0] != name]
