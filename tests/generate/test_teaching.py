"""What the dense head says of the codes is its own distribution, taken apart along the trie."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.generate.teaching import Teaching
from llm4rec.generate.trie import build_trie

CODES = np.array([[1, 0], [0, 2], [1, 2], [0, 0]])


def test_targets_by_hand() -> None:
    teaching = Teaching(build_trie(CODES), codebook_size=3, share=0.5)
    log_p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.0, 0.5]]).log()
    first, second = teaching.targets(log_p, torch.tensor([2, 0]))
    # items 1 and 3 begin with 0, items 0 and 2 with 1
    torch.testing.assert_close(first, torch.tensor([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0]]))
    # after 1 come 0 (item 0, .1 of .4) and 2 (item 2, .3 of .4); the second row expects neither
    torch.testing.assert_close(second, torch.tensor([[0.25, 0.0, 0.75], [1.0, 0.0, 0.0]]))


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(2, 5))
@settings(max_examples=60)
def test_the_chain_of_targets_along_an_id_is_the_probability_of_its_item(
    seed: int, depth: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    every = np.stack(np.meshgrid(*[np.arange(size)] * depth), axis=-1).reshape(-1, depth)
    codes = rng.permutation(every)[: rng.integers(1, len(every) + 1)]
    log_p = torch.from_numpy(rng.normal(size=(7, len(codes))).astype(np.float32)).log_softmax(dim=1)
    items = torch.from_numpy(rng.integers(len(codes), size=7))
    targets = Teaching(build_trie(codes), size, 1.0).targets(log_p, items)
    chain = torch.ones(7)
    for place, soft in enumerate(targets):
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(7))
        chain = chain * soft.gather(1, torch.from_numpy(codes)[items, place : place + 1]).squeeze(1)
    torch.testing.assert_close(
        chain, log_p.exp().gather(1, items.unsqueeze(1)).squeeze(1), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_head_taught_by_certain_targets_has_the_loss_of_the_true_codes(share: float) -> None:
    from llm4rec.model.heads import CodeHead

    torch.manual_seed(0)
    head = CodeHead(8, 2, 3, dropout=0.0)
    states, codes = torch.randn(5, 8), torch.tensor([[1, 0], [0, 2], [1, 2], [0, 0], [1, 0]])
    certain = [torch.nn.functional.one_hot(place, 3).float() for place in codes.T]
    torch.testing.assert_close(head.losses(states, codes, certain, share), head.losses(states, codes))


def test_soft_targets_are_learnt() -> None:
    from llm4rec.model.heads import CodeHead

    torch.manual_seed(0)
    head = CodeHead(8, 1, 3, dropout=0.0)
    states, codes = torch.randn(4, 8), torch.zeros(4, 1, dtype=torch.long)
    soft = [torch.tensor([[0.2, 0.3, 0.5]]).expand(4, -1)]
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    losses: list[float] = []
    for _ in range(200):
        optimiser.zero_grad()
        loss = head.losses(states, codes, soft, 1.0).mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(later < earlier for earlier, later in pairwise(losses[::50]))
    said = head.logits(head.begin(states), 0).softmax(dim=1)
    torch.testing.assert_close(said.detach(), soft[0], atol=0.02, rtol=0)
