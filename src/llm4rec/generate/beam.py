"""Search along the trie: the items a code head finds most likely, each of them legal by construction.

A node's probability is the product of its codes' along the way, each normalised over the codes that
continue a prefix to some item of the catalogue; the items' probabilities sum to 1. What must not come
back is left out within the search: a prefix is followed only while some legal item lies under it, so a
beam at least n wide returns n items wherever n are legal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from llm4rec.data.legal import Listed
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
    model: CodeModel, trie: Trie, states: Tensor, width: int, legal: Tensor | Listed | None = None
) -> tuple[Tensor, Tensor]:
    """The most likely items of each state, best first.

    Args:
        model: gives the codes' logits.
        trie: the catalogue.
        states: [b, d].
        width: prefixes kept at each level, and the most items returned.
        legal: which items may come back, [b, i] or the same for every state; None allows all.

    Returns:
        items [b, w] and their log-probabilities (nats), item -1 and -inf where fewer are legal.
    """
    n = len(states)
    some = None if legal is None else _some(trie, legal)
    carried = model.begin(states).unsqueeze(1)  # [b, w, d]
    nodes, log_p = torch.zeros(n, 1, dtype=torch.long), torch.zeros(n, 1)
    for depth in range(trie.depth):
        logits = model.logits(carried, depth)
        on, child = _continued(trie, nodes, logits, depth)
        on = on + log_p.unsqueeze(-1)
        if some is not None:
            leaves = trie.leaves[depth + 1]
            on = on.masked_fill(~some(leaves[child], leaves[child + 1]), -torch.inf)
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


def every(model: CodeModel, trie: Trie, states: Tensor) -> Tensor:
    """Log-probabilities [b, i] (nats) of all items, for states [b, d]; each prefix is looked at once."""
    carried, log_p = model.begin(states).unsqueeze(1), torch.zeros(len(states), 1)
    for depth in range(trie.depth):
        n_children, code = trie.children[depth].diff(), trie.codes[depth + 1]
        parent = torch.repeat_interleave(torch.arange(len(n_children)), n_children)
        forks = torch.nonzero(n_children > 1).squeeze(1)  # elsewhere the only way on is certain
        on, _ = _continued(trie, forks.expand(len(states), -1), model.logits(carried[:, forks], depth), depth)
        log_p = log_p[:, parent]
        row, child = trie.followers(forks, depth)
        log_p[:, child] += on[:, row, code[child]]
        if depth + 1 < trie.depth:
            carried = model.follow(carried[:, parent], code.expand(len(states), -1), depth)
    return log_p[:, trie.places]


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
    row, child = trie.followers(flat, depth)
    code = trie.codes[depth + 1][child]
    values, flat_logits = torch.full((len(flat), logits.shape[-1]), -torch.inf), logits.flatten(0, 1)
    values[row, code] = flat_logits[row, code].to(values.dtype)
    numbers = torch.zeros(values.shape, dtype=torch.long)
    numbers[row, code] = child
    shape = (*nodes.shape, logits.shape[-1])
    return values.log_softmax(dim=1).view(shape), numbers.view(shape)


def _some(trie: Trie, legal: Tensor | Listed) -> Callable[[Tensor, Tensor], Tensor]:
    """Whether some legal item stands from one leaf up to another [b, w, v], as a function of the two."""
    if isinstance(legal, Listed):
        places = trie.places[torch.from_numpy(legal.items)].sort().values

        def listed(first: Tensor, end: Tensor) -> Tensor:
            n = torch.searchsorted(places, end) - torch.searchsorted(places, first)
            return n > 0 if legal.only else n < end - first

        return listed
    before = torch.zeros(len(legal), legal.shape[1] + 1, dtype=torch.int32)  # legal items before each leaf
    torch.cumsum(legal[:, trie.items], dim=1, out=before[:, 1:], dtype=torch.int32)
    rows = torch.arange(len(legal)).view(-1, 1, 1)
    return lambda first, end: before[rows, end] > before[rows, first]
