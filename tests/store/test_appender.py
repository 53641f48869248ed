"""Single events from many threads: each acknowledged once it lasts, each refused alone, none lost."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.feedback import LONGEST, checked, fault
from llm4rec.errors import EventLogError, InputError
from llm4rec.store.appender import Appender
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.store.sifting import Sifted, sift
from llm4rec.types import Feedback

Fresh = Callable[[], str]


def event(number: int, **other: Any) -> Feedback:
    told = {"user": f"u{number % 5}", "item": f"i{number % 3}", "kind": "click", "value": None}
    return Feedback(event_id=f"e{number}", **{**told, "time": 1_700_000_000 + number, **other})


class Held:
    """In the place of a log: keeps its writer waiting until it is let go, and fails where it is told to."""

    shown = "held.db"

    def __init__(self) -> None:
        self.taken: list[list[Feedback]] = []
        self.busy, self.free = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def take(self, events: Sequence[Feedback]) -> Sifted:
        self.busy.set()
        self.free.wait()
        if self.error is not None:
            raise self.error
        self.taken.append([*events])
        return Sifted([*range(len(events))], {})


@pytest.fixture
def held() -> Generator[Held]:
    log = Held()
    yield log
    log.free.set()


def over(log: Held, **options: Any) -> Appender:
    """An appender whose writer is busy with the event 0."""
    appender = Appender(log, **options)  # pyright: ignore[reportArgumentType]
    appender.submit(event(0))
    log.busy.wait()
    return appender


def test_events_of_many_threads_are_each_there_once(fresh: Fresh) -> None:
    with FeedbackLog.open(fresh()) as log:
        with Appender(log, most=7) as appender, ThreadPoolExecutor(8) as pool:
            # every event by two threads at the same time: for one of the two it is new
            new = [*pool.map(appender.append, [event(number // 2) for number in range(120)])]
        ids = log.read()["event_id"].to_list()
        assert sorted(ids) == sorted(f"e{number}" for number in range(60))
        assert [new[place] + new[place + 1] for place in range(0, 120, 2)] == [1] * 60
        assert log.position == len(log) == 60


def test_one_thread_s_events_keep_their_order(fresh: Fresh) -> None:
    with FeedbackLog.open(fresh()) as log:
        with Appender(log) as appender:
            done = [appender.submit(event(number)) for number in range(50)]
        assert all(each.done() and each.result() for each in done)
        assert log.read()["event_id"].to_list() == [f"e{number}" for number in range(50)]


def test_what_can_t_be_taken_fails_its_own_caller_alone(fresh: Fresh) -> None:
    with FeedbackLog.open(fresh()) as log:
        log.append([event(1, value=3.0)])
        appender = Appender(log)
        with log._alone():  # the first keeps the writer waiting, so that the others become one transaction
            first = appender.submit(event(0))
            others = [
                appender.submit(each)
                for each in (event(2), event(1, value=4.0), event(3), event(3, item="x"), event(1, value=3.0))
            ]
            with pytest.raises(InputError, match=r"can't be taken: Feedback.time takes UTC seconds"):
                appender.submit(event(4, time=-1))
        appender.close()
        assert [first.result(), others[0].result(), others[2].result()] == [True, True, True]
        assert others[4].result() is False
        with pytest.raises(
            InputError,
            match=r"^The event 'e1' is in the log with another value \(3.0, and here 4.0\): an event",
        ):
            others[1].result()
        with pytest.raises(InputError, match="The event 'e3' is earlier in the batch with another"):
            others[3].result()
        assert log.read()["event_id"].to_list() == ["e1", "e0", "e2", "e3"]


def test_a_batch_is_taken_as_far_as_it_can_be_or_not_at_all(fresh: Fresh) -> None:
    batch = [event(1), event(2), event(1, item="x"), event(2)]
    with FeedbackLog.open(fresh()) as log:
        with pytest.raises(InputError, match="Row 3 of the 4 events"):
            log.append(batch)
        assert len(log) == 0
        found = log.take(batch)
        assert (found.new, [*found.refused]) == ([0, 1], [2])
        assert log.position == len(log) == 2
        assert log.take([]) == ([], {})


def test_a_full_queue_makes_its_callers_wait_and_drops_nothing(held: Held) -> None:
    appender = over(held, room=2, most=2, patience=60)
    late = threading.Thread(target=lambda: [appender.append(event(number)) for number in (3, 4)])
    kept = [appender.submit(event(number)) for number in (1, 2)]
    assert len(appender) == 2
    late.start()
    late.join(0.05)
    assert late.is_alive() and len(appender) == 2
    held.free.set()
    late.join()
    appender.close()
    assert all(each.result() for each in kept)
    assert [each.event_id for batch in held.taken for each in batch] == [f"e{number}" for number in range(5)]
    assert max(map(len, held.taken)) == 2


def test_a_caller_who_waited_long_enough_is_told(held: Held) -> None:
    appender = over(held, room=1, patience=0.01)
    waiting = appender.submit(event(1))
    with pytest.raises(EventLogError, match=r"held.db can't keep up: 1 events wait .* 'e2' was not taken"):
        appender.submit(event(2))
    held.free.set()
    appender.close()
    assert waiting.result()
    assert [each.event_id for batch in held.taken for each in batch] == ["e0", "e1"]


def test_closing_writes_what_was_taken_and_takes_no_more(held: Held) -> None:
    appender = over(held, room=2, patience=60)
    kept = [appender.submit(event(number)) for number in (1, 2)]
    told = list[str]()

    def bring() -> None:
        try:
            appender.submit(event(3))
        except EventLogError as error:
            told.append(str(error))

    waits = threading.Thread(target=bring)
    waits.start()
    closing = threading.Thread(target=appender.close)
    closing.start()
    waits.join()  # whoever waits for room is told at once
    assert "'e3' was not taken" in told[0] and closing.is_alive()
    held.free.set()
    closing.join()
    assert all(each.result() for each in kept)
    with pytest.raises(
        EventLogError, match=r"appender of .* held.db is closed: the event 'e4' was not taken"
    ):
        appender.submit(event(4))
    appender.close()
    assert [each.event_id for batch in held.taken for each in batch] == ["e0", "e1", "e2"]


@pytest.mark.parametrize("error", [EventLogError("The disk is full."), ValueError("what nobody thought of")])
def test_where_the_log_fails_everyone_of_the_batch_hears_of_it_and_the_next_goes_on(
    held: Held, error: Exception
) -> None:
    appender = over(held)
    done = [appender.submit(event(number)) for number in (1, 2)]
    held.error = error
    held.free.set()
    for each in done:
        with pytest.raises(type(error), match=str(error)):
            each.result()
    held.error = None
    assert appender.append(event(3))
    appender.close()


def test_what_was_cancelled_in_time_is_not_written(held: Held) -> None:
    appender = over(held)
    done = [appender.submit(event(number)) for number in (1, 2)]
    assert done[0].cancel()
    held.free.set()
    appender.close()
    with pytest.raises(CancelledError):
        done[0].result()
    assert done[1].result() and [each.event_id for each in held.taken[-1]] == ["e2"]


def test_no_room_is_no_appender(held: Held) -> None:
    with pytest.raises(InputError, match="room for one event at least, not 0"):
        Appender(held, room=0)  # pyright: ignore[reportArgumentType]


odd = st.text(st.characters(min_codepoint=0x18, max_codepoint=0x100, exclude_categories=["Cs"]), max_size=3)


@settings(max_examples=60)
@given(text=odd, column=st.sampled_from([*LONGEST]), times=st.sampled_from([1, 40, 600]))
def test_one_event_and_a_table_of_it_are_refused_alike(text: str, column: str, times: int) -> None:
    row = dict.fromkeys(("event_id", "user_id", "item_id", "event_type"), "x") | {column: text * times}
    told = Feedback(row["event_id"], row["user_id"], row["item_id"], row["event_type"], 1.0, 5)
    table = pl.DataFrame({**row, "value": 1.0, "timestamp": 5})
    if fault(told) is None:
        assert checked([told]).equals(checked(table))
    else:
        with pytest.raises(InputError, match=column):
            checked(table)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=12), st.integers(0, 12))
def test_sorting_out_a_batch_is_sorting_out_its_events_one_by_one(
    told: list[tuple[str, str]], known: int
) -> None:
    rows = [(name, "u", item, "click", None, 5) for name, item in told]
    there = {row[0]: row for row in reversed(rows[:known])}
    found = sift(rows[known:], there.values())
    new, refused = list[int](), list[int]()
    for place, row in enumerate(rows[known:]):
        if row[0] not in there:
            there[row[0]] = row
            new.append(place)
        elif there[row[0]] != row:
            refused.append(place)
    assert (found.new, [*found.refused]) == (new, refused)


WRITER = """
import json, sys
from llm4rec.store.appender import Appender
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.types import Feedback
with FeedbackLog.open(sys.argv[1]) as log, Appender(log, most=16) as appender:
    for line in sys.stdin:
        name = json.loads(line)
        done = appender.submit(Feedback(name, "u", "i", "click", None, 5))
        done.add_done_callback(lambda done, name=name: done.result() in (0, 1) and print(name, flush=True))
