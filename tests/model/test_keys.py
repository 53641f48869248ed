"""Events that count for more or less as keys of attention: by hand, at 0, towards −∞, and in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm4rec.model import leaning
from llm4rec.model.backbone import BackboneConfig, CompactBackbone
from llm4rec.model.keys import weighed
from llm4rec.model.origin import open_decoder
from llm4rec.model.pretrained import PretrainedBackbone, PretrainedConfig, prepared

SIZE, TIME = 8, 6
POSITIONS = ["rotary", "learned"]
FAMILIES = ("llama", "qwen2", "gemma", "gemma3_text")
Models = Callable[[str], Path]
UNREAD = -1e4
"""A key that nobody reads: exp of it is 0 in every type."""


def compact(positions: str = "rotary", layers: int = 2) -> CompactBackbone:
    torch.manual_seed(0)
    options = {"embedding_size": SIZE, "layers": layers, "heads": 2, "positions": positions}
    made = CompactBackbone(BackboneConfig.model_validate(options), TIME)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)  # far from the tame start, so that a difference can't hide below a tolerance
    return made.eval()


def pretrained(place: Path, **options: Any) -> PretrainedBackbone:
    torch.manual_seed(0)
    chosen = PretrainedConfig.model_validate({"precision": "float32", "tuning": "frozen", **options})
    decoder = prepared(open_decoder(place, chosen, longest=TIME), chosen)
    return PretrainedBackbone(decoder, SIZE, 0.5, chosen).eval()


def events(seed: int = 1, n: int = 2) -> Tensor:
    return torch.randn(n, TIME, SIZE, generator=torch.Generator().manual_seed(seed))


def read(model: nn.Module, told: Tensor, keys: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model(told, keys=keys)


def unread(event: int, n: int = 2) -> Tensor:
    keys = torch.zeros(n, TIME)
    keys[:, event] = UNREAD
    return keys


# --- what is added to the logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_added_by_hand(dtype: torch.dtype) -> None:
    keys = torch.tensor([[0.0, 0.5, -2.0], [1.0, 0.0, 0.0]])
    never = torch.finfo(dtype).min
    rows = [[0, never, never], [0, 0.5, never], [0, 0.5, -2]], [[1, never, never], [1, 0, never], [1, 0, 0]]
    assert torch.equal(weighed(keys, dtype), torch.tensor(rows, dtype=dtype)[:, None])
    # a word in front keeps its weight, and reads no event
    first = [0, never, never, never]
    behind = [[first, *([0, *row] for row in one)] for one in rows]
    assert torch.equal(weighed(keys, dtype, before=1), torch.tensor(behind, dtype=dtype)[:, None])


def test_an_event_that_counts_twice_is_read_as_two() -> None:
    """One layer without order: what reads event 1 at ln 2 reads it as if it stood there twice."""
    model = compact("learned", layers=1)
    assert model.places is not None
    told = events()[:, :4]
    twice = told[:, [0, 1, 1, 2, 3]]
    with torch.no_grad():
        model.places.zero_()
    keys = torch.zeros(2, 4)
    keys[:, 1] = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(
        read(model, told, keys)[:, 2:], read(model, twice)[:, 3:], rtol=1e-4, atol=1e-5
    )


# --- at 0


@pytest.mark.parametrize("positions", POSITIONS)
def test_at_0_all_is_as_without_keys(positions: str) -> None:
    model = compact(positions)
    found = read(model, events(), torch.zeros(2, TIME))
    torch.testing.assert_close(found, read(model, events()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("instruction", ["", "recommend the next film"], ids=["bare", "instructed"])
@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_at_0_a_pretrained_one_is_as_without_keys(
    language_model: Models, family: str, instruction: str, precision: str
) -> None:
    model = pretrained(language_model(family), instruction=instruction, precision=precision)
    found, plain = read(model, events(), torch.zeros(2, TIME)), read(model, events())
    near = {"rtol": 1e-4, "atol": 1e-4} if precision == "float32" else {"rtol": 0.05, "atol": 0.1}
    torch.testing.assert_close(found, plain, **near)


@pytest.mark.parametrize("family", ["gemma3_text", "mistral"])
def test_at_0_layers_that_read_only_the_newest_still_do(language_model: Models, family: str) -> None:
    """Gemma has such layers beside others, of Mistral all are."""
    model = pretrained(language_model(family), instruction="watch the film")
    wide = read(model, events())
    model.model.config.sliding_window = 3
    narrow = read(model, events())
    assert (wide - narrow).abs().max() > 1e-3
    torch.testing.assert_close(read(model, events(), torch.zeros(2, TIME)), narrow, rtol=1e-4, atol=1e-4)


# --- towards −∞


def check_unread(model: nn.Module, bound: float) -> None:
    """An event that nobody reads changes no other state; at 0 it changes every later one."""
    for event in range(1, TIME):
        changed = events()
        changed[:, event] += torch.randn(SIZE, generator=torch.Generator().manual_seed(event))
        others = [place for place in range(TIME) if place != event]
        before, after = (read(model, told, unread(event)) for told in (events(), changed))
        assert torch.equal(before[:, others], after[:, others]), f"event {event} is read"
        assert (before[:, event] - after[:, event]).abs().amax() > bound
        moved = (read(model, changed) - read(model, events())).abs().amax(dim=2)
        assert (moved[:, event + 1 :] > bound).all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_nobody_reads_an_event_without_weight(positions: str) -> None:
    check_unread(compact(positions), 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_reads_an_event_without_weight_in_a_pretrained_one(
    language_model: Models, family: str
) -> None:
    check_unread(pretrained(language_model(family), instruction="watch"), 1e-4)


def test_without_order_an_event_without_weight_is_one_that_is_not_there() -> None:
    model = compact("learned")
    assert model.places is not None
    with torch.no_grad():
        model.places.zero_()
    others = [0, 1, 3, 4, 5]
    found = read(model, events(), unread(2))[:, others]
    torch.testing.assert_close(found, read(model, events()[:, others]), rtol=1e-4, atol=1e-5)


def test_a_row_before_any_weight_is_not_lost() -> None:
    """Also the first event, which has nothing else to read, reads no later one then."""
    model, changed = compact(), events()
    changed[:, 1:] += 1
    first = [read(model, told, unread(0))[:, 0] for told in (events(), changed)]
    assert torch.equal(*first) and torch.isfinite(first[0]).all()


# --- in between


def slopes(model: nn.Module, told: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the last states along `direction` for the keys [b, t]: told, and by differences."""

    def along(keys: Tensor) -> Tensor:
        return (model(told, keys=keys)[:, -1] * direction).sum(dim=-1)

    keys = torch.zeros(told.shape[:2], dtype=told.dtype, requires_grad=True)
    (found,) = torch.autograd.grad(along(keys).sum(), keys)
    expected, step = torch.zeros_like(found), 1e-2  # norms are worked out in float32 whatever the type
    with torch.no_grad():
        for event in range(told.shape[1]):
            moved = torch.zeros_like(keys)
            moved[:, event] = step
            expected[:, event] = (along(moved) - along(-moved)) / (2 * step)
    return found, expected


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_derivative_is_that_of_differences(positions: str) -> None:
    direction = torch.randn(SIZE, generator=torch.Generator().manual_seed(7)).double()
    found, expected = slopes(compact(positions).double(), events().double(), direction)
    assert found.abs().amin() > 1e-4  # each event is read
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_derivative_of_a_pretrained_one_is_that_of_differences(
    language_model: Models, family: str
) -> None:
    model = pretrained(language_model(family), instruction="watch the film")
    found, expected = slopes(model, events(), torch.ones(SIZE))
    assert found.abs().amax() > 0.05
    torch.testing.assert_close(found, expected, rtol=0.02, atol=5e-3)


