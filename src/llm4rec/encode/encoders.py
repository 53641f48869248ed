"""One learned encoder per modality (paper, equation 1): frozen tokens in, d-dimensional tokens out.

Every encoder has two readings of the same parameters: `tokens` gives [i, t, d] for cross-modal
attention, `pooled` gives their masked sum [i, d] without materialising them, which is what every
training step needs for every item.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm4rec.encode.tokens import Tokens


class Encoder(Protocol):
    """An encoder f_m of equation (1)."""

    def tokens(self, tokens: Tokens) -> Tensor:
        """Token vectors [i, t, d]; masked places hold zeros."""
        ...

    def pooled(self, tokens: Tokens) -> Tensor:
        """Sum of an item's token vectors over the root of their number [i, d]; zeros where it has none."""
        ...


def _scale(mask: Tensor) -> Tensor:
    """1 / √(number of tokens) [i, 1]: keeps the sum of independent vectors at the length of one."""
    return mask.sum(dim=1, keepdim=True).clamp(min=1).to(torch.float32).rsqrt()


def _initial(*shape: int, std: float) -> nn.Parameter:
    """Random start [..., d]; the first coordinate, read by the dense head as the item's bias, starts at 0."""
    values = torch.empty(*shape).normal_(std=std)
    values[..., 0] = 0
    return nn.Parameter(values)


class VectorEncoder(nn.Module):
    """Frozen vectors (sentences, images) through one linear map, with a bias per field."""

    def __init__(self, width: int, n_fields: int, embedding_size: int, std: float) -> None:
        super().__init__()
        self.project = _initial(width, embedding_size, std=std)  # unit vectors in: entries of that std out
        self.field = nn.Parameter(torch.zeros(n_fields, embedding_size))

    def tokens(self, tokens: Tokens) -> Tensor:
        return (tokens.values @ self.project + self.field) * tokens.mask.unsqueeze(-1)

    def pooled(self, tokens: Tokens) -> Tensor:
        mask = tokens.mask.to(torch.float32)
        summed = (tokens.values * mask.unsqueeze(-1)).sum(dim=1)
        return (summed @ self.project + mask @ self.field) * _scale(tokens.mask)


class CategoricalEncoder(nn.Module):
    """One embedding per category value, multi-valued fields summed."""

    def __init__(self, n_codes: int, embedding_size: int, std: float) -> None:
        super().__init__()
        self.table = _initial(n_codes, embedding_size, std=std)

    def tokens(self, tokens: Tokens) -> Tensor:
        return F.embedding(tokens.values, self.table) * tokens.mask.unsqueeze(-1)

    def pooled(self, tokens: Tokens) -> Tensor:
        codes = tokens.values * tokens.mask
        summed = F.embedding_bag(codes, self.table, mode="sum", padding_idx=0)
        return summed * _scale(tokens.mask)


class NumericalEncoder(nn.Module):
    """Quantiles through a periodic embedding: sines and cosines of learned frequencies, then a linear map.

    Source: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, 2022.
    """

    def __init__(self, n_fields: int, embedding_size: int, std: float, frequencies: int = 16) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.empty(n_fields, frequencies).normal_(std=2.0))
        self.weight = _initial(n_fields, 2 * frequencies, embedding_size, std=std / math.sqrt(frequencies))

    def tokens(self, tokens: Tokens) -> Tensor:
        angle = 2 * math.pi * tokens.values.unsqueeze(-1) * self.frequency
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return torch.einsum("itf,tfd->itd", waves, self.weight) * tokens.mask.unsqueeze(-1)

    def pooled(self, tokens: Tokens) -> Tensor:
        return self.tokens(tokens).sum(dim=1) * _scale(tokens.mask)


class BehaviourEncoder(nn.Module):
    """The learned vector of an item: what people do with it, beyond what its content says.

    Its one token is the item's row number; an item no one touched in training has no token.
    """

    def __init__(self, n_items: int, embedding_size: int, std: float) -> None:
        super().__init__()
        self.table = _initial(n_items, embedding_size, std=std)

    def tokens(self, tokens: Tokens) -> Tensor:
        return self.pooled(tokens).unsqueeze(1)

    def pooled(self, tokens: Tokens) -> Tensor:
        return F.embedding(tokens.values[:, 0], self.table) * tokens.mask


def behaviour_tokens(seen: Tensor) -> Tokens:
    """Behaviour tokens of every item; `seen` [i] says which had events in training."""
    return Tokens(torch.arange(len(seen)).unsqueeze(1), seen.unsqueeze(1))
