"""The measurement of a learner's step: what is learnt in which order, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from tests.test_observing import START, fitted

from llm4rec.data.events import build_log


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("learning")


def test_events_of_a_step_are_in_time_order_or_of_different_people(script: ModuleType) -> None:
    log = build_log(
        pl.Series(["a", "a", "a", "b", "b", "c"]),
        np.array([0, 1, 2, 3, 4, 5]),
        times=np.array([10, 11, 19, 12, 13, 14]),
    )
    told = script.stream(log, 11, 5, different=False, size=2)
    assert told["time"].to_list() == [11, 12, 13, 14, 19]
    assert told["position"].to_list() == [1, 2, 3, 4, 5]
    # first of everybody: a 11, b 12, c 14; then b 13, a 19; c has no partner
    told = script.stream(log, 11, 4, different=True, size=2)
    assert told["user_id"].to_list() == ["a", "b", "b", "a"]
    assert told["time"].to_list() == [11, 12, 13, 19]
    with pytest.raises(RuntimeError, match="5 such events, and 6 are wanted"):
        script.stream(log, 11, 6, different=False, size=2)


def test_parts_of_steps_are_told(script: ModuleType) -> None:
    model = fitted()
    assert model.fitted.histories is not None
    online = {"train": True, "batch_size": 4, "judges": 8, "period": 2, "fisher_every": 3}
    config = model.config.model_copy(update={"online": model.config.online.model_copy(update=online)})
    since = START - 100_000 + 3 * 3_600
    before = script.begun_before(replace(model.fitted, config=config), since)
    assert before.histories is not None and before.histories.n_events == 90
    events = script.stream(model.fitted.histories, since, (6 + script.WARM_UP) * 4, different=True, size=4)
    found = script.steps(before, events)
    assert (found["steps"], found["people_per_step"], found["judged"]) == (6, 4.0, 3)
    assert found["fisher_examples"] in (1, 2, 3)
    for by in ("clock_ms", "cpu_ms"):
        of = found[by]
        whole = of["mean_gradient"] + of["mean_fisher"] + of["mean_judging"]
        assert whole == pytest.approx(of["mean"], abs=0.02) and 0 < of["p50"] <= of["p95"]
