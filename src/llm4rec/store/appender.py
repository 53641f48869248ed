"""Single events from many threads into the event log, those that wait for the disk together.

A transaction costs its wait for the disk however few events it holds. So one thread writes: while the disk is
busy with what it was given, events gather, and all that have come make the next transaction (group commit).
Each is acknowledged once its own transaction lasts.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from threading import Condition, Lock, Thread
from typing import Self

from llm4rec.data.feedback import fault
from llm4rec.errors import EventLogError, InputError
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.store.sifting import REMEDY
from llm4rec.types import Feedback

ROOM = 4096
"""Events that may wait to be written, where nothing else is said."""
MOST = 512
"""The most events of one transaction: more would keep the first of them waiting, and other writers."""
PATIENCE = 5.0
"""How long a caller waits for room in the queue, where nothing else is said [s]."""


class Appender:
    """Writes single events to a log in the order of their coming, in as few transactions as it takes.

    It is a context that is closed at the end. The thread that writes does not keep a program from ending: one
    that ends without `close` has acknowledged nothing that was not written.

    Args:
        log: where to.
        room: events that may wait; where so many do, who brings another waits as well.
        patience: how long for [s].
        most: events of one transaction at most.
    """

    def __init__(
        self, log: FeedbackLog, *, room: int = ROOM, patience: float = PATIENCE, most: int = MOST
    ) -> None:
        if room < 1 or most < 1:
            raise InputError(
                f"An appender needs room for one event at least, not {min(room, most)}: raise room or most."
            )
        self.log, self.room, self.patience, self.most = log, room, patience, most
        self._waiting = deque[tuple[Feedback, Future[bool]]]()
        self._closed = False
        lock = Lock()
        self._come, self._gone = Condition(lock), Condition(lock)
        self._writer = Thread(target=self._write, name="llm4rec-appender", daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """How many events wait to be written."""
        return len(self._waiting)

    def submit(self, event: Feedback) -> Future[bool]:
        """Bring one event; what comes back is done once the event is on the disk.

        Its result says whether the event was new, as `FeedbackLog.append` does. It raises InputError where
        the log holds another event of that id, and EventLogError where the database fails: sent again,
        nothing is taken twice. Cancelled before it is written, the event is not taken.

        Raises:
            InputError: where it can be no event.
            EventLogError: where no room came free in time, or the appender is closed.
        """
        why = fault(event)
        if why:
            raise InputError(f"The event can't be taken: {why}.")
        done = Future[bool]()
        with self._gone:
            free = self._gone.wait_for(lambda: self._closed or len(self._waiting) < self.room, self.patience)
            if self._closed:
                raise EventLogError(
                    f"The appender of the event log {self.log.shown} is closed: the event "
                    f"{event.event_id!r} was not taken and is to be sent again."
                )
            if not free:
                raise EventLogError(
                    f"The event log {self.log.shown} can't keep up: {len(self._waiting)} events wait to be "
                    f"written, and none of them was in {self.patience:g} s. The event {event.event_id!r} was "
                    "not taken and is to be sent again, later or more slowly."
                )
            self._waiting.append((event, done))
            self._come.notify()
        return done

    def append(self, event: Feedback) -> bool:
        """Bring one event and wait until it is on the disk; whether it was new.

        Raises:
            InputError: where it can be no event, or the log holds another one of its id.
            EventLogError: where it can't be written, or no room came free in time.
        """
        return self.submit(event).result()

    def close(self) -> None:
        """Take no more events, and come back when all that were taken are written or have failed."""
        with self._come:
            self._closed = True
            self._come.notify_all()
            self._gone.notify_all()
        self._writer.join()

    def _write(self) -> None:
        while batch := self._next():
            wanted = [each for each in batch if each[1].set_running_or_notify_cancel()]
            if not wanted:
                continue
            try:
                found = self.log.take([event for event, _ in wanted])
            except Exception as error:  # whatever it is, those who wait are to hear of it
                for _, done in wanted:
                    done.set_exception(error)
                continue
            new = {*found.new}
            for place, (_, done) in enumerate(wanted):
                if place in found.refused:
                    done.set_exception(InputError(f"The event {found.refused[place]}: {REMEDY}."))
                else:
                    done.set_result(place in new)

    def _next(self) -> list[tuple[Feedback, Future[bool]]]:
        """What the next transaction holds; nothing once the appender is closed and all is written."""
        with self._come:
            self._come.wait_for(lambda: self._waiting or self._closed)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self.most))]
            self._gone.notify(len(batch))
            return batch
