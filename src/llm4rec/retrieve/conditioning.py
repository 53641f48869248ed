"""The second stage: what is retrieved changes states, trained on held-out next items, judged by others.

The backbone has not learnt the answers it is trained on, nor does a person's own history tell them, so that
the gate can't come to trust what will not be there at test time. Everything else is held still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llm4rec.data.events import EventLog
from llm4rec.evaluate.protocol import person_means
from llm4rec.evaluate.significance import Gain
from llm4rec.model.prior import FEWEST, TOP
from llm4rec.retrieve.condition import Gated
from llm4rec.retrieve.trial import FOLDS
from llm4rec.types import Floats, Ints

EPOCHS, BATCH = 12, 64
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.01
INNER = 4
"""One person in so many chooses the epoch."""


class Told(Protocol):
    """What a module is told of some histories beside their states."""

    def take(self, rows: Ints) -> Self:
        """That of some of the histories."""
        ...

    def put(self, rows: Ints, some: Self) -> None:
        """Fill in that of some of the histories."""
        ...


T = TypeVar("T", bound=Told)


@dataclass(frozen=True)
class Telling(Generic[T]):
    """A kind of module that is to be trained, and what it is told.

    Attributes:
        name: for those who wait.
        new: makes one whose gate is closed.
        none: what is told of so many histories before anything is.
        of: what is told of some histories.
        seed: of the order of training.
    """

    name: str
    new: Callable[[], Gated]
    none: Callable[[int], T]
    of: Callable[[EventLog], T]
    seed: int


@dataclass(frozen=True)
class Held:
    """Cases with held-out answers.

    Attributes:
        states: h [c, d].
        told: what the module is told of each.
        exponents: what log p of the dense head is multiplied by [c].
        beside: what is added to it, −∞ for items of the history [c, i].
        targets: the answers [c]; none is an item of its history.
        people: who each is of [c].
    """

    states: Tensor
    told: Told
    exponents: Tensor
    beside: Floats
    targets: Ints
    people: Ints

    def scores(self, dense: Callable[[Tensor], Tensor], states: Tensor, rows: Ints) -> Tensor:
        """Whole scores of some cases [b, i] (nats, up to a constant) with states h' [b, d]."""
        beside = torch.from_numpy(self.beside[rows])
        return self.exponents[rows][:, None] * dense(states).log_softmax(dim=-1) + beside


class Stage:
    """What is trained, and what it is trained beside.

    Args:
        held: the cases.
        vectors: item vectors z [i, d].
        dense: logits [b, i] of states [b, d].
        new: makes a module whose gate is closed.
        seed: of the order.
    """

    def __init__(
        self,
        held: Held,
        vectors: Tensor,
        dense: Callable[[Tensor], Tensor],
        new: Callable[[], Gated],
        seed: int,
    ) -> None:
        self.held, self.vectors, self.dense, self.new, self.seed = held, vectors, dense, new, seed

    def chosen(self) -> tuple[Gated | None, Gain | None]:
        """The module trained on all cases, and what NDCG@10 gains by one that is trained on other people.

        None where that is not above its standard error, where there are too few cases to tell, or where the
        gate stays closed.
        """
        rows = np.arange(len(self.held.targets))
        fold = np.unique(self.held.people, return_inverse=True)[1] % FOLDS
        if len(rows) < FEWEST or len(np.unique(fold)) < FOLDS:
            return None, None
        gain = np.zeros(len(rows))
        for number in range(FOLDS):
            found, judged = self.trained(rows[fold != number]), rows[fold == number]
            gain[judged] = self.ndcg(found, judged) - self.ndcg(None, judged)
        told = Gain.of(person_means(gain, self.held.people))
        if not told.exceeds():
            return None, told
        found = self.trained(rows)
        return (None if found.closed else found), told

    def trained(self, rows: Ints) -> Gated:
        """The module of the best epoch on some of the cases' people, trained on the others."""
        people = np.unique(self.held.people[rows])
        draw = np.random.default_rng([self.seed, 5])
        inner = np.isin(self.held.people[rows], draw.permutation(people)[: max(1, len(people) // INNER)])
        found = self.new()
        optimizer = torch.optim.AdamW(found.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        best, kept = self._mean_loss(found, rows[inner]), _copy(found)
        for _ in range(EPOCHS):
            order = draw.permutation(rows[~inner])
            for batch in np.array_split(order, -(-len(order) // BATCH)) if len(order) else ():
                optimizer.zero_grad()
                self._loss(found, batch).backward(inputs=list(found.parameters()))
                optimizer.step()
            if (loss := self._mean_loss(found, rows[inner])) < best:
                best, kept = loss, _copy(found)
        found.load_state_dict(kept)
        return found.eval()

    def ndcg(self, module: Gated | None, rows: Ints) -> Floats:
        """NDCG@10 of some cases [b]; ties count against the answer."""
        found = [self._ndcg(module, part) for part in np.array_split(rows, -(-len(rows) // 256))]
        return np.concatenate(found)

    @torch.no_grad()
    def _ndcg(self, module: Gated | None, rows: Ints) -> Floats:
        scores = self._scores(module, rows).numpy()
        own = scores[np.arange(len(rows)), self.held.targets[rows]]
        ahead = (scores >= own[:, None]).sum(axis=1) - 1
        return np.where(ahead < TOP, 1 / np.log2(ahead + 2.0), 0).astype(np.float32)

    def _scores(self, module: Gated | None, rows: Ints) -> Tensor:
        states = self.held.states[rows]
        if module is not None:
            states = module(states, self.vectors, self.held.told.take(rows))
        return self.held.scores(self.dense, states, rows)

    def _loss(self, module: Gated, rows: Ints) -> Tensor:
        return F.cross_entropy(self._scores(module, rows), torch.from_numpy(self.held.targets[rows]))

    @torch.no_grad()
    def _mean_loss(self, module: Gated, rows: Ints) -> float:
        parts = np.array_split(rows, -(-len(rows) // 256))
        return sum(float(self._loss(module, part)) * len(part) for part in parts) / len(rows)


def _copy(module: Gated) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
