"""The measurement of what weighing events is worth."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def script(benchmark_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = benchmark_script("selection")
    for name, value in {"PEOPLE": 60, "ITEMS": 40, "IMPRESSIONS": 4000, "TRIAL": 3000}.items():
        monkeypatch.setattr(found, name, value)
    monkeypatch.setattr(found, "SETTINGS", {name: found.SETTINGS[name] for name in ("none", "ips, logged")})
    monkeypatch.setitem(found.TRAIN, "train", {"epochs": 1, "attention_epochs": 0, "context_epochs": 0})
    monkeypatch.setitem(found.TRAIN, "model", {"embedding_size": 8, "layers": 1, "heads": 1})
    return found


def test_gains_by_hand(script: ModuleType) -> None:
    """The best two of (3, 1, 2) are items 0 and 2; the second person likes nothing and does not count."""
    gains = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    lists = np.array([[2, 1], [0, 1]])
    second = 1 / np.log2(3)
    assert script.gained(lists, gains) == pytest.approx((2 + second) / (3 + 2 * second))
    assert script.gained(np.array([[0, -1], [0, 1]]), gains) == pytest.approx(3 / (3 + 2 * second))


def test_every_model_is_asked_the_same(script: ModuleType) -> None:
    made = script.world(0)
    trial = script.Trial(made)
    log, clicked = script.clicks(made), made.impressions.clicked
    assert log.n_events == clicked.sum() == trial.train.n_events + len(trial.clicked)
    assert log.propensities is not None and (log.propensities > 0).all() and log.propensities.max() < 1
    # 1 / e over all that was shown and seen counts the catalogue; over clicks it is less
    assert 0 < (1 / log.propensities).sum() / len(clicked) < made.config.items
    told = script.measure(0)
    assert set(told) == {"none", "scores", "ips, logged"}
    assert told["none"]["selection"] is None and told["ips, logged"]["selection"]["of"] == "logged"
    assert told["scores"]["network"]["liked"] != told["none"]["network"]["liked"]
    found = script.summary([told, told])
    assert found["none"]["network"]["trial"]["over none"] == {"mean": 0, "low": 0, "high": 0}
    assert found["ips, logged"]["served"]["liked"]["mean"] == pytest.approx(
        told["ips, logged"]["served"]["liked"]
    )
