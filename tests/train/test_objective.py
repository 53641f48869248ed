"""The losses: equal to the textbook's in value and gradient, however they are computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llm4rec.generate.teaching import Teaching
from llm4rec.generate.trie import build_trie
from llm4rec.model.heads import DenseHead, PointwiseHead
from llm4rec.model.offset import Offsets
from llm4rec.train import objective
from llm4rec.train.loop import TrainConfig
from llm4rec.train.objective import rating_loss, sampled_softmax_loss, soft_codes, softmax_loss

P, N, D = 13, 29, 6


def drawn(dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States [p, d], vectors [i, d], targets [p], weights [p], one of them 0."""
    draw = torch.Generator().manual_seed(0)
    states = (scale * torch.randn(P, D, generator=draw, dtype=dtype)).requires_grad_()
    vectors = torch.randn(N, D, generator=draw, dtype=dtype).requires_grad_()
    weights = torch.rand(P, generator=draw, dtype=dtype)
    weights[3] = 0
    return states, vectors, torch.randint(N, (P,), generator=draw), weights


def textbook(head: DenseHead, states: Tensor, vectors: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(head(states, vectors), targets, reduction="none") * weights).sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("rows", [1, 4, 1000], ids=["a row a block", "last block short", "one block"])
@pytest.mark.parametrize("cosine", [True, False], ids=["cosine", "dot"])
def test_full_softmax_is_cross_entropy_in_value_and_gradient(
    dtype: torch.dtype, rows: int, cosine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "BLOCK", rows * N)
    head = DenseHead(cosine=cosine, temperature=0.1)
    states, vectors, targets, weights = drawn(dtype)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    found = softmax_loss(head, states, vectors, targets, weights)
    expected = textbook(head, states, vectors, targets, weights)
    torch.testing.assert_close(found, expected, **tolerance)
    # a factor behind the loss must reach the gradients, which were computed before it was known
    mine = torch.autograd.grad(3 * found, [states, vectors])
    theirs = torch.autograd.grad(3 * expected, [states, vectors])
    for left, right in zip(mine, theirs, strict=True):
        torch.testing.assert_close(left, right, **tolerance)


def test_full_softmax_agrees_with_finite_differences() -> None:
    states, vectors, targets, weights = drawn(torch.float64)
    head = DenseHead(cosine=False, temperature=1.0)
    assert torch.autograd.gradcheck(
        lambda s, v: softmax_loss(head, s, v, targets, weights), (states, vectors)
    )


def test_huge_logits_stay_finite() -> None:
    head = DenseHead(cosine=False, temperature=1.0)
    states, vectors, targets, weights = drawn(torch.float32, scale=1e4)
    loss = softmax_loss(head, states, vectors, targets, weights)
    loss.backward()
    torch.testing.assert_close(loss, textbook(head, states, vectors, targets, weights), rtol=1e-4, atol=1e-3)
    assert states.grad is not None and states.grad.isfinite().all()


def test_full_softmax_by_hand() -> None:
    head = DenseHead(cosine=False, temperature=1.0)
    states, vectors = torch.tensor([[math.log(3.0)]]), torch.tensor([[1.0], [0.0]])
    # p = ¾, ¼
    loss = softmax_loss(head, states, vectors, torch.tensor([1]), torch.tensor([2.0]))
    assert loss.item() == pytest.approx(2 * math.log(4))


