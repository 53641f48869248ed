"""A log that grew event by event is the log that would be built of all its events, in every field."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.events import EventLog, build_log
from llm4rec.data.joining import joined, parted

law = settings(max_examples=80)

Event = tuple[str, int, int, float, str, float]
# few values each, so that people and times recur
event = st.tuples(
    st.sampled_from(["ann", "bob", "cy", "Дина"]),
    st.integers(0, 5),
    st.integers(-2, 2),
    st.sampled_from([1.0, 4.5, float("nan")]),
    st.sampled_from(["view", "buy", ""]),
    st.sampled_from([0.5, float("nan")]),
)
flat = st.lists(event, max_size=16)
told = st.fixed_dictionaries(dict.fromkeys(("ratings", "event_types", "propensities"), st.booleans()))


def built(events: list[Event], known: dict[str, bool], *, times: bool) -> EventLog:
    users, items, moments, ratings, types, propensities = zip(*events, strict=True) if events else ((),) * 6
    columns: dict[str, Any] = {
        "ratings": np.array(ratings, dtype=np.float32),
        "event_types": pl.Series(types, dtype=pl.String),
        "propensities": np.array(propensities, dtype=np.float32),
    }
    return build_log(
        pl.Series(users, dtype=pl.String),
        np.array(items, dtype=np.int64),
        times=np.array(moments, dtype=np.int64) if times else None,
        **{name: columns[name] for name, given in known.items() if given},
    )


@law
@given(flat, st.lists(flat, max_size=4), told, st.booleans())
def test_what_was_joined_can_be_parted_again(
    known: list[Event], parts: list[list[Event]], columns: dict[str, bool], times: bool
) -> None:
    before = built(known, columns, times=times)
    after, later = before, list[Event]()
    for part in parts:
        after, later = after.joined(built(part, columns, times=times)), later + part
    found = parted(after, built(later, columns, times=times))
    rows = np.flatnonzero(found.lengths)
    left, names = found.histories(rows, found.lengths[rows]), pl.Series([str(item) for item in range(6)])
    assert left.user_ids.to_list() == before.user_ids.to_list()
    wanted = before.to_frame(names)
    assert left.to_frame(names).select(wanted.columns).equals(wanted)


def recounted(log: EventLog, later: EventLog) -> EventLog:
    """All events of both, one after the other, sorted and named anew."""
    logs = (log, later)

    def along(name: str) -> Any:
        parts = [getattr(each, name) for each in logs]
        if all(part is None for part in parts):
            return None
        missing = [np.full(each.n_events, np.nan, dtype=np.float32) for each in logs]
        return np.concatenate([no if part is None else part for part, no in zip(parts, missing, strict=True)])

    types = list[str]()
    for each in logs:
        kinds = [None] * each.n_events if each.kinds is None else each.kinds
        types += ["" if kind is None else each.kind_names[kind] for kind in kinds]
    return build_log(
        pl.concat([each.user_ids[each.rows] for each in logs]),
        np.concatenate([each.items for each in logs]),
        times=None if log.times is None else np.concatenate([each.clock for each in logs]),
        ratings=along("ratings"),
        propensities=along("propensities"),
        event_types=None if log.kinds is None and later.kinds is None else pl.Series(types, dtype=pl.String),
    )


def same(one: EventLog, other: EventLog) -> None:
    for each in fields(EventLog):
        found, wanted = getattr(one, each.name), getattr(other, each.name)
        if isinstance(wanted, np.ndarray):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted, err_msg=each.name)
        elif isinstance(wanted, pl.Series):
            assert found.dtype == wanted.dtype and found.to_list() == wanted.to_list()
        else:
            assert found == wanted, each.name
    assert one.tidy and one.row_of == other.row_of
    if other.times is not None:
        np.testing.assert_array_equal(one.ordered, other.ordered)


@law
@given(st.lists(flat, min_size=2, max_size=5), st.data(), st.booleans())
def test_what_is_joined_is_as_if_it_were_built_anew(
    parts: list[list[Event]], data: st.DataObject, times: bool
) -> None:
    logs = [built(part, data.draw(told), times=times) for part in parts]
    grown = logs[0]
    for later in logs[1:]:
        if times and data.draw(st.booleans()):
            _ = grown.ordered  # what was worked out before is carried on
        found = joined(grown, later)
        same(found, recounted(grown, later))
        assert ("ordered" in vars(found)) or not times or "ordered" not in vars(grown)
        grown = found


@law
@given(flat, flat, told, st.booleans())
def test_events_that_come_one_by_one_end_as_all_at_once(
    known: list[Event], new: list[Event], has: dict[str, bool], times: bool
) -> None:
    first = built(known, has, times=times)
    one_by_one = first
    for each in new:
        one_by_one = one_by_one.joined(built([each], has, times=times))
    if new:
        same(one_by_one, first.joined(built(new, has, times=times)))


@law
@given(flat, flat, st.data())
def test_rows_that_are_empty_or_of_one_person_or_out_of_order_are_joined_alike(
    known: list[Event], new: list[Event], data: st.DataObject
) -> None:
    log, later = (built(part, {"event_types": True}, times=True) for part in (known, new))
    requests = list[EventLog]()
    for each in (log, later):
        rows = data.draw(st.lists(st.integers(0, max(each.n_users - 1, 0)), max_size=4 * each.n_users))
        ends = [data.draw(st.integers(0, int(each.lengths[row]))) for row in rows]
        found = each.histories(np.array(rows, dtype=np.int64), np.array(ends, dtype=np.int64))
        requests.append(replace(found, times=found.clock[::-1]))
    same(requests[0].joined(requests[1]), recounted(*requests))


def test_what_came_of_a_log_leaves_it_as_it_was() -> None:
    """Two logs that grow out of one know nothing of each other's people."""
    first = built([("ann", 0, 1, 1.0, "", 0.5)], {}, times=True)
    assert first.row_of == {"ann": 0} and first.moment(0.5) == 1
    bob, cy = (first.joined(built([(name, 1, 2, 1.0, "", 0.5)], {}, times=True)) for name in ("bob", "cy"))
    assert (bob.row_of, cy.row_of, first.row_of) == ({"ann": 0, "bob": 1}, {"ann": 0, "cy": 1}, {"ann": 0})
    assert first.ordered.tolist() == [1] and bob.ordered.tolist() == [1, 2]


@law
@given(st.lists(st.integers(0, 4_102_444_799), min_size=1, max_size=40), st.floats(0, 1))
def test_a_moment_is_the_quantile_of_the_times(times: list[int], share: float) -> None:
    log = build_log(
        pl.Series(["u"] * len(times)), np.zeros(len(times), dtype=np.int64), times=np.array(times)
    )
    for each in (share, 0.0, 0.3, 0.7, 0.9, 0.99, 1.0):
        assert log.moment(each) == float(np.quantile(np.array(times), each))
