"""The watch over the loss, and that it goes on where it stood."""

from __future__ import annotations

import numpy as np

from llm4rec.online.drift import MOST, Drift


def test_it_finds_a_rise_and_no_fall() -> None:
    rng = np.random.default_rng(0)
    steady = rng.normal(4, 0.5, 1_500)
    watch = Drift(0.002)
    assert not watch.saw(steady) and watch.found == 0
    assert watch.saw(rng.normal(6, 0.5, 500)) and watch.found == 1
    assert not watch.saw(rng.normal(3, 0.5, 500)) and watch.found == 1


def test_it_goes_on_where_it_stood() -> None:
    rng = np.random.default_rng(1)
    losses = np.concatenate([rng.normal(4, 0.5, MOST + 700), rng.normal(5, 0.5, 900)])
    whole, parts = Drift(0.002), Drift(0.002)
    told = [whole.saw(part) for part in np.array_split(losses, 50)]
    again: list[bool] = []
    for part in np.array_split(losses, 50):
        parts = Drift(0.002, parts.losses, parts.found)
        again.append(parts.saw(part))
    assert told == again and any(told) and whole.found == parts.found
    assert len(whole.losses) < MOST and whole.losses == parts.losses
