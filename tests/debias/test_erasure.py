"""Attributes projected out of states: the projection by hand, its law, and a model that is served with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm4rec import Query, Recommender
from llm4rec.config import load
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.debias.adversary import Attribute
from llm4rec.debias.erasure import erase, fit_erasure, refuse_many
from llm4rec.errors import ConfigError, InputError
from llm4rec.evaluate.attacker import attack
from llm4rec.evaluate.groups import Groups
from llm4rec.model.erasure import Erasure
from llm4rec.settings import Config
from llm4rec.types import Array

SIDES = ("left", "right")


def sides(values: list[int]) -> Attribute:
    return Attribute("side", "categorical", np.array(values), SIDES)


def test_of_states_that_vary_alike_the_direction_itself_is_taken() -> None:
    states = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    middle, taken = fit_erasure(states, [sides([1, 1, 0, 0])])
    np.testing.assert_allclose(middle, 0)
    np.testing.assert_allclose(taken, [[1, 0], [0, 0]], atol=1e-12)


def test_otherwise_what_goes_along_with_the_direction_is_taken_too() -> None:
    """P = c cᵀ Σ⁻¹ ÷ cᵀ Σ⁻¹ c. With Σ = [[2, 1], [1, 1]] and c = (½, ½), Σ⁻¹ c = (0, ½): h' = (x − y, 0)."""
    states = np.array([[2.0, 1.0], [0.0, 1.0], [0.0, -1.0], [-2.0, -1.0]])
    middle, taken = fit_erasure(states + 3, [sides([1, 1, 0, 0])])
    np.testing.assert_allclose(middle, [3, 3])
    np.testing.assert_allclose(taken, [[0, 1], [0, 1]], atol=1e-12)


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_nothing_covaries_afterwards(seed: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((60, 6)) @ rng.standard_normal((6, 6)) + rng.standard_normal(6)
    group = np.arange(60) % n_groups
    states += rng.standard_normal((n_groups, 6))[group]
    group = np.where(rng.random(60) < 0.2, -1, group)
    age = np.where(rng.random(60) < 0.3, np.nan, states[:, 0] + rng.standard_normal(60)).astype(np.float32)
    names = tuple("abcd"[:n_groups])
    attributes = [Attribute("g", "categorical", group, names), Attribute("age", "numerical", age)]
    middle, taken = fit_erasure(states, attributes)
    assert np.trace(taken) == pytest.approx(n_groups)  # n − 1 of the groups, and one of the number
    np.testing.assert_allclose(taken @ taken, taken, atol=1e-7)
    left = states - (states - middle) @ taken.T
    means = [left[group == a].mean(axis=0) for a in range(n_groups)]
    np.testing.assert_allclose(means, np.broadcast_to(means[0], (n_groups, 6)), atol=1e-7)
    known = ~np.isnan(age)
    values = age[known].astype(np.float64)
    np.testing.assert_allclose(left[known].T @ (values - values.mean()), 0, atol=1e-6)


def test_what_nobody_is_known_by_takes_nothing() -> None:
    states = np.random.default_rng(0).standard_normal((5, 3))
    unknown = [sides([-1] * 5), Attribute("age", "numerical", np.full(5, np.nan, dtype=np.float32))]
    _, taken = fit_erasure(states, unknown)
    assert not taken.any()


def test_directions_in_which_states_do_not_vary_are_left_alone() -> None:
    states = np.column_stack([np.array([1.0, 2.0, 3.0, 5.0]), np.full(4, 7.0)])
    _, taken = fit_erasure(states, [sides([0, 0, 1, 1])])
    np.testing.assert_allclose(taken, [[1, 0], [0, 0]], atol=1e-12)


@pytest.mark.parametrize("states", [np.zeros((1, 2)), np.array([[0.0, np.nan], [1.0, 1.0]])])
def test_states_that_can_not_be_read_are_refused(states: Array) -> None:
    with pytest.raises(InputError, match="two or more, whose states are finite"):
        fit_erasure(states, [sides([0, 1][: len(states)])])


def test_until_it_is_told_it_changes_no_bit() -> None:
    states = torch.randn(3, 4, 5)
    erasure = Erasure(5)
    assert torch.equal(erasure(states), states)
    erasure.become(np.ones(5), np.eye(5))
    torch.testing.assert_close(erasure(states), torch.ones(3, 4, 5))
    erasure.clear()
    assert torch.equal(erasure(states), states)


def test_attributes_of_many_values_are_refused() -> None:
    towns = Attribute("town", "categorical", np.arange(20) % 4, tuple("abcd"))
    age = Attribute("age", "numerical", np.zeros(20, dtype=np.float32))
    refuse_many([towns, age], 16)
    refuse_many([], 16)
    with pytest.raises(InputError, match=r"up to 4 of 15 directions .* 'town' alone takes 3"):
        refuse_many([towns, age], 15)


def test_erasing_needs_to_be_told_what() -> None:
    with pytest.raises(
        ConfigError, match=r"debias\.adversary\.erase is set, and .*attributes names no column"
    ):
        load(Config, settings=["debias.adversary.erase=true"])


N_PEOPLE, N_ITEMS, N_EVENTS = 160, 40, 7
ERASE = ('debias.adversary.attributes=["side"]', "debias.adversary.erase=true")


def leaning() -> tuple[EventLog, Catalog, Catalog]:
    """Nine in ten of what one side takes are of its own half of the items."""
    rng = np.random.default_rng(5)
    half = N_ITEMS // 2
    own = rng.random((N_PEOPLE, N_EVENTS)) < 0.9
    side = np.arange(N_PEOPLE)[:, None] % 2
    items = rng.integers(half, size=(N_PEOPLE, N_EVENTS)) + half * np.where(own, side, 1 - side)
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "shelf": [[f"s{item // 2}"] for item in range(N_ITEMS)],
    })
    catalog = Catalog(table, key="item_id", fields=(Field("shelf", "categorical"),))
    users = np.repeat(np.arange(N_PEOPLE), N_EVENTS)
    times = 1_600_000_000 + np.tile(np.arange(N_EVENTS), N_PEOPLE)
    people = pl.DataFrame({
        "user_id": [f"u{row}" for row in range(N_PEOPLE)],
        "side": [SIDES[row % 2] if row % 10 else None for row in range(N_PEOPLE)],
    })
    log = build_log(pl.Series([f"u{user}" for user in users]), items.ravel(), times=times)
    return log, catalog, Catalog(people, key="user_id")


