"""The legal prefixes of all semantic ids, as arrays: what a search may walk along.

Items are sorted by their codes, so that the items under a prefix stand next to each other, and so do the
prefixes one code longer. A node of depth j is a number; depth 0 is the root, depth l + 1 are the items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llm4rec.types import Ints


@dataclass(frozen=True)
class Trie:
    """Nodes by depth, in the order of their codes.

    Attributes:
        items: item of each leaf [i].
        places: leaf of each item [i].
        leaves: depth → first leaf under each node, and the end of the last [n + 1].
        children: depth → first child of each node, and the end of the last [n + 1]; not for leaves.
        codes: depth → the last code of each node [n]; a single 0 for the root.
    """

    items: Tensor
    places: Tensor
    leaves: tuple[Tensor, ...]
    children: tuple[Tensor, ...]
    codes: tuple[Tensor, ...]

    @property
    def depth(self) -> int:
        """Codes of one id."""
        return len(self.children)

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays."""
        return sum(
            array.nbytes for array in (self.items, self.places, *self.leaves, *self.children, *self.codes)
        )

    def followers(self, nodes: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """All children of `nodes` [n] of `depth`: their parents' places in `nodes` and their numbers [c]."""
        first = self.children[depth][nodes]
        count = self.children[depth][nodes + 1] - first
        row = torch.repeat_interleave(torch.arange(len(nodes)), count)
        begin = count.cumsum(0) - count
        return row, torch.arange(len(row)) - begin[row] + first[row]

    def find(self, codes: Tensor) -> Tensor:
        """The item that has each id [n, depth] → [n]; -1 where there is none."""
        node = torch.zeros(len(codes), dtype=torch.long)
        for depth, code in enumerate(codes.T):
            node = self.child(node, code, depth)
        return torch.where(node >= 0, self.items[node.clamp(min=0)], node)

    def child(self, node: Tensor, code: Tensor, depth: int) -> Tensor:
        """The child with `code` [n] of each node [n] of `depth`; -1 where there is none, or no node."""
        size = int(self.codes[depth + 1].max()) + 1
        parents = torch.repeat_interleave(
            torch.arange(len(self.children[depth]) - 1), self.children[depth].diff()
        )
        keys = parents * size + self.codes[depth + 1]  # ascending
        wanted = torch.where((node >= 0) & (code < size), node * size + code, -1)
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[place] == wanted, place, -1)


def build_trie(codes: Ints) -> Trie:
    """The trie of ids [i, l]; row number is item number.

    Raises:
        ValueError: where two items have the same id.
    """
    n_items, n_places = codes.shape
    order = np.lexsort(codes.T[::-1])
    ranked = codes[order]
    differs = np.ones((n_items, n_places), dtype=bool)
    differs[1:] = np.logical_or.accumulate(ranked[1:] != ranked[:-1], axis=1)
    if not differs[:, -1].all():
        raise ValueError("Two items have the same semantic id.")
    begins = [np.zeros(1, dtype=np.int64), *(np.flatnonzero(column) for column in differs.T)]
    leaves = [np.append(begin, n_items) for begin in begins]
    children = [np.searchsorted(begins[depth + 1], leaves[depth]) for depth in range(n_places)]
    lasts = [np.zeros(1, dtype=np.int64), *(ranked[b, d] for d, b in enumerate(begins[1:]))]
    with torch.inference_mode(mode=False):  # derivatives may go along it, whoever asks for it first
        return Trie(
            torch.from_numpy(order),
            torch.from_numpy(np.argsort(order)),
            tuple(torch.from_numpy(array) for array in leaves),
            tuple(torch.from_numpy(array) for array in children),
            tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in lasts),
        )