"""


@pytest.mark.slow
def test_what_was_acknowledged_one_by_one_survives_a_kill(fresh: Fresh) -> None:
    """What was not is sent again, and in the end each event is there once."""
    place, n, draw = fresh(), 600, random.Random(5)
    acknowledged = dict[str, None]()
    with FeedbackLog.open(place) as log:
        for last in (draw.randint(50, 150), draw.randint(200, 400), n):
            command = [sys.executable, "-c", WRITER, place]
            writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert writer.stdin is not None and writer.stdout is not None
            left = [name for name in map(str, range(n)) if name not in acknowledged]
            writer.stdin.write("".join(f"{json.dumps(name)}\n" for name in left))
            writer.stdin.flush()
            for line in writer.stdout:
                assert line.strip() not in acknowledged
                acknowledged[line.strip()] = None
                if len(acknowledged) == last:
                    break
            if last < n:
                writer.send_signal(signal.SIGKILL)
                acknowledged |= dict.fromkeys(writer.stdout.read().split("\n")[:-1])
            writer.stdin.close()
            writer.wait()
            writer.stdout.close()
            ids = log.read()["event_id"].to_list()
            assert ids == [str(number) for number in range(len(ids))]  # each once, none between left out
            assert {*acknowledged} <= {*ids}
    assert len(acknowledged) == n == len(ids)
