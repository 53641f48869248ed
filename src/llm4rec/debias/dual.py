"""Exposure held equal while the network is trained: equation (18) by a dual variable on a soft top ten.

What a list shows can't be differentiated, so each item is taken to be shown as far as its logit is above the
border between the tenth and the eleventh: m_i = σ((s_i − border) / τ), brought to the sum 1. The border is
taken as given. E_ag = mean over the people of group a of Σ_i m_i share_ig is then the soft exposure of item
group g, and of the Lagrangian

    L_rec + Σ_{a<b, g} λ_abg (|E_ag − E_bg| − ε)

the network descends the first and, of the second, the slope through the people of this step, while
λ ← λ + η (|E_ag − E_bg| − ε − e), kept from 0 to 1, climbs. e is the standard error of the difference: what
few people differ by as it happens is not charged, or λ would rise until nothing else counted. As a step has
few people of a group, λ and the sign of a difference go by a mean over the latest lists of each. A list is
that of the longest history that a step has of a person: lists are served to whole histories, and after few
events groups differ less.

Deviations: items of the history are not left out of the soft top ten, as lists leave them out; what is held
is the network's exposure as it is trained, with dropout, to which a served list adds the linear part, the
prior and what is retrieved.

Source: the alternation of descent and ascent is that of Cotter et al., Optimization with Non-Differentiable
Constraints, JMLR 2019, with the one surrogate for both players.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.debias.balance import TOP, ParityConfig
from llm4rec.errors import InputError
from llm4rec.evaluate.groups import LEAST, Groups, ItemGroups, by_category, by_popularity
from llm4rec.model.network import Batch, Network, Offer
from llm4rec.train.loop import TrainConfig
from llm4rec.types import Array, Ints

SOFTNESS = 0.1
"""τ, over how many nats around the border an item is partly shown."""
ASCENT = 10.0
"""η, by how many nats λ grows in a step in which the difference is a whole list above ε."""
HIGHEST = 1.0
"""The highest λ [nats]: above it little but exposure would be learnt, and ε is left unreached rather."""
LISTS = 256
"""The most lists of a step, as many of each group as there are."""
MEMORY = 4_000
"""The most lists of a group that its mean exposure is taken over; of more the latest count most."""


class Dual(nn.Module):
    """A `Penalty`: what differences of exposure between groups of people above ε cost, by a price each.

    Prices and means are buffers: they are kept in checkpoints, and those of the best epoch stay. A mean is of
    as many lists as a group has people, or `MEMORY` of a large one: of more it would hold what the network
    did long ago against it, and λ would go on rising when there is nothing left to charge.

    Args:
        groups: of the people of the log, row by row.
        items: groups of the items, of one kind or several.
        epsilon: ε, from 0 to 1.
        n_people: people below which a group is not compared.
    """

    means: Tensor
    squares: Tensor
    counted: Tensor
    prices: Tensor

    def __init__(
        self, groups: Groups, items: Sequence[ItemGroups], epsilon: float, least: int = LEAST
    ) -> None:
        super().__init__()
        known = groups.members[groups.members >= 0]
        large = np.flatnonzero(np.bincount(known, minlength=len(groups.names)) >= least)
        place = np.full(len(groups.names) + 1, -1)  # the last is that of the unknown
        place[large] = np.arange(len(large))
        self.epsilon = epsilon
        self.names = tuple(groups.names[each] for each in large)
        self.item_names = tuple(f"{each.kind}: {name}" for each in items for name in each.names)
        self.members = torch.from_numpy(place[groups.members])
        sizes = torch.bincount(self.members[self.members >= 0], minlength=len(self.names))
        self.memory = sizes.clamp(max=MEMORY).float()
        shares = [np.asarray(each.shares.toarray(), dtype=np.float32) for each in items]
        self.shares = torch.from_numpy(np.concatenate(shares, axis=1))
        self.pairs = torch.combinations(torch.arange(len(self.names)))
        n_groups = self.shares.shape[1]
        self.register_buffer("means", torch.zeros(len(self.names), n_groups))
        self.register_buffer("squares", torch.zeros(len(self.names), n_groups))
        self.register_buffer("counted", torch.zeros(len(self.names)))
        self.register_buffer("prices", torch.zeros(len(self.pairs), n_groups))

    @classmethod
    def of(
        cls,
        config: ParityConfig,
        groups: Groups | None,
        rows: Ints,
        events: EventLog,
        catalog: Catalog,
        train: TrainConfig,
        *,
        attention: bool,
    ) -> Self | None:
        """What a configuration asks for; None where training is to hold nothing.

        Args:
            config: options.
            groups: of the people's table.
            rows: row of each person of the log that is trained on in that table [u], -1 for strangers.
            events: that log.
            catalog: the items.
            train: options of the loop.
            attention: whether cross-modal attention is tried, which is trained on few items at a step.

        Raises:
            InputError: where a step can't tell what the best ten are, as it scores too few items.
        """
        if not config.training or groups is None:
            return None
        n_items, fewest = len(catalog), -(-len(catalog) // TOP)
        sampled = n_items > train.full_softmax_up_to or (attention and train.attention_epochs > 0)
        if sampled and train.negatives < fewest:
            raise InputError(
                f"debias.parity.training has to see one of the best {TOP} among the items of a step, and "
                f"train.negatives = {train.negatives} of {n_items} are too few: set it to {fewest} or "
                f"more, or train.full_softmax_up_to to {n_items} with train.attention_epochs = 0."
            )
        trained = np.where(events.lengths > 0, rows, -1)
        kinds = [by_category(catalog), by_popularity(events.item_counts(n_items))]
        found = cls(groups.of_rows(trained), [each for each in kinds if each is not None], config.epsilon)
        return found if len(found.names) > 1 else None

    def forward(self, network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer) -> Tensor:
        """Σ λ |E_ag − E_bg| in nats, after this step of λ; its slope is that of the people of this step."""
        del batch
        chosen = self._chosen(owners)
        whose = self.members[owners[chosen]]
        logits = network.head(states[chosen], offer.vectors)
        if offer.carried is not None:
            logits = logits + offer.carried
        # of a sample of items, as many are at the top as there are among it of the ten
        n = min(max(1, round(TOP * len(offer.items) / len(self.shares))), len(offer.items) - 1)
        shown = soft_exposure(logits, self.shares[offer.items], n)
        return self.charged(shown, whose)

    def charged(self, shown: Tensor, whose: Tensor) -> Tensor:
        """The term of lists that show item groups [c, g] to people of groups `whose` [c]; counts them too."""
        seen = torch.bincount(whose, minlength=len(self.names))
        each = seen.clamp(min=1)[:, None]
        now = torch.zeros_like(self.means).index_add(0, whose, shown) / each
        with torch.no_grad():
            self.counted.copy_(torch.minimum(self.counted + seen, self.memory))
            part = (seen / self.counted.clamp(min=1)).clamp(max=1)[:, None]
            self.means.lerp_(now, part)
            squared = torch.zeros_like(self.means).index_add(0, whose, shown.square())
            self.squares.lerp_(squared / each, part)
            apart = self._apart()
            self.prices.add_(ASCENT * (apart.abs() - self.epsilon - self._error())).clamp_(min=0, max=HIGHEST)
        first, second = self.pairs.T
        step = now[first] - now[second]
        return (self.prices * apart.sign() * (apart + step - step.detach())).sum()

    def told(self) -> dict[str, Any]:
        """The largest difference of soft exposure and the largest λ, and where they are; JSON can hold it.

        The difference is that of means over the latest lists of training, with dropout, up to the epoch that
        was kept: not one of the lists that the network makes then.
        """
        apart = self._apart().abs()
        return {
            "epsilon": self.epsilon,
            "gap": float(apart.max()),
            "gap_of": self._named(apart),
            "error": float(self._error().flatten()[apart.argmax()]),
            "price": float(self.prices.max()),
            "price_of": self._named(self.prices),
        }

    def notes(self) -> list[str]:
        """What did not go as it was asked for, in sentences."""
        told = self.told()
        if told["gap"] <= self.epsilon:
            return []
        return [
            f"debias.parity.training: over its latest lists soft exposure differed by {told['gap']:.3f} "
            f"({', '.join(told['gap_of'])}), and not by {self.epsilon:g} at most; it may be off by "
            f"{told['error']:.3f} by chance, and what chance makes is not charged for."
        ]

    def arrays(self) -> list[Array]:
        """What training hangs on here, for the identity of a run."""
        return [self.members.numpy(), self.shares.numpy(), np.array([self.epsilon])]

    def _apart(self) -> Tensor:
        """E_ag − E_bg of each pair [q, g], 0 as long as there was nobody of one of them."""
        first, second = self.pairs.T
        met = (self.counted[first] > 0) & (self.counted[second] > 0)
        return (self.means[first] - self.means[second]) * met[:, None]

    def _error(self) -> Tensor:
        """Standard error of each difference [q, g], every list being another person's."""
        variance = (self.squares - self.means.square()).clamp(min=0) / self.counted.clamp(min=1)[:, None]
        first, second = self.pairs.T
        return (variance[first] + variance[second]).sqrt()

    def _chosen(self, owners: Tensor) -> Tensor:
        """Places of at most `LISTS` people's longest histories, as many of each group as there are."""
        last = torch.ones_like(owners, dtype=torch.bool)
        last[:-1] = owners[1:] != owners[:-1]  # states come window by window, in the order of time
        ends = last.nonzero().squeeze(1)
        lengths = torch.diff(ends, prepend=torch.tensor([-1]))
        order = torch.argsort(lengths, stable=True)
        order = order[torch.argsort(owners[ends[order]], stable=True)]  # a person's windows, the longest last
        newest = torch.ones_like(order, dtype=torch.bool)
        newest[:-1] = owners[ends[order[1:]]] != owners[ends[order[:-1]]]
        order = ends[order[newest]]
        order = order[torch.randperm(len(order))]
        whose = self.members[owners[order]]
        most = max(1, LISTS // len(self.names))
        return torch.cat([order[whose == group][:most] for group in range(len(self.names))])

    def _named(self, values: Tensor) -> list[str]:
        """The item group and the two groups of people of the largest of values [q, g]."""
        pair, item = divmod(int(values.argmax()), values.shape[1])
        return [self.item_names[item], *(self.names[each] for each in self.pairs[pair].tolist())]


def soft_exposure(logits: Tensor, shares: Tensor, n: int, softness: float = SOFTNESS) -> Tensor:
    """The soft share of the first n places that each item group has [c, g], with a slope in the logits.

    Args:
        logits: of each list's items [c, s].
        shares: of each item in each group [s, g].
        n: places of a list, fewer than s.
        softness: τ, in nats; towards 0 it becomes the share of the n best.
    """
    best = logits.detach().topk(n + 1).values
    border = best[:, n - 1 :].mean(dim=1, keepdim=True)
    shown = torch.sigmoid((logits - border) / softness)
    return (shown / shown.sum(dim=1, keepdim=True)) @ shares
