"""Semantic ids together with the head that generates them: states in, items with log-probabilities out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from llm4rec.generate.beam import CodeModel, every, log_probability, search
from llm4rec.generate.semantic_id import SemanticIds
from llm4rec.generate.trie import Trie, build_trie
from llm4rec.model.scorer import Join
from llm4rec.types import Floats

SHARES = np.linspace(0, 1, 21)
"""Shares of the generated distribution that are tried."""
ROWS = 64
"""States searched at once: bounds the [b, w, v] numbers held in memory."""
EVERY = 2**17
"""Items times states looked at at once where all items are."""


@dataclass(frozen=True)
class Generator:
    """Generates items along the trie, and joins what it finds with the dense head's scores.

    Attributes:
        head: the code head, in evaluation mode.
        ids: the id of every item.
        beam: prefixes kept at each level.
        share: w, what the generated distribution weighs in p = (1 − w) · p_dense + w · p_code.
    """

    head: CodeModel
    ids: SemanticIds
    beam: int
    share: float

    @cached_property
    def trie(self) -> Trie:
        return build_trie(self.ids.codes)

    @property
    def join(self) -> Join | None:
        """What a scorer joins; None where nothing generated counts."""
        return self.joined if self.share else None

    def generate(self, states: Tensor, n: int, legal: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The n most likely legal items of each state [b, d], best first, and their log-probabilities.

        Args:
            states: [b, d].
            n: list length; the beam is at least as wide.
            legal: [b, i], which items may come back; None allows all.

        Returns:
            items [b, min(n, i)] and log-probabilities [b, min(n, i)] (nats); item -1 and -inf where fewer are
            legal.
        """
        width = min(max(n, self.beam), len(self.ids.codes))
        found = [
            search(self.head, self.trie, part, width, None if legal is None else legal[start : start + ROWS])
            for start, part in _parts(states)
        ]
        items, log_p = (torch.cat(parts) for parts in zip(*found, strict=True))
        return items[:, :n], log_p[:, :n]

    def log_probability(self, states: Tensor, items: Tensor) -> Tensor:
        """Log-probabilities [b, c] (nats) of `items` [b, c] for states [b, d]."""
        leaves = self.trie.places[items]
        return torch.cat([
            log_probability(self.head, self.trie, part, leaves[start : start + ROWS])
            for start, part in _parts(states)
        ])

    def every(self, states: Tensor) -> Tensor:
        """Log-probabilities [b, i] (nats) of all items for states [b, d]."""
        rows = max(1, min(ROWS, EVERY // len(self.ids.codes)))
        return torch.cat([every(self.head, self.trie, part) for _, part in _parts(states, rows)])

    def joined(
        self, states: Tensor, log_p: Tensor, n: int, legal: Tensor | None = None, *, added: bool = False
    ) -> Tensor:
        """log((1 − w) p_dense + w p_code) [b, i], of the dense head's `log_p` [b, i].

        p_code is worked out for the items that either head finds likely: those the beam reaches, at least
        n, and as many of the dense head's best. What it leaves for the others is taken to lie among them as
        the dense head's does, so that none falls behind for not having been looked at. At w = 1 there is no
        dense head to go by: the others get 0, or all are worked out where more is `added`.

        Args:
            states: [b, d].
            log_p: [b, i] (nats).
            n: length of the lists that are wanted.
            legal: [b, i], which items may come back; None allows all.
            added: whether the scores are not the last word, so that any item may come out on top.
        """
        width = min(max(n, self.beam), log_p.shape[1])
        if width == log_p.shape[1] or (added and self.share == 1):
            return self.mixed(log_p, self.every(states))
        best = log_p if legal is None else log_p.masked_fill(~legal, -torch.inf)
        near = best.topk(width, dim=1).indices
        generated, log_c = self.generate(states, width, legal)
        coded = torch.full((len(log_p), log_p.shape[1] + 1), -torch.inf)  # the last takes what is no item
        coded.scatter_(1, near, self.log_probability(states, near))
        coded.scatter_(1, torch.where(generated >= 0, generated, log_p.shape[1]), log_c)
        coded = coded[:, :-1]
        if self.share == 1:
            return coded
        others = coded.isneginf()
        left = torch.log1p(-coded.exp().sum(dim=1, keepdim=True).clamp(max=1))
        dense_left = log_p.masked_fill(~others, -torch.inf).logsumexp(dim=1, keepdim=True)
        return self.mixed(log_p, torch.where(others, log_p + (left - dense_left), coded))

    def mixed(self, log_p: Tensor, coded: Tensor) -> Tensor:
        """log((1 − w) p_dense + w p_code) of the logarithms of both, in any shape they share."""
        if self.share == 1:
            return coded
        return torch.logaddexp(log_p + math.log1p(-self.share), coded + math.log(self.share))


def choose_share(dense: Floats, code: Floats) -> float:
    """The share w that makes held-out items most likely under p = (1 − w) · p_dense + w · p_code.

    Args:
        dense: the dense head's log-probability of each held-out item [c] (nats).
        code: the code head's [c].
    """
    with np.errstate(divide="ignore"):
        likely = [np.logaddexp(np.log1p(-w) + dense, np.log(w) + code).sum() for w in SHARES]
    return float(SHARES[int(np.argmax(likely))])


def _parts(states: Tensor, rows: int = ROWS) -> list[tuple[int, Tensor]]:
    return [(start, states[start : start + rows]) for start in range(0, max(len(states), 1), rows)]
