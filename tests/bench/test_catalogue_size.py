"""The measurement of large catalogues: the model it makes answers as a fitted one does."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("catalogue_size")


@pytest.mark.parametrize(("n_items", "way"), [(1_000, "every item"), (51_000, "candidates")])
def test_a_size_is_measured(script: ModuleType, n_items: int, way: str) -> None:
    found = script.measure(n_items, 12, seed=0)
    assert found["way"] == way and (found["index_MiB"] > 0) == (way == "candidates")
    assert found["recall@10"] > 0.9 and found["score_error_max"] < 0.5
    assert found["recommend"]["p50_ms"] <= found["recommend"]["p99_ms"]


def test_the_model_has_a_linear_part_of_the_default_size(script: ModuleType) -> None:
    model, _ = script.build(600, 0)
    linear = model.fitted.linear
    assert len(linear.known) == 600 and (np.diff(linear.offsets) == 256).all()
    assert linear.lifts(np.arange(50)).max() > 0.1
