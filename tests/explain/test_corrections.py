"""What people say of aspects: by hand, the laws it keeps, and the table it is kept in."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.explain.test_aspects import SHOP, catalog, options

from llm4rec.explain.aspects import Aspects, Vocabulary
from llm4rec.explain.corrections import LEAST, SCHEMA, Corrections, corrected, log_factors
from llm4rec.types import Floats

LOVE, WAR, M3, ACME = range(4)
WORDS = Vocabulary.of(SHOP, options(fewest=2))
"""Items: love war 3M · love 3M · nothing · war acme · acme · 3M."""
P = np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32)


# --- by hand


def test_one_more_and_one_less_worked_by_hand() -> None:
    """u = .4, .3 · .1, .2 · .1 + .9, .1, whose sum is 1.45."""
    found = corrected(P, {WAR: False, M3: True}, 0.9)
    np.testing.assert_allclose(found, np.array([0.4, 0.03, 0.92, 0.1]) / 1.45, rtol=1e-6)


def test_what_it_does_to_scores_worked_by_hand() -> None:
    after = corrected(P, {M3: True}, 0.5)  # u = .4, .3, .6, .1, whose sum is 1.4
    np.testing.assert_allclose(after, np.array([4, 3, 6, 1]) / 14, rtol=1e-6)
    of_items = [
        (1.3 / 1.4, 0.9),
        (1 / 1.4, 0.6),
        (1, 1),
        (0.4 / 1.4, 0.4),
        (0.1 / 1.4, 0.1),
        (0.6 / 1.4, 0.2),
    ]
    wanted = [math.log(now / before) for now, before in of_items]
    np.testing.assert_allclose(log_factors(P, after, WORDS), wanted, atol=1e-6)


def test_shares_are_summed_over_the_aspects_of_an_item() -> None:
    np.testing.assert_allclose(WORDS.shares(P), [0.9, 0.6, 0, 0.4, 0.1, 0.2], rtol=1e-6)
    assert Vocabulary.over(SHOP, (), ()).shares(P[:0]).tolist() == [0] * 6


def test_they_are_those_of_equation_20() -> None:
    """The sums over the aspects of an item are those of p q but for what cancels."""
    after, every = corrected(P, {LOVE: False, ACME: True}, 0.9), np.array([0, 1, 3, 4, 5])
    q = WORDS.q(every)
    np.testing.assert_allclose(
        log_factors(P, after, WORDS)[every], np.log((q @ after) / (q @ P)), rtol=1e-5, atol=1e-6
    )


def test_what_nothing_was_expected_of_is_lifted_by_a_finite_amount() -> None:
    nothing = np.array([1, 0, 0, 0], dtype=np.float32)
    found = log_factors(nothing, corrected(nothing, {ACME: True}, 0.9), WORDS)
    assert found[4] == pytest.approx(math.log(0.9 / 1.9 / LEAST), abs=1e-4)
    assert found[5] == 0 and np.isfinite(found).all()  # nothing before, nothing after


# --- laws

SIZE = 5
KINDS = [f"k{place}" for place in range(SIZE)]
weights = st.floats(0.01, 0.99)
saids = st.dictionaries(st.integers(0, SIZE - 1), st.booleans())
shares = st.lists(st.floats(0.001, 1), min_size=SIZE, max_size=SIZE).map(
    lambda values: (np.array(values) / sum(values)).astype(np.float32)
)
SEVERAL = catalog([[kind for place, kind in enumerate(KINDS) if n >> place & 1] for n in range(2**SIZE)])
"""An item of each set of five aspects, also of none: item n has those of the bits of n."""
ALL = Vocabulary.over(SEVERAL, ["genre"] * SIZE, KINDS)


@given(shares, saids, weights, st.integers(0, SIZE - 1), st.booleans())
def test_what_is_said_of_an_aspect_moves_who_has_it_past_who_has_not(
    p: Floats, said: dict[int, bool], weight: float, aspect: int, more: bool
) -> None:
    """Less never lifts one with it beside one without, and more never sinks it, whatever else was said."""
    said = {place: wanted for place, wanted in said.items() if place != aspect}
    before = log_factors(p, corrected(p, said, weight), ALL).astype(np.float64)
    moved = log_factors(p, corrected(p, {**said, aspect: more}, weight), ALL) - before
    has = (np.arange(2**SIZE) >> aspect & 1) == 1
    if more:
        assert moved[has].min() >= moved[~has].max() - 1e-5
    else:
        assert moved[has].max() <= moved[~has].min() + 1e-5
    if min(p) * (1 - weight) > SIZE * LEAST:  # of single aspects it is u / p, whatever else was said
        gap = moved[1 << aspect] - moved[1 << (aspect + 1) % SIZE]
        u = weight * more + (1 - weight) * float(p[aspect])
        assert gap == pytest.approx(math.log(u / float(p[aspect])), abs=1e-4)


@given(shares, saids, weights)
def test_corrected_shares_are_shares(p: Floats, said: dict[int, bool], weight: float) -> None:
    found = corrected(p, said, weight)
    assert found.dtype == np.float32 and found.min() >= 0 and found.sum() == pytest.approx(1, abs=1e-5)
    wanted = [place for place, more in said.items() if more]
    if wanted:  # they stand beside each other evenly: u differs by (1 − w) of what p differs by
        assert np.ptp(found[wanted]) <= (1 - weight) * np.ptp(p[wanted]) + 1e-5


@given(shares, weights)
def test_two_that_are_wanted_more_do_not_cancel(p: Floats, weight: float) -> None:
    one, two = corrected(p, {0: True}, weight), corrected(p, {0: True, 1: True}, weight)
    assert two[0] / two[2] == pytest.approx(one[0] / one[2], rel=1e-4)  # beside the rest it stands as alone
    assert two[1] / two[2] > p[1] / p[2]
    factors = log_factors(p, two, ALL)
    assert min(factors[0b01], factors[0b10], factors[0b11]) >= factors[0b100] - 1e-5


@given(shares, saids, weights)
def test_the_order_of_what_is_said_does_not_matter(p: Floats, said: dict[int, bool], weight: float) -> None:
    back = dict(reversed(said.items()))
    assert np.array_equal(corrected(p, said, weight), corrected(p, back, weight))


@given(shares, saids)
def test_nothing_said_and_no_weight_change_nothing_to_the_bit(p: Floats, said: dict[int, bool]) -> None:
    assert corrected(p, {}, 0.9) is p and corrected(p, said, 0.0) is p
    assert not log_factors(p, p, ALL).any()


@given(shares, saids, weights)
def test_an_item_without_aspects_keeps_its_score(p: Floats, said: dict[int, bool], weight: float) -> None:
    assert log_factors(p, corrected(p, said, weight), ALL)[0] == 0


# --- people

told = st.dictionaries(st.integers(0, SIZE - 1), st.booleans() | st.none())


@given(told, told)
def test_the_last_word_on_an_aspect_counts(
    first: dict[int, bool | None], second: dict[int, bool | None]
) -> None:
    said = Corrections().saying("ann", first).saying("ann", second).saying("bob", {3: True})
    now = {place: more for place, more in {**first, **second}.items() if more is not None}
    assert said.of("ann") == now and [*said.of("ann")] == sorted(now)
    assert said.of("bob") == {3: True} and said.of("cy") == {} and len(said) == 1 + bool(now)
    assert said.without("bob") == Corrections().saying("ann", now)
    rows = said.rows(pl.Series(["cy", "bob", "", "bob"]))
    assert rows == {1: {3: True}, 3: {3: True}}


def test_whoever_takes_everything_back_is_not_kept() -> None:
    assert Corrections().saying("ann", {1: True}).saying("ann", {1: None}) == Corrections()


ASPECTS = Aspects(
    ("genre",) * SIZE, tuple(KINDS), np.zeros((SIZE, 8), np.float32), *[np.full(SIZE, 0.2, np.float32)] * 2
)


@given(st.dictionaries(st.text(min_size=1), saids.filter(len)))
def test_the_table_gives_back_what_was_said(said: dict[str, dict[int, bool]]) -> None:
    found = Corrections(said)
    table = found.to_frame(ASPECTS)
    assert dict(table.schema) == SCHEMA and table.height == sum(map(len, said.values()))
    assert Corrections.from_frame(table, ASPECTS) == found


SOUND = Corrections({"ann": {1: True, 2: False}}).to_frame(ASPECTS)
BROKEN = {
    "no aspect genre = gone": SOUND.head(1).with_columns(value=pl.lit("gone")),
    "no aspect mood = k1": SOUND.with_columns(field=pl.lit("mood")),
    "two things of one aspect": pl.concat([SOUND, SOUND.with_columns(more=~pl.col("more"))]),
    "lacks a value": SOUND.with_columns(more=pl.lit(None, dtype=pl.Boolean)),
    "a correction lacks": SOUND.with_columns(user_id=pl.lit("")),
    "the columns": SOUND.with_columns(more=pl.lit(1)),
    "have the columns": SOUND.drop("more"),
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_table_that_was_never_written_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Corrections.from_frame(BROKEN[words], ASPECTS)


def test_a_model_without_aspects_has_nothing_corrected() -> None:
    with pytest.raises(ValueError, match="no aspect genre = k1"):
        Corrections.from_frame(SOUND, None)
