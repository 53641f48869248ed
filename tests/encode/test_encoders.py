"""Every encoder's short way to the pooled vector gives what its tokens give."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from llm4rec.encode.encoders import (
    BehaviourEncoder,
    CategoricalEncoder,
    Encoder,
    NumericalEncoder,
    VectorEncoder,
    behaviour_tokens,
)
from llm4rec.encode.tokens import Tokens

MASK = torch.tensor([[True, True, False], [False, True, True], [False, False, False], [True, True, True]])


def cases() -> list[tuple[nn.Module, Tokens]]:
    draw = torch.Generator().manual_seed(1)
    vectors = torch.randn(4, 3, 5, generator=draw)
    codes = torch.randint(1, 7, (4, 3), generator=draw) * MASK
    vector = VectorEncoder(5, 3, 8, 0.3)
    nn.init.normal_(vector.field)
    return [
        (vector, Tokens(vectors, MASK)),
        (CategoricalEncoder(7, 8, 0.3), Tokens(codes, MASK)),
        (NumericalEncoder(3, 8, 0.3), Tokens(torch.rand(4, 3, generator=draw), MASK)),
        (BehaviourEncoder(4, 8, 0.3), behaviour_tokens(MASK[:, 1])),
    ]


NAMES = ["vector", "categorical", "numerical", "behaviour"]


@pytest.mark.parametrize("which", range(4), ids=NAMES)
def test_pooled_is_the_sum_of_tokens_over_the_root_of_their_number(which: int) -> None:
    module, tokens = cases()[which]
    encoder: Encoder = module  # type: ignore[assignment]
    each = encoder.tokens(tokens)
    assert (each[~tokens.mask] == 0).all()
    assert (each[tokens.mask].abs().sum(dim=1) > 0).all()
    number = tokens.mask.sum(dim=1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(encoder.pooled(tokens), each.sum(dim=1) / number.sqrt())
    assert (encoder.pooled(tokens)[2] == 0).all()


@pytest.mark.parametrize("which", range(4), ids=NAMES)
def test_what_stands_behind_the_mask_is_never_read(which: int) -> None:
    module, tokens = cases()[which]
    encoder: Encoder = module  # type: ignore[assignment]
    if tokens.values.is_floating_point():
        spoilt = tokens.values.clone()
        spoilt[~tokens.mask] = 1e6
        torch.testing.assert_close(encoder.pooled(Tokens(spoilt, tokens.mask)), encoder.pooled(tokens))
    encoder.pooled(tokens).square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    if isinstance(module, CategoricalEncoder):
        assert (module.table.grad[0] == 0).all()  # type: ignore[index]  # padding learns nothing
    if isinstance(module, BehaviourEncoder):
        assert (module.table.grad.abs().sum(1) > 0).tolist() == MASK[:, 1].tolist()  # type: ignore[union-attr]


def test_vectors_by_hand() -> None:
    encoder = VectorEncoder(2, 2, 2, 1.0)
    with torch.no_grad():
        encoder.project.copy_(torch.tensor([[1.0, 0.0], [2.0, -1.0]]))
        encoder.field.copy_(torch.tensor([[10.0, 0.0], [0.0, 20.0]]))
    tokens = Tokens(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[True, True]]))
    # field 0: (1, 0) + (10, 0); field 1: (2, −1) + (0, 20)
    assert encoder.tokens(tokens)[0].tolist() == [[11, 0], [2, 19]]
    assert encoder.pooled(tokens)[0].tolist() == pytest.approx([13 / math.sqrt(2), 19 / math.sqrt(2)])


def test_categories_by_hand() -> None:
    encoder = CategoricalEncoder(3, 1, 1.0)
    with torch.no_grad():
        encoder.table.copy_(torch.tensor([[7.0], [1.0], [3.0]]))
    values = torch.tensor([[1, 2], [2, 0], [0, 0]])
    pooled = encoder.pooled(Tokens(values, values > 0))
    assert pooled[:, 0].tolist() == pytest.approx([4 / math.sqrt(2), 3, 0])


def test_numbers_by_hand() -> None:
    encoder = NumericalEncoder(1, 1, 1.0, frequencies=1)
    with torch.no_grad():
        encoder.frequency.fill_(0.5)
        encoder.weight.copy_(torch.tensor([[[2.0], [3.0]]]))  # of the sine, of the cosine
    tokens = Tokens(torch.tensor([[0.0], [0.5], [1.0]]), torch.ones(3, 1, dtype=torch.bool))
    # sin and cos of π·q at 0, ½, 1
    assert encoder.pooled(tokens)[:, 0].tolist() == pytest.approx([3, 2, -3], abs=1e-6)


def test_behaviour_belongs_to_the_items_with_events() -> None:
    tokens = behaviour_tokens(torch.tensor([True, False, True]))
    assert tokens.values.tolist() == [[0], [1], [2]]
    assert tokens.present.tolist() == [True, False, True]
    encoder = BehaviourEncoder(3, 4, 1.0)
    pooled = encoder.pooled(tokens)
    assert torch.equal(pooled[[0, 2]], encoder.table[[0, 2]])
    assert (pooled[1] == 0).all()


def test_random_starts_have_the_length_asked_for() -> None:
    """Unit vectors, single codes and single numbers all start as vectors of about length one."""
    torch.manual_seed(0)
    size = 256
    std = 1 / math.sqrt(size)
    unit = nn.functional.normalize(torch.randn(200, 1, 64), dim=-1)
    mask = torch.ones(200, 1, dtype=torch.bool)
    found = {
        "vector": VectorEncoder(64, 1, size, std).pooled(Tokens(unit, mask)),
        "categorical": CategoricalEncoder(201, size, std).pooled(Tokens(torch.arange(1, 201)[:, None], mask)),
        "numerical": NumericalEncoder(1, size, std).pooled(Tokens(torch.rand(200, 1), mask)),
        "behaviour": BehaviourEncoder(200, size, std).pooled(behaviour_tokens(mask[:, 0])),
    }
    for name, pooled in found.items():
        assert pooled.norm(dim=1).mean().item() == pytest.approx(1, abs=0.15), name


def test_no_item_starts_with_a_bias() -> None:
    """The first coordinate, which the dense head reads as how common an item is, starts at 0."""
    for module, tokens in cases()[1:]:
        encoder: Encoder = module  # type: ignore[assignment]
        assert (encoder.pooled(tokens)[:, 0] == 0).all()
