"""Heads by hand, and a rating head that learns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.model.heads import DenseHead, PointwiseHead

STATES = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
VECTORS = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0]])


def test_dot_products_by_hand() -> None:
    head = DenseHead(cosine=False, temperature=0.5)
    assert head(STATES, VECTORS).tolist() == [[3, 20, -6], [0, 10, 0]]


def biased(bias: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Vectors whose first coordinate is the bias."""
    return torch.cat([bias.unsqueeze(1), directions], dim=1)


NOTHING = torch.zeros(3)


def test_cosines_by_hand() -> None:
    head = DenseHead(cosine=True, temperature=0.5)
    cosines = torch.tensor([[0.6, 0.8, -0.6], [0, 1, 0]])
    bias = torch.tensor([0.5, -1.0, 0.0])
    states = biased(torch.tensor([9.0, -9.0]), STATES)  # what stands in a state's first place is not read
    expected = cosines / 0.5 + bias * math.sqrt(3)
    torch.testing.assert_close(head(states, biased(bias, VECTORS)), expected)


@pytest.mark.parametrize("cosine", [True, False])
def test_prepared_forms_have_the_logits_as_their_products(cosine: bool) -> None:
    head = DenseHead(cosine=cosine, temperature=0.07)
    states, vectors = head.prepared(STATES, VECTORS)
    torch.testing.assert_close(states @ vectors.T, head(STATES, VECTORS))


@settings(max_examples=40)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(0.01, 10))
def test_cosine_knows_no_lengths_and_stays_within_the_temperature(
    a: float, b: float, temperature: float
) -> None:
    head = DenseHead(cosine=True, temperature=temperature)
    states = biased(torch.zeros(2), STATES)
    logits = head(states, biased(NOTHING, VECTORS))
    torch.testing.assert_close(head(a * states, biased(NOTHING, b * VECTORS)), logits, rtol=1e-4, atol=1e-4)
    assert logits.abs().max().item() <= (1 + 1e-5) / temperature


def test_states_may_have_any_leading_axes() -> None:
    head = DenseHead(cosine=True, temperature=1.0)
    assert torch.equal(head(STATES.expand(4, 2, 2), VECTORS)[3], head(STATES, VECTORS))


def test_a_zero_vector_is_finite_also_for_gradients() -> None:
    vectors = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
    logits = DenseHead(cosine=True, temperature=0.1)(biased(torch.zeros(2), STATES), vectors)
    assert logits[:, 0].tolist() == [0, 0]
    logits.sum().backward()
    assert vectors.grad is not None and vectors.grad.isfinite().all()


def test_pointwise_by_hand() -> None:
    head = PointwiseHead(2)
    with torch.no_grad():
        first, _, last = head.layers
        first.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]))  # type: ignore[union-attr]
        first.bias.zero_()  # type: ignore[union-attr]
        last.weight.copy_(torch.tensor([[2.0, 1.0]]))  # type: ignore[union-attr]
        last.bias.fill_(0.5)  # type: ignore[union-attr]

    def gelu(x: float) -> float:
        return x * (1 + math.erf(x / math.sqrt(2))) / 2

    # 2 · gelu(s₀) + gelu(s₁ v₁) + ½
    rating = head(torch.tensor([1.0, 3.0]), torch.tensor([9.0, 0.5]))
    assert rating.item() == pytest.approx(2 * gelu(1) + gelu(1.5) + 0.5, abs=1e-5)


def test_pointwise_learns_who_likes_what() -> None:
    """A rating that only the pair decides, not the person nor the item alone, is learnt from examples."""
    draw = torch.Generator().manual_seed(0)
    states, vectors = (torch.randn(400, 4, generator=draw) for _ in range(2))
    ratings = (states * vectors).sum(dim=1) / 2
    torch.manual_seed(0)
    head = PointwiseHead(4)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(150):
        loss = (head(states[:300], vectors[:300]) - ratings[:300]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        error = (head(states[300:], vectors[300:]) - ratings[300:]).square().mean()
    assert error.item() < 0.15 * ratings[300:].var().item()
