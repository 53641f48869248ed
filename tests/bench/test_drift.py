"""The measurement of drift: who is asked, what is remembered, and what each way may know."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from tests.test_grounding import TINY

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog, build_log
from llm4rec.settings import Config

N_ITEMS = 30
CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(N_ITEMS)]}), ())


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("drift")


def moving(n_people: int = 100, each: int = 40) -> EventLog:
    """In every fifth of the time other six items are popular."""
    draw = np.random.default_rng(0)
    times = np.sort(draw.permutation(n_people * each).reshape(n_people, each), axis=1)
    items = 6 * (times * 5 // times.size) + draw.integers(6, size=times.shape)
    return build_log(
        pl.Series(np.repeat([f"u{u}" for u in range(n_people)], each)), items.ravel(), times=times.ravel()
    )


def test_new_memories_recover_what_retraining_would(script: ModuleType) -> None:
    few = {"validation_people": 300, "batch_size": 1024, "steps_per_epoch": 4}
    config = Config.model_validate(TINY | {"train": TINY["train"] | few})
    found = script.compare(moving(), CATALOG, config, people=None, cases=200)
    assert [window["remembered"] for window in found["windows"]] == [400, 800, 1200]
    assert all(window["cases"] == 200 for window in found["windows"])
    first, second, last = found["windows"]
    # what is popular in each of them was not when the frozen model was fitted, and in the second never before
    assert first["remembering"]["difference"][1] > 0.02 < last["remembering"]["difference"][1]
    assert second["remembering"]["difference"] == [0, 0, 0]
    assert last["remembering"]["recovered"] == pytest.approx(
        last["remembering"]["difference"][0] / last["retrained"]["difference"][0]
    )
    assert last["frozen"]["difference"] == [0, 0, 0]


def test_a_question_is_asked_of_what_came_before_it(script: ModuleType) -> None:
    log = moving()
    asked = script.asked_between(log, 1000, 1100, 50)
    assert len(asked) == 50 and asked.times is not None
    assert (asked.times >= 1000).all() and (asked.times < 1100).all()
    histories = asked.histories()
    last = histories.clock[histories.offsets[1:] - 1]
    assert (last < asked.times).all()
