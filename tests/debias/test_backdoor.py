"""The effect of showing an item, popularity adjusted for by the back door."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.world import WorldConfig, make_world
from llm4rec.debias.backdoor import Effect, backdoor, by_period, value
from llm4rec.errors import InputError


def test_one_item_at_two_popularities_is_worked_by_hand() -> None:
    # shown 100 times at z = 1 and 300 at z = 4; 10 and 60 were taken: 10 % and 20 %, so γ = ln 2 / ln 4 = 1/2
    shown, taken = np.array([[100, 300]]), np.array([[10, 60]])
    found = backdoor(shown, taken, np.log([[[1.0, 4.0]]]))
    assert found.exponents == pytest.approx([0.5])
    assert found.naive == pytest.approx(70 / 400)
    # f = 70 / (100 + 300 · 2) = .1, and the mean of z^γ over both periods is 1.5
    assert found.value == pytest.approx(0.15)
    # multinomial over (1/7, 6/7) of 70: information 70 · 1/7 · 6/7 · (ln 4)²
    assert found.errors == pytest.approx([1 / (np.log(4) * np.sqrt(70 * 6 / 49))])


def test_impressions_are_counted_by_item_and_period() -> None:
    shown, taken = by_period(np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([True, False, True]), 2, 2)
    assert shown.tolist() == [[0, 2], [1, 0]]
    assert taken.tolist() == [[0, 1], [1, 0]]


def test_an_item_that_was_never_shown_says_nothing() -> None:
    shown, taken = np.array([[100, 300], [0, 0]]), np.array([[10, 60], [0, 0]])
    found = backdoor(shown, taken, np.log([[[1.0, 4.0], [2.0, 3.0]]]))
    assert found.exponents == pytest.approx([0.5])
    assert found.value == pytest.approx(0.15)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-1, 1.5), st.floats(0.1, 10))
def test_counts_as_expected_give_the_power_back_in_any_unit(seed: int, gamma: float, unit: float) -> None:
    rng = np.random.default_rng(seed)
    popular = rng.uniform(0.05, 1, (5, 4))
    shown = rng.integers(1, 400, (5, 4))
    taken = shown * rng.uniform(0.05, 0.5, (5, 1)) * popular**gamma
    found = backdoor(shown, taken, np.log(popular * unit)[None])
    assert found.exponents == pytest.approx([gamma], abs=1e-6)
    own = (taken / (shown * popular**gamma))[:, :1]
    adjusted = (shown.sum(axis=1) * (own * (popular**gamma).mean(axis=1, keepdims=True))[:, 0]).sum()
    assert found.value == pytest.approx(adjusted / shown.sum())
    assert value(shown, taken, np.log(popular)[None], np.zeros(1)) == pytest.approx(found.naive)


def test_what_can_not_be_told_is_refused() -> None:
    shown, taken = np.array([[100, 300]]), np.array([[10, 60]])
    with pytest.raises(InputError, match="No item was shown at different values"):
        backdoor(shown, taken, np.log([[[2.0, 2.0]]]))
    with pytest.raises(InputError, match="not a finite number"):
        backdoor(shown, taken, np.array([[[0.0, -np.inf]]]))
    with pytest.raises(InputError, match="Nothing that was shown was taken"):
        backdoor(shown, 0 * taken, np.log([[[1.0, 4.0]]]))


def _estimated(placebo: bool = False, **forces: float) -> tuple[float, Effect]:
    settings: dict[str, float] = {"seed": 0, "n_events": 4_000, "n_impressions": 60_000, "n_trial": 1}
    made = make_world(WorldConfig.model_validate(settings | forces))
    truth, shown = made.truth, made.impressions
    users, items, times = (each[shown.looked] for each in (shown.users, shown.items, shown.times))
    counted = by_period(
        items, truth.periods(times), shown.clicked[shown.looked], made.config.items, made.config.n_periods
    )
    popular = np.log(truth.popularities.T.astype(np.float64))
    if placebo:
        popular = np.random.default_rng(0).permuted(popular, axis=1)
    return float(truth.effect(users, items).mean()), backdoor(*counted, popular[None])


def test_the_planted_effect_comes_back_where_the_assumption_holds() -> None:
    truth, found = _estimated()
    assert found.value == pytest.approx(truth, rel=0.05)
    assert found.naive > 1.1 * truth
    assert abs(found.exponents[0] - 0.5) < 4 * found.errors[0]


def test_a_placebo_has_no_power_and_moves_nothing() -> None:
    _, found = _estimated(placebo=True)
    assert abs(found.exponents[0]) < 4 * found.errors[0]
    assert found.value == pytest.approx(found.naive, rel=0.01)


def test_it_fails_where_people_are_shown_other_things_as_their_tastes_turn() -> None:
    truth, found = _estimated(drift=float(np.pi), targeting=1.0)
    assert found.value > 1.08 * truth
