"""The attacker finds what is there and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from llm4rec.errors import InputError
from llm4rec.evaluate.attacker import attack
from llm4rec.evaluate.groups import Groups


def of(members: np.ndarray, n_groups: int = 2) -> Groups:
    return Groups("side", tuple("abcdef"[:n_groups]), members)


@pytest.mark.parametrize("n_groups", [2, 4])
@pytest.mark.parametrize("curved", [False, True], ids=["straight", "curved"])
def test_states_that_know_nothing(n_groups: int, curved: bool) -> None:
    draw = np.random.default_rng(n_groups)
    members = draw.choice(n_groups, size=400, p=np.arange(1, n_groups + 1) / np.arange(1, n_groups + 1).sum())
    found = attack(draw.standard_normal((400, 12)), of(members, n_groups), curved=curved, shuffles=9)
    assert found.guessing == 1 / n_groups
    assert found.accuracy.low - 0.02 < 1 / n_groups < found.accuracy.high + 0.02
    assert found.p > 0.1
    assert found.chance == pytest.approx(1 / n_groups, abs=0.05)


@pytest.mark.parametrize("n_groups", [2, 4])
def test_states_that_hold_it(n_groups: int) -> None:
    draw = np.random.default_rng(0)
    members = draw.integers(n_groups, size=300)
    states = draw.standard_normal((300, 12))
    states[:, :n_groups] += 8 * np.eye(n_groups)[members]
    found = attack(states, of(members, n_groups), shuffles=9)
    assert found.accuracy.value > 0.99 and found.accuracy.low > 0.95
    assert found.p == 0.1 and found.chance < 1 / n_groups + 0.1
    assert found.recalls.shape == (n_groups,)


def test_a_large_group_does_not_make_it_look_good() -> None:
    """Of 380 to 20, saying the larger every time is right in 95% and worth half."""
    draw = np.random.default_rng(1)
    members = np.repeat([0, 1], [380, 20])
    found = attack(draw.standard_normal((400, 5)), of(members), shuffles=0)
    assert found.accuracy.value == pytest.approx(0.5, abs=0.15)
    assert np.isnan(found.chance) and found.p == 1


def test_a_curved_border_needs_a_curved_attacker() -> None:
    """Inside or outside of a circle: no straight line tells."""
    draw = np.random.default_rng(2)
    states = draw.standard_normal((600, 2))
    members = (np.square(states).sum(axis=1) > np.log(4)).astype(np.int64)  # half of them
    assert attack(states, of(members), shuffles=0).accuracy.value < 0.6
    assert attack(states, of(members), curved=True, shuffles=0).accuracy.value > 0.85


def test_who_is_unknown_or_in_a_small_group_is_left_out() -> None:
    draw = np.random.default_rng(3)
    members = np.repeat([0, 1, 2, -1], [60, 60, 5, 30])
    states = draw.standard_normal((155, 3))
    states[members == 1] += 9
    states[members < 0] = 1e6  # must not weigh on how states are scaled
    found = attack(states, of(members, 3), shuffles=0)
    assert found.groups == ("a", "b") and found.guessing == 0.5
    assert found.accuracy.value == 1
    assert found.notes == (
        "side: 'c' has 5 people, fewer than 20; it is shown and not compared.",
        "side: 30 people have no value; they are shown and not compared.",
    )
    again = attack(states, of(members, 3), shuffles=0)
    assert again.accuracy == found.accuracy


def test_what_is_refused() -> None:
    states = np.zeros((30, 2))
    with pytest.raises(InputError, match=r"30 states and groups of 4 people"):
        attack(states, of(np.zeros(4, dtype=np.int64)))
    with pytest.raises(
        InputError, match=r"side: guessing needs two groups of 20 people or more\. side: 'b' has 0"
    ):
        attack(states, of(np.zeros(30, dtype=np.int64)))
    with pytest.raises(InputError, match="not finite"):
        attack(np.full((30, 2), np.nan), of(np.zeros(30, dtype=np.int64)))
