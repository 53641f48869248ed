"""Search along the trie: the items a code head finds most likely, each of them legal by construction.

A node's probability is the product of its codes' along the way, each normalised over the codes that
continue a prefix to some item of the catalogue; the items' probabilities sum to 1. What must not come
back is left out within the search: a prefix is followed only while some legal item lies under it, so a
beam at least n wide returns n items wherever n are legal.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from llm4rec.generate.trie import Trie


class CodeModel(Protocol):
    """What the search asks: p(next code | state, codes so far), as logits, and the state a code leads to."""

    def begin(self, states: Tensor) -> Tensor:
        """What is carried along from a backbone state [..., d] before the first code."""
        ...

    def logits(self, carried: Tensor, place: int) -> Tensor:
        """Logits [..., v] of the code in `place`."""
        ...

    def follow(self, carried: Tensor, codes: Tensor, place: int) -> Tensor:
        """What is carried on once the code in `place` is `codes` [...]."""
        ...


def search(
    model: CodeModel, trie: Trie, states: Tensor, width: int, legal: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The most likely items of each state, best first.

    Args:
        model: gives the codes' logits.
        trie: the catalogue.
        states: [b, d].
        width: prefixes kept at each level, and the most items returned.
        legal: [b, i], which items may come back; None allows all.

    Returns:
        items [b, w] and their log-probabilities (nats), item -1 and -inf where fewer are legal.
    """
    n = len(states)
    before = None if legal is None else _legal_leaves(trie, legal)
    carried = model.begin(states).unsqueeze(1)  # [b, w, d]
    nodes, log_p = torch.zeros(n, 1, dtype=torch.long), torch.zeros(n, 1)
    for depth in range(trie.depth):
        logits = model.logits(carried, depth)
        on, child = _continued(trie, nodes, logits, depth)
        on = on + log_p.unsqueeze(-1)
        if before is not None:
            leaves, rows = trie.leaves[depth + 1], torch.arange(n).view(n, 1, 1)
            some = before[rows, leaves[child + 1]] > before[rows, leaves[child]]
            on = on.masked_fill(~some, -torch.inf)
        size = on.shape[-1]
        log_p, chosen = on.flatten(1).topk(min(width, on.shape[1] * size), dim=1)
        nodes, code = child.flatten(1).gather(1, chosen), chosen % size
        if depth + 1 < trie.depth:
            parent = (chosen // size).unsqueeze(-1).expand(-1, -1, carried.shape[-1])
            carried = model.follow(carried.gather(1, parent), code, depth)
    return torch.where(log_p > -torch.inf, trie.items[nodes], -1), log_p


def log_probability(model: CodeModel, trie: Trie, states: Tensor, leaves: Tensor) -> Tensor:
    """Log-probabilities [b, c] (nats) of the items at `leaves` [b, c] of the trie, for states [b, d]."""
    carried = model.begin(states).unsqueeze(1)
    total = torch.zeros(leaves.shape)
    nodes = torch.zeros(len(leaves), 1, dtype=torch.long)
    for depth in range(trie.depth):
        on, _ = _continued(trie, nodes, model.logits(carried, depth), depth)
        # leaves are sorted by code, so the node above one is the last that begins at or before it
        nodes = torch.searchsorted(trie.leaves[depth + 1], leaves.contiguous(), right=True) - 1
        code = trie.codes[depth + 1][nodes]
        total = total + on.expand(-1, leaves.shape[1], -1).gather(2, code.unsqueeze(-1)).squeeze(-1)
        if depth + 1 < trie.depth:
            carried = model.follow(carried.expand(-1, leaves.shape[1], -1), code, depth)
    return total


def unconstrained(model: CodeModel, states: Tensor, width: int, depth: int) -> Tensor:
    """Ids [b, w, depth] that a search without the trie finds: only to count how many are no item's."""
    n = len(states)
    carried = model.begin(states).unsqueeze(1)
    log_p, codes = torch.zeros(n, 1), torch.zeros(n, 1, 0, dtype=torch.long)
    for place in range(depth):
        on = model.logits(carried, place).log_softmax(dim=-1) + log_p.unsqueeze(-1)
        size = on.shape[-1]
        log_p, chosen = on.flatten(1).topk(min(width, on.shape[1] * size), dim=1)
        parent, code = (chosen // size).unsqueeze(-1), (chosen % size).unsqueeze(-1)
        codes = torch.cat([codes.gather(1, parent.expand(-1, -1, place)), code], dim=-1)
        if place + 1 < depth:
            carried = carried.gather(1, parent.expand(-1, -1, carried.shape[-1]))
            carried = model.follow(carried, code.squeeze(-1), place)
    return codes


def _continued(trie: Trie, nodes: Tensor, logits: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Log p of each code after each prefix [b, w, v], -inf where no item follows, and the child's number."""
    flat = nodes.flatten()
    first = trie.children[depth][flat]
    count = trie.children[depth][flat + 1] - first
    row = torch.repeat_interleave(torch.arange(len(flat)), count)
    begin = count.cumsum(0) - count
    child = torch.arange(len(row)) - begin[row] + first[row]
    code = trie.codes[depth + 1][child]
    values, flat_logits = torch.full((len(flat), logits.shape[-1]), -torch.inf), logits.flatten(0, 1)
    values[row, code] = flat_logits[row, code].to(values.dtype)
    numbers = torch.zeros(values.shape, dtype=torch.long)
    numbers[row, code] = child
    shape = (*nodes.shape, logits.shape[-1])
    return values.log_softmax(dim=1).view(shape), numbers.view(shape)


def _legal_leaves(trie: Trie, legal: Tensor) -> Tensor:
    """How many legal items stand before each leaf [b, i + 1]."""
    before = torch.zeros(len(legal), legal.shape[1] + 1, dtype=torch.int32)
    torch.cumsum(legal[:, trie.items], dim=1, out=before[:, 1:], dtype=torch.int32)
    return before
