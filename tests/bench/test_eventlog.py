"""The measurement of the event log: what is lost, twice or foreign is found out, and a kill costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from tests.test_observing import fitted

from llm4rec.store.eventlog import FeedbackLog


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("eventlog")


def test_a_log_that_is_not_what_was_acknowledged_is_found_out(script: ModuleType, tmp_path: Path) -> None:
    told = script.events(6, 0)
    assert script.events(6, 0) == told != script.events(6, 1)
    with FeedbackLog.open(tmp_path / "log.db") as log:
        log.append(told[:4])
        assert script.check(log, told, {0, 1, 2}) == (3, 4, 0)
        assert script.check(log, told, {0, 4, 5}) == (3, 4, 2)
        with pytest.raises(RuntimeError, match="not sent so"):
            script.check(log, told[:3], set())
        with pytest.raises(RuntimeError, match="not sent so"):
            script.check(log, [replace(told[0], item="x"), *told[1:]], set())
        with pytest.raises(RuntimeError, match="twice, or not in its order"):
            script.check(log, [told[1], told[0], *told[2:]], set())


def test_an_answer_that_knows_of_the_event_is_timed(script: ModuleType, tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "log.db") as log:
        found = script.observed(fitted(), log, 5, 0)
        assert len(log) == 5 + script.WARM_UP and found["remembered"] == 180
    assert 0 < found["observe_p50_ms"] < found["to_answer_p99_ms"]


def test_models_that_differ_anywhere_are_found_out(script: ModuleType, tmp_path: Path) -> None:
    model = fitted()
    told = script.learnable(model, 60, 0)
    assert script.learnable(model, 60, 0) == told != script.learnable(model, 60, 1)
    times = [event.time for event in told]
    assert times != sorted(times) and len({event.event_id for event in told}) == 60
    assert len({(event.user, event.item, event.time) for event in told}) < 60
    online = model.config.online.model_copy(update={"train": True, "batch_size": 8, "judges": 8})
    config = model.config.model_copy(update={"online": online})
    model = type(model)(replace(model.fitted, config=config))
    model.save(tmp_path / "model")
    with FeedbackLog.open(tmp_path / "log.db") as log:
        log.append(told[:30])
        script.learn_once(log, tmp_path / "model")
        log.append(told[30:])
        stages = list[str]()
        learnt = script.learn_once(log, tmp_path / "model", stages.append)
        assert stages == ["read", "learn", "write", "written"]
        whole = model.learn(log)[0]
    assert script.differences(learnt, whole) == []
    state = learnt.fitted.online
    assert state is not None and state.steps == 7
    state.velocity["start"].view(-1)[0] += 1
    assert script.differences(learnt, whole) == ["online.tensors"]
    other = script.differences(learnt.forget_user("u1"), whole)
    assert {"histories.items", "memories.items", "online.tensors"} <= {*other}
    assert {"place", "online"} <= {*script.differences(model, whole)}


@pytest.mark.slow
def test_a_learner_is_killed_beside_the_writer(script: ModuleType, tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / "model")
    told = script.learnable(model, 60, 0)
    way = {"rate": 100.0, "kills": 1, "pause": 0.5, "seed": 0}
    found = script.learning(str(tmp_path / "log.db"), tmp_path / "model", told, **way)
    assert found["lost"] == 0 and found["learner"]["different"] == []
    assert found["learner"]["position"] == 60 and sum(found["learner"]["killed_at"].values()) == 1


@pytest.mark.slow
def test_a_writer_is_killed_and_every_event_is_there_once(script: ModuleType, tmp_path: Path) -> None:
    found = script.run(str(tmp_path / "log.db"), script.events(60, 0), 200.0, 1, 0)
    assert (found["acknowledged"], found["there_once"], found["lost"], found["kills"]) == (60, 60, 0, 1)
    assert found["achieved_per_s"] > 0
