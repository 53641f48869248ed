"""What is taken out of states, whatever it stands for: an affine map that later stages and serving share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llm4rec.types import Array


class Erasure(nn.Module):
    """h − P (h − m); the identity until it is given m and P.

    Args:
        size: d of the states.
    """

    middle: Tensor
    taken: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(size))
        self.register_buffer("taken", torch.zeros(size, size))

    def become(self, middle: Array, taken: Array) -> None:
        """Take out `taken` [d, d] of the distance to `middle` [d]."""
        self.middle.copy_(torch.from_numpy(middle))
        self.taken.copy_(torch.from_numpy(taken))

    def clear(self) -> None:
        """Be the identity again."""
        self.middle.zero_()
        self.taken.zero_()

    def forward(self, states: Tensor) -> Tensor:
        """States [..., d] without what is taken."""
        return states - (states - self.middle) @ self.taken.T
