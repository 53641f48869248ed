"""What the dense head would say of the codes: soft targets for the code head.

p(c_j | h, c_1 … c_{j−1}) of the dense head is the share of its probability under a prefix that lies under
each longer one. A position then teaches the code head the whole distribution instead of one id.

Source: knowledge distillation (Hinton, Vinyals and Dean, 2015), the dense head being the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llm4rec.generate.trie import Trie

FAINT = 1e-4
"""Probability under a prefix below which float32 sums say too little of how it is divided."""


@dataclass(frozen=True)
class Teaching:
    """How the code head learns from the dense head.

    Attributes:
        trie: the ids.
        codebook_size: v, different codes per place.
        share: what the soft targets weigh in the loss; the true codes weigh the rest.
    """

    trie: Trie
    codebook_size: int
    share: float

    def targets(self, log_p: Tensor, items: Tensor) -> list[Tensor]:
        """Distributions over the codes of each place [p, v], along the prefixes of the true items' ids.

        Args:
            log_p: the dense head's log-probabilities [p, i] (nats).
            items: the true items [p].

        Where the dense head hardly expects a prefix, what follows it is the true code alone.
        """
        trie = self.trie
        before = torch.zeros(len(log_p), log_p.shape[1] + 1)  # probability before each leaf
        torch.cumsum(log_p[:, trie.items].exp_(), dim=1, out=before[:, 1:])
        leaf, node = trie.places[items], torch.zeros(len(items), dtype=torch.long)
        found: list[Tensor] = []
        for depth in range(trie.depth):
            row, child = trie.followers(node, depth)
            first, end = trie.leaves[depth + 1][child], trie.leaves[depth + 1][child + 1]
            soft = log_p.new_zeros(len(log_p), self.codebook_size)
            soft[row, trie.codes[depth + 1][child]] = (before[row, end] - before[row, first]).clamp(min=0)
            node = torch.searchsorted(trie.leaves[depth + 1], leaf, right=True) - 1
            total = soft.sum(dim=1, keepdim=True)
            true = torch.nn.functional.one_hot(trie.codes[depth + 1][node], self.codebook_size)
            found.append(torch.where(total < FAINT, true.to(soft.dtype), soft / total.clamp(min=FAINT)))
        return found
