"""Values of policies that were not logged: by hand, in worlds of known truth, and with wrong propensities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from llm4rec.data.world import WorldConfig, make_world
from llm4rec.errors import InputError
from llm4rec.evaluate.off_policy import Logged, Value, check, doubly_robust, ips, naive, snips, switch
from llm4rec.evaluate.significance import holm
from llm4rec.types import Array

N_ACTIONS, N_CONTEXTS = 6, 5


def by_hand(**changes: Array | None) -> Logged:
    """Weights 2, .5 and 1, rewards 1, 0 and 1."""
    made = Logged(
        rewards=np.array([1.0, 0.0, 1.0]),
        actions=np.array([0, 1, 0]),
        propensities=np.array([0.25, 0.5, 0.5]),
        probabilities=np.array([0.5, 0.25, 0.5]),
        people=np.arange(3),
        predicted=np.array([0.5, 0.25, 0.5]),
        expected=np.array([0.4, 0.4, 0.4]),
    )
    return replace(made, **changes)


def test_estimates_by_hand() -> None:
    log = by_hand()
    assert naive(log).mean == pytest.approx(2 / 3)
    assert ips(log).mean == pytest.approx((2 + 0 + 1) / 3)
    assert ips(log, clip=1).mean == pytest.approx((1 + 0 + 1) / 3)
    assert snips(log).mean == pytest.approx(3 / 3.5)
    # .4 + (2 · .5, .5 · −.25, 1 · .5)
    assert doubly_robust(log).mean == pytest.approx(0.4 + (1 - 0.125 + 0.5) / 3)
    assert switch(log, most=1).mean == pytest.approx(0.4 + (-0.125 + 0.5) / 3)


def test_errors_by_hand() -> None:
    """Terms 2, 0 and 1 with mean 1: √(Σ (1, −1, 0)² · 3/2) / 3 = 1/√3; SNIPS' around 6/7, over 7/6."""
    found = ips(by_hand())
    assert found.error == pytest.approx(np.sqrt(2 * 3 / 2) / 3)
    assert (found.high - found.mean) / found.error == pytest.approx(1.959964, rel=1e-6)
    terms = np.array([2 * (1 - 6 / 7), 0.5 * (0 - 6 / 7), 1 - 6 / 7]) * 6 / 7
    assert snips(by_hand()).error == pytest.approx(np.sqrt(np.square(terms).sum() * 3 / 2) / 3)


def test_one_person_s_events_are_one_observation() -> None:
    log = by_hand()
    twice = Logged(**{name: None if v is None else np.concatenate([v, v]) for name, v in vars(log).items()})
    assert ips(twice).error == pytest.approx(ips(log).error)  # the same people said it again
    apart = replace(twice, people=np.arange(6))
    assert ips(apart).error < 0.8 * ips(log).error
    assert ips(replace(log, people=np.zeros(3, dtype=np.int64))).error == np.inf


