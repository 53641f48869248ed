"""What a state owes to each event that was read: by one reading and its derivatives, none read again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llm4rec.data.events import EventLog
from llm4rec.model.events import event_arrays
from llm4rec.model.scorer import Scorer
from llm4rec.types import Ints

AT_ONCE, CELLS = 32, 4_000_000
"""Derivatives that are worked out at once, and numbers that they take in all."""


@dataclass(frozen=True)
class Leaning:
    """The state after one history, and how it came about.

    Attributes:
        state: h after the newest events [1, d], with the time of asking in it.
        before: h one event earlier [1, d], asked at the same time; None for an empty history. A decoder that
            is causal has it anyway.
        asked: what the time of asking added to `state` [1, d]; 0 where it is not known.
        keys: log-weights of what was read [t + 1], all 0, the first of them the person's features.
    """

    state: Tensor
    before: Tensor | None
    asked: Tensor
    keys: Tensor

    def of(self, directions: Tensor) -> Tensor:
        """∂ (direction · h) / ∂ key of each event [n, t] for `directions` [n, d]."""
        found = slopes(self.state, self.keys, directions[:, None], self.keys.shape[1] ** 2)
        return found[:, 0, 1:]


def slopes(ends: Tensor, at: Tensor, directions: Tensor, cells: int) -> Tensor:
    """∂ (direction · ends) / ∂ at [n, ...] for `directions` [n, ...] of the shape of `ends`, many at once.

    What `ends` came from is freed.

    Args:
        ends: what was worked out.
        at: what from.
        directions: along which.
        cells: numbers that one of them takes where it takes most: bounds how many are worked out at once.
    """
    if not len(directions):
        return torch.zeros(0, *at.shape)
    parts = directions.split(max(1, min(AT_ONCE, CELLS // cells)))
    found = [
        torch.autograd.grad(ends, at, part, retain_graph=place < len(parts), is_grads_batched=True)[0]
        for place, part in enumerate(parts, start=1)
    ]
    return torch.cat(found)


def lean(scorer: Scorer, history: EventLog, people: Ints) -> Leaning:
    """Read a history of one row.

    The backbone's own weights are used, also where requests are answered with rounded ones.

    Args:
        scorer: what reads.
        history: one row.
        people: row of its owner's tokens [1], or -1.
    """
    network = scorer.network.eval()
    length = np.minimum(history.lengths, network.max_history)
    arrays = event_arrays(history, scorer.events, people)
    when = None if history.asked_at is None else torch.from_numpy(history.asked_at).unsqueeze(1)
    batch = arrays.batch(np.arange(1), history.offsets[1:] - length, length, when)
    with torch.no_grad():
        told = network.told(batch, scorer.vectors, scorer.people)
        asked = torch.zeros_like(told) if batch.asked is None else network.context(batch.asked)
    keys = torch.zeros(told.shape[:2], requires_grad=True)
    states = network.erased(network.backbone(told, keys=keys)) + asked
    before = states[:, -2].detach() if states.shape[1] > 1 else None
    return Leaning(states[:, -1], before, asked[:, -1], keys)
