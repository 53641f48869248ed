"""A log is trained on once, in whatever parts it comes and wherever it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from llm4rec import observing
from llm4rec.cli import app
from llm4rec.cli.learn import _of_training
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import build_log
from llm4rec.errors import ArtefactError
from llm4rec.observing import Learnt
from llm4rec.online import kept
from llm4rec.online.learner import held_out
from llm4rec.online.progressed import Origin, Progressed
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.store import artefact, parts
from llm4rec.store.alone import alone
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.types import Feedback, Place

N_ITEMS, START = 20, 1_700_000_000
TINY: dict[str, Any] = {
    "encode": {"text": {"encoder": "hash"}},
    "train": {"epochs": 2, "attention_epochs": 1, "batch_size": 64},
    "model": {"embedding_size": 8, "layers": 1, "heads": 1, "dropout": 0.0},
    "online": {"batch_size": 8, "replay": 3, "judges": 8, "period": 2, "fisher_examples": 5},
}


@pytest.fixture(scope="module")
def model() -> Recommender:
    users, steps = np.repeat(np.arange(30), 6), np.tile(np.arange(6), 30)
    log = build_log(
        pl.Series([f"u{user}" for user in users]),
        (users + steps) % N_ITEMS,
        times=START - 100_000 + 3_600 * steps,
    )
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "title": [f"Tale {item}" for item in range(N_ITEMS)],
        "genre": [["old" if item % 2 else "new"] for item in range(N_ITEMS)],
    })
    fields = (Field("title", "text"), Field("genre", "categorical"))
    return Recommender.fit(log, Catalog(table, fields), Config.model_validate(TINY))


def some(n: int, first: int = 0) -> list[Feedback]:
    """Events of which some come late, some are of no known item and some not positive."""
    return [
        Feedback(
            f"e{number}",
            f"u{number % 37}",
            f"i{number * 7 % (N_ITEMS + 1)}",
            "skip" if number % 9 == 0 else "click",
            None,
            START + number - (500 if number % 5 == 0 else 0),
        )
        for number in range(first, first + n)
    ]


def untidy(n: int, first: int = 0) -> list[Feedback]:
    """The same, but some say again what was said before, the same second or later, under another id."""
    told = some(n, first)
    for number in range(2, n):
        if number % 6 == 0:
            again = told[number - 1] if number % 4 else told[number - 2]
            told[number] = replace(again, event_id=told[number].event_id)
    return told


def same(one: Recommender, other: Recommender) -> None:
    """Both have the same weights and would go on alike."""
    states = [each.fitted.scorer.network.state_dict() for each in (one, other)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    first, second = one.fitted.online, other.fitted.online
    assert isinstance(first, Progressed) and isinstance(second, Progressed)
    assert kept.told(first) == kept.told(second)
    for name, arrays in kept.tensors(first).items():
        for part, array in arrays.items():
            np.testing.assert_array_equal(array, kept.tensors(second)[name][part], err_msg=part)
    for name, table in kept.tables(first).items():
        assert table.equals(kept.tables(second)[name]), name


def test_parts_and_saved_models_come_to_the_same(model: Recommender, tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(70))
        whole, told = model.learn(log)
        assert told.trained == 64 and isinstance(whole.fitted.online, Progressed)
        assert whole.fitted.online.position == 64 and whole.fitted.online.steps == 8
    parts = model
    with FeedbackLog.open(tmp_path / "again.db") as log:
        first = 0
        for size in (3, 5, 20, 1, 30, 11):
            log.append(some(size, first))
            first += size
            parts, _ = parts.learn(log)
            if size != 20:
                parts.save(tmp_path / "model")
                parts = Recommender.load(tmp_path / "model")
        assert first == 70
    same(whole, parts)
    trained, before = whole.fitted.scorer.network, model.fitted.scorer.network
    table = "fusion.encoders.behaviour.table"
    assert not torch.equal(trained.state_dict()[table], before.state_dict()[table])


MOMENTS = [
    ("llm4rec.learning", "begun", 1, "before"),
    ("llm4rec.online.learner", "Learner.foreseen", 1, "after"),  # learning begins
    ("llm4rec.online.learner", "Learner.take", 2, "before"),
    ("llm4rec.online.momentum", "as_rows", 5, "after"),  # some parameters have moved, others have not
    ("llm4rec.online.learner", "Learner._judge", 1, "after"),
    ("llm4rec.learning", "published", 1, "after"),
    ("llm4rec.store.artefact", "_fill", 1, "after"),
    ("llm4rec.store.replace", "put", 1, "before"),
    ("llm4rec.store.replace", "put", 1, "after"),
    ("llm4rec.store.eventlog", "FeedbackLog.register", 1, "before"),
    ("llm4rec.store.eventlog", "FeedbackLog.register", 1, "after"),
]
"""Where a run is stopped: a module, a name in it, the how manieth call, and on which side of it."""


class Stopped(BaseException):
    """What ends a run in the middle."""


def stop() -> None:
    raise Stopped


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ending(
    moment: tuple[str, str, int, str], end: Callable[[], None], put: Callable[[Any, str, Any], None]
) -> None:
    """Have a run end at a moment; `put` sets an attribute."""
    module, name, nth, side = moment
    *owners, last = name.split(".")
    owner: Any = import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    whole, calls = getattr(owner, last), list[int]()

    def ends(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if side == "before" and len(calls) == nth:
            end()
        found = whole(*given, **named)
        if side == "after" and len(calls) == nth:
            end()
        return found

    put(owner, last, ends)


def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same(
    model: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place)
    learn = ["learn", "--model", str(place), "--events", str(db)]
    with FeedbackLog.open(db) as log:
        for number, moment in enumerate(MOMENTS):
            log.append(untidy(21, 21 * number))
            with monkeypatch.context() as patch, pytest.raises(Stopped):
                ending(moment, stop, patch.setattr)
                CliRunner().invoke(app, learn, catch_exceptions=False)
            halfway = Recommender.load(place).fitted  # whatever it is, it is whole
            assert (halfway.learnt is None) == (halfway.online is None)
        assert CliRunner().invoke(app, learn).exit_code == 0
        undisturbed = model.learn(log)[0]
    found = Recommender.load(place)
    assert found.fitted.online is not None and found.fitted.online.steps == 21 * len(MOMENTS) // 8
    remembered = [each.fitted.histories for each in (found, undisturbed)]
    assert remembered[0] is not None and remembered[1] is not None
    tables = [each.to_frame(model.catalog.ids) for each in remembered if each is not None]
    assert tables[0].equals(tables[1], null_equal=True)
    same(found, undisturbed)


KILLED = """
import sys
from llm4rec.cli import main
from tests.test_learning import MOMENTS, ending, kill
ending(MOMENTS[int(sys.argv[1])], kill, setattr)
del sys.argv[1]
main()
"""
"""The program, which kills itself at one of the moments."""


@pytest.mark.slow
def test_a_process_that_is_killed_anywhere_goes_on_to_the_same(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place)
    learn = ["learn", "--model", str(place), "--events", str(db)]
    root = Path(__file__).parents[1]
    with FeedbackLog.open(db) as log:
        for number in range(3, 9):  # a process takes seconds to start: from half a step to a written model
            log.append(untidy(21, 21 * number))
            command = [sys.executable, "-c", KILLED, str(number), *learn]
            ended = subprocess.run(command, cwd=root, capture_output=True)
            assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        assert CliRunner().invoke(app, learn).exit_code == 0
        undisturbed = model.learn(log)[0]
    same(Recommender.load(place), undisturbed)


def test_what_is_given_on_the_way_goes_on_to_the_same(
    model: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(untidy(100))
        whole, _ = model.learn(log)
        monkeypatch.setattr(observing, "TRAINED", 20)  # it is judged every 16 positions
        given = list[Recommender]()
        told, _ = model.learn(log, each=given.append)
        same(told, whole)
        places = [each.fitted.learnt for each in given]
        assert [place and place.position for place in places] == [32, 64]  # of 96, no step would be left
        for number, each in enumerate(given):
            online = each.fitted.online
            assert isinstance(online, Progressed) and online.position == 32 * (number + 1)
            assert online.steps % model.config.online.period == 0
            each.save(tmp_path / str(number))
            on, seen = Recommender.load(tmp_path / str(number)).learn(log)
            assert seen.start == online.position and seen.place.reader == places[0].reader  # pyright: ignore[reportOptionalMemberAccess]
            same(on, whole)


def test_nothing_is_given_where_nothing_came(
    model: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hole in the log, of events that were dropped or erased, is passed at once."""
    monkeypatch.setattr(observing, "TRAINED", 16)
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append([replace(each, user=WHO) if 5 < n < 70 else each for n, each in enumerate(some(100))])
        log.erase(WHO)
        given = list[Recommender]()
        whole, _ = model.learn(log, each=given.append)
        places = [each.fitted.learnt for each in given]
        assert [place and place.position for place in places] == [16, 80]
        on, _ = given[0].learn(log)
    same(on, whole)


