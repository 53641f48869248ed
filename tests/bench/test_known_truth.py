"""The measurement of corrections where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def script(benchmark_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = benchmark_script("known_truth")
    monkeypatch.setattr(found, "EVENTS", 2_000)
    monkeypatch.setattr(found, "IMPRESSIONS", 20_000)
    monkeypatch.setattr(found, "DRAWS", 20_000)
    monkeypatch.setattr(found, "WORLDS", {"separable": {}, "own": {"conformity": 1.0, "gamma": 1.0}})
    return found


def test_estimates_stand_beside_the_truth(script: ModuleType) -> None:
    found = script.measure(5, progress=lambda *_, **__: None)
    policies = found["off_policy"]
    assert policies["naive"]["covers"] == 0
    assert policies["naive"]["mean error"] > 0.1
    for name in ("ips", "snips", "dr"):
        assert policies[name]["covers"] >= 3
        assert abs(policies[name]["mean error"]) < 0.02
    separable, own = (found["back_door"][name] for name in ("separable", "own"))
    assert abs(separable["adjusted"]["mean"]) < 0.1 < separable["naive"]["mean"]
    assert abs(separable["placebo moves"]["mean"]) < 0.01
    assert "adjusted, of who follows most" not in separable
    assert own["adjusted, of who follows most"]["mean"] > own["adjusted"]["mean"]
