"""Nearest vectors: all that may come back, exactly scored, after a round trip through a file as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llm4rec.errors import ArtefactError
from llm4rec.retrieve.index import Cells, VectorIndex
from llm4rec.types import Floats, Ints

N, W = 6000, 24


def clustered(n: int, seed: int) -> Floats:
    centres = np.random.default_rng(0).normal(size=(60, W))
    draw = np.random.default_rng(seed)
    found = centres[draw.integers(60, size=n)] + 0.5 * draw.normal(size=(n, W))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


VECTORS, QUERIES = clustered(N, 1), clustered(40, 2)


@pytest.fixture(scope="module", params=[True, False], ids=["exact", "cells"])
def index(request: pytest.FixtureRequest) -> VectorIndex:
    return VectorIndex.of(VECTORS, exact=N if request.param else 100)


def best(query: Floats, k: int, upto: int = N) -> Ints:
    return np.argsort(-(VECTORS[:upto] @ query), kind="stable")[:k]


@pytest.mark.parametrize("upto", [None, N, N // 2, 70, 3, 0])
@pytest.mark.parametrize("k", [1, 50, 500])
def test_as_many_as_may_do_come_back_once_best_first(index: VectorIndex, k: int, upto: int | None) -> None:
    allowed = N if upto is None else upto
    for query in QUERIES[:5]:
        found, cosines = index.search(query, k, upto)
        assert len(found) == len(set(found.tolist())) == min(k, allowed)
        assert (found < allowed).all() and (np.diff(cosines) <= 0).all()
        np.testing.assert_allclose(cosines, VECTORS[found] @ query, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("upto", [N, N // 2])
def test_the_nearest_are_found(index: VectorIndex, upto: int) -> None:
    shares = [np.isin(best(query, 50, upto), index.search(query, 50, upto)[0]).mean() for query in QUERIES]
    assert np.mean(shares) >= (1 if index.cells is None else 0.97)


def test_of_equal_ones_the_first_come() -> None:
    same = VectorIndex.of(np.ones((9, 1), dtype=np.float32))
    assert same.search(np.ones(1, dtype=np.float32), 4)[0].tolist() == [0, 1, 2, 3]
    assert same.search(np.ones(1, dtype=np.float32), 4, 2)[0].tolist() == [0, 1]


def cells_of(index: VectorIndex) -> Cells:
    assert index.cells is not None
    return index.cells


def test_a_file_gives_the_same_answers(tmp_path: Path) -> None:
    index = VectorIndex.of(VECTORS, exact=100, seed=3)
    cells_of(index).write(tmp_path / "cells.index")
    read = VectorIndex.over(VECTORS, Cells.read(tmp_path / "cells.index"))
    again = VectorIndex.of(VECTORS, exact=100, seed=3)
    for query in QUERIES:
        for other in (read, again):
            for upto in (None, 900):
                expected, found = index.search(query, 20, upto), other.search(query, 20, upto)
                np.testing.assert_array_equal(found[0], expected[0])
                np.testing.assert_array_equal(found[1], expected[1])


def test_what_is_mapped_stays_what_it_is_where_its_file_is_replaced_or_gone(tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.index" for name in "abc")
    cells_of(VectorIndex.of(VECTORS, exact=100)).write(first)
    written = first.read_bytes()
    read = Cells.read(first)
    cells_of(VectorIndex.of(VECTORS[::-1].copy(), exact=100)).write(third)
    third.replace(first)
    read.write(second)
    assert second.read_bytes() == written != first.read_bytes()
    first.unlink()
    read.write(third)
    assert third.read_bytes() == written
    expected = VectorIndex.over(VECTORS, Cells.read(second))
    for query in QUERIES:
        found = VectorIndex.over(VECTORS, read).search(query, 9)[0]
        assert found.tolist() == expected.search(query, 9)[0].tolist()


def test_a_file_of_other_vectors_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "cells.index"
    cells = cells_of(VectorIndex.of(VECTORS, exact=100))
    with pytest.raises(ArtefactError, match=r"of 6,000 vectors of 24, and there are 5,999 of 24: remove its"):
        VectorIndex.over(VECTORS[1:], cells)
    place.write_bytes(b"something else")
    with pytest.raises(ArtefactError, match="is no index"):
        Cells.read(place)


@pytest.mark.parametrize("kind", ["Flat", None])
def test_a_file_of_faiss_without_cells_is_refused(tmp_path: Path, kind: str | None) -> None:
    place = tmp_path / "cells.index"
    if kind is None:  # FAISS writes what is not there, too
        Cells(None).write(place)
    else:
        import faiss

        whole = faiss.index_factory(W, kind, faiss.METRIC_INNER_PRODUCT)
        whole.add(VECTORS)
        faiss.write_index(whole, str(place))
    with pytest.raises(ArtefactError, match="is no index"):
        Cells.read(place)