@pytest.mark.parametrize("cosine", [True, False], ids=["cosine", "dot"])
def test_with_every_item_once_as_a_negative_sampling_is_the_full_softmax(cosine: bool) -> None:
    head = DenseHead(cosine=cosine, temperature=0.2)
    states, vectors, targets, _ = drawn(torch.float64)
    everything = torch.arange(N)
    losses = sampled_softmax_loss(
        head, states, vectors[targets], vectors, targets, everything, torch.zeros(N, dtype=torch.float64)
    )
    expected = F.cross_entropy(head(states, vectors), targets, reduction="none")
    torch.testing.assert_close(losses, expected)
    for left, right in zip(
        torch.autograd.grad(losses.sum(), [states, vectors]),
        torch.autograd.grad(expected.sum(), [states, vectors]),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


def test_log_q_by_hand() -> None:
    """Two negatives, each expected ½ a time: each stands for two; the target among them is left out."""
    head = DenseHead(cosine=False, temperature=1.0)
    states = torch.tensor([[1.0]])
    losses = sampled_softmax_loss(
        head, states, torch.tensor([[0.0]]), torch.tensor([[math.log(3.0)], [5.0]]),
        torch.tensor([7]), torch.tensor([2, 7]), torch.full((2,), math.log(0.5)),
    )  # fmt: skip
    assert losses.tolist() == pytest.approx([math.log(1 + 2 * 3)])


def test_sampling_estimates_the_full_softmax() -> None:
    head = DenseHead(cosine=False, temperature=1.0)
    states, vectors, targets, _ = drawn(torch.float32)
    draw = torch.Generator().manual_seed(1)
    n, total = 4000, torch.zeros(P)
    with torch.no_grad():
        for _ in range(10):
            negatives = torch.randint(N, (n,), generator=draw)
            counts = torch.full((n,), math.log(n / N))
            total += sampled_softmax_loss(
                head, states, vectors[targets], vectors[negatives], targets, negatives, counts
            )
        expected = F.cross_entropy(head(states, vectors), targets, reduction="none")
    torch.testing.assert_close(total / 10, expected, rtol=0.02, atol=0.02)


def test_rating_loss_passes_over_missing_ratings() -> None:
    head = PointwiseHead(2)
    states, vectors = torch.randn(3, 2), torch.randn(3, 2)
    ratings = torch.tensor([1.0, float("nan"), -0.5])
    losses = rating_loss(head, states, vectors, ratings)
    predicted = head(states, vectors)
    assert losses[1].item() == 0
    torch.testing.assert_close(losses[[0, 2]], (predicted - ratings).square()[[0, 2]])
    losses[1].backward()
    for parameter in head.parameters():
        assert parameter.grad is not None and (parameter.grad == 0).all()


def test_products_of_bfloat16_err_by_less_than_a_hundredth() -> None:
    head = DenseHead(cosine=True, temperature=0.06)
    states, vectors, targets, weights = drawn(torch.float32)
    found = softmax_loss(head, states, vectors, targets, weights, torch.bfloat16)
    expected = textbook(head, states, vectors, targets, weights)
    assert found.item() != expected.item()  # it was asked for, and done
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)
    mine = torch.autograd.grad(found, [states, vectors])
    theirs = torch.autograd.grad(expected, [states, vectors])
    for left, right in zip(mine, theirs, strict=True):
        assert (left - right).norm() < 0.01 * right.norm()


@pytest.mark.parametrize(("able", "precision", "dtype"), [
    (True, "auto", torch.bfloat16), (False, "auto", torch.float32),
    (True, "float32", torch.float32), (False, "bfloat16", torch.bfloat16),
])  # fmt: skip
def test_auto_takes_bfloat16_only_where_the_processor_multiplies_it(
    able: bool, precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able}, raising=False)
    assert TrainConfig.model_validate({"precision": precision}).dtype == dtype


def popular(rows: int = 3) -> Offsets:
    """What is added to the logits [p, i] of targets of several stretches."""
    draw = torch.Generator().manual_seed(2)
    return Offsets(torch.randn(rows, N, generator=draw).double(), torch.randint(rows, (P,), generator=draw))


