"""Equation (33), by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.online.consolidation import Consolidation


def test_the_proximal_step_by_hand() -> None:
    kept = Consolidation(3.0, {"w": torch.tensor([2.0, 0.5])}, {"w": torch.tensor([1.0, -1.0])})
    weights = torch.tensor([2.0, 1.0])
    kept.draw_back({"w": weights}, 0.5, None)
    assert weights.tolist() == [1.25, pytest.approx(-1 + 2 / 1.75)]  # 1 + 1 / (1 + .5 · 3 · 2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1e9), st.floats(1e-6, 100))
def test_it_is_the_gradient_step_where_that_is_small_and_never_overshoots(
    seed: int, strength: float, rate: float
) -> None:
    torch.manual_seed(seed)
    anchor, fisher, theta = torch.randn(5, 2), torch.rand(5, 2), torch.randn(5, 2)
    kept = Consolidation(strength, {"w": fisher}, {"w": anchor})
    found, rows = theta.clone(), torch.tensor([1, 3])
    kept.draw_back({"w": found}, rate, {"w": rows})
    others = torch.tensor([0, 2, 4])
    assert torch.equal(found[others], theta[others])
    assert bool(((found - anchor).abs() <= (theta - anchor).abs() * 1.001 + 1e-6).all())
    small = Consolidation(1.0, {"w": fisher}, {"w": anchor})
    found = theta.double()
    small.draw_back({"w": found}, 1e-4, None)
    gradient_step = theta.double() - 1e-4 * fisher * (theta - anchor)
    torch.testing.assert_close(found, gradient_step, rtol=0, atol=1e-6)


def test_what_it_counts_by_hand() -> None:
    kept = Consolidation(1.0, {"w": torch.zeros(2)}, {"w": torch.zeros(2)})
    for number, gradient in enumerate([[1.0, 2.0], [3.0, 0.0], [2.0, 1.0]]):
        kept.count({"w": torch.tensor(gradient)}, number / (number + 1))  # each weighs the same
    torch.testing.assert_close(kept.fisher["w"], torch.tensor([14 / 3, 5 / 3]))
    kept.count({"w": torch.tensor([0.0, 1.0])}, 0.9)
    torch.testing.assert_close(kept.fisher["w"], torch.tensor([0.9 * 14 / 3, 0.9 * 5 / 3 + 0.1]))
    kept.loosen(0.5)
    torch.testing.assert_close(kept.fisher["w"], torch.tensor([0.45 * 14 / 3, 0.45 * 5 / 3 + 0.05]))


def test_nothing_holds_back_where_it_stands_or_without_strength() -> None:
    kept = Consolidation(5.0, {"w": torch.ones(3)}, {"w": torch.zeros(3)})
    weights = torch.tensor([1.0, 2.0, 3.0])
    kept.hold({"w": weights})
    kept.draw_back({"w": weights}, 0.1, None)
    assert weights.tolist() == [1, 2, 3]
    weights[0] = 9
    assert kept.anchor["w"][0] == 1  # a copy
    Consolidation(0.0, kept.fisher, kept.anchor).draw_back({"w": weights}, 0.1, None)
    assert weights.tolist() == [9, 2, 3]
