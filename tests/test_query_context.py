"""What a recommender makes of the time it is asked at, where that matters, and where nobody tells it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec import Context, Query, Recommender
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.split import Cases, leave_last_out
from llm4rec.errors import InputError
from llm4rec.evaluate.metrics import per_case
from llm4rec.evaluate.protocol import evaluate
from llm4rec.settings import Config

PER_KIND, N_PEOPLE, EACH = 20, 150, 10
KINDS = ("calm", "loud")
N_ITEMS = PER_KIND * len(KINDS)
MIDNIGHT = 1_600_041_600  # a Monday in UTC
MORNING, EVENING = MIDNIGHT + 7 * 3_600, MIDNIGHT + 20 * 3_600
DAY = 86_400


def config(**train: Any) -> Config:
    return Config.model_validate({
        "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.1},
        "train": {"epochs": 6, "attention_epochs": 0, "context_epochs": 12, "batch_size": 256,
                  "steps_per_epoch": 1, "learning_rate": 0.02, "averaging": 0.9} | train,
    })  # fmt: skip


def world(by: str) -> tuple[EventLog, Catalog]:
    """What comes next depends on nothing but the hour, or on whether a day or more has passed."""
    draw = np.random.default_rng(0)
    shape = (N_PEOPLE, EACH)
    if by == "hour":
        late = draw.random(shape) < 0.5
        days = np.cumsum(draw.integers(1, 4, size=shape), axis=1)
        hours = np.where(late, draw.integers(18, 23, size=shape), draw.integers(6, 11, size=shape))
        times = MIDNIGHT + days * DAY + hours * 3_600 + draw.integers(3_600, size=shape)
    else:
        late = draw.random(shape) < 0.5
        gaps = np.where(late, draw.integers(2 * DAY, 9 * DAY, size=shape), draw.integers(60, 600, size=shape))
        times = MIDNIGHT + draw.integers(7 * DAY, size=(N_PEOPLE, 1)) + np.cumsum(gaps, axis=1)
    items = late * PER_KIND + draw.integers(PER_KIND, size=shape)
    log = build_log(
        pl.Series([f"u{row}" for row in range(N_PEOPLE) for _ in range(EACH)]), items.ravel(),
        times=times.ravel(),
    )  # fmt: skip
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "tags": [[KINDS[item // PER_KIND]] for item in range(N_ITEMS)],
    })
    return log, Catalog(table, (Field("tags", "categorical"),))


@pytest.fixture(scope="module", params=["hour", "gap"])
def fitted(request: pytest.FixtureRequest) -> tuple[str, Cases, Recommender, Recommender]:
    """The world, what is asked, a model with context and one without."""
    log, catalog = world(request.param)
    split = leave_last_out(log)
    models = [
        Recommender.fit(split.train, catalog, config(**options), valid=split.valid)
        for options in ({}, {"context_epochs": 0})
    ]
    return request.param, split.test, models[0], models[1]


def hit_rate(model: Recommender, cases: Cases, *, timed: bool) -> float:
    histories = replace(cases.histories(), asked_at=cases.times if timed else None)
    return float(per_case(model.rank(histories, 10), cases, ks=(10,))["hr@10"].mean())


def loud(model: Recommender, query: Query) -> int:
    """How many of the first ten are of the late kind."""
    return sum(int(item[1:]) >= PER_KIND for item in model.recommend(query, 10).item_ids)


def test_the_time_of_asking_helps_where_it_matters(
    fitted: tuple[str, Cases, Recommender, Recommender],
) -> None:
    _, cases, model, _ = fitted
    told = model.meta["training"]
    assert told["context_kept"] and model.hears_time
    assert told["context"]["metric_after"] > 1.3 * told["context"]["metric_before"]
    blind, timed = (hit_rate(model, cases, timed=timed) for timed in (False, True))
    assert timed > 1.4 * blind  # of ten picks among 31 unseen, or among the 16 of the right kind


def test_who_does_not_tell_the_time_loses_nothing(
    fitted: tuple[str, Cases, Recommender, Recommender],
) -> None:
    _, cases, model, without = fitted
    asked = cases.histories()
    for histories in (asked, replace(asked, asked_at=np.full(len(cases), -1))):
        found, expected = model.rank(histories, 10), without.rank(asked, 10)
        np.testing.assert_array_equal(found.items, expected.items)
        np.testing.assert_array_equal(found.scores, expected.scores)
    for query in (Query(), Query(("i1", "i2"), timestamps=(5, 900)), Query(user="u3")):
        assert model.recommend(query, 5) == without.recommend(query, 5)
    assert not without.hears_time and "context" not in without.meta["training"]
    timed = Query(("i1",), context=Context(EVENING))
    assert without.recommend(timed, 5) == without.recommend(replace(timed, context=Context()), 5)


def test_one_person_is_answered_by_the_hour_or_the_gap(
    fitted: tuple[str, Cases, Recommender, Recommender],
) -> None:
    by, _, model, _ = fitted
    history = ("i1", f"i{PER_KIND + 1}", "i2")
    if by == "hour":
        for asked in (Query(history), Query(user="u3"), Query(), Query(user="nobody")):
            early, late = (replace(asked, context=Context(time)) for time in (MORNING, EVENING))
            assert loud(model, late) >= loud(model, early) + 4
        return
    known = model.known_history("u3")
    assert known is not None and known.times is not None
    last = int(known.times[-1])
    stamped = Query(history, timestamps=(last - 20, last - 10, last))
    for asked in (stamped, Query(user="u3")):
        soon, later = (replace(asked, context=Context(last + gap)) for gap in (200, 5 * DAY))
        assert loud(model, later) >= loud(model, soon) + 4


def test_a_stored_model_hears_the_same(
    fitted: tuple[str, Cases, Recommender, Recommender], tmp_path: Path
) -> None:
    _, cases, model, _ = fitted
    model.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    timed = replace(cases.histories(), asked_at=cases.times)
    for histories in (timed, cases.histories()):
        np.testing.assert_array_equal(loaded.rank(histories, 10).scores, model.rank(histories, 10).scores)
    assert loaded.hears_time
    query = Query(user="u5", context=Context(EVENING))
    assert loaded.recommend(query, 5) == model.recommend(query, 5)


def test_scores_at_a_time_are_log_probabilities(
    fitted: tuple[str, Cases, Recommender, Recommender],
) -> None:
    _, _, model, _ = fitted
    ranking = model.recommend(Query(("i1",), keep_seen=True, context=Context(EVENING)), N_ITEMS)
    assert np.exp(ranking.scores).sum() == pytest.approx(1, abs=1e-3)


def test_evaluation_does_not_tell_the_time(fitted: tuple[str, Cases, Recommender, Recommender]) -> None:
    _, cases, model, without = fitted
    train = cases.log.heads(cases.log.lengths - 2)
    summaries = [evaluate(one, cases, train=train, catalog=one.catalog).summary for one in (model, without)]
    assert summaries[0] == summaries[1]


def test_without_a_clock_the_stage_is_skipped() -> None:
    log, catalog = world("hour")
    told = Recommender.fit(replace(log, times=None), catalog, config(epochs=1)).meta["training"]
    assert "context" not in told and told["context_kept"] is False
    part = log.heads(np.full(N_PEOPLE, EACH - 1))
    valid = leave_last_out(replace(log, times=None)).test  # questions without times
    assert "context" not in Recommender.fit(part, catalog, config(epochs=1), valid=valid).meta["training"]


@pytest.mark.parametrize("time", [-1, 4_102_444_800, 1.5e9, "noon", True, float("nan")])
def test_a_time_that_is_none_is_refused(time: Any) -> None:
    log, catalog = world("hour")
    model = Recommender.fit(log, catalog, config(epochs=1, context_epochs=0))
    with pytest.raises(InputError, match=r"Context\.time takes UTC seconds from 1970 to 2100, not"):
        model.recommend(Query(context=Context(time)))
    with pytest.raises(InputError, match=r"Query\.context takes a Context, such as Context\(time=5\)"):
        model.recommend(Query(context=time))
