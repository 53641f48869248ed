"""A watch over the loss that tells when people do other things than they did.

Source: Bifet and Gavaldà, Learning from Time-Changing Data with Adaptive Windowing, 2007 (ADWIN).
"""

from __future__ import annotations

from collections.abc import Iterable

from llm4rec.types import Array

MOST = 5_000
"""Losses after which the window is made anew from the newer half: so it can be kept as the losses it saw."""


class Drift:
    """ADWIN, and what it was told since it was made.

    Attributes:
        sensitivity: δ, its share of false alarms.
        losses: what it was told.
        found: how often the loss rose.
    """

    def __init__(self, sensitivity: float, losses: Iterable[float] = (), found: int = 0) -> None:
        self.sensitivity = sensitivity
        self.found = found
        self._renew(list(losses))

    def _renew(self, losses: list[float]) -> None:
        from river.drift import ADWIN  # seconds to load, and only learning needs it

        self.losses = losses
        self._window = ADWIN(delta=self.sensitivity)
        for loss in losses:
            self._window.update(loss)

    def saw(self, losses: Array) -> bool:
        """Tell it further losses [n]; whether it found that they have risen."""
        risen = False
        for loss in losses.tolist():
            before = self._window.estimation
            self._window.update(loss)
            self.losses.append(loss)
            risen |= bool(self._window.drift_detected and self._window.estimation > before)
        if len(self.losses) >= MOST:
            self._renew(self.losses[-MOST // 2 :])
        self.found += risen
        return risen
