"""The network: fused item vectors, events read by the backbone, states scored by the heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from llm4rec.encode.encoders import BehaviourEncoder
from llm4rec.encode.fusion import BEHAVIOUR, Fused, Fusion, FusionConfig
from llm4rec.encode.tokens import Tokens, TokenSpace
from llm4rec.model.backbone import BackboneConfig, CompactBackbone
from llm4rec.model.context import N_GAPS, Moments, QueryContext
from llm4rec.model.erasure import Erasure
from llm4rec.model.heads import CodeHead, DenseHead, PointwiseHead
from llm4rec.model.pretrained import Decoder, PretrainedBackbone


@dataclass(frozen=True)
class Batch:
    """Histories padded on the right.

    Attributes:
        items: dense numbers [b, t], -1 is padding.
        gaps: time since the previous event as a class [b, t], 0 unknown (see `gap_classes`).
        ratings: rating as a class [b, t], 0 unknown.
        kinds: feedback type [b, t], 0 unknown.
        people: row into the people's tokens [b], -1 unknown.
        asked: when each state is asked [b, t + 1]; None where no query time is known.
    """

    items: Tensor
    gaps: Tensor
    ratings: Tensor
    kinds: Tensor
    people: Tensor
    asked: Moments | None = None


@dataclass(frozen=True)
class Offer:
    """Items that a step of training scores: all, or where they are many an even sample of them.

    Attributes:
        items: dense numbers [s], in their order where they are all; an item may be drawn twice.
        vectors: z of each [s, d], with its graph.
        carried: what its logit carries when it is served, beside what the network makes of it [s] (nats);
            None for nothing.
    """

    items: Tensor
    vectors: Tensor
    carried: Tensor | None = None


class Network(nn.Module):
    """fuse → read → score. Holds no data: item and people tokens are passed in.

    Args:
        space: what item tokens mean.
        people_space: what people's tokens mean; None where there are no usable features.
        code_shape: codes of a semantic id and different codes per place; None for no code head.
        decoder: the pretrained one that reads the history; None for `compact`.
        erasing: whether something may be taken out of its states.
    """

    def __init__(  # noqa: PLR0913  # all that fixes its shape
        self,
        space: TokenSpace,
        people_space: TokenSpace | None,
        *,
        n_items: int,
        n_ratings: int,
        n_kinds: int,
        max_history: int,
        backbone: BackboneConfig,
        fusion: FusionConfig,
        code_shape: tuple[int, int] | None = None,
        decoder: Decoder | None = None,
        erasing: bool = False,
    ) -> None:
        super().__init__()
        size = backbone.embedding_size
        self.max_history = max_history
        self.pointwise_weight = backbone.pointwise
        self.fusion = Fusion(space, n_items, size, fusion)
        self.backbone: CompactBackbone | PretrainedBackbone
        if decoder is None:
            self.backbone = CompactBackbone(backbone, max_history + 1)
        else:
            self.backbone = PretrainedBackbone(decoder, size, backbone.dropout, backbone.pretrained)
        self.head = DenseHead(cosine=backbone.cosine, temperature=backbone.temperature)
        self.pointwise = PointwiseHead(size) if backbone.pointwise else None
        self.people: Fusion | None = None
        if people_space is not None:
            content = fusion.model_copy(update={"behaviour": False})
            self.people = Fusion(people_space, 0, size, content)
        self.start = nn.Parameter(torch.empty(size).normal_(std=size**-0.5))
        self.gap = nn.Embedding(N_GAPS, size, padding_idx=0)
        self.rating = nn.Embedding(n_ratings + 1, size, padding_idx=0)
        self.kind = nn.Embedding(n_kinds + 1, size, padding_idx=0)
        for table in (self.gap, self.rating, self.kind):
            nn.init.zeros_(table.weight)  # each earns its influence; an unknown one adds nothing
        # the last that draws: what is drawn for the others does not depend on whether there is one
        self.codes = None if code_shape is None else CodeHead(size, *code_shape, backbone.dropout)
        self.context = QueryContext(size)
        self.erasure = Erasure(size) if erasing else None

    def fuse(self, features: Mapping[str, Tokens], *, weights: bool = False) -> Fused:
        """Item vectors [i, d] of the items whose tokens are given; in training some behaviour is hidden."""
        share = self.fusion.config.behaviour_dropout
        if (
            self.training
            and share
            and BEHAVIOUR in self.fusion.modalities
            and len(self.fusion.modalities) > 1
        ):
            tokens = features[BEHAVIOUR]
            keep = torch.rand(tokens.mask.shape) >= share
            features = {**features, BEHAVIOUR: Tokens(tokens.values, tokens.mask & keep)}
        return self.fusion(features, weights=weights)

    def extended(self, n_items: int) -> Network:
        """The same network for a catalogue that has grown to `n_items`; it shares every other weight.

        The behaviour vectors of the items that are new start at 0: their content speaks for them.
        """
        if BEHAVIOUR not in self.fusion.modalities:
            return self
        # whatever the memo names is shared instead of copied
        grown = copy.deepcopy(self, {id(parameter): parameter for parameter in self.parameters()})
        encoder = cast(BehaviourEncoder, grown.fusion.encoders[BEHAVIOUR])
        more = encoder.table.new_zeros(n_items - len(encoder.table), encoder.table.shape[1])
        encoder.table = nn.Parameter(torch.cat([encoder.table.detach(), more]))
        return grown

    def read(self, batch: Batch, vectors: Tensor, people: Mapping[str, Tokens] | None) -> Tensor:
        """States [b, t + 1, d]: state j has read the person's features and the first j events.

        Where `batch.asked` tells when, it also knows at what time it is asked.
        """
        states = self.erased(self.backbone(self.told(batch, vectors, people)))
        return states if batch.asked is None else states + self.context(batch.asked)

    def erased(self, states: Tensor) -> Tensor:
        """States [..., d] of the backbone, without what is taken out of them."""
        return states if self.erasure is None else self.erasure(states)

    def told(self, batch: Batch, vectors: Tensor, people: Mapping[str, Tokens] | None) -> Tensor:
        """What the backbone reads [b, t + 1, d]: the person, then one vector per event."""
        known = batch.items >= 0
        events = vectors[batch.items.clamp(min=0)] * known.unsqueeze(-1)
        events = events + self.gap(batch.gaps) + self.rating(batch.ratings) + self.kind(batch.kinds)
        first = self.start.expand(len(batch.items), 1, -1)
        named = batch.people >= 0
        if self.people is not None and people is not None and named.any():  # they may all be forgotten
            rows = batch.people.clamp(min=0)
            features = {m: Tokens(t.values[rows], t.mask[rows]) for m, t in people.items()}
            told = self.people(features).vectors * named.unsqueeze(-1)
            first = first + told.unsqueeze(1)
        return torch.cat([first, events], dim=1)

    def parameter_groups(self, learning_rate: float) -> list[tuple[float, dict[str, nn.Parameter]]]:
        """What is trained, by name, with its step size: `learning_rate`, but for a decoder with its own."""
        own = self.backbone.learning_rate
        groups: dict[float, dict[str, nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = learning_rate if own is None or not name.startswith("backbone.model.") else own
                groups.setdefault(rate, {})[name] = parameter
        return list(groups.items())

    def score(self, states: Tensor, vectors: Tensor) -> Tensor:
        """Log-probabilities [..., i] over the given items (nats)."""
        return self.head(states, vectors).log_softmax(dim=-1)
