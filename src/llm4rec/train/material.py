"""What a network is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from llm4rec.encode.tokens import Tokens
from llm4rec.generate.teaching import Teaching
from llm4rec.model.events import EventArrays
from llm4rec.model.network import Network
from llm4rec.model.offset import Offsets


@dataclass(frozen=True)
class Material:
    """What is trained on.

    Attributes:
        events: encoded events.
        items: modality → tokens of every item.
        people: modality → tokens of every person, None without features.
        ratings: standardised ratings [e + 1], NaN where there are none.
        codes: semantic ids [i, l + 1] for the code head; None where it is not trained.
        teaching: how the code head learns from the dense head; None where it does not.
        dense: whether the dense head is.
        vectors: item vectors z [i, d] where what makes them is not trained; None fuses them at each step.
        timed: whether each target is asked for at its own time.
        offsets: popularity that the dense head's logits are given, for every event; None for none.
        against: which events speak against their items [e + 1], targets of the rating head alone; None for
            none.
    """

    events: EventArrays
    items: Mapping[str, Tokens]
    people: Mapping[str, Tokens] | None
    ratings: Tensor
    codes: Tensor | None = None
    teaching: Teaching | None = None
    dense: bool = True
    vectors: Tensor | None = None
    timed: bool = False
    offsets: Offsets | None = None
    against: Tensor | None = None

    @property
    def n_items(self) -> int:
        return len(next(iter(self.items.values())).mask)

    def fused(self, network: Network, some: Tensor | None = None) -> Tensor:
        """Vectors of all items, or of `some` [s] alone."""
        if self.vectors is not None:
            return self.vectors if some is None else self.vectors[some]
        tokens = self.items if some is None else {m: t.take(some) for m, t in self.items.items()}
        return network.fuse(tokens).vectors