UNDERWAY = [
    ("llm4rec.store.replace", "put", 1, "before"),
    ("llm4rec.store.replace", "put", 1, "after"),
    ("llm4rec.store.eventlog", "FeedbackLog.register", 1, "after"),
    ("llm4rec.online.learner", "Learner.take", 2, "before"),
    ("llm4rec.store.artefact", "_fill", 2, "after"),
    ("llm4rec.store.replace", "put", 2, "after"),
]
"""Moments on the way through one backlog; in all but the first and the fourth it has come further before."""


def test_a_run_that_is_stopped_on_its_way_has_come_further(
    model: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often, it is one version to go back to, and the log keeps what is still to be read."""
    monkeypatch.setattr(observing, "TRAINED", 16)
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    learn = ["learn", "--model", str(place), "--events", str(db)]
    positions = list[int]()
    with FeedbackLog.open(db) as log:
        log.append(untidy(150))
        for moment in UNDERWAY:
            with monkeypatch.context() as patch, pytest.raises(Stopped):
                ending(moment, stop, patch.setattr)
                CliRunner().invoke(app, learn, catch_exceptions=False)
            learnt = Recommender.load(place).fitted.learnt
            positions.append(0 if learnt is None else learnt.position)
            assert all(position <= positions[-1] for position in log.readers.values())
            told = llm4rec("versions", "--model", place, "--json")["versions"]
            found = [(each["number"], each["by"], each["unfinished"]) for each in told]
            assert found == [(1, "fit", False), (2, "learn", True)][: len(found)]
        assert positions == [0, 16, 32, 32, 48, 80]
        assert CliRunner().invoke(app, learn).exit_code == 0
        undisturbed = model.learn(log)[0]
        assert [*log.readers.values()] == [144]
    told = llm4rec("versions", "--model", place, "--json")["versions"]
    assert [(each["number"], each["parent"], each["by"], each["unfinished"]) for each in told] == [
        (1, None, "fit", False),
        (2, 1, "learn", False),
    ]
    same(Recommender.load(place), undisturbed)


KILLED_UNDERWAY = """
import sys
from llm4rec import observing
from llm4rec.cli import main
from tests.test_learning import UNDERWAY, ending, kill
observing.TRAINED = 16
ending(UNDERWAY[int(sys.argv[1])], kill, setattr)
del sys.argv[1]
main()
"""


@pytest.mark.slow
def test_a_process_that_is_killed_on_its_way_has_come_further(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    learn = ["learn", "--model", str(place), "--events", str(db)]
    with FeedbackLog.open(db) as log:
        log.append(untidy(150))
        for number, position in ((1, 16), (5, 48)):
            command = [sys.executable, "-c", KILLED_UNDERWAY, str(number), *learn]
            ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True)
            assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
            learnt = Recommender.load(place).fitted.learnt
            assert learnt is not None and learnt.position == position
        assert CliRunner().invoke(app, learn).exit_code == 0
        undisturbed = model.learn(log)[0]
    same(Recommender.load(place), undisturbed)
    assert len(llm4rec("versions", "--model", place, "--json")["versions"]) == 2


def test_two_replicas_of_a_position_hold_the_same(model: Recommender, tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(40))
        one, _ = model.learn(log)
        log.append(some(25, 40))
        one, _ = one.learn(log)
        other, _ = model.learn(log)
    same(one, other)


def test_without_training_the_weights_stay(model: Recommender, tmp_path: Path) -> None:
    still = model.config.online.model_copy(update={"train": False})
    config = model.config.model_copy(update={"online": still})
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(40))
        found, told = Recommender(replace(model.fitted, config=config)).learn(log)
    assert found.fitted.online is None and told.trained is None and told.learnt > 0
    states = [each.fitted.scorer.network.state_dict() for each in (found, model)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_model_of_codes_alone_remembers_and_is_not_trained(model: Recommender, tmp_path: Path) -> None:
    alone = model.config.generate.model_copy(update={"mode": "only"})
    config = model.config.model_copy(update={"generate": alone})
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(40))
        found, told = Recommender(replace(model.fitted, config=config)).learn(log)
    assert found.fitted.online is None and told.trained is None and told.learnt > 0


def test_events_that_wait_for_a_whole_step_are_kept(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    events = tmp_path / "events.db"
    with FeedbackLog.open(events) as log:
        log.append(some(5))
        llm4rec("learn", "--model", tmp_path / "model", "--events", events)
        assert list(log.readers.values()) == [0]
        assert log.drop_before(START + 10_000) == 0
        log.append(some(5, 5))
        said = llm4rec("learn", "--model", tmp_path / "model", "--events", events)
        assert "trained on up to position 8. What came after that waits for a whole step." in said
        assert list(log.readers.values()) == [8]


WHO = "Person of Interest"


def taught(n: int) -> list[Feedback]:
    """Events of which every third is of one person who was not there before."""
    return [replace(each, user=WHO) if number % 3 == 0 else each for number, each in enumerate(some(n))]


def test_who_is_forgotten_is_in_nothing_that_learning_keeps(model: Recommender, tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(taught(64))
        found, _ = model.learn(log)
        assert isinstance(found.fitted.online, Progressed) and found.fitted.online.taught_by(WHO)
        found.forget_user(WHO).save(tmp_path / "model")
        for file in (tmp_path / "model").rglob("*"):
            assert not file.is_file() or WHO.encode() not in file.read_bytes()
        forgotten = Recommender.load(tmp_path / "model")
        assert isinstance(forgotten.fitted.online, Origin)
        log.erase(WHO)
        again, _ = forgotten.learn(log)
    assert isinstance(again.fitted.online, Progressed) and again.fitted.online.position == 64
    users = [table["user_id"].to_list() for table in kept.tables(again.fitted.online).values()]
    assert any(users) and not any(WHO in each for each in users)


def test_weights_are_those_of_one_who_never_met_the_forgotten(model: Recommender, tmp_path: Path) -> None:
    """Which leaves nothing that could tell whether the person was there."""
    events = [replace(each, time=START + number) for number, each in enumerate(taught(64))]
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(events)
        met, _ = model.learn(log)
        forgotten = met.forget_user(WHO)
        before, now, begun = (each.fitted.scorer.network.state_dict() for each in (met, forgotten, model))
        assert all(torch.equal(tensor, now[name]) for name, tensor in begun.items())
        assert any(not torch.equal(tensor, now[name]) for name, tensor in before.items())
        assert torch.equal(forgotten.fitted.scorer.vectors, model.fitted.scorer.vectors)
        log.erase(WHO)
        again, _ = forgotten.learn(log)
        never, _ = model.learn(log)  # the log without them
    same(again, never)


@pytest.mark.parametrize("untidily", [False, True])
def test_late_and_repeated_events_are_learnt_anew_as_they_came(
    model: Recommender, tmp_path: Path, untidily: bool
) -> None:
    """Also where the log is read in parts, by who never met the forgotten and by who has."""
    events = (untidy if untidily else some)(64)
    with FeedbackLog.open(tmp_path / "events.db") as log:
        met = model
        for start in range(0, 64, 16):
            log.append(events[start : start + 16])
            met, _ = met.learn(log)
        forgotten = met.forget_user("u33")
        assert isinstance(forgotten.fitted.online, Origin)
        log.erase("u33")
        again, _ = forgotten.learn(log)
        never, _ = model.learn(log)
    assert again.fitted.histories is not None and never.fitted.histories is not None
    same(again, never)


def test_training_anew_goes_on_in_parts_too(
    model: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what the model remembers already, and is trained on only where it has been read again."""
    monkeypatch.setattr(observing, "TRAINED", 16)
    events = [replace(each, time=START + number) for number, each in enumerate(taught(70))]
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(events)
        forgotten = model.learn(log)[0].forget_user(WHO)
        log.erase(WHO)
        never, _ = model.learn(log)
        given = list[Recommender]()
        again, _ = forgotten.learn(log, each=given.append)
        same(again, never)
        reached = [(each.fitted.learnt, each.fitted.online) for each in given]
        assert [(at and at.position, on and on.position) for at, on in reached] == [
            (70, 16), (70, 32), (70, 48),
        ]  # fmt: skip
        given[1].save(tmp_path / "model")
        on, _ = Recommender.load(tmp_path / "model").learn(log)
        same(on, never)


def test_who_taught_nothing_is_forgotten_without_learning_anew(model: Recommender, tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append([replace(each, user="another") for each in some(16)])
        found, _ = model.learn(log)
    left = found.forget_user("u3")
    assert isinstance(left.fitted.online, Progressed) and left.fitted.online.position == 16
    states = [each.fitted.scorer.network.state_dict() for each in (found, left)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not any("u3" in table["user_id"].to_list() for table in kept.tables(left.fitted.online).values())


def test_items_that_come_later_are_learnt_too(model: Recommender, tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(20))
        found, _ = model.learn(log)
        grown = found.upsert_items(pl.DataFrame({"item_id": ["later"], "title": ["Tale of tomorrow"]}))
        grown.save(tmp_path / "model")
        grown = Recommender.load(tmp_path / "model")
        log.append([Feedback(f"l{n}", f"u{n}", "later", "click", None, START + 900 + n) for n in range(12)])
        after, _ = grown.learn(log)
    vectors = [each.fitted.scorer.vectors for each in (grown, after)]
    assert not torch.equal(vectors[0][N_ITEMS], vectors[1][N_ITEMS])
    assert N_ITEMS not in after.fitted.new_items and N_ITEMS in grown.fitted.new_items
    forgotten = after.forget_user("u3")
    assert isinstance(forgotten.fitted.online, Origin) and N_ITEMS in forgotten.fitted.new_items
    torch.testing.assert_close(forgotten.fitted.scorer.vectors[N_ITEMS], vectors[0][N_ITEMS])


def test_what_does_not_fit_together_is_refused(model: Recommender, tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(40))
        found, _ = model.learn(log)
    found.save(tmp_path / "model")
    read = artefact.read(tmp_path / "model", "model")
    meta = {name: value for name, value in read.meta.items()}
    arrays = {
        name.removesuffix(".safetensors"): read.tensors(name.removesuffix(".safetensors"))
        for name in read.manifest.files
        if name.endswith(".safetensors")
    }
    tables = {
        name.removesuffix(".parquet"): read.table(name.removesuffix(".parquet"))
        for name in read.manifest.files
        if name.endswith(".parquet")
    }
    arrays["online"]["velocity.start"] = np.zeros(3, dtype=np.float32)
    artefact.write(tmp_path / "other", kind="model", meta=meta, tensors=arrays, tables=tables)
    with pytest.raises(ArtefactError, match=r"online\.safetensors"):
        Recommender.load(tmp_path / "other")


def test_the_command_says_what_it_trained_on(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(40))
    found = CliRunner().invoke(
        app, ["learn", "--model", str(tmp_path / "model"), "--events", str(tmp_path / "events.db")]
    )
    assert found.exit_code == 0, found.output
    assert "trained on up to position 40" in " ".join(found.output.split())
    told = Learnt(0, Place("log", 40, "reader"), trained=40, undone=3, mended=2)
    assert "undone 3 times" in _of_training(told) and "2 of these times it was kept" in _of_training(told)


def llm4rec(*arguments: object) -> Any:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout) if "--json" in arguments else " ".join(found.stdout.split())


def test_a_model_goes_back_and_learns_on_from_there(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    learn = ("learn", "--model", place, "--events", db)
    with FeedbackLog.open(db) as log:
        log.append(some(24))
        llm4rec(*learn)
        one = Recommender.load(place)
        log.append(some(16, 24))
        llm4rec(*learn)
        two = Recommender.load(place)
    told = llm4rec("versions", "--model", place, "--json")["versions"]
    assert [(each["number"], each["parent"], each["by"], each["position"]) for each in told] == [
        (1, None, "fit", None),
        (2, 1, "learn", 24),
        (3, 2, "learn", 40),
    ]
    said = llm4rec("rollback", "--model", place)
    assert "Version 4" in said and "rollback to 2" in said and "reads the events after that again" in said
    same(Recommender.load(place), one)
    llm4rec(*learn)
    same(Recommender.load(place), two)
    kept_place = llm4rec("rollback", "--model", place, "--to", 2, "--keep-position", "--json")
    assert kept_place["position"] == 40 and kept_place["parent"] == 5
    online = Recommender.load(place).fitted.online
    assert isinstance(online, Progressed) and online.position == 40  # to the event, not to the step before
    assert llm4rec(*learn, "--json")["read"] == 0
    states = [each.fitted.scorer.network.state_dict() for each in (Recommender.load(place), one)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert "6 (current)" in llm4rec("versions", "--model", place)


def test_the_log_keeps_what_is_read_again(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    named = ("--model", place, "--events", db)
    with FeedbackLog.open(db) as log:
        log.append(some(24))
        llm4rec("learn", *named)
        (reader,) = log.readers
        log.append(some(20, 24))
        llm4rec("learn", *named)
        assert log.readers == {reader: 40}  # of 44, four wait
        llm4rec("rollback", *named)
        assert log.readers == {reader: 24}
        log.drop_before(START + 10_000)
        assert log.dropped == 24
        told = llm4rec("learn", *named, "--json")
        assert (told["start"], told["read"], told["gap"]) == (24, 20, False)
        llm4rec("rollback", *named, "--keep-position")
        assert log.readers == {reader: 44}  # what waited is not trained on either


def test_a_model_that_had_learnt_nothing_reads_its_log_from_the_beginning(
    model: Recommender, tmp_path: Path
) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    named = ("--model", place, "--events", db)
    with FeedbackLog.open(db) as log:
        log.append(some(24))
        llm4rec("learn", *named)
        one = Recommender.load(place)
        (reader,) = log.readers
        assert llm4rec("rollback", *named, "--json")["position"] == 0
        assert log.readers == {reader: 0} and log.drop_before(START + 10_000) == 0
        back = Recommender.load(place)
        assert back.fitted.online is None
        assert llm4rec("learn", *named, "--json")["start"] == 0
        assert log.readers == {reader: 24}
        assert back.learn(log, after=8)[1].read == 16  # as one that has never learnt
    same(Recommender.load(place), one)


def test_a_log_that_was_not_told_of_going_back_can_be_told(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    named = ("--model", place, "--events", db)
    found = CliRunner().invoke(app, ["events", *map(str, named)])
    assert found.exit_code == 2 and "There is no event log" in " ".join(found.stderr.split())
    with FeedbackLog.open(db) as log:
        found = CliRunner().invoke(app, ["events", *map(str, named)])
        assert found.exit_code == 2 and "has learnt from no event log" in " ".join(found.stderr.split())
        for first in (0, 16):
            log.append(some(16, first))
            llm4rec("learn", *named)
        (reader,) = log.readers
        back = ["rollback", "--model", str(place)]
        found = CliRunner().invoke(app, [*back, "--keep-position"])
        assert found.exit_code == 0 and "was not told" not in found.stderr
        assert CliRunner().invoke(app, [*back, "--to", "3"]).exit_code == 0
        found = CliRunner().invoke(app, [*back, "--to", "2"])
        said = " ".join(found.stderr.split())
        assert "The event log was not told" in said
        assert "llm4rec events --events URL --model" in said
        assert log.readers == {reader: 32}
        assert llm4rec("events", *named, "--json")["readers"] == {reader: 16}
        log.register(reader, 32)
        log.drop_before(START + 10_000)
        found = CliRunner().invoke(app, ["events", *map(str, named)])
        assert "Events up to position 32 were dropped" in " ".join(found.stderr.split())


def test_another_log_is_not_told(model: Recommender, tmp_path: Path) -> None:
    """And nothing is changed."""
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    with FeedbackLog.open(db) as log, FeedbackLog.open(tmp_path / "other.db") as other:
        other.append(some(30))
        log.append(some(24))
        llm4rec("learn", "--model", place, "--events", db)
        for command in ("rollback", "events"):
            named = [command, "--model", str(place), "--events", str(tmp_path / "other.db")]
            found = CliRunner().invoke(app, named)
            assert found.exit_code == 2 and "learns from another event log" in " ".join(found.stderr.split())
        assert other.readers == {}
    assert len(llm4rec("versions", "--model", place, "--json")["versions"]) == 2


def test_the_log_keeps_what_is_trained_on_anew(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    named = ("--model", place, "--events", db)
    with FeedbackLog.open(db) as log:
        log.append(some(40))
        llm4rec("learn", *named)
        (reader,) = log.readers
        llm4rec("forget-user", *named, "--user", "u1")
        assert log.readers == {reader: 0} and log.drop_before(START + 10_000) == 0
        llm4rec("learn", *named)
        assert log.readers == {reader: 40}


def test_a_place_that_is_kept_is_kept_by_one_that_is_to_learn_anew_too(
    model: Recommender, tmp_path: Path
) -> None:
    place, events = tmp_path / "model", str(tmp_path / "events.db")
    with FeedbackLog.open(events) as log:
        log.append(taught(64))
        model.learn(log)[0].forget_user(WHO).save(place)  # learns anew from its first event on
        log.erase(WHO)
        log.append(some(40, 64))
        Recommender.load(place).learn(log)[0].save(place, keep=3)
    back = CliRunner().invoke(app, ["rollback", "--model", str(place), "--keep-position"])
    assert back.exit_code == 0 and "may drop" not in back.output
    found = Recommender.load(place)
    with FeedbackLog.open(events) as log:
        still, told = found.learn(log)
    assert told.read == 0 and told.trained == 104
    assert not isinstance(still.fitted.online, Progressed) or still.fitted.online.steps == 0


def test_who_writes_a_model_does_so_alone(model: Recommender, tmp_path: Path) -> None:
    place = tmp_path / "model"
    model.save(place)
    for command in (
        ("items", "--retire", "i1"),
        ("correct", "--user", "u1", "--more", "genre=old"),
        ("rollback",),
    ):
        with alone(place):
            found = CliRunner().invoke(app, [command[0], "--model", str(place), *command[1:]])
        assert found.exit_code != 0 and "Another run is writing" in " ".join(found.output.split())


def test_a_model_that_is_replaced_while_it_is_read_is_read_again(
    model: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, whole, replaced = tmp_path / "model", parts.load, list[str]()
    model.save(place)
    after = model.observe(Feedback("e1", "u1", "i19", "click", None, START))

    def load(directory: Path, manifest: Any, file: str, parse: Any) -> Any:
        if file.endswith(".parquet") and not replaced:
            replaced.append(file)
            after.save(place)
        return whole(directory, manifest, file, parse)

    monkeypatch.setattr(parts, "load", load)
    history = Recommender.load(place).known_history("u1")
    assert replaced and history is not None and history.items[-1] == 19


WRITER = """
import sys
from llm4rec.recommender import Recommender
from llm4rec.types import Feedback, Place
for number in range(12):
    found = Recommender.load(sys.argv[1])
    told = Feedback(f"w{number}", "writer", f"i{number}", "click", None, 1_700_000_000 + number)
    found.observe(told).save(sys.argv[1], by="learn", keep=2)
"""


@pytest.mark.slow
def test_a_process_saves_a_model_while_another_loads_it(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    command, seen = [sys.executable, "-c", WRITER, str(tmp_path / "model")], [0]
    with subprocess.Popen(command) as writer:
        while writer.poll() is None:
            history = Recommender.load(tmp_path / "model").known_history("writer")
            items = [] if history is None else history.items.tolist()
            assert items == [*range(len(items))] and len(items) >= seen[-1]
            seen.append(len(items))
    assert writer.returncode == 0 and len(set(seen)) > 1


def test_who_only_judged_is_forgotten_like_who_taught(model: Recommender, tmp_path: Path) -> None:
    names = [f"h{number}" for number in range(400)]
    judging = [name for name, held in zip(names, held_out(names, 0.05), strict=True) if held][:4]
    events = [
        *some(8),
        *(Feedback(name, WHO, f"i{n}", "click", None, START + 50 + n) for n, name in enumerate(judging)),
    ]
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append([*events, *some(4, 8)])
        found, _ = model.learn(log)
    assert isinstance(found.fitted.online, Progressed)
    assert WHO in found.fitted.online.guard.new["user_id"].to_list()
    assert WHO not in found.fitted.online.reservoir.events["user_id"].to_list()
    assert isinstance(found.forget_user(WHO).fitted.online, Origin)


def test_there_is_no_way_back_to_a_forgotten_person(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place, by="fit")
    with FeedbackLog.open(db) as log:
        log.append(taught(32))
    llm4rec("learn", "--model", place, "--events", db)
    llm4rec("correct", "--model", place, "--user", "u1", "--more", "genre=old")
    assert any(WHO.encode() in file.read_bytes() for file in place.rglob("*") if file.is_file())
    llm4rec("forget-user", "--model", place, "--events", db, "--user", WHO)
    assert not any(WHO.encode() in file.read_bytes() for file in place.rglob("*") if file.is_file())
    found = CliRunner().invoke(app, ["rollback", "--model", str(place)])
    assert found.exit_code == 2 and "has no earlier version" in " ".join(found.output.split())


def test_another_log_is_trained_on_from_where_it_is_read(model: Recommender, tmp_path: Path) -> None:
    """Positions of the former log say nothing of it."""
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(40))
        found, _ = model.learn(log)
    others = [replace(each, event_id=f"other {each.event_id}") for each in some(40, 41)]
    with FeedbackLog.open(tmp_path / "other.db") as log:
        log.append(others)
        after, told = found.learn(log, after=6)
        assert (told.start, told.read, told.trained) == (6, 34, 40) and told.learnt > 0
        assert isinstance(after.fitted.online, Progressed) and after.fitted.online.origin.position == 6
        assert after.fitted.online.steps == 10  # 5 of the former; 8, 16, 24, 32 and 40 end those of this one
    trained = [each.fitted.scorer.network.state_dict() for each in (found, after)]
    assert any(not torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())


def test_the_command_keeps_what_is_trained_anew_after_forgetting(model: Recommender, tmp_path: Path) -> None:
    """Also where nothing has come to the log meanwhile."""
    model.save(tmp_path / "model")
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(some(40))
    named = ["--model", str(tmp_path / "model"), "--events", str(tmp_path / "events.db")]
    for command in (["learn", *named], ["forget-user", *named, "--user", "u1"], ["learn", *named]):
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 0, found.output
    online = Recommender.load(tmp_path / "model").fitted.online
    assert isinstance(online, Progressed) and online.position == 40
