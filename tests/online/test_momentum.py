"""Equations (26) to (30), by hand and beside PyTorch's own."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llm4rec.online.momentum import descend, important


def test_two_steps_by_hand() -> None:
    theta, speed = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.zeros(2)}
    descend(theta, speed, {"w": torch.tensor([1.0, -2.0])}, rate=0.5, momentum=0.5, chosen=None)
    assert speed["w"].tolist() == [1.0, -2.0]
    assert theta["w"].tolist() == [0.5, 3.0]
    descend(theta, speed, {"w": torch.tensor([2.0, 0.0])}, rate=0.5, momentum=0.5, chosen=None)
    assert speed["w"].tolist() == [2.5, -1.0]  # 0.5 · 1 + 2, 0.5 · −2 + 0
    assert theta["w"].tolist() == [-0.75, 3.5]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.001, 1), st.floats(0, 0.99), st.integers(1, 6))
def test_all_of_it_is_plain_momentum_to_the_bit(seed: int, rate: float, momentum: float, steps: int) -> None:
    torch.manual_seed(seed)
    start = {"table": torch.randn(7, 3), "norm": torch.randn(5), "gate": torch.randn(())}
    gradients = [{name: torch.randn_like(tensor) for name, tensor in start.items()} for _ in range(steps)]
    theirs = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    optimiser = torch.optim.SGD(theirs.values(), lr=rate, momentum=momentum)
    ours = {name: tensor.clone() for name, tensor in start.items()}
    velocity = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    for each in gradients:
        for name, parameter in theirs.items():
            parameter.grad = each[name].clone()
        optimiser.step()
        descend(ours, velocity, each, rate=rate, momentum=momentum, chosen=important(each, ours, 1.0))
    for name, parameter in theirs.items():
        assert torch.equal(ours[name], parameter.detach())


def test_the_most_important_rows_by_hand() -> None:
    gradients = {
        "table": torch.tensor([[3.0, 0.0], [0.1, 0.1], [0.0, 2.0]]),
        "norm": torch.tensor([1.0, 1.0]),
    }
    zeros = {name: torch.zeros_like(tensor) for name, tensor in gradients.items()}
    # means of g²: 4.5, 0.01, 2 and 1, of two numbers each; half of eight numbers are two rows
    chosen = important(gradients, zeros, 0.5)
    assert chosen is not None
    assert chosen["table"].tolist() == [0, 2] and chosen["norm"].tolist() == []
    values = {"table": torch.tensor([[0.0, 1.0], [10.0, 0.0], [0.0, 1.0]]), "norm": torch.tensor([2.0, 2.0])}
    # means of |g θ|: 0, 0.5, 1 and 2
    chosen = important(gradients, values, 0.5, "product")
    assert chosen is not None
    assert chosen["table"].tolist() == [2] and chosen["norm"].tolist() == [0]
    one = important(gradients, zeros, 1e-9)
    assert one is not None and one["table"].tolist() == [0] and one["norm"].tolist() == []


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 0.99))
def test_no_more_than_the_share_is_changed_and_the_rest_keeps_its_momentum(
    seed: int, fraction: float
) -> None:
    torch.manual_seed(seed)
    theta = {"table": torch.randn(9, 4), "norm": torch.randn(4)}
    speed = {name: torch.randn_like(tensor) for name, tensor in theta.items()}
    gradients = {name: torch.randn_like(tensor) for name, tensor in theta.items()}
    before: list[dict[str, Tensor]] = [{n: t.clone() for n, t in each.items()} for each in (theta, speed)]
    chosen = important(gradients, theta, fraction)
    assert chosen is not None
    descend(theta, speed, gradients, rate=0.1, momentum=0.9, chosen=chosen)
    changed = {name: tensor != before[0][name] for name, tensor in theta.items()}
    moved = sum(int(each.sum()) for each in changed.values())
    assert moved <= max(fraction * 40, 4)
    for name, each in changed.items():
        assert torch.equal(speed[name][~each], before[1][name][~each])
    whole = {n: t.clone() for n, t in before[0].items()}, {n: t.clone() for n, t in before[1].items()}
    descend(whole[0], whole[1], gradients, rate=0.1, momentum=0.9, chosen=None)
    for name, each in changed.items():
        assert torch.equal(theta[name][each], whole[0][name][each])