def fitted(*settings: str, checkpoints: Path | None = None) -> Recommender:
    log, catalog, people = leaning()
    always = [
        "model.embedding_size=8", "model.layers=1", "model.heads=1", "train.epochs=4", "train.batch_size=128",
        "train.learning_rate=0.02", "retrieve.enabled=false", 'data.protected=["side"]',
    ]  # fmt: skip
    config = load(Config, settings=[*always, *settings])
    return Recommender.fit(log, catalog, config, people=people, checkpoints=checkpoints)


def told(model: Recommender) -> tuple[Array, Array]:
    """States of what the model was trained on, the last event held out, and everybody's side; -1 unknown."""
    log, _, people = leaning()
    heads = log.heads(log.lengths - 1)
    states = model.fitted.scorer.states(heads, np.full(N_PEOPLE, -1)).numpy()
    side = people.table["side"].replace_strict(dict(zip(SIDES, (0, 1), strict=True)), default=-1).to_numpy()
    return states, side[[int(name[1:]) for name in log.user_ids]]


@pytest.mark.parametrize("mode", ["off", "joint", "only"])
def test_states_of_a_fitted_model_do_not_covary(mode: str, tmp_path: Path) -> None:
    codes = [f"generate.mode={mode}", "generate.codebook_size=8", "generate.n_levels=2", "generate.epochs=1"]
    settings = codes if mode != "off" else []
    plain, model = fitted(*settings), fitted(*settings, *ERASE)

    def apart(model: Recommender) -> float:
        states, side = told(model)
        spread = states.std(axis=0)
        return float(np.abs((states[side == 0].mean(axis=0) - states[side == 1].mean(axis=0)) / spread).max())

    assert apart(plain) > 0.5
    assert apart(model) < 1e-3
    assert model.meta["training"]["erased"]["directions"] == 1
    assert "erased" not in plain.meta["training"]
    model.save(tmp_path / "model")
    again, query = Recommender.load(tmp_path / "model"), Query(("i1", "i30"))
    assert again.recommend(query, 5) == model.recommend(query, 5)
    assert again.recommend(query, 5) != plain.recommend(query, 5)


def test_an_attacker_with_straight_borders_finds_less() -> None:
    found = []
    for model in (fitted(), fitted(*ERASE)):
        states, side = told(model)
        found.append(attack(states, Groups("side", SIDES, side), shuffles=0).accuracy.value)
    assert found[0] > 0.7
    assert found[1] < 0.6


def test_a_fit_that_is_taken_up_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole = fitted(*ERASE, checkpoints=tmp_path)
    log, catalog, people = leaning()
    resumed = Recommender.fit(
        log, catalog, whole.fitted.config, people=people, checkpoints=tmp_path, resume=True
    )
    np.testing.assert_array_equal(told(whole)[0], told(resumed)[0])


def test_people_without_an_event_do_not_count() -> None:
    """They all have one state: with more of them on one side, means over everybody would tell nothing."""
    model = fitted(*ERASE)
    log, _, people = leaning()
    rows = people.numbers(log.user_ids)
    side = np.array([SIDES.index(name) if name else -1 for name in people.table["side"].to_list()])[rows]
    few = log.heads(np.where((side == 0) & (rows % 3 > 0), 0, log.lengths - 1))
    scorer = model.fitted.scorer
    assert erase(scorer, few, np.full(N_PEOPLE, -1), [sides(side.tolist())], scorer.network) == 1
    states = scorer.states(few, np.full(N_PEOPLE, -1)).numpy()
    met = [states[(side == a) & (few.lengths > 0)].mean(axis=0) for a in range(2)]
    np.testing.assert_allclose(met[0], met[1], atol=1e-3 * states.std())
