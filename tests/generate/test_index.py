"""The index of a large catalogue: what it finds, what it leaves out, and what it makes of the sum."""

from __future__ import annotations

import numpy as np
import pytest

from llm4rec.data.legal import Listed
from llm4rec.generate.index import ItemIndex, build_index
from llm4rec.types import Floats, Ints

N, D = 6000, 16
SCALE = np.append(1, np.full(D - 1, 16)).astype(np.float32)
ALL = Listed(np.zeros(0, dtype=np.int64), only=False, n_items=N)


@pytest.fixture(scope="module")
def vectors() -> Floats:
    """Directions in clusters, and a bias in the first coordinate that is wider than any of theirs."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(40, D - 1))
    directions = centres[draw.integers(40, size=N)] + 0.5 * draw.normal(size=(N, D - 1))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.column_stack([draw.normal(size=N), directions]).astype(np.float32)


@pytest.fixture(scope="module")
def index(vectors: Floats) -> ItemIndex:
    return build_index(N, lambda items: vectors[items], SCALE, seed=0)


def states(n: int) -> Floats:
    draw = np.random.default_rng(1).normal(size=(n, D - 1))
    draw *= 16 / np.linalg.norm(draw, axis=1, keepdims=True)
    return np.column_stack([np.ones(n), draw]).astype(np.float32)


def best(scores: Floats, k: int) -> Ints:
    return np.argsort(-scores)[:k]


def test_the_nearest_are_found(vectors: Floats, index: ItemIndex) -> None:
    found = [
        np.isin(best(vectors @ state, 10), index.nearest(state, 64, ALL, index.head(state, 64))).mean()
        for state in states(50)
    ]
    assert np.mean(found) > 0.98


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("n_listed", [0, 1, 30, 3000, N - 3, N])
def test_as_many_legal_ones_as_there_are_come_back(index: ItemIndex, only: bool, n_listed: int) -> None:
    """Law: min(k, legal) items, each legal and once, also where those nearest are all left out."""
    for seed, state in enumerate(states(4)):
        far = np.random.default_rng(seed).permutation(N)[:n_listed]
        near = index.head(state, N)[:n_listed]  # those left out stand in the way
        chosen = np.union1d(near, far)[:n_listed] if not only else np.sort(far)
        listed = Listed(chosen, only, N)
        found = index.nearest(state, 20, listed, index.head(state, 20))
        assert len(found) == len(set(found.tolist())) == min(20, len(listed))
        assert listed.among(found).all()


def test_the_sum_is_estimated_closely(vectors: Floats) -> None:
    """With a sample of a tenth the standard error is a few hundredths of a nat; with all, none is left."""
    index = build_index(N, lambda items: vectors[items], SCALE, seed=0)
    some = np.sort(np.random.default_rng(0).permutation(N)[:600])
    tenth = ItemIndex(index.index, SCALE, some, vectors[some] * SCALE)
    errors = []
    for state in states(40):
        logits = vectors @ state
        exact = np.logaddexp.reduce(logits)
        head = index.head(state, 256)
        of_head = np.logaddexp.reduce(logits[head])
        assert np.logaddexp(of_head, index.log_rest(state, head)) == pytest.approx(exact, abs=1e-3)
        errors.append(np.logaddexp(of_head, tenth.log_rest(state, head)) - exact)
    assert np.std(errors) < 0.1
    assert abs(np.mean(errors)) < 0.05


def test_the_same_seed_gives_the_same_index(vectors: Floats, index: ItemIndex) -> None:
    again = build_index(N, lambda items: vectors[items], SCALE, seed=0)
    for state in states(5):
        np.testing.assert_array_equal(again.head(state, 50), index.head(state, 50))
    np.testing.assert_array_equal(again.sample, index.sample)
    assert 0 < index.n_bytes < vectors.nbytes + 2**22
