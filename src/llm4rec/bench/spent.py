"""What a run has cost, added up over all the processes that an interruption made of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from llm4rec.bench import facts
from llm4rec.store import artefact, files
from llm4rec.train.checkpoint import STAGES

EVERY = 5.0
"""Time between two notes of what is spent [s]: the most that a kill loses."""


class Spent:
    """Seconds and peak memory of a fit, noted in the folder of its checkpoints.

    A fit that takes up a checkpoint goes on counting where the process before it was ended; one that
    starts from the beginning, since nothing had been kept, counts from nought.
    """

    def __init__(self, checkpoints: Path, clock: Callable[[], float] = time.perf_counter):
        self._file = checkpoints / "spent.json"
        self._clock = clock
        self._before = self._noted = self._peak = 0.0
        if any(artefact.exists(checkpoints / stage) for stage in STAGES):
            self._before, self._peak = _read(self._file)
        self._began = clock()

    @property
    def seconds(self) -> float:
        """Time spent in this process and those before it [s]."""
        return self._before + self._clock() - self._began

    @property
    def peak_mib(self) -> float:
        """The most memory this process or one before it has held at once [MiB]."""
        return max(self._peak, facts.peak_mib())

    def note(self) -> None:
        """Keep what is spent so far, where the last note is old enough."""
        if self._clock() - self._began - self._noted < EVERY:
            return
        self._noted = self._clock() - self._began
        files.write_json({"seconds": self.seconds, "peak_mib": self.peak_mib}, self._file)


def _read(file: Path) -> tuple[float, float]:
    """Seconds and peak of the processes before; nought where none lived long enough to note them."""
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
        return float(noted["seconds"]), float(noted["peak_mib"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0, 0.0
