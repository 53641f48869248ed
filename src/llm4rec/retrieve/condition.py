"""Gated cross-attention from the backbone's state to what is retrieved, equation (12).

h' = h + g(h) · W_o Attention(W_q h, W_k x_c, W_v x_c),   x_c = z_c + W_f f_c,   g(h) = tanh(w · h/‖h‖ + b)

over the items c that the entries speak for most, fused by rank; f_c are the factors of equation (9) of the
entries that speak for c, summed by kind. The gate g is closed at the start (w = 0, b = 0): an untrained
module changes nothing, nor does a history without entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm4rec.data.events import EventLog
from llm4rec.retrieve.entries import FACTORS, KINDS
from llm4rec.retrieve.fusion import evidence, fused
from llm4rec.retrieve.relevance import Grounding
from llm4rec.retrieve.repository import Repository
from llm4rec.types import Bools, Floats, Ints

ATTENDED = 32
"""Items attended to at most."""
WIDTH = 32
"""Coordinates of queries, keys and values."""
HEADS = 4


@dataclass(frozen=True)
class Retrieved:
    """The items that are attended to by b histories, k each.

    Attributes:
        items: their numbers, 0 where there are fewer [b, k].
        evidence: what speaks for each [b, k, kinds · 4].
        there: whether there is one [b, k].
    """

    items: Ints
    evidence: Floats
    there: Bools

    @classmethod
    def none(cls, b: int) -> Retrieved:
        """Nothing, for b histories."""
        return cls(
            np.zeros((b, ATTENDED), dtype=np.int64),
            np.zeros((b, ATTENDED, len(KINDS) * len(FACTORS)), dtype=np.float32),
            np.zeros((b, ATTENDED), dtype=bool),
        )

    def take(self, rows: Ints) -> Retrieved:
        """Those of some histories."""
        return Retrieved(self.items[rows], self.evidence[rows], self.there[rows])

    def put(self, rows: Ints, some: Retrieved) -> None:
        """Fill in those of some histories."""
        self.items[rows], self.evidence[rows], self.there[rows] = some.items, some.evidence, some.there


def retrieved(repository: Repository, gamma: float, histories: EventLog) -> Retrieved:
    """What each of b histories attends to."""
    found = Retrieved.none(histories.n_users)
    for row in range(histories.n_users):
        entries = repository.retrieve(histories, row)
        chosen = fused(entries, ATTENDED)
        found.items[row, : len(chosen)], found.there[row, : len(chosen)] = chosen, True
        found.evidence[row, : len(chosen)] = evidence(entries, chosen, gamma)
    return found


class Gated(nn.Module):
    """What changes states behind a gate that starts closed.

    Args:
        size: of states d.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    @property
    def closed(self) -> bool:
        """Whether the gate is closed for every state, as it was at the start."""
        return not (self.gate.weight.any() or self.gate.bias.any())

    def openness(self, states: Tensor) -> Tensor:
        """The gate g(h) of each state [b], −1 to 1, 0 where it is closed."""
        return torch.tanh(self.gate(F.normalize(states, dim=-1)))[:, 0]


class Condition(Gated):
    """The attention and its gate.

    Args:
        size: of states and item vectors d.
        seed: of the random weights.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__(size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.facts = nn.Linear(len(KINDS) * len(FACTORS), size, bias=False)
            self.queries, self.keys, self.values = (nn.Linear(size, WIDTH, bias=False) for _ in range(3))
            self.outputs = nn.Linear(WIDTH, size, bias=False)

    def forward(self, states: Tensor, vectors: Tensor, told: Retrieved) -> Tensor:
        """States h' [b, d] of states h [b, d] and item vectors z [i, d]."""
        there = torch.from_numpy(told.there)
        read = vectors[torch.from_numpy(told.items)] + self.facts(torch.from_numpy(told.evidence))
        b, k = there.shape
        queries = self.queries(states).view(b, HEADS, 1, -1)
        keys, values = (each(read).view(b, k, HEADS, -1).transpose(1, 2) for each in (self.keys, self.values))
        mask = there | ~there.any(dim=1, keepdim=True)  # a row of nothing is multiplied by 0 below
        found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None, :])
        added = self.outputs(found.transpose(1, 2).reshape(b, -1))
        return states + self.openness(states)[:, None] * added * there.any(dim=1, keepdim=True)


def attending(
    condition: Condition | None, grounding: Grounding, vectors: Tensor
) -> Callable[[Tensor, EventLog], Tensor] | None:
    """What turns states [b, d] into those after attention, given item vectors z [i, d].

    None where there is nothing to attend with or to.
    """
    repository, gamma = grounding.repository, grounding.relevance.gamma
    if condition is None or repository is None:
        return None

    def attend(states: Tensor, histories: EventLog) -> Tensor:
        with torch.inference_mode():
            return condition(states, vectors, retrieved(repository, gamma, histories))

    return attend
