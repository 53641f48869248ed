"""Splits: every case knows the past and nothing of the future, and no event is lost or asked twice."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import given as forall
from hypothesis import strategies as st

from llm4rec.data.events import EventLog, build_log
from llm4rec.data.split import Cases, Parts, Split, given, global_time, leave_last_out, next_event_cases
from llm4rec.errors import ClockError, InputError

# Machines differ in speed: no law depends on a deadline.
law = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
events = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 30)), min_size=1, max_size=40)


def log_of(flat: list[tuple[str, int]]) -> EventLog:
    """A log whose items number the rows of the file, so that an item names its event."""
    users, times = zip(*flat, strict=True)
    return build_log(pl.Series(users), np.arange(len(flat)), times=np.array(times))


def parts_of(names: np.ndarray) -> Parts:
    """Parts of a file whose header is row 1, its events in the order of the log."""
    return Parts(names, np.arange(len(names)) + 2, "split.csv")


def plain(cases: Cases) -> list[tuple[int, list[int], list[int]]]:
    """(row, history, targets) of every case."""
    histories = cases.histories()
    return [
        (
            int(cases.rows[c]),
            histories.history(c).tolist(),
            cases.targets[cases.target_offsets[c] : cases.target_offsets[c + 1]].tolist(),
        )
        for c in range(len(cases))
    ]


def assert_every_event_once(split: Split, log: EventLog) -> None:
    """Training events, validation targets and test targets are the log, without overlap."""
    used = np.concatenate([split.train.items, split.valid.targets, split.test.targets])
    assert sorted(used.tolist()) == sorted(log.items.tolist())


def assert_no_future(split: Split, log: EventLog) -> None:
    """A history is exactly what the row did before its target, nothing later, the target not in it."""
    when = np.empty(log.n_events, dtype=np.int64)
    when[log.items] = log.clock
    for row, history, (target,) in plain(split.valid) + plain(split.test):
        own = log.history(row).tolist()
        assert history == own[: own.index(target)]
        assert all(when[item] <= when[target] for item in history)


# --- golden --------------------------------------------------------------------------------------


@pytest.fixture
def golden() -> EventLog:
    """Ann does 0 at 10, 1 at 20, 2 at 30, 3 at 40; Bob 4 at 15, 5 at 50; Cy 6 at 5, 7 at 25, 8 at 35."""
    users = pl.Series(["ann"] * 4 + ["bob"] * 2 + ["cy"] * 3)
    return build_log(users, np.arange(9), times=np.array([10, 20, 30, 40, 15, 50, 5, 25, 35]))


def test_golden_leave_last_out(golden: EventLog) -> None:
    split = leave_last_out(golden)
    assert split.protocol == "leave-last-out"
    assert [split.train.history(row).tolist() for row in range(3)] == [[0, 1], [4, 5], [6]]
    assert plain(split.valid) == [(0, [0, 1], [2]), (2, [6], [7])]
    assert plain(split.test) == [(0, [0, 1, 2], [3]), (2, [6, 7], [8])]


def test_golden_global_time(golden: EventLog) -> None:
    # sorted times 5 10 15 20 25 30 35 40 50; ⌊.5 · 9⌋ = 4 → 25, ⌊.75 · 9⌋ = 6 → 35
    split = global_time(golden, valid_share=0.25, test_share=0.25)
    assert split.protocol == "global-time"
    assert [split.train.history(row).tolist() for row in range(3)] == [[0, 1], [4], [6]]
    assert plain(split.valid) == [(0, [0, 1], [2]), (2, [6], [7])]
    assert plain(split.test) == [(0, [0, 1, 2], [3]), (1, [4], [5]), (2, [6, 7], [8])]


def test_golden_given(golden: EventLog) -> None:
    parts = np.array(["history", "train", "validation", "test", "train", "test", "test", "test", "test"])
    split = given(golden, parts_of(parts))
    assert split.protocol == "given"
    assert [split.train.history(row).tolist() for row in range(3)] == [[0, 1], [4], []]
    assert plain(split.valid) == [(0, [0, 1], [2])]
    # several test events of one person are cases of their own, each after the one before
    assert plain(split.test) == [
        (0, [0, 1, 2], [3]),
        (1, [4], [5]),
        (2, [], [6]),
        (2, [6], [7]),
        (2, [6, 7], [8]),
    ]


def test_histories_can_be_cut_by_case_and_by_length(golden: EventLog) -> None:
    test = leave_last_out(golden).test
    assert test.histories(1, 2).history(0).tolist() == [6, 7]
    newest = test.histories(most=2)
    assert [newest.history(case).tolist() for case in range(2)] == [[1, 2], [6, 7]]
    assert newest.user_ids.to_list() == ["ann", "cy"]


def test_people_with_two_events_are_trained_on_and_not_asked() -> None:
    split = leave_last_out(log_of([("a", 1), ("a", 2), ("b", 1)]))
    assert split.train.n_events == 3
    assert len(split.valid) == len(split.test) == 0
    assert split.test.histories().n_users == 0


# --- laws ----------------------------------------------------------------------------------------


@law
@forall(events)
def test_leave_last_out_holds_the_last_two_of_everyone_with_three(flat: list[tuple[str, int]]) -> None:
    log = log_of(flat)
    split = leave_last_out(log)
    assert_every_event_once(split, log)
    assert_no_future(split, log)
    long = [row for row in range(log.n_users) if log.lengths[row] >= 3]
    assert split.test.rows.tolist() == split.valid.rows.tolist() == long
    assert split.test.targets.tolist() == [log.history(row)[-1] for row in long]
    assert split.valid.targets.tolist() == [log.history(row)[-2] for row in long]
    assert split.train.user_ids.to_list() == log.user_ids.to_list()
    assert (split.train.lengths >= 1).all()


@law
@forall(events)
def test_leave_last_out_takes_the_later_row_of_tied_times(flat: list[tuple[str, int]]) -> None:
    log = log_of([(user, 7) for user, _ in flat])
    for row, _, (target,) in plain(leave_last_out(log).test):
        assert target == log.history(row).max()  # items number the rows of the file


@law
@forall(events, st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([0.1, 0.2, 0.3]))
def test_global_time_cuts_everyone_at_the_same_two_dates(
    flat: list[tuple[str, int]], valid_share: float, test_share: float
) -> None:
    log = log_of(flat)
    try:
        split = global_time(log, valid_share=valid_share, test_share=test_share)
    except InputError:
        assume(False)
        raise
    assert_every_event_once(split, log)
    assert_no_future(split, log)
    when = np.empty(log.n_events, dtype=np.int64)
    when[log.items] = log.clock
    assert split.train.clock.max() < when[split.valid.targets].min()
    assert when[split.valid.targets].max() < when[split.test.targets].min()
    # events of one instant stay together, so test has its share or more, by less than one instant
    share = len(split.test) / log.n_events
    first = (log.clock == when[split.test.targets].min()).sum() / log.n_events
    assert test_share <= share + 1e-9
    assert share < test_share + first + 1 / log.n_events
    assert split.train.user_ids.to_list() == log.user_ids.to_list()


@law
@forall(events, st.data())
def test_a_given_split_asks_what_it_names(flat: list[tuple[str, int]], data: st.DataObject) -> None:
    log = log_of(flat)
    parts = np.empty(log.n_events, dtype="<U5")
    for row in range(log.n_users):
        size = int(log.lengths[row])
        cuts = sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2)))
        own = ["train"] * cuts[0] + ["valid"] * (cuts[1] - cuts[0]) + ["test"] * (size - cuts[1])
        parts[log.offsets[row] : log.offsets[row + 1]] = own
    split = given(log, parts_of(parts))
    assert_every_event_once(split, log)
    assert_no_future(split, log)
    assert split.train.items.tolist() == log.items[parts == "train"].tolist()
    assert split.valid.targets.tolist() == log.items[parts == "valid"].tolist()
    assert split.test.targets.tolist() == log.items[parts == "test"].tolist()
    as_objects = given(log, parts_of(parts.astype(object)))
    assert plain(as_objects.test) == plain(split.test)


@law
@forall(events, st.data())
def test_take_keeps_the_named_cases_whole(flat: list[tuple[str, int]], data: st.DataObject) -> None:
    log = log_of(flat)
    cases = next_event_cases(log, log.rows, np.arange(log.n_events) - log.offsets[log.rows])
    index = data.draw(st.lists(st.integers(0, len(cases) - 1), max_size=8))
    taken = cases.take(np.array(index, dtype=np.int64))
    assert plain(taken) == [plain(cases)[place] for place in index]


def test_take_keeps_several_targets_together() -> None:
    log = log_of([("a", 1), ("a", 2), ("b", 1), ("b", 2)])
    cases = Cases(log, np.array([0, 1]), np.array([1, 1]), np.array([1, 7, 3]), np.array([0, 2, 3]))
    assert plain(cases.take(np.array([1, 0]))) == [(1, [2], [3]), (0, [0], [1, 7])]


# --- refusals ------------------------------------------------------------------------------------


def test_global_time_needs_a_clock() -> None:
    with pytest.raises(ClockError, match="leave-last-out"):
        global_time(build_log(pl.Series(["a"]), np.array([0])))


def test_global_time_needs_three_instants() -> None:
    with pytest.raises(InputError, match="too close together"):
        global_time(log_of([("a", 1)] * 10 + [("b", 2)] * 10))


def test_global_time_of_nothing_is_refused() -> None:
    nothing = np.array([], dtype=np.int64)
    empty = build_log(pl.Series([], dtype=pl.String), nothing, times=nothing)
    with pytest.raises(InputError, match="no events"):
        global_time(empty)


@pytest.mark.parametrize(("valid", "test"), [(0, 0.1), (0.1, 0), (0.5, 0.5), (-0.1, 0.3), (0.6, 0.6)])
def test_impossible_shares_are_refused(golden: EventLog, valid: float, test: float) -> None:
    with pytest.raises(InputError, match="leave something for training"):
        global_time(golden, valid_share=valid, test_share=test)


@pytest.mark.parametrize(("odd", "said"), [("Holdout", "'Holdout'"), (None, "'None'"), ("", "''")])
def test_an_unknown_part_is_named(golden: EventLog, odd: str | None, said: str) -> None:
    parts = np.array(["train"] * 8 + [odd], dtype=object)
    with pytest.raises(InputError, match=f"holds {said}; it may hold train, valid and test"):
        given(golden, parts_of(parts))


@pytest.mark.parametrize("pair", [("valid", "train"), ("test", "valid"), ("test", "history")])
def test_a_part_that_goes_back_names_its_row_and_the_person(golden: EventLog, pair: tuple[str, str]) -> None:
    parts = np.array(["train"] * 4 + list(pair) + ["train"] * 3)
    says = f"split.csv, row 7, .* user 'bob' is {pair[1]} and follows one that is {pair[0]}, in row 6"
    with pytest.raises(InputError, match=says):
        given(golden, parts_of(parts))


def test_a_part_may_go_back_from_one_person_to_the_next(golden: EventLog) -> None:
    parts = np.array(["train"] * 3 + ["test"] + ["train", "test"] + ["train", "train", "test"])
    assert len(given(golden, parts_of(parts)).test) == 3


def test_cases_know_when_their_answers_happened() -> None:
    log = EventLog(
        pl.Series(["a", "b"]), np.array([0, 3, 5]), np.array([1, 2, 3, 4, 5]), np.array([10, 20, 30, 40, 50])
    )
    cases = next_event_cases(log, np.array([0, 0, 1]), np.array([0, 2, 1]))
    assert cases.times is not None and cases.times.tolist() == [10, 30, 50]
    assert cases.take(np.array([2, 0])).times is not None
    assert cases.take(np.array([2, 0])).times.tolist() == [50, 10]  # type: ignore[union-attr]
    assert cases.histories().asked_at is None  # which is not for a model to know
    assert replace(cases, log=replace(log, times=None)).times is None
    beyond = Cases(log, np.array([0, 1]), np.array([3, 2]), np.array([7, 8]), np.array([0, 1, 2]))
    assert beyond.times is not None and beyond.times.tolist() == [-1, -1]
