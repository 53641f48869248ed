"""Elastic weight consolidation: what mattered for what was learnt before is held back, equation (33).

L = L_new + (λ / 2) Σ_j F_j (θ_j − θ*_j)². F is the diagonal of the Fisher information: the mean square of the
gradient of log p(y), one example at a time, y being drawn from the model itself. It is kept up to date by
decay: F ← d F + (1 − d) g².

The second term is descended by its proximal step, θ ← θ* + (θ − θ*) / (1 + η λ F), after that of L_new: it is
the same to first order in η, and holds for every λ, where a gradient step would overshoot from η λ F = 2 on.

Source: paper, equation (33); Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, 2017;
Schwarz et al., Progress & Compress, 2018, for the decay; Parikh and Boyd, Proximal Algorithms, 2014, for the
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llm4rec.online.momentum import as_rows


@dataclass(frozen=True)
class Consolidation:
    """The second term of equation (33).

    Attributes:
        strength: λ.
        fisher: F by name; only its values change.
        anchor: θ* by name; only its values change.
    """

    strength: float
    fisher: Mapping[str, Tensor]
    anchor: Mapping[str, Tensor]

    @torch.no_grad()
    def draw_back(
        self, parameters: Mapping[str, Tensor], rate: float, chosen: Mapping[str, Tensor] | None
    ) -> None:
        """Make the proximal step in place: θ ← θ* + (θ − θ*) / (1 + η λ F).

        Args:
            parameters: θ by name.
            rate: η.
            chosen: rows that it is made for, by name; None for all.
        """
        if not self.strength:
            return
        for name, theta in parameters.items():
            rows = slice(None) if chosen is None else chosen[name]
            if isinstance(rows, Tensor) and not len(rows):
                continue
            anchor, fisher = as_rows(self.anchor[name])[rows], as_rows(self.fisher[name])[rows]
            held = anchor + (as_rows(theta)[rows] - anchor) / (1 + rate * self.strength * fisher)
            as_rows(theta)[rows] = held

    @torch.no_grad()
    def count(self, gradients: Mapping[str, Tensor], decay: float) -> None:
        """Let one more example count: F ← d F + (1 − d) g²."""
        for name, fisher in self.fisher.items():
            fisher.mul_(decay).addcmul_(gradients[name], gradients[name], value=1 - decay)

    @torch.no_grad()
    def hold(self, parameters: Mapping[str, Tensor]) -> None:
        """Let θ* be what the parameters are now."""
        for name, anchor in self.anchor.items():
            anchor.copy_(parameters[name])

    @torch.no_grad()
    def loosen(self, share: float) -> None:
        """Let what mattered so far count for only a share of it: what people do is not what it was."""
        for fisher in self.fisher.values():
            fisher.mul_(share)
