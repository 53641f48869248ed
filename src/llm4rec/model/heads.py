"""Heads on the backbone's state.

The dense head scores every item, the code head generates semantic ids, the pointwise head predicts a rating.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm4rec.errors import InputError


class DenseHead(nn.Module):
    """Score of every item in the space of item vectors.

    Cosine: s(h, i) = cos(h', z'_i) / τ + √d · z_i0. The first coordinate of an item vector is the item's
    bias, so that how common an item is needs no room among the directions; h' and z' are the others.
    Without `cosine`, a plain dot product.
    """

    def __init__(self, *, cosine: bool, temperature: float) -> None:
        super().__init__()
        self.cosine = cosine
        self.temperature = temperature

    def forward(self, states: Tensor, vectors: Tensor) -> Tensor:
        """Logits [..., i] of states [..., d] and item vectors [i, d]; log_softmax makes log-probabilities."""
        states, vectors = self.prepared(states, vectors)
        return states @ vectors.T

    def prepared(self, states: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """States and item vectors in the form whose plain dot products are the logits, [..., d] each."""
        if not self.cosine:
            return states, vectors
        bias = vectors[..., :1] * math.sqrt(vectors.shape[-1])
        vectors = self.directions(vectors)
        states = F.normalize(states[..., 1:], dim=-1) / self.temperature
        ones = torch.ones_like(states[..., :1])
        return torch.cat([ones, states], dim=-1), torch.cat([bias, vectors], dim=-1)

    def carrying(self, vectors: Tensor, logits: Tensor) -> Tensor:
        """Prepared item vectors [i, d] whose logits are higher by `logits` [i]: their biases carry it.

        Raises:
            InputError: for plain dot products, where items have no bias.
        """
        if not self.cosine:
            raise InputError(
                "Logits can carry popularity only where items have a bias: set model.cosine=true, or "
                "debias.popularity.training=0."
            )
        return torch.cat([vectors[..., :1] + logits.unsqueeze(-1), vectors[..., 1:]], dim=-1)

    def reach(self, size: int) -> Tensor:
        """How far prepared states of `size` coordinates reach [d]: 1 at the bias, 1 / τ among directions."""
        reach = torch.ones(size)
        if self.cosine:
            reach[1:] /= self.temperature
        return reach

    def directions(self, vectors: Tensor) -> Tensor:
        """What states are compared with: unit vectors without the bias [..., d − 1], or all [..., d]."""
        return F.normalize(vectors[..., 1:], dim=-1) if self.cosine else vectors


class CodeHead(nn.Module):
    """A small autoregressive head over semantic ids.

    p(id | h) = p(c_1 | h) p(c_2 | h, c_1) … p(c_{l+1} | h, c_1, …, c_l).
    The backbone's state is read once; each code adds its vector to what is carried along, and a layer of
    its own per place turns that into logits.

    Args:
        embedding_size: d.
        n_places: codes of one id, l + 1.
        codebook_size: v, different codes per place.
        dropout: of what the layers read.
    """

    def __init__(self, embedding_size: int, n_places: int, codebook_size: int, dropout: float) -> None:
        super().__init__()
        shape, std = (n_places, codebook_size, embedding_size), embedding_size**-0.5
        self.inputs = nn.Parameter(torch.empty(shape)[:-1].normal_(std=std))
        self.outputs = nn.Parameter(torch.empty(shape).normal_(std=std))
        self.bias = nn.Parameter(torch.zeros(n_places, codebook_size))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(embedding_size),
                nn.Dropout(dropout),
                nn.Linear(embedding_size, 2 * embedding_size),
                nn.GELU(),
                nn.Linear(2 * embedding_size, embedding_size),
            )
            for _ in range(n_places)
        )

    def start_from(self, centres: Tensor, head: DenseHead) -> None:
        """Let the logits begin as the dense head's would: what a code stands for, compared with the state.

        Args:
            centres: [l, v, d] or [l, v, d − 1], among the dense head's directions; NaN where a level has
                no such code.
            head: the dense head.
        """
        places, _, size = self.outputs.shape
        scale = 1 / (head.temperature * math.sqrt(size)) if head.cosine else 1.0
        with torch.no_grad():
            self.outputs.zero_()
            self.outputs[: places - 1, :, size - centres.shape[-1] :] = centres.nan_to_num() * scale
            for layer in self.layers:
                cast(nn.Linear, cast(nn.Sequential, layer)[-1]).weight.mul_(0.1)

    def begin(self, states: Tensor) -> Tensor:
        """What is carried along before the first code, of states [..., d]."""
        return F.normalize(states, dim=-1) * math.sqrt(states.shape[-1])

    def logits(self, carried: Tensor, place: int) -> Tensor:
        """Logits [..., v] of the code in `place`."""
        read = carried + self.layers[place](carried)
        return F.linear(read, self.outputs[place], self.bias[place])

    def follow(self, carried: Tensor, codes: Tensor, place: int) -> Tensor:
        """What is carried on once the code in `place` is `codes` [...]."""
        return carried + F.embedding(codes, self.inputs[place])

    def losses(
        self, states: Tensor, codes: Tensor, soft: Sequence[Tensor] | None = None, share: float = 0.0
    ) -> Tensor:
        """−log p(id) [p] (nats) of ids [p, l + 1] for states [p, d], over all codes, legal or not.

        Args:
            states: [p, d].
            codes: the true ids [p, l + 1].
            soft: distributions over the codes of each place [p, v], given the true codes before it.
            share: what cross-entropy with `soft` weighs; with the true codes it weighs the rest.
        """
        carried, total = self.begin(states), states.new_zeros(len(states))
        for place, code in enumerate(codes.T):
            log_p = self.logits(carried, place).log_softmax(dim=-1)
            loss = -log_p.gather(1, code.unsqueeze(1)).squeeze(1)
            if soft is not None:
                loss = (1 - share) * loss - share * (soft[place] * log_p).sum(dim=1)
            total = total + loss
            if place < len(self.inputs):
                carried = self.follow(carried, code, place)
        return total


class PointwiseHead(nn.Module):
    """r̂(u, i): the rating a person in a state would give an item, of state, item vector and their product."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3 * embedding_size, embedding_size), nn.GELU(), nn.Linear(embedding_size, 1)
        )

    def forward(self, states: Tensor, vectors: Tensor) -> Tensor:
        """Ratings [...] in standardised units for states and vectors of the same shape [..., d]."""
        return self.layers(torch.cat([states, vectors, states * vectors], dim=-1)).squeeze(-1)
