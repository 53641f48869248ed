"""A few events that stand for all, whoever asks and however often."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.events import build_log
from llm4rec.online.reservoir import SCHEMA, Reservoir


def events(n: int, first: int = 0) -> pl.DataFrame:
    numbers = np.arange(first, first + n)
    return pl.DataFrame(
        {"user_id": [f"u{number % 3}" for number in numbers], "item": numbers, "time": numbers}, schema=SCHEMA
    )


def begun(n: int, most: int) -> Reservoir:
    told = events(n)
    log = build_log(told["user_id"], told["item"].to_numpy(), times=told["time"].to_numpy())
    return Reservoir.of(log, most, 7)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 30), st.integers(1, 12), st.lists(st.integers(0, 9), max_size=6))
def test_it_does_not_matter_in_what_parts_events_come(n: int, most: int, parts: list[int]) -> None:
    one = begun(n, most)
    several = one
    first = n
    for size in parts:
        several = several.took(events(size, first))
        first += size
    assert one.took(events(first - n, n)).events.equals(several.events)
    assert several.events.height == min(most, first) and several.passed == first
    assert several.events["item"].n_unique() == several.events.height


def test_every_event_stays_with_the_same_chance() -> None:
    kept = np.zeros(40)
    for seed in range(600):
        found = Reservoir(events(0), 10, 0, seed).took(events(40))
        kept[found.events["item"].to_numpy()] += 1
    # 150 of 600 expected, with a standard deviation of 10.6: none of forty is five of those away
    assert np.abs(kept - 150).max() < 53
    assert abs(kept[:20].sum() - 3000) < 150  # neither the old nor the new are preferred


def test_a_person_goes_and_draws_are_the_same_for_a_step() -> None:
    found = begun(60, 20)
    assert found.drawn(5, 3).equals(found.drawn(5, 3)) and not found.drawn(5, 3).equals(found.drawn(5, 4))
    assert found.drawn(50, 1).height == 20
    assert "u1" in found.events["user_id"].to_list()
    assert "u1" not in found.without("u1").events["user_id"].to_list()
