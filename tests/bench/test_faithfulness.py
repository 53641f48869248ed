"""The measurement of faithfulness: what is taken out, who judges, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from tests.test_explaining import CATALOG, people

from llm4rec.data.events import EventLog
from llm4rec.recommender import Config, Recommender

N = 4


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("faithfulness")


@pytest.fixture(scope="module")
def model() -> Recommender:
    return Recommender.fit(
        people(),
        CATALOG,
        Config.model_validate({
            "encode": {"text": {"encoder": "hash"}},
            "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.1},
            "train": {"epochs": 4, "batch_size": 128, "learning_rate": 0.01, "attention_epochs": 0},
        }),
    )


def asked() -> EventLog:
    log = people()
    return log.histories(np.arange(8), np.full(8, 6))


def test_every_recommendation_is_told_and_timed(script: ModuleType, model: Recommender) -> None:
    told, took = script.explained(model, asked(), N, np.random.default_rng(0))
    assert len(told) == 8 * N == len(took["words"]) and len(took["one"]) == len(took["all"]) == 8
    assert all(each.holds for each in told) and all(min(values) > 0 for values in took.values())
    found = script.personal(told)
    assert found["explanations"] == 8 * N and found["grounded"] == 1 and 0 < found["different texts"] <= 1
    assert found["different texts"] <= found["of different histories"] <= 1


def test_what_is_lost_is_what_scores_lose(script: ModuleType, model: Recommender) -> None:
    history = asked().histories(np.array([0]), np.array([6]))
    item, gone = 20, np.unique(history.items)[:2]
    whole, without = script.scores(model, history, item, [gone[:0], gone])
    kept = history.select(~np.isin(history.items, gone))
    for log, score in ((history, whole), (kept, without)):
        ranked = model.rank(log, len(CATALOG), keep_seen=True)
        assert score == pytest.approx(ranked.scores[0][ranked.items[0] == item][0], abs=1e-4)


def test_a_judge_is_asked_for_the_same_items(script: ModuleType, model: Recommender) -> None:
    told, _ = script.explained(model, asked(), N, np.random.default_rng(0))
    judged = script.judged(told[0], asked(), [model, model], np.random.default_rng(1), every=True)
    for name in ("over random", "over most similar"):
        assert judged[name] == judged[f"{name} (seed 1)"] and judged[name] in (0, 1)
    assert {f"{name} {k}" for name in ("comprehensiveness", "sufficiency") for k in (1, 2, 3, 5)} <= {*judged}
    assert -1 <= judged["agreement"] <= 1


def test_comparisons_are_of_what_has_a_citation(script: ModuleType) -> None:
    rows = [
        {"cited": 1.0, "over random": 1.0, "agreement": 0.5},
        {"cited": 0.0, "over random": 0.0},
        {"cited": 1.0, "over random": 0.0},
    ]
    found = script.summed(rows, np.array([0, 0, 1]))
    assert (found["over random"]["mean"], found["over random"]["n"]) == (0.5, 2)
    assert (found["agreement"]["mean"], found["agreement"]["n"]) == (0.5, 1)
    assert found["cited"]["mean"] == pytest.approx((0.5 + 1) / 2)  # the mean of people's means
