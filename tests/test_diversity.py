"""Lists that are not all alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.diversity import diversified
from llm4rec.types import Rankings


def _pool(scores: list[float]) -> Rankings:
    return Rankings(np.arange(len(scores))[None], np.array([scores], dtype=np.float32))


def test_the_worth_of_a_list_is_worked_by_hand() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 2]], dtype=np.float32)
    found = diversified(_pool([-1.0, -1.5, -2.0]), vectors, 3, 0.5)
    # after item 0, item 1 has 1 − .6² = .64 of its own and item 2 all: −.75 + .5 ln .64 = −.973, and −1.0
    # after both, item 2 has (1 − 0²) − (.8 / √.64)² = 0 of its own, kept at 10⁻⁶
    assert found.items.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(
        found.scores[0], [-0.5, -0.75 + 0.5 * np.log(0.64), -1 + 0.5 * np.log(1e-6)], rtol=1e-4
    )


def test_what_is_like_the_first_gives_way_to_what_is_not() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 2]], dtype=np.float32)
    # item 1: −.75 + .5 ln .36 = −1.26; item 2: −1.0
    assert diversified(_pool([-1.0, -1.5, -2.0]), vectors, 2, 0.5).items.tolist() == [[0, 2]]


def test_an_empty_place_stays_behind() -> None:
    pool = Rankings(np.array([[2, -1, -1]]), np.array([[-1.0, -np.inf, -np.inf]], dtype=np.float32))
    found = diversified(pool, np.eye(3, dtype=np.float32), 3, 1.0)
    assert found.items.tolist() == [[2, -1, -1]]
    assert np.isneginf(found.scores[0, 1:]).all()


@st.composite
def pools(draw: st.DrawFn) -> tuple[Rankings, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    b, m, i = draw(st.integers(1, 3)), draw(st.integers(1, 8)), 9
    items = np.argsort(rng.random((b, i)), axis=1)[:, :m]
    scores = -np.sort(rng.exponential(3, (b, m)), axis=1).astype(np.float32)
    return Rankings(items, scores), rng.standard_normal((i, draw(st.integers(1, 4)))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(pools(), st.floats(0, 1), st.integers(1, 8))
def test_laws(pool: tuple[Rankings, np.ndarray], strength: float, n: int) -> None:
    ranked, vectors = pool
    width = ranked.items.shape[1]
    n = min(n, width)
    found, longest = (diversified(ranked, vectors, each, strength) for each in (n, width))
    np.testing.assert_array_equal(longest.items[:, :n], found.items)  # a list begins the longer ones
    assert [sorted(row) for row in longest.items.tolist()] == [sorted(row) for row in ranked.items.tolist()]
    assert (np.diff(longest.scores, axis=1) <= 1e-5).all()
    plain = diversified(ranked, vectors, n, 0.0)
    np.testing.assert_array_equal(plain.items, ranked.items[:, :n])
    np.testing.assert_array_equal(plain.scores, ranked.scores[:, :n])


@pytest.mark.parametrize("strength", [0.3, 0.9])
def test_it_is_the_determinant_that_is_added_up(strength: float) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6, 8)).astype(np.float32)
    pool = _pool((-np.sort(rng.exponential(1, 6))).tolist())
    found = diversified(pool, vectors, 4, strength)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True))[found.items[0]].astype(np.float64)
    worth = (1 - strength) * pool.scores[0, found.items[0]].sum() + strength * np.log(
        np.linalg.det(unit @ unit.T)
    )
    assert found.scores.sum() == pytest.approx(worth, rel=1e-4)
