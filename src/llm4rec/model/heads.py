"""Heads on the backbone's state: the dense head scores every item, the pointwise head predicts a rating."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        vectors = F.normalize(vectors[..., 1:], dim=-1)
        states = F.normalize(states[..., 1:], dim=-1) / self.temperature
        ones = torch.ones_like(states[..., :1])
        return torch.cat([ones, states], dim=-1), torch.cat([bias, vectors], dim=-1)


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
