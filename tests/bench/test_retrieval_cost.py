"""The measurement of what retrieval costs: three ways of answering, of which two retrieve."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from tests.test_grounding import fitted, log

from llm4rec.data.split import leave_last_out


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("retrieval_cost")


def test_every_way_is_asked_twice_and_differs(script: ModuleType) -> None:
    split = leave_last_out(log(0.9))
    ways = script.models(fitted(0.9, enabled=False).fitted, split.train)
    histories = split.test.histories()
    scores = {name: model.rank(histories, 5).scores.tolist() for name, model in ways.items()}
    assert len({str(values) for values in scores.values()}) == len(script.WAYS)
    found = script.measure(ways, histories, 7)
    assert found["histories"] == 7
    for turn in ("cold", "warm"):
        assert set(found[turn]) == set(script.WAYS)
        base = found[turn]["nothing retrieved"]["p50_ms"]
        for name in script.WAYS[1:]:
            added = found[turn][name]["added_p50_ms"]
            assert found[turn][name]["p50_ms"] == pytest.approx(base + added)
