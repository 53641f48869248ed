"""The measurement of popularity adjusted for at training or afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from llm4rec.data.world import World, WorldConfig, make_world
from llm4rec.settings import Config


@pytest.fixture
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("popularity_training")


@pytest.fixture
def made() -> World:
    return make_world(WorldConfig(n_events=400, n_users=40, n_aspects=4, n_impressions=0, n_trial=0))


def test_what_is_preferred_owes_nothing_to_popularity(script: ModuleType, made: World) -> None:
    true = script.preference(made)
    np.testing.assert_allclose(true.sum(axis=1), 1)
    flat = replace(made.truth, popularities=np.full_like(made.truth.popularities, 0.3))
    np.testing.assert_allclose(script.preference(replace(made, truth=flat)), true)
    ends = made.log.offsets[1:]
    taken = made.truth.choice(np.arange(40), made.intents[ends - 2], made.log.times[ends - 1])
    assert np.abs(taken / taken.sum(axis=1, keepdims=True) - true).max() > 0.05


def test_figures_by_hand(script: ModuleType) -> None:
    scores = np.log(np.array([[0.5, 0.25, 0.25, 0.0 + 1e-9]], dtype=np.float32))
    true, legal = np.array([[0.25, 0.25, 0.5, 0.0]]), np.array([[True, True, True, False]])
    found = script.told(scores, true, legal, np.array([1]))
    # ranks 3, 1.5, 1.5 and 1.5, 1.5, 3: deviations 1, -½, -½ and -½, -½, 1
    assert found["rank"] == pytest.approx(-0.5)
    # ¼ ln ½ + ¼ ln 1 + ½ ln 2
    assert found["kl"] == pytest.approx(0.25 * np.log(2))
    assert found["ndcg@10"] == pytest.approx(0.5)  # of ties the last: place 3
    assert script.told(scores, true, legal, np.array([3]))["ndcg@10"] == 0  # it was taken before


def test_powers_stand_beside_each_other_at_every_strength(
    script: ModuleType, made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "STRENGTHS", (0.0, 1.0))
    config = Config.model_validate({
        "train": {"epochs": 1, "attention_epochs": 0, "context_epochs": 0},
        "model": {"embedding_size": 8, "layers": 1, "heads": 1},
        "encode": {"text": {"encoder": "hash"}},
        "linear": {"items": 0},
        "retrieve": {"enabled": False},
    })
    rows = script.measure(made, [0.0, 1.0], config)
    assert [(row["training"], row["window"], row["strength"]) for row in rows] == [
        (power, window, strength) for power in (0, 1) for window in (1, 0.1) for strength in (0, 1)
    ]
    assert rows[0]["kl"] != rows[4]["kl"]
    assert all(rows[at]["kl"] == rows[at + 2]["kl"] for at in (0, 4))  # nothing is taken out
    other = [row | {"kl": row["kl"] + (0.5 if row["training"] else 0)} for row in rows]
    summary = script.summed([rows, other])
    assert summary[0]["kl more"] == (0, 0, 0)
    usual = np.mean([rows[7]["kl"] - rows[1]["kl"], other[7]["kl"] - other[1]["kl"]])
    assert summary[7]["kl more than usual"][0] == pytest.approx(usual)  # at that strength, of the whole log
    mean, low, high = summary[4]["kl more"]
    gap = rows[4]["kl"] - rows[0]["kl"]
    assert mean == pytest.approx(gap + 0.25)
    # of two values ½ apart the standard error is ¼, and Student's t of one degree of freedom 12.706
    assert (low, high) == pytest.approx((mean - 0.25 * 12.7062, mean + 0.25 * 12.7062), rel=1e-4)
