"""How far learning has come: where it began, what it is asked with, and all that changes on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from llm4rec.data.events import EventLog
from llm4rec.encode.fusion import BEHAVIOUR
from llm4rec.encode.tokens import Tokens
from llm4rec.model.events import EventSpace
from llm4rec.model.network import Network
from llm4rec.model.offset import Carried
from llm4rec.model.pretrained import PretrainedBackbone
from llm4rec.online.consolidation import Consolidation
from llm4rec.online.drift import Drift
from llm4rec.online.guard import FEWEST, Guard
from llm4rec.online.options import OnlineConfig
from llm4rec.online.reliability import Reliability
from llm4rec.online.reservoir import SCHEMA, Reservoir
from llm4rec.train.loop import TrainConfig
from llm4rec.types import Ints

TABLE = f"fusion.encoders.{BEHAVIOUR}.table"
READERS = ("start", "gap.", "rating.", "kind.", "backbone.", "pointwise.")
"""Beside the vectors of items, what reads a history is trained, and the rating head where there is one. What
makes vectors of content is not, so that new items land where they would have landed."""
NONE = np.zeros(0, dtype=np.int64)
UNJUDGED = {**SCHEMA, "kind": pl.String, "step": pl.Int64}


@dataclass(frozen=True)
class Surroundings:
    """What the network is asked with; none of it is trained.

    Attributes:
        items: modality → tokens of every item.
        people: modality → tokens of every known person, None without features.
        person_rows: the row of each history's owner among them.
        space: meaning of ratings and kinds.
        carried: popularity that the logits carry, None for none; what it was when learning began is kept.
        timed: whether the time of asking is heard.
        train: options of the training step.
    """

    items: Mapping[str, Tokens]
    people: Mapping[str, Tokens] | None
    person_rows: Callable[[EventLog], Ints]
    space: EventSpace
    carried: Carried | None
    timed: bool
    train: TrainConfig


@dataclass(frozen=True)
class Origin:
    """Where learning began; from there it can begin anew.

    Attributes:
        position: of the log after which it began.
        sample: of the events that were remembered then; they are learnt again.
        judges: others of those events, which judge what is learnt.
        weights: θ, by name.
        carried: popularity that the logits carried; None for none.
    """

    position: int
    sample: Reservoir
    judges: pl.DataFrame
    weights: dict[str, Tensor]
    carried: Carried | None

    @classmethod
    def of(
        cls,
        network: Network,
        histories: EventLog,
        untrained: pl.DataFrame,
        around: Surroundings,
        options: OnlineConfig,
        position: int,
    ) -> Self:
        """That of a model that has not learnt yet.

        Args:
            network: as it was fitted.
            histories: what people have done.
            untrained: those events of them that it was not trained on, with the columns of
                `reservoir.SCHEMA` and maybe others [n]. What it was trained on it foresees better than it
                will anything again, and judges badly; it judges where there is too little else.
            around: what the network is asked with.
            options: of learning.
            position: of the log.
        """
        seed, most = around.train.seed, options.judges
        sample = Reservoir.of(histories, options.reservoir + most, seed)
        pool = untrained.select(*SCHEMA) if untrained.height >= FEWEST else sample.events
        rng = np.random.default_rng([seed, 3])
        judges = pool[np.sort(rng.permutation(pool.height)[:most])]
        rest = sample.events.join(judges, on=list(SCHEMA), how="anti", maintain_order="left")
        rest = rest[np.sort(rng.permutation(rest.height)[: options.reservoir])]
        weights = {name: tensor.detach().clone() for name, tensor in trained(network).items()}
        reservoir = Reservoir(rest, options.reservoir, sample.passed, seed)
        return cls(position, reservoir, judges, weights, around.carried)

    def extended(self, n: int) -> Origin:
        """The same with `n` further items that nobody has touched."""
        carried = None if self.carried is None else self.carried.extended(n)
        return replace(self, weights=_extended(self.weights, n), carried=carried)

    def moved(self, position: int) -> Origin:
        """The same after a position of another log, or of an older copy."""
        return replace(self, position=position)

    def without(self, user: str) -> Origin:
        """The same without the events of a person."""
        others = pl.col("user_id") != user
        return replace(self, sample=self.sample.without(user), judges=self.judges.filter(others))


@dataclass
class Progressed:
    """Everything that learning changes beside the weights that are served.

    Attributes:
        position: of the log up to which steps were made.
        steps: how many.
        origin: where learning began.
        met: items that nobody had touched then and somebody has since, ascending [n].
        theta: θ of equation (27), by name; what is served is its running mean.
        velocity: v of equation (26), by name.
        consolidation: F and θ* of equation (33).
        reliability: of kinds and people.
        reservoir: what is learnt again.
        unjudged: what was learnt since it was last judged, with the number of its `step` [n].
        guard: what judges, and the weights that it last found good.
        drift: the watch over the loss.
    """

    position: int
    steps: int
    origin: Origin
    met: Ints
    theta: dict[str, Tensor]
    velocity: dict[str, Tensor]
    consolidation: Consolidation
    reliability: Reliability
    reservoir: Reservoir
    unjudged: pl.DataFrame
    guard: Guard
    drift: Drift

    def taught_by(self, user: str) -> bool:
        """Whether an event of a person was learnt, or judges what was."""
        return user in self.reliability.people

    def extended(self, n: int) -> Progressed:
        """The same with `n` further items that nobody has touched."""
        held, guard = self.consolidation, copy.copy(self.guard)
        guard.good = _extended(guard.good, n)
        return replace(
            self,
            origin=self.origin.extended(n),
            theta=_extended(self.theta, n),
            velocity=_extended(self.velocity, n),
            consolidation=replace(held, fisher=_extended(held.fisher, n), anchor=_extended(held.anchor, n)),
            guard=guard,
        )

    def moved(self, position: int) -> Progressed:
        """The same after a position of another log; what was learnt from the former stays."""
        return replace(self, position=position, origin=self.origin.moved(position))

    def without(self, user: str) -> Progressed:
        """The same, keeping no event of a person who has taught nothing."""
        guard = copy.copy(self.guard)
        guard.without(user)
        return replace(
            self,
            origin=self.origin.without(user),
            guard=guard,
            reservoir=self.reservoir.without(user),
            unjudged=self.unjudged.filter(pl.col("user_id") != user),
        )


def trained(network: Network) -> dict[str, nn.Parameter]:
    """What learning changes, by name: vectors of items, and what reads a history.

    Of a pretrained backbone it is what surrounds the decoder.
    """
    within = isinstance(network.backbone, PretrainedBackbone)
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if name == TABLE or (name.startswith(READERS) and not (within and name.startswith("backbone.model.")))
    }


def _extended(named: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Tensors by name, that of the items' vectors with `n` more rows of zeros."""
    return {
        name: torch.cat([tensor, tensor.new_zeros(n, tensor.shape[1])]) if name == TABLE else tensor
        for name, tensor in named.items()
    }
