"""The laws of the search: exact when wide, normalised, legal by construction, and never short of n."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llm4rec.generate.beam import every, log_probability, search, unconstrained
from llm4rec.generate.trie import Trie, build_trie
from llm4rec.model.heads import CodeHead

SIZE = 8


def head(n_places: int, codebook_size: int, seed: int = 0) -> CodeHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = CodeHead(SIZE, n_places, codebook_size, dropout=0.5)
        torch.nn.init.normal_(made.outputs, std=1.0)  # far from even
    return made.eval()


def states(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed))


def ids(n: int, n_places: int, codebook_size: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).permutation(codebook_size**n_places)[:n]
    return np.stack(np.unravel_index(drawn, (codebook_size,) * n_places), axis=1).astype(np.int64)


def by_definition(model: CodeHead, trie: Trie, codes: np.ndarray, state: Tensor) -> list[float]:
    """log p of every item, worked out code by code over the codes that lead on to some item."""
    found: list[float] = []
    for item in codes.tolist():
        carried, total = model.begin(state), 0.0
        for place, code in enumerate(item):
            onward = sorted({row[place] for row in codes.tolist() if row[:place] == item[:place]})
            logits = model.logits(carried, place)
            total += float(logits[code] - torch.logsumexp(logits[onward], 0))
            if place + 1 < len(item):
                carried = model.follow(carried, torch.tensor(code), place)
        found.append(total)
    return found


worlds = st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(2, 4), st.integers(0, 10_000)).map(
    lambda each: (min(each[0], each[2] ** each[1]), *each[1:])
)


@given(worlds)
@settings(max_examples=60)
def test_a_beam_as_wide_as_the_catalogue_is_exhaustive(world: tuple[int, int, int, int]) -> None:
    n, n_places, size, seed = world
    codes = ids(n, n_places, size, seed)
    model, trie = head(n_places, size, seed), build_trie(codes)
    with torch.inference_mode():
        items, found = search(model, trie, states(3), n)
        for row, state in enumerate(states(3)):
            expected = by_definition(model, trie, codes, state)
            assert sorted(items[row].tolist()) == list(range(n))
            assert found[row].tolist() == pytest.approx(sorted(expected, reverse=True), abs=1e-4)
            assert found[row].tolist() == pytest.approx([expected[i] for i in items[row].tolist()], abs=1e-4)
            assert found[row].exp().sum().item() == pytest.approx(1, abs=1e-5)


@given(worlds)
@settings(max_examples=40)
def test_items_are_scored_as_the_search_scores_them(world: tuple[int, int, int, int]) -> None:
    n, n_places, size, seed = world
    model, trie = head(n_places, size, seed), build_trie(ids(n, n_places, size, seed))
    with torch.inference_mode():
        items, found = search(model, trie, states(4), n)
        scored = log_probability(model, trie, states(4), trie.places[items])
        of_all = every(model, trie, states(4))
    torch.testing.assert_close(scored, found, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(of_all.gather(1, items), found, atol=1e-5, rtol=1e-5)


@given(worlds, st.integers(1, 6), st.floats(0, 1))
@settings(max_examples=80)
def test_what_is_left_out_never_comes_back_and_never_costs_a_place(
    world: tuple[int, int, int, int], width: int, kept: float
) -> None:
    n, n_places, size, seed = world
    model, trie = head(n_places, size, seed), build_trie(ids(n, n_places, size, seed))
    legal = torch.rand(5, n, generator=torch.Generator().manual_seed(seed)) < kept
    with torch.inference_mode():
        items, found = search(model, trie, states(5), width, legal)
        free, _ = search(model, trie, states(5), n)
        everything = torch.full_like(free, -torch.inf, dtype=torch.float32)
        everything.scatter_(1, free, search(model, trie, states(5), n)[1])
    for row in range(5):
        returned = [item for item in items[row].tolist() if item >= 0]
        assert len(returned) == min(width, int(legal[row].sum()))
        assert len(set(returned)) == len(returned)
        assert all(legal[row, item] for item in returned)
        assert (found[row] > -torch.inf).sum() == len(returned)
        # what others are left out changes nobody's probability
        same = everything[row, returned].tolist()
        assert found[row, : len(returned)].tolist() == pytest.approx(same, abs=1e-4)
        assert found[row].tolist() == sorted(found[row].tolist(), reverse=True)


def test_a_search_without_the_trie_finds_ids_of_no_item() -> None:
    codes = ids(6, 2, 4, seed=3)
    model, trie = head(2, 4), build_trie(codes)
    with torch.inference_mode():
        found = unconstrained(model, states(2), 16, 2)
    for row in found.tolist():
        assert sorted(map(tuple, row)) == list(product(range(4), repeat=2))
    known = trie.find(found.flatten(0, 1)).view(2, 16)
    assert ((known >= 0).sum(dim=1) == 6).all()


def test_the_loss_is_that_of_codes_legal_or_not() -> None:
    model, wanted = head(3, 4), torch.tensor([[1, 0, 3], [2, 2, 0]])
    losses = model.losses(states(2), wanted)
    for row in range(2):
        carried, total = model.begin(states(2))[row], 0.0
        for place, code in enumerate(wanted[row]):
            total -= model.logits(carried, place).log_softmax(-1)[code].item()
            if place < 2:
                carried = model.follow(carried, code, place)
        assert losses[row].item() == pytest.approx(total, abs=1e-5)
