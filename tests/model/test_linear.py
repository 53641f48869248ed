"""The linear part: by hand, a set of the history, and a distribution with the network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm4rec.data.events import EventLog
from llm4rec.errors import TrainingError
from llm4rec.model import linear
from llm4rec.model.lifts import lift_of, most_lifted
from llm4rec.model.linear import EXPONENTS, Linear, LinearConfig, fit_linear
from llm4rec.types import Floats

N_ITEMS = 9


def log(*rows: list[int]) -> EventLog:
    return EventLog(
        user_ids=pl.Series([f"u{row}" for row in range(len(rows))], dtype=pl.String),
        offsets=np.cumsum([0, *map(len, rows)]),
        items=np.array([item for row in rows for item in row], dtype=np.int64),
    )


def drawn(seed: int = 0, n_people: int = 40) -> EventLog:
    rng = np.random.default_rng(seed)
    return log(*(rng.choice(N_ITEMS - 1, size=rng.integers(1, 6)).tolist() for _ in range(n_people)))


def fitted(strength: float = 1.0, **options: object) -> Linear:
    part = fit_linear(drawn(), N_ITEMS, LinearConfig.model_validate(options))
    return replace(part, strengths=(strength,) * 4)


def dense(part: Linear) -> Floats:
    """B [i, i] of the whole catalogue, row by row."""
    whole = np.zeros((N_ITEMS, N_ITEMS), dtype=np.float32)
    for row, item in enumerate(part.known):
        kept = slice(part.offsets[row], part.offsets[row + 1])
        whole[item, part.known[part.places[kept]]] = part.weights[kept]
    return whole


def even(n_rows: int) -> Floats:
    return np.full((n_rows, N_ITEMS), -np.log(N_ITEMS), dtype=np.float32)


def test_weights_by_hand() -> None:
    # two people took 0, two took 1, one of them both: G = [[2, 1], [1, 2]]. With λ = 1 the inverse of
    # [[3, 1], [1, 3]] is [[3, −1], [−1, 3]] / 8, so B_01 = (1/8) / (3/8) = 1/3. Item 3 nobody took.
    part = fit_linear(log([0, 1], [1], [0, 0]), 4, LinearConfig(ridge=1.0))
    assert part.known.tolist() == [0, 1]
    assert part.scores(np.array([0])).tolist() == pytest.approx([0, 1 / 3], rel=1e-3)
    # of three even items and item 1 lifted by ln 2: a quarter more to share
    found = replace(part, strengths=(0, 3 * np.log(2), 0, 0)).add(
        np.log(np.full((1, 4), 0.25, np.float32)), log([0])
    )
    assert np.exp(found)[0].tolist() == pytest.approx([0.2, 0.4, 0.2, 0.2], rel=1e-3)
    # the roots of 9, 4, 1, 4 are 3, 2, 1, 2; the second doubled, they are shares of 10
    uneven = np.log(np.array([[9, 4, 1, 4]], np.float32) / 18)
    halved = replace(part, strengths=(0, 3 * np.log(2), 0, 0), exponents=(1, 0.5, 1, 1))
    assert np.exp(halved.add(uneven, log([0])))[0].tolist() == pytest.approx([0.3, 0.4, 0.1, 0.2], rel=1e-3)


def test_weights_are_the_regression_of_each_item_on_the_others() -> None:
    events = drawn()
    taken = np.zeros((events.n_users, N_ITEMS))
    taken[events.rows, events.items] = 1
    weights = dense(fitted(ridge=5.0))
    for item in range(N_ITEMS - 1):
        others = np.delete(np.arange(N_ITEMS), item)
        left = taken[:, others].T @ taken[:, others] + 5 * np.eye(N_ITEMS - 1)
        solved = np.linalg.solve(left, taken[:, others].T @ taken[:, item])
        np.testing.assert_allclose(weights[others, item], solved, rtol=2e-3, atol=1e-5)


histories = st.lists(st.integers(0, N_ITEMS - 1), max_size=12)


@given(
    history=histories,
    strength=st.floats(0.1, 12),
    exponent=st.sampled_from(EXPONENTS.tolist()),
    seed=st.integers(0, 5),
)
def test_what_comes_out_is_a_distribution_and_of_the_history_it_says_nothing(
    history: list[int], strength: float, exponent: float, seed: int
) -> None:
    network = np.log(np.random.default_rng(seed).dirichlet(np.ones(N_ITEMS), 1)).astype(np.float32)
    part = replace(fitted(strength), exponents=(exponent,) * 4)
    found = part.add(network, log(history))
    assert np.exp(found.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    lifts = dense(part)[sorted(set(history))].sum(axis=0) * strength
    lifts[history] = 0
    np.testing.assert_allclose(
        found - found[:, -1:], exponent * (network - network[:, -1:]) + lifts, atol=2e-3
    )


@given(history=histories, seed=st.integers(0, 100))
def test_a_history_is_a_set(history: list[int], seed: int) -> None:
    again = np.random.default_rng(seed).permutation([*history, *history[:3]]).astype(np.int64)
    part = fitted()
    np.testing.assert_array_equal(part.scores(np.array(history, dtype=np.int64)), part.scores(again))


def test_without_strength_the_networks_scores_are_left_as_they_are() -> None:
    scores = even(2)
    assert fitted(0.0).add(scores, log([1], [2, 3])) is scores
    assert Linear().add(scores, log([1], [2, 3])) is scores
    assert fit_linear(drawn(), N_ITEMS, LinearConfig(items=0)).known.size == 0
    before = scores.copy()
    fitted(3.0).add(scores, log([1], [2, 3]))
    np.testing.assert_array_equal(scores, before)  # nor are they changed in place


def test_only_the_most_popular_items_and_the_strongest_entries_are_kept() -> None:
    counts = np.bincount(np.concatenate([np.unique(drawn().history(row)) for row in range(40)]))
    part = fitted(items=4)
    assert set(part.known) <= set(np.flatnonzero(counts >= np.sort(counts)[-4])) and len(part.known) == 4
    whole, cut = dense(fitted()), dense(fitted(neighbours=2))
    for row in range(N_ITEMS - 1):
        strongest = np.sort(np.argsort(-np.abs(whole[row]), kind="stable")[:2])
        assert np.flatnonzero(cut[row]).tolist() == strongest.tolist()
        np.testing.assert_array_equal(cut[row, strongest], whole[row, strongest])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted().tensors()
    monkeypatch.setattr(linear, "BLOCK", 3)
    for name, array in fitted().tensors().items():
        np.testing.assert_allclose(array, whole[name], atol=1e-3)


def test_what_a_search_did_not_reach_stays_out() -> None:
    """A joined score may leave some of the probability to nobody; only the rest is shared out."""
    network = np.log(
        np.array([[0.3, 0.2, 0.1, *[0.05] * 3, 0, 0, 0]], np.float32),
        where=np.arange(9) < 6,
        out=np.full((1, 9), -np.inf, np.float32),
    )
    found = fitted(3.0).add(network, log([0, 3]))
    assert np.exp(found).sum() == pytest.approx(0.75, abs=1e-5)
    assert np.isneginf(found[0, 6:]).all()
    flatter = replace(fitted(3.0), exponents=(0.25,) * 4).add(network, log([0, 3]))
    assert np.exp(flatter).sum() == pytest.approx(0.75, abs=1e-5) and np.isneginf(flatter[0, 6:]).all()
    np.testing.assert_array_equal(fitted(3.0).add(network, log([])), network)


def test_each_class_of_lengths_has_an_exponent_of_its_own() -> None:
    part = replace(fitted(), exponents=(1.0, 0.5, 0.25, 0.125))
    assert [part.exponent(length) for length in (0, 1, 2, 3, 9, 10, 99)] == [
        1,
        0.5,
        0.5,
        0.25,
        0.25,
        0.125,
        0.125,
    ]
    assert replace(part, strengths=(0.0,) * 4).exponent(5) == 1  # without a linear part it is nobody's rival


def test_what_is_lifted_most() -> None:
    part = fitted(2.0)
    lifts = part.lifts(np.array([0, 3]))
    np.testing.assert_allclose(lifts, 2 * part.scores(np.array([0, 3])), rtol=1e-6)
    best = part.known[np.argsort(-lifts)]
    assert set(most_lifted(part.known, lifts, 3)) == set(best[:3].tolist())
    assert len(most_lifted(part.known, lifts, 100)) == (lifts > 0).sum()
    few = np.isin(part.known, best[1:3])
    assert set(most_lifted(part.known, lifts, 3, few)) == set(best[1:3].tolist())
    by_item = dict(zip(part.known.tolist(), lifts.tolist(), strict=True))
    asked = np.array([8, 2, 5])  # nobody took 8
    assert lift_of(part.known, lifts, asked).tolist() == [by_item.get(item, 0.0) for item in asked.tolist()]
    assert lift_of(Linear().known, Linear().lifts(asked), asked).tolist() == [0, 0, 0]


@pytest.mark.parametrize("ridge", [float("inf"), float("nan"), 1e300, 0.0, 1e-300])
def test_a_ridge_that_leaves_nothing_is_refused(ridge: float) -> None:
    with pytest.raises(ValidationError, match="ridge"):
        LinearConfig(ridge=ridge)


def test_a_ridge_that_is_too_small_is_named() -> None:
    with pytest.raises(TrainingError, match=r"1e-12: raise the ridge .linear\.ridge"):
        fit_linear(log(*[[0, 1, 2]] * 5), 3, LinearConfig().model_copy(update={"ridge": 1e-12}))