def test_what_weighing_asks_for_is_told() -> None:
    told = check(by_hand(), clip=1)
    assert told.effective == pytest.approx(3.5**2 / (4 + 0.25 + 1)) and told.largest == 2
    assert told.clipped == pytest.approx(1 / 3) and told.mean == pytest.approx(3.5 / 3)
    assert np.isnan(told.action_p) and not told.rejected  # three events tell nothing


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_log_s_own_policy_earns_what_was_logged(seed: int, n: int) -> None:
    """At weights of 1 all estimates but those of a model are the naive mean."""
    draw = np.random.default_rng(seed)
    same = draw.uniform(0.01, 1, size=n)
    log = Logged(draw.random(n), draw.integers(3, size=n), same, same, np.arange(n))
    for found in (ips(log), snips(log)):
        assert found.mean == pytest.approx(naive(log).mean)
        assert found.error == pytest.approx(naive(log).error, abs=1e-12)
    assert check(log).effective == pytest.approx(n)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"propensities": np.array([0.25, 0.0, 0.5])}, "propensity of event 2 is 0: what was shown had"),
        ({"propensities": np.array([0.25, 0.5, 1.5])}, "propensity of event 3 is 1.5"),
        ({"rewards": np.array([1.0, np.nan, 0.0])}, "Of every logged event rewards must be known"),
        ({"rewards": np.zeros(2)}, "must be known, as a finite number"),
        ({"expected": None}, "expects of both"),
        ({"rewards": np.zeros(0)}, "without logged events"),
    ],
)
def test_a_log_that_makes_no_sense_is_refused(changes: dict[str, Array | None], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        by_hand(**changes)


def test_what_has_no_model_or_nothing_in_common_is_refused() -> None:
    bare = by_hand(predicted=None, expected=None)
    for estimate in (lambda: doubly_robust(bare), lambda: switch(bare, most=2)):
        with pytest.raises(InputError, match="needs a model of the rewards"):
            estimate()
    with pytest.raises(InputError, match="shows nothing of what was logged"):
        snips(by_hand(probabilities=np.zeros(3)))


def bandit(seed: int, n: int = 3000, wrong_model: bool = True) -> tuple[Logged, float]:
    """Contexts with tastes, a log that prefers what clicks, and the value of showing all alike."""
    truth = np.random.default_rng(7).uniform(0.05, 0.6, size=(N_CONTEXTS, N_ACTIONS))
    draw = np.random.default_rng([seed, 1])
    policy = truth**2 / (truth**2).sum(axis=1, keepdims=True)
    context = draw.integers(N_CONTEXTS, size=n)
    action = (policy[context].cumsum(axis=1) > draw.random((n, 1))).argmax(axis=1)
    reward = (draw.random(n) < truth[context, action]).astype(float)
    model = np.full_like(truth, 0.2) if wrong_model else truth
    log = Logged(
        reward, action, policy[context, action], np.full(n, 1 / N_ACTIONS), np.arange(n),
        model[context, action], model.mean(axis=1)[context],
    )  # fmt: skip
    return log, float(truth.mean())


ESTIMATES: dict[str, Callable[[Logged], Value]] = {"ips": ips, "snips": snips, "dr": doubly_robust}


@pytest.mark.parametrize("name", list(ESTIMATES))
def test_intervals_cover_the_truth_where_the_naive_mean_is_off(name: str) -> None:
    found = [(ESTIMATES[name](log), naive(log), truth) for log, truth in map(bandit, range(100))]
    assert sum(value.low <= truth <= value.high for value, _, truth in found) >= 90
    errors = np.array([value.mean - truth for value, _, truth in found])
    assert abs(errors.mean()) < 2 * errors.std() / np.sqrt(len(errors))
    assert not any(plain.low <= truth <= plain.high for _, plain, truth in found)
    spread, told = errors.std(), np.mean([value.error for value, _, _ in found])
    assert told == pytest.approx(spread, rel=0.2)


def test_a_right_model_makes_the_interval_narrower() -> None:
    wrong, right = (doubly_robust(bandit(0, wrong_model=wrong)[0]) for wrong in (True, False))
    assert right.error < 0.95 * wrong.error


def test_wrong_propensities_are_rejected_and_right_ones_hardly_ever() -> None:
    rejected = [check(bandit(seed)[0]).rejected for seed in range(100)]
    assert sum(rejected) <= 5
    for seed in range(5):
        log, _ = bandit(seed)
        shuffled = np.random.default_rng(seed).permutation(log.propensities)
        flat = np.full(len(log.rewards), 1 / N_ACTIONS)
        for planted in (shuffled, flat, np.minimum(2 * log.propensities, 1)):
            assert check(replace(log, propensities=planted)).rejected


def test_actions_are_tested_as_one_at_a_time_would_be() -> None:
    """The mean of 1{A = a} / π₀ with the error of `ips` at weight 1 and rewards that name the action."""
    log, _ = bandit(3, n=2000)
    people = np.random.default_rng(0).integers(300, size=2000)
    alike = np.ones(2000)
    named = [
        ips(replace(log, people=people, probabilities=alike, rewards=(log.actions == a).astype(float)))
        for a in range(N_ACTIONS)
    ]
    p_values = [2 * norm.sf(abs(value.mean - 1) / value.error) for value in named]
    assert check(replace(log, people=people)).action_p == pytest.approx(min(holm(p_values)), rel=1e-6)


def test_in_the_synthetic_world_the_uniform_policy_is_valued_from_the_logged_one() -> None:
    """What a uniformly drawn item earns where everybody looks: the log of another policy tells it."""
    settings = {"inattention": 0.0, "explore": 0.3, "n_events": 1000, "n_trial": 0}
    inside = 0
    for seed in range(20):
        world = make_world(WorldConfig(seed=seed, n_users=300, n_items=60, n_impressions=20_000, **settings))
        shown, truth = world.impressions, world.truth
        log = Logged(
            shown.clicked.astype(float), shown.items, shown.propensities,
            np.full(len(shown), 1 / truth.config.items), np.arange(len(shown)),
        )  # fmt: skip
        draw = np.random.default_rng(seed)
        people, times = shown.users, shown.times
        value = truth.click(people, draw.integers(truth.config.items, size=len(people)), times).mean()
        assert not check(log).rejected
        found, plain = ips(log), naive(log)
        inside += found.low - 0.005 <= value <= found.high + 0.005
        assert plain.low > value  # the policy shows what is popular
    assert inside >= 18
