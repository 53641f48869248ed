"""The measurement of the index of entries: what is indexed, and what is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from llm4rec.retrieve import index


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("entry_index")


def test_vectors_are_the_texts_and_mixtures_of_two(script: ModuleType) -> None:
    base = np.eye(4, dtype=np.float32)
    found = script.mixed(base, 50, 0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert {np.count_nonzero(row) for row in found} <= {1, 2}
    assert all((found == row).all(axis=1).any() for row in base)


@pytest.mark.parametrize("exact", [100, 10_000], ids=["cells", "all"])
def test_recall_is_measured_against_comparing_all(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, exact: int
) -> None:
    made = index.VectorIndex.of
    monkeypatch.setattr(index.VectorIndex, "of", lambda vectors, seed: made(vectors, seed=seed, exact=exact))
    draw = np.random.default_rng(0).normal(size=(400, 8))
    base = (draw / np.linalg.norm(draw, axis=1, keepdims=True)).astype(np.float32)
    found = script.measure(base, 3000, 20, 0)
    assert ("file_mib" in found) == (exact == 100)
    for part in ("all", "half"):
        assert found[part]["recall@50"] == 1 if exact > 3000 else found[part]["recall@50"] > 0.8


def test_texts_are_read_once_each(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm4rec.encode import vectors

    heard: list[str] = []

    def read_texts(texts: pl.Series, *_: object) -> tuple[np.ndarray, list[str]]:
        heard.extend(texts)
        return np.full((len(texts), 2), 3.0), []

    monkeypatch.setattr(vectors, "read_texts", read_texts)
    pl.DataFrame({"title": ["a", None, "b", "a"]}).write_parquet(tmp_path / "items.parquet")
    assert script.read(tmp_path, "title").shape == (2, 2) and heard == ["a", "b"]
