"""What items are called, as a text decoder's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from llm4rec.types import Array, Floats, Ints

LONGEST = 16
"""Tokens of one name at most."""


@dataclass(frozen=True)
class Words:
    """Names of items as embeddings of tokens.

    Attributes:
        offsets: item i is called `places[offsets[i]:offsets[i + 1]]` [i + 1]; nothing where they are equal.
        places: rows of `table` [t].
        table: embeddings of the tokens that occur [v, h].
    """

    offsets: Ints
    places: Ints
    table: Floats

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]], vocabulary: torch.nn.Module) -> Words:
        """The names of items [i], each given by numbers in the `vocabulary` that embeds them."""
        lengths = np.array([len(each) for each in tokens], dtype=np.int64)
        every = np.array([number for each in tokens for number in each], dtype=np.int64)
        used, places = np.unique(every, return_inverse=True)
        with torch.no_grad():
            table = vocabulary(torch.from_numpy(used)).float().numpy()
        return cls(np.concatenate([[0], np.cumsum(lengths)]), places.astype(np.int64), table)

    @classmethod
    def from_tensors(cls, arrays: dict[str, Array], n_items: int) -> Words:
        """What was kept of `tensors`.

        Raises:
            ValueError: where they are not of so many items.
        """
        found = cls(arrays["offsets"], arrays["places"], arrays["table"])
        if len(found.offsets) != n_items + 1 or (np.diff(found.offsets) < 0).any():
            raise ValueError(f"there are names of {len(found.offsets) - 1} items, not of {n_items}")
        if found.offsets[-1] != len(found.places) or (found.places >= len(found.table)).any():
            raise ValueError("names have tokens that are not there")
        return found

    def tensors(self) -> dict[str, Array]:
        """The arrays of an artefact; `from_tensors` reads them."""
        return {"offsets": self.offsets, "places": self.places, "table": self.table}

    def told(self, items: Ints) -> Tensor:
        """The names of some items, one after the other: embeddings [p, h]."""
        rows = [self.places[self.offsets[item] : self.offsets[item + 1]] for item in items.tolist()]
        return torch.from_numpy(self.table[np.concatenate([np.zeros(0, dtype=np.int64), *rows])])

    def renamed(self, rows: Ints, n_items: int) -> Words:
        """Those of a catalogue of `n_items`, of which the new and changed `rows` have no name any more."""
        lengths = np.zeros(n_items, dtype=np.int64)
        lengths[: len(self.offsets) - 1] = np.diff(self.offsets)
        kept = np.ones(n_items, dtype=bool)
        kept[rows] = False
        places = self.places[np.repeat(kept, lengths)]
        return replace(self, offsets=np.concatenate([[0], np.cumsum(lengths * kept)]), places=places)
