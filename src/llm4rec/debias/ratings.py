"""Ratings of people who are sets: r̂(u, i) on (h_u, z_i), a history being a set without positions.

What is known of a person is which items they rated, and how; the order says nothing. z_i is fused from the
item's features and its own vector as in the rest of the package (equations 1 to 6 with the gate closed). A
person's state is

    h_u = p_u + (Σ_{j ∈ R_u} m(z_j, r_uj)) / (|R_u| + prior)

with p_u fused from unprotected features and a vector of their own, and m a small network. Of a rating that is
to be predicted, the sum leaves out that rating itself. The score s = z_i' W h_u' + v h_u' + b_i + b_u is read
against ordered cuts: P(r > level k) = σ(s − cut_k), so that one number gives both the expected rating and the
probability of liking. The first coordinate of z_i and of p_u is the bias, the others are the direction.

Sources: asymmetric factors, Koren, Factorization Meets the Neighborhood, KDD 2008; cumulative logits,
McCullagh, Regression Models for Ordinal Data, 1980.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field as Option
from torch import Tensor, nn

from llm4rec.config import Section
from llm4rec.debias.rated import Rated
from llm4rec.encode.encoders import BehaviourEncoder, behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, Fusion, FusionConfig
from llm4rec.encode.tokens import Tokens, TokenSpace
from llm4rec.types import Floats, Ints

START = 0.2
"""What the vectors of single items and people start at, beside those of features."""
PAIRS_AT_ONCE = 1 << 18


class RatingConfig(Section):
    """The model of ratings and how it is trained."""

    size: int = Option(default=32, ge=2, description="Length of item vectors and states.")
    prior: float = Option(
        default=5.0, ge=0, description="Ratings of nothing that a person's set is mixed with [ratings]."
    )
    dropout: float = Option(default=0.3, ge=0, lt=1, description="Share of a state that is hidden at a step.")
    hide: float = Option(default=0.2, ge=0, lt=1, description="Share of a set that is hidden at a step.")
    learning_rate: float = Option(default=5e-3, gt=0, le=1, description="Step size of AdamW.")
    decay: float = Option(
        default=8.0,
        ge=0,
        le=100,
        description="Decoupled weight decay of the vectors of single items and people.",
    )
    weight_decay: float = Option(
        default=0.01, ge=0, le=100, description="Decoupled weight decay of the rest."
    )
    batch_size: int = Option(default=1024, ge=1, description="Ratings predicted per step, about [ratings].")
    epochs: int = Option(default=80, ge=1, description="The most passes over the ratings.")
    patience: int = Option(
        default=5, ge=1, description="Epochs without a better held-out loss before it stops."
    )


@dataclass(frozen=True)
class Features:
    """Tokens of every item and person, without those of their own vectors.

    Attributes:
        item_space: what the items' tokens mean; None without features.
        items: modality → tokens [i, …].
        people_space: what the people's tokens mean; None without features.
        people: modality → tokens [u, …].
    """

    item_space: TokenSpace | None = None
    items: Mapping[str, Tokens] = field(default_factory=dict[str, Tokens])
    people_space: TokenSpace | None = None
    people: Mapping[str, Tokens] = field(default_factory=dict[str, Tokens])


class RatedSets(nn.Module):
    """Scores of pairs, from the sets of what people rated.

    Args:
        features: tokens of items and people.
        rated: what is trained on; who or what has no rating in it has no vector of its own.
        config: options.
    """

    cuts: nn.Parameter

    def __init__(self, features: Features, rated: Rated, config: RatingConfig) -> None:
        super().__init__()
        size, n_levels = config.size, len(rated.levels)
        self.prior, self.hide, self.n_levels = config.prior, config.hide, n_levels
        self.items = fused(features.item_space, rated.n_items, size)
        self.people = fused(features.people_space, rated.n_people, size)
        self.item_tokens = with_own(features.items, rated.items, rated.n_items)
        self.people_tokens = with_own(features.people, rated.people, rated.n_people)
        self.level = nn.Parameter(torch.empty(n_levels, size).normal_(std=0.1))
        self.message = nn.Sequential(nn.Linear(3 * size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))
        self.turn = nn.Linear(size, size - 1)
        self.lean = nn.Linear(size, 1, bias=False)
        self.taken = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(config.dropout)
        above = 1 - np.cumsum(np.bincount(rated.classes, minlength=n_levels))[:-1] / len(rated)
        above = np.clip(above, 1e-3, 1 - 1e-3)  # a level may be missing from a part
        self.cuts = nn.Parameter(torch.from_numpy(np.log(1 / above - 1).astype(np.float32)))

    def own(self) -> list[nn.Parameter]:
        """The vectors of single items and people."""
        return [cast(BehaviourEncoder, f.encoders[BEHAVIOUR]).table for f in (self.items, self.people)]

    def optimiser(self, config: RatingConfig) -> torch.optim.Optimizer:
        """AdamW, the vectors of single items and people with a decay of their own."""
        own = self.own()
        ids = {id(parameter) for parameter in own}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in ids]
        groups = [
            {"params": own, "weight_decay": config.decay},
            {"params": rest, "weight_decay": config.weight_decay},
        ]
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)

    def vectors(self) -> Tensor:
        """The vectors z of every item [i, d]."""
        return self.items(self.item_tokens).vectors

    def messages(self, vectors: Tensor) -> Tensor:
        """What every item at every level says, m [i · k, d]: item i at level k in row i · `n_levels` + k."""
        item = vectors.unsqueeze(1).expand(-1, self.n_levels, -1)
        level = self.level.expand(len(vectors), -1, -1)
        return self.message(torch.cat([item, level, item * level], dim=-1)).flatten(0, 1)

    def told(self, people: Tensor) -> Tensor:
        """What is told of people, p [b, d]."""
        return self.people({m: t.take(people) for m, t in self.people_tokens.items()}).vectors

    def read(self, people: Tensor, told: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """States of people, and those that each of their ratings is predicted from.

        Args:
            people: p of the people [b, d].
            told: m of each rating in their sets [e, d].
            owner: whose it is, a row of `people` [e].

        Returns:
            h [b, d], and h without the rating itself [e, d].
        """
        if self.training and self.hide:
            told = told * (torch.rand(len(told), 1) >= self.hide) / (1 - self.hide)
        total = torch.zeros_like(people).index_add(0, owner, told)
        count = torch.bincount(owner, minlength=len(people)).unsqueeze(1)
        least = 1e-9  # where prior is 0 an empty set must add zeros, not NaN
        states = people + total / (count + self.prior).clamp(min=least)
        others = (total[owner] - told) / (count[owner] - 1 + self.prior).clamp(min=least)
        return states, people[owner] + others

    def score(self, states: Tensor, people: Tensor, vectors: Tensor) -> Tensor:
        """Scores s [...] for states, p of their people and item vectors of the same shape [..., d]."""
        h, scale = self.dropout(states), math.sqrt(vectors.shape[-1])
        match = (self.turn(h) * vectors[..., 1:]).sum(dim=-1)
        return match + self.lean(h).squeeze(-1) + scale * (vectors[..., 0] + people[..., 0])

    def logits(self, scores: Tensor) -> Tensor:
        """Logits of a rating above each level but the last [..., k − 1], never rising with the level."""
        return scores.unsqueeze(-1) - self.cuts.cummax(dim=0).values

    @torch.no_grad()
    def predict(self, history: Rated, people: Ints, items: Ints, exposed: Floats | None = None) -> Floats:
        """P(r > level) of pairs [p, k − 1] for people whose sets are `history`.

        `exposed` is what a model of exposure says of the pairs [p], where that was used in training.

        A rating of the pair itself, where the set has it, is left out.
        """
        self.eval()
        vectors = self.vectors()
        messages, told = self.messages(vectors), self.told(torch.arange(history.n_people))
        codes = torch.from_numpy(history.items * self.n_levels + history.classes)
        states, others = self.read(told, messages[codes], torch.from_numpy(history.people))
        keys = people * history.n_items + items
        place = np.minimum(np.searchsorted(history.keys, keys), len(history) - 1)
        within = history.keys[place] == keys
        found: list[Tensor] = []
        for start in range(0, len(people), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            who, known = torch.from_numpy(people[part].copy()), torch.from_numpy(within[part])
            left = others[torch.from_numpy(place[part])]
            state = torch.where(known.unsqueeze(1), left, states[who])
            scores = self.score(state, told[who], vectors[torch.from_numpy(items[part].copy())])
            if exposed is not None:
                scores = scores + self.taken * torch.from_numpy(exposed[part])
            found.append(self.logits(scores).sigmoid())
        return torch.cat(found).numpy()


def above(classes: Tensor, n_levels: int) -> Tensor:
    """Whether a rating is above each level but the last [..., k − 1], as 0 or 1."""
    return (classes.unsqueeze(-1) > torch.arange(n_levels - 1)).to(torch.float32)


def level_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the levels of the cross-entropy [...] (nats) of logits and targets in 0..1 [..., k − 1]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=-1)


def fused(space: TokenSpace | None, n_rows: int, size: int) -> Fusion:
    """What makes one vector per row of its tokens and a vector of its own, which starts small."""
    empty = TokenSpace({}, {}, {}, {}, {})
    config = FusionConfig(behaviour=True, behaviour_dropout=0.0, attention=False)
    made = Fusion(empty if space is None else space, n_rows, size, config)
    with torch.no_grad():
        cast(BehaviourEncoder, made.encoders[BEHAVIOUR]).table.mul_(START)
    return made


def with_own(given: Mapping[str, Tokens], seen: Ints, n_rows: int) -> dict[str, Tokens]:
    """Tokens of features, and those of the vectors of the rows that were seen."""
    found = torch.zeros(n_rows, dtype=torch.bool)
    found[torch.from_numpy(seen)] = True
    return {**given, BEHAVIOUR: behaviour_tokens(found)}