@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_on_the_right_is_harmless(positions: str) -> None:
    """A short row in a batch with a long one has the states and the derivatives it has alone."""
    model, told = compact(positions), events()
    told[1, 3:] = 0
    draw = torch.randn(2, TIME, generator=torch.Generator().manual_seed(4))
    both = draw.clone().requires_grad_()
    alone = draw[1:, :3].clone().requires_grad_()
    together, short = model(told, keys=both)[1, 2], model(told[1:, :3], keys=alone)[0, 2]
    torch.testing.assert_close(together, short, rtol=1e-4, atol=1e-5)
    (of_both,), (of_alone,) = (
        torch.autograd.grad(state.sum(), keys) for state, keys in ((together, both), (short, alone))
    )
    torch.testing.assert_close(of_both[1, :3], of_alone[0], rtol=1e-3, atol=1e-4)
    assert not of_both[0].any() and not of_both[1, 3:].any()


# --- many directions at once


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "mistral"])
def test_derivatives_of_any_family_are_worked_out_together(
    language_model: Models, family: str, precision: str
) -> None:
    model = pretrained(language_model(family), precision=precision)
    keys = torch.zeros(1, TIME, requires_grad=True)
    state = model(events(n=1), keys=keys)[:, -1]
    directions = torch.randn(3, 1, SIZE, generator=torch.Generator().manual_seed(2))
    alone = [torch.autograd.grad(state, keys, each, retain_graph=True)[0] for each in directions]
    found = leaning.slopes(state, keys, directions, TIME**2)
    near = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(found, torch.stack(alone), **near)
    assert found.abs().max() > 1e-3
