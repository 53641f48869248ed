"""Multimodal fusion: one vector per item from all its modalities (paper, equations 1 to 6).

z_i = Σ_m h̄_m + g · Σ_m α_m h̃_m. The first term, the plain sum, is where training starts; the second is
asymmetric cross-modal attention with adaptive weights, behind a gate g that starts at 0 and has to
earn its share (the paper has the second term alone: a deviation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from pydantic import Field as Option
from torch import Tensor, nn

from llm4rec.config import Section
from llm4rec.encode.encoders import (
    BehaviourEncoder,
    CategoricalEncoder,
    Encoder,
    NumericalEncoder,
    VectorEncoder,
)
from llm4rec.encode.tokens import Tokens, TokenSpace

BEHAVIOUR = "behaviour"


class FusionConfig(Section):
    """How the modalities of an item become one vector."""

    behaviour: bool = Option(default=True, description="Learn a vector per item beside its content.")
    behaviour_dropout: float = Option(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of items whose behaviour vector is hidden at a step [probability].",
    )
    attention: bool = Option(
        default=True,
        description="Train cross-modal attention after the plain sum; kept where validation gains.",
    )
    attention_tokens: int = Option(
        default=8, ge=1, description="The most tokens of one modality that attention reads per item [tokens]."
    )


@dataclass(frozen=True)
class Fused:
    """Item vectors and how they came about.

    Attributes:
        vectors: z [i, d].
        weights: α [i, m] over `Fusion.modalities`, rows sum to 1, 0 where a modality is missing; None
            where attention was not asked for.
    """

    vectors: Tensor
    weights: Tensor | None


class CrossAttention(nn.Module):
    """A_{m→n} of equation (3): m's tokens ask, n's tokens answer; every ordered pair has its own Q, K, V."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(embedding_size, embedding_size, bias=False)
        self.key = nn.Linear(embedding_size, embedding_size, bias=False)
        self.value = nn.Linear(embedding_size, embedding_size, bias=False)

    def forward(self, asking: Tensor, answering: Tensor, mask: Tensor) -> Tensor:
        """softmax(Q K^T / √d) V [i, t_m, d]; zeros where n has no token (`mask` [i, t_n])."""
        scores = self.query(asking) @ self.key(answering).transpose(1, 2) / math.sqrt(asking.shape[-1])
        # a finite floor: a row with no key at all must give zeros, not NaN
        scores = scores.masked_fill(~mask.unsqueeze(1), -1e9)
        share = scores.softmax(dim=-1) * mask.unsqueeze(1)
        return share @ self.value(answering)


class Fusion(nn.Module):
    """Encoders, cross-modal attention and adaptive weights.

    `attend` is whether the gated term is computed; it is off until training opens it.
    """

    def __init__(self, space: TokenSpace, n_items: int, embedding_size: int, config: FusionConfig) -> None:
        super().__init__()
        std = 1 / math.sqrt(embedding_size)
        self.config = config
        self.encoders = nn.ModuleDict()
        for modality in ("text", "image"):
            if modality in space.fields:
                n_fields = len(space.fields[modality])
                self.encoders[modality] = VectorEncoder(space.widths[modality], n_fields, embedding_size, std)
        if "categorical" in space.fields:
            self.encoders["categorical"] = CategoricalEncoder(space.n_codes, embedding_size, std)
        if "numerical" in space.fields:
            self.encoders["numerical"] = NumericalEncoder(len(space.fields["numerical"]), embedding_size, std)
        if config.behaviour or not self.encoders:
            self.encoders[BEHAVIOUR] = BehaviourEncoder(n_items, embedding_size, std)
        self.pairs = nn.ModuleDict({
            f"{asking}_{answering}": CrossAttention(embedding_size)
            for asking in self.encoders
            for answering in self.encoders
            if asking != answering
        })
        self.squash = nn.Linear(embedding_size, embedding_size)
        self.weigh = nn.Linear(embedding_size, 1, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))
        self.attend = False

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.encoders)

    def encoder(self, modality: str) -> Encoder:
        """The encoder f_m of one modality."""
        return cast(Encoder, self.encoders[modality])

    def gated(self) -> Iterator[nn.Parameter]:
        """The parameters behind the gate, the gate included."""
        for module in (self.pairs, self.squash, self.weigh):
            yield from module.parameters()
        yield self.gate

    def forward(self, features: Mapping[str, Tokens], *, weights: bool = False) -> Fused:
        """Fuse the items whose tokens are given.

        Args:
            features: modality → tokens of the same items.
            weights: give α even where the gate is closed.
        """
        vectors = torch.stack([self.encoder(m).pooled(features[m]) for m in self.encoders]).sum(dim=0)
        if not self.attend and not weights:
            return Fused(vectors, None)
        attended, present = self._attend(features)  # h̃ [i, m, d], [i, m]
        logits = self.weigh(torch.tanh(self.squash(attended))).squeeze(-1)
        alpha = logits.masked_fill(~present, -1e9).softmax(dim=1) * present  # (6)
        if self.attend:
            vectors = vectors + self.gate * (alpha.unsqueeze(-1) * attended).sum(dim=1)  # (5)
        return Fused(vectors, alpha)

    def _attend(self, features: Mapping[str, Tokens]) -> tuple[Tensor, Tensor]:
        """h̃_m = pool(h_m + Σ_n A_{m→n}) of equation (4), the pool being the masked mean."""
        read = {m: self._first_tokens(m, features[m]) for m in self.encoders}
        pooled: list[Tensor] = []
        for m in self.encoders:
            asking, mask = read[m]
            mixed = asking
            for n in self.encoders:
                if n != m:
                    mixed = mixed + self.pairs[f"{m}_{n}"](asking, *read[n])
            mask = mask.unsqueeze(-1)
            pooled.append((mixed * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))
        present = torch.stack([read[m][1].any(dim=1) for m in self.encoders], dim=1)
        return torch.stack(pooled, dim=1), present

    def _first_tokens(self, modality: str, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Vectors [i, t, d] and mask [i, t] of each item's first `attention_tokens` tokens."""
        encoder, most = self.encoder(modality), self.config.attention_tokens
        if tokens.mask.shape[1] <= most:
            return encoder.tokens(tokens), tokens.mask
        order = tokens.mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        mask = tokens.mask.gather(1, order)
        if modality == "categorical":  # many places, and a code means the same in each of them
            return encoder.tokens(Tokens(tokens.values.gather(1, order), mask)), mask
        vectors = encoder.tokens(tokens)
        return vectors.gather(1, order.unsqueeze(-1).expand(-1, -1, vectors.shape[-1])), mask
