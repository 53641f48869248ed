"""Semantic ids: each item has exactly one, the codes stand for its vector, and no id is given twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.errors import InputError
from llm4rec.generate.semantic_id import GenerateConfig, SemanticIds, _revived, fit_ids, quality, quantise


def vectors(n: int, size: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, size)).astype(np.float32)


def distinct(ids: SemanticIds) -> bool:
    return len(np.unique(ids.codes, axis=0)) == len(ids.codes)


def test_two_levels_by_hand() -> None:
    """On a line: centres 0 and 10 take 0, 2, 10, 12; what is left is ∓1 around their means 1 and 11."""
    line = np.array([[0.0], [2.0], [10.0], [12.0]], dtype=np.float32)
    ids = fit_ids(line, n_levels=2, codebook_size=2, seed=0)
    assert sorted(ids.centres[0].ravel()) == pytest.approx([1, 11])
    assert sorted(ids.centres[1].ravel()) == pytest.approx([-1, 1])
    low, high = np.argsort(ids.centres[0].ravel())
    less, more = np.argsort(ids.centres[1].ravel())
    assert ids.codes.tolist() == [[low, less, 0], [low, more, 0], [high, less, 0], [high, more, 0]]
    found = quality(ids, line)
    # the variance is 26; 1 is left over after the first level, nothing after the second
    assert found.error == pytest.approx((1 / 26, 0), abs=1e-6)
    assert found.utilisation == (1, 1) and found.collisions == 0 and found.twins == 1


def test_items_that_are_alike_are_numbered() -> None:
    same = np.repeat(vectors(3), [1, 4, 2], axis=0)
    ids = fit_ids(same, n_levels=2, codebook_size=8, seed=0)
    assert distinct(ids)
    assert ids.codes[:, -1].tolist() == [0, 0, 1, 2, 3, 0, 1]
    found = quality(ids, same)
    assert found.collisions == pytest.approx(6 / 7) and found.twins == 4
    assert found.error[-1] == pytest.approx(0, abs=1e-6)


@given(st.integers(1, 60), st.integers(1, 3), st.integers(2, 9), st.integers(0, 5), st.booleans())
@settings(max_examples=60)
def test_every_item_has_one_id_and_every_code_is_in_its_book(
    n: int, n_levels: int, size: int, seed: int, rounded: bool
) -> None:
    values = vectors(n, 3, seed)
    values = values.round() if rounded else values
    try:
        ids = fit_ids(values, n_levels=n_levels, codebook_size=size, seed=seed)
    except InputError:
        assert n > size * min(size, len(np.unique(values, axis=0)))  # codes there are for what differs
        return
    assert distinct(ids)
    assert ids.codes.shape == (n, n_levels + 1)
    assert (ids.codes >= 0).all() and (ids.codes < size).all()
    assert not np.isnan(ids.centres[np.arange(n_levels), ids.codes[:, :-1]]).any()


def test_an_item_gets_the_codes_its_vector_would_get_anywhere() -> None:
    values = vectors(300)
    ids = fit_ids(values, n_levels=3, codebook_size=16, seed=1)
    np.testing.assert_array_equal(quantise(values, ids.centres), ids.codes[:, :-1])
    again = fit_ids(values, n_levels=3, codebook_size=16, seed=1)
    np.testing.assert_array_equal(again.codes, ids.codes)


def test_more_levels_and_more_codes_leave_less_over() -> None:
    values = vectors(2000)
    errors = {
        size: quality(fit_ids(values, n_levels=3, codebook_size=size, seed=0), values).error
        for size in (8, 64)
    }
    for found in errors.values():
        assert 1 > found[0] > found[1] > found[2] > 0
    assert errors[64][0] < errors[8][0]


def test_codes_without_an_item_are_moved_to_where_they_are_needed() -> None:
    line = np.array([[0.0], [0.0], [1.0], [9.0], [30.0]], dtype=np.float32)
    centres = np.array([[0.0], [500.0], [600.0], [8.0]], dtype=np.float32)
    # 30 is worst served (by 8), then 1 (by 0) and 9 (by 8) alike, of which the first in the data moves
    assert sorted(_revived(line, centres).ravel().tolist()) == [0, 1, 8, 30]


def test_every_code_is_used_where_vectors_differ_enough() -> None:
    crowd = np.concatenate([np.full((900, 2), 3.0), vectors(60, 2), 100 * vectors(12, 2, 1)])
    found = fit_ids(crowd.astype(np.float32), n_levels=2, codebook_size=1000, seed=0)
    assert len(np.unique(found.codes[:, 0])) == 73  # a code for each different vector
    few = quality(fit_ids(crowd.astype(np.float32)[895:], n_levels=1, codebook_size=32, seed=0), crowd[895:])
    assert few.utilisation == (1,)


def test_new_items_get_free_ids_and_the_old_keep_theirs() -> None:
    values = vectors(200)
    ids = fit_ids(values, n_levels=2, codebook_size=16, seed=0)
    more = ids.extended(np.concatenate([values[:5], vectors(40, seed=9), values[:5]]))
    np.testing.assert_array_equal(more.codes[:200], ids.codes)
    assert distinct(more)
    # twins of old items share all but the last code
    np.testing.assert_array_equal(more.codes[200:205, :-1], ids.codes[:5, :-1])
    twice = ids.extended(values[:5]).extended(values[:5])
    assert distinct(twice)


def test_a_full_bucket_sends_the_next_to_the_nearest_free_one() -> None:
    line = np.array([[0.0], [1.0], [10.0]], dtype=np.float32)
    ids = fit_ids(line, n_levels=1, codebook_size=3, seed=0)
    more = ids.extended(np.zeros((3, 1), dtype=np.float32))  # two have room beside the first, one has not
    assert distinct(more)
    places = [float(ids.centres[0, code, 0]) for code in more.codes[3:, 0]]
    assert places == [0, 0, 1]
    full = ids.extended(np.zeros((6, 1), dtype=np.float32))
    assert distinct(full)
    with pytest.raises(
        InputError, match=r"There are 9 semantic ids and 10 items.*a higher generate\.codebook_size"
    ):
        ids.extended(np.zeros((7, 1), dtype=np.float32))


def test_where_a_prefix_is_full_the_code_before_gives_way() -> None:
    """Centres at 0 and 10, then at 0 and 1 beside them, two numbers each: four ids near 0, four near 10."""
    centres = np.array([[[0.0], [10.0]], [[0.0], [1.0]]], dtype=np.float32)
    ids = SemanticIds(np.array([[1, 0, 0]]), centres).extended(np.full((7, 1), 0.1, dtype=np.float32))
    near = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]
    assert ids.codes.tolist() == [[1, 0, 0], *near, [1, 0, 1], [1, 1, 0], [1, 1, 1]]
    with pytest.raises(InputError, match="There are 8 semantic ids and 9 items"):
        ids.extended(np.zeros((1, 1), dtype=np.float32))


@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 4), st.integers(0, 5))
@settings(max_examples=40)
def test_every_id_can_be_given(n: int, n_levels: int, size: int, seed: int) -> None:
    """Items alike in everything fill the ids up to the last one."""
    ids = fit_ids(vectors(n, 3, seed), n_levels=n_levels, codebook_size=size, seed=seed)
    room = size * int(np.prod([(~np.isnan(level[:, 0])).sum() for level in ids.centres]))
    full = ids.extended(np.zeros((room - n, 3), dtype=np.float32))
    assert distinct(full) and len(full.codes) == room


def test_what_can_t_come_about_is_said_before_any_work() -> None:
    few = GenerateConfig(mode="joint", codebook_size=2, n_levels=2)
    few.refuse_impossible(8, features=False)
    with pytest.raises(InputError, match="There are 8 semantic ids and 9 items"):
        few.refuse_impossible(9, features=True)
    for config in (GenerateConfig(mode="only"), GenerateConfig(mode="joint", source="content")):
        config.refuse_impossible(9, features=True)
        with pytest.raises(InputError, match="need items with features"):
            config.refuse_impossible(9, features=False)
