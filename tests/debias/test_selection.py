"""Weights of the sequence model's events: by hand, told, and refused where they can't be had."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.events import EventLog, build_log
from llm4rec.debias.selection import Selection, SelectionConfig, said
from llm4rec.errors import ConfigError, InputError
from llm4rec.settings import Config


def log_of(items: list[int], propensities: list[float] | None = None) -> EventLog:
    chances = None if propensities is None else np.array(propensities, dtype=np.float32)
    return build_log(pl.Series(["u"] * len(items)), np.array(items), propensities=chances)


def weighed(log: EventLog, **settings: Any) -> Selection:
    found = Selection.of_events(log, 3, SelectionConfig.model_validate({"clip": 0.0} | settings))
    assert found is not None
    return found


def test_nothing_is_weighed_by_default() -> None:
    assert Selection.of_events(log_of([0, 1]), 3, SelectionConfig()) is None


def test_popularity_by_hand() -> None:
    """Item 0 four times, item 1 once: e = 1 and √(1/4), 1/e = 1 and 2, their mean 6/5."""
    found = weighed(log_of([0, 0, 1, 0, 0]), weights="ips")
    assert found.weights == pytest.approx(np.array([1, 1, 2, 1, 1]) * 5 / 6)
    assert found.weights.dtype == np.float32 and not found.normalised
    flat = weighed(log_of([0, 0, 1, 0, 0]), weights="snips", power=1.0)
    assert flat.weights == pytest.approx(np.array([1, 1, 4, 1, 1]) * 5 / 8)
    assert flat.normalised


def test_logged_by_hand_and_what_is_told_of_it() -> None:
    """1/e = 2, 4, 8 and 8; raised to the median of .1875 they are 2, 4, 5⅓ and 5⅓."""
    log = log_of([0, 1, 2, 2], [0.5, 0.25, 0.125, 0.125])
    assert weighed(log, weights="ips", of="logged").weights == pytest.approx(np.array([2, 4, 8, 8]) / 5.5)
    found = weighed(log, weights="snips", of="logged", clip=0.5)
    inverse = np.array([2, 4, 16 / 3, 16 / 3])
    assert found.weights == pytest.approx(inverse / inverse.mean())
    assert found.told() == {
        "weights": "snips",
        "of": "logged",
        "clip": pytest.approx(0.1875),
        "clipped": 0.5,
        "kept": pytest.approx(inverse.sum() / 22),
        "effective": pytest.approx(inverse.sum() ** 2 / (inverse**2).sum()),
        "events": 4,
        "largest": pytest.approx(16 / 3 / inverse.mean()),
    }
    sentence = said(found.told())
    for part in ("snips, logged", "4 of them", "as much as 4 ", "1.28 times", "50.0%", "to 0.188", "75.8%"):
        assert part in sentence


@given(st.lists(st.floats(0.01, 0.5), min_size=1, max_size=20), st.floats(0.1, 2), st.floats(0, 0.9))
def test_the_scale_of_propensities_does_not_matter(chances: list[float], factor: float, clip: float) -> None:
    items = [0] * len(chances)
    one = weighed(log_of(items, chances), weights="ips", of="logged", clip=clip)
    scaled = [chance * factor for chance in chances]
    other = weighed(log_of(items, scaled), weights="ips", of="logged", clip=clip)
    assert one.weights == pytest.approx(other.weights, rel=1e-5)
    assert one.weights.mean() == pytest.approx(1, rel=1e-5)


@given(st.floats(0.01, 1), st.integers(1, 30))
def test_equal_propensities_weigh_one_exactly(chance: float, n: int) -> None:
    assert (weighed(log_of([0] * n, [chance] * n), weights="ips", of="logged").weights == 1).all()


@pytest.mark.parametrize(
    ("chances", "words"), [(None, "missing in 3 of 3"), ([0.5, np.nan, 1], "missing in 1 of 3")]
)
def test_propensities_that_are_not_there_are_refused(chances: list[float] | None, words: str) -> None:
    with pytest.raises(InputError, match=rf"{words}.*--map propensity=COLUMN"):
        weighed(log_of([0, 1, 2], chances), weights="ips", of="logged")


def test_popularity_is_not_taken_out_twice() -> None:
    def parts(selection: dict[str, Any], **popularity: Any) -> Config:
        return Config.model_validate({"debias": {"selection": selection, "popularity": popularity}})

    both = {"weights": "ips", "of": "popularity"}
    for asked in ({"strength": 0.1}, {"choose": True}):
        with pytest.raises(ConfigError, match="that would be twice"):
            parts(both, **asked).debias.refuse_twice()
        parts({"weights": "ips", "of": "logged"}, **asked).debias.refuse_twice()
        parts({}, **asked).debias.refuse_twice()
    parts(both).debias.refuse_twice()
