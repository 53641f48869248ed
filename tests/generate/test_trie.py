"""The trie holds the ids it was built from, and nothing else."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.generate.trie import build_trie


@st.composite
def id_tables(draw: st.DrawFn) -> np.ndarray:
    """Distinct ids [i, l] in any order."""
    depth, size = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    all_ids = list(product(range(size), repeat=depth))
    chosen = draw(st.lists(st.sampled_from(all_ids), min_size=1, max_size=20, unique=True))
    return np.array(chosen, dtype=np.int64)


def test_a_trie_by_hand() -> None:
    trie = build_trie(np.array([[1, 0], [0, 2], [1, 2], [0, 0]]))
    assert trie.depth == 2
    assert trie.items.tolist() == [3, 1, 0, 2]  # by id: 00, 02, 10, 12
    assert trie.places.tolist() == [2, 1, 3, 0]
    assert [codes.tolist() for codes in trie.codes] == [[0], [0, 1], [0, 2, 0, 2]]
    assert [children.tolist() for children in trie.children] == [[0, 2], [0, 2, 4]]
    assert [leaves.tolist() for leaves in trie.leaves] == [[0, 4], [0, 2, 4], [0, 1, 2, 3, 4]]
    assert trie.n_bytes == 8 * (4 + 4 + 2 + 3 + 5 + 2 + 3 + 1 + 2 + 4)


@given(id_tables())
@settings(max_examples=100)
def test_every_id_leads_to_its_item_and_no_other_to_any(codes: np.ndarray) -> None:
    trie = build_trie(codes)
    assert trie.find(torch.from_numpy(codes)).tolist() == list(range(len(codes)))
    known = {tuple(row) for row in codes.tolist()}
    others = [row for row in product(range(5), repeat=codes.shape[1]) if row not in known]
    assert (trie.find(torch.tensor(others)) == -1).all()


@given(id_tables())
@settings(max_examples=100)
def test_nodes_are_the_distinct_prefixes_and_hold_the_items_below(codes: np.ndarray) -> None:
    trie = build_trie(codes)
    for depth in range(1, trie.depth + 1):
        prefixes = np.unique(codes[:, :depth], axis=0)
        assert trie.codes[depth].tolist() == prefixes[:, -1].tolist()
        leaves = trie.leaves[depth].tolist()
        for node, prefix in enumerate(prefixes):
            below = trie.items[leaves[node] : leaves[node + 1]].tolist()
            assert sorted(below) == np.flatnonzero((codes[:, :depth] == prefix).all(axis=1)).tolist()


def test_one_id_for_two_items_is_refused() -> None:
    with pytest.raises(ValueError, match="same semantic id"):
        build_trie(np.array([[1, 0], [0, 1], [1, 0]]))
