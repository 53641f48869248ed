"""Which stretches of history make up an epoch, and which of them share a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llm4rec.types import Ints


@dataclass(frozen=True)
class Windows:
    """Stretches of events, each read as inputs and predicted one event further on.

    Attributes:
        rows: owner of each window [w].
        starts: first event of the window in the log's arrays [w].
        lengths: events that are targets [w]; the first of them is predicted from no event at all.
        first: whether the window begins at the person's first event [w].
    """

    rows: Ints
    starts: Ints
    lengths: Ints
    first: np.ndarray


def cut_windows(offsets: Ints, most: int, rng: np.random.Generator) -> Windows:
    """Cut every history into stretches of at most `most` + 1 events that overlap by one.

    Where the first cut of a long history falls is random, so that over the epochs each event is
    predicted from contexts of many lengths. Every event but a person's first is a target exactly
    once with at least one event before it; a person's first is predicted from the person alone.
    """
    lengths = np.diff(offsets)
    steps = np.maximum(lengths - 1, 0)  # events predicted from a predecessor
    shift = np.where(steps > most, rng.integers(1, most + 1, size=len(steps)), np.minimum(steps, most))
    counts = np.where(lengths > 0, 1 + -(-(steps - shift) // most), 0)
    rows = np.repeat(np.arange(len(lengths)), counts)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.where(place == 0, 0, shift[rows] + (place - 1) * most)
    end = np.minimum(shift[rows] + place * most, steps[rows])
    return Windows(rows, offsets[rows] + begin, end - begin + 1, place == 0)


def batches(windows: Windows, size: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Batches of window numbers, about `size` targets each, of similar length, in random order.

    Windows are shuffled before they are sorted by length, so that who shares a batch differs from
    epoch to epoch while little is padded.
    """
    jitter = rng.uniform(0.75, 1.25, size=len(windows.lengths))
    order = np.argsort(windows.lengths * jitter, kind="stable")
    filled = np.cumsum(windows.lengths[order])
    groups = np.split(order, np.flatnonzero(np.diff(filled // max(size, 1))) + 1)
    for number in rng.permutation(len(groups)):
        yield groups[number]