def test_popularity_in_the_loss_by_hand() -> None:
    """Scores say 1 : 1 : 2 of three items, popularity 9 : 4 : 1 then and 1 : 1 : 1 later, its power is ½."""
    head = DenseHead(cosine=False, temperature=1.0)
    states, vectors = torch.ones(2, 1), torch.tensor([[0.0], [0.0], [math.log(2.0)]])
    table = 0.5 * torch.log(torch.tensor([[9.0, 4.0, 1.0], [1.0, 1.0, 1.0]]) / torch.tensor([[14.0], [3.0]]))
    offsets = Offsets(table, torch.tensor([0, 1]))
    targets, weights = torch.tensor([1, 2]), torch.ones(2)
    loss = softmax_loss(head, states, vectors, targets, weights, offsets=offsets)
    # 3 : 2 : 2, the second of which is 2/7; and 1 : 1 : 2, the third of which is 2/4
    assert loss.item() == pytest.approx(math.log(7 / 2) + math.log(2))
    every = torch.arange(3)
    sampled = sampled_softmax_loss(
        head, states, vectors[targets], vectors, targets, every, torch.zeros(3), offsets
    )
    assert sampled.tolist() == pytest.approx([math.log(7 / 2), math.log(2)])


@pytest.mark.parametrize("rows", [1, 4, 1000], ids=["a row a block", "last block short", "one block"])
@pytest.mark.parametrize("cosine", [True, False], ids=["cosine", "dot"])
def test_with_popularity_the_full_softmax_is_cross_entropy_of_logits_and_offsets(
    rows: int, cosine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "BLOCK", rows * N)
    head = DenseHead(cosine=cosine, temperature=0.1)
    states, vectors, targets, weights = drawn(torch.float64)
    offsets = popular()
    offsets.table.requires_grad_()
    found = softmax_loss(head, states, vectors, targets, weights, offsets=offsets)
    logits = head(states, vectors) + offsets.table.detach()[offsets.rows]
    expected = (F.cross_entropy(logits, targets, reduction="none") * weights).sum()
    torch.testing.assert_close(found, expected)
    for left, right in zip(
        torch.autograd.grad(3 * found, [states, vectors], retain_graph=True),
        torch.autograd.grad(3 * expected, [states, vectors]),
        strict=True,
    ):
        torch.testing.assert_close(left, right)
    assert torch.autograd.grad(found, [offsets.table], allow_unused=True) == (None,)


@pytest.mark.parametrize("cosine", [True, False], ids=["cosine", "dot"])
def test_popularity_is_corrected_once_whether_negatives_are_sampled_or_not(cosine: bool) -> None:
    """Every item is a negative twice, by a uniform draw of 2 N: log_counts are ln 2 for each."""
    head = DenseHead(cosine=cosine, temperature=0.2)
    states, vectors, targets, _ = drawn(torch.float64)
    offsets, negatives = popular(), torch.arange(N).repeat(2)
    counts = torch.full((2 * N,), math.log(2.0), dtype=torch.float64)
    losses = sampled_softmax_loss(
        head, states, vectors[targets], vectors[negatives], targets, negatives, counts, offsets
    )
    weights = torch.linspace(1, 2, P, dtype=torch.float64)
    expected = softmax_loss(head, states, vectors, targets, weights, offsets=offsets)
    torch.testing.assert_close((losses * weights).sum(), expected)
    for left, right in zip(
        torch.autograd.grad((losses * weights).sum(), [states, vectors]),
        torch.autograd.grad(expected, [states, vectors]),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


def test_the_code_head_is_taught_what_is_taken_popularity_and_all() -> None:
    head = DenseHead(cosine=True, temperature=0.2)
    states, vectors, targets, _ = (each.detach().float() for each in drawn(torch.float64))
    codes, targets = np.stack([np.arange(N) // 8, np.arange(N) % 8], axis=1), targets.long()
    teaching, offsets = Teaching(build_trie(codes), 8, 1.0), popular()
    offsets = Offsets(offsets.table.float(), offsets.rows)
    found = soft_codes(head, states, vectors, targets, teaching, offsets)
    p = (head(states, vectors) + offsets.table[offsets.rows]).softmax(dim=1)
    first = torch.stack([p[:, codes[:, 0] == code].sum(dim=1) for code in range(8)], dim=1)
    torch.testing.assert_close(found[0], first)
