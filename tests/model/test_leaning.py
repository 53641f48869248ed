"""One reading: the states it gives are those that are scored, and its derivatives those of differences."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from llm4rec.data.events import EventLog
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import Tokens, TokenSpace
from llm4rec.model import leaning
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.events import EventSpace, event_arrays
from llm4rec.model.leaning import AT_ONCE, CELLS, lean, slopes
from llm4rec.model.network import Network
from llm4rec.model.scorer import Scorer
from llm4rec.types import Ints

N_ITEMS, MOST, SIZE = 9, 5, 8
PEOPLE = TokenSpace({"categorical": ("city",)}, {"city": ("x", "y", "rare")}, {}, {"city": 1}, {})
CITIES = {"categorical": Tokens(torch.tensor([[1], [2]]), torch.tensor([[True], [True]]))}
STRANGER, KNOWN = np.array([-1]), np.array([1])
NOON = 1_600_000_000


def made(*, erasing: bool = False, trained: bool = False, positions: str = "rotary") -> Scorer:
    torch.manual_seed(0)
    config = BackboneConfig.model_validate({
        "embedding_size": SIZE,
        "layers": 2,
        "heads": 2,
        "positions": positions,
    })
    network = Network(
        TokenSpace({}, {}, {}, {}, {}), PEOPLE, n_items=N_ITEMS, n_ratings=2, n_kinds=0, max_history=MOST,
        backbone=config, fusion=FusionConfig(), erasing=erasing,
    )  # fmt: skip
    with torch.no_grad():
        for table in (network.gap, network.rating, *network.context.children()):
            table.weight[1:].normal_()  # type: ignore[union-attr]
        for parameter in network.backbone.parameters():
            parameter.mul_(2)
    if erasing:
        assert network.erasure is not None
        draw = np.random.default_rng(3)
        network.erasure.become(draw.normal(size=SIZE), draw.normal(size=(SIZE, SIZE)) / 4)
    network.requires_grad_(trained)
    tokens = {BEHAVIOUR: behaviour_tokens(torch.ones(N_ITEMS, dtype=torch.bool))}
    return Scorer(network, tokens, CITIES, EventSpace((3.0,), 3.0, 1.0, ()))


def history(length: int, *, asked: bool = True, bare: bool = False) -> EventLog:
    draw = np.random.default_rng(length)
    return EventLog(
        pl.Series(["u"]),
        np.array([0, length]),
        draw.integers(0, N_ITEMS, length),
        times=None if bare else NOON + np.cumsum(draw.integers(60, 90_000, length)),
        ratings=None if bare else draw.choice([1.0, 5.0, np.nan], length).astype(np.float32),
        asked_at=np.array([NOON + 999_999]) if asked else None,
    )


LENGTHS = [0, 1, 2, MOST, 12]


@pytest.mark.parametrize("erasing", [False, True], ids=["whole", "erased"])
@pytest.mark.parametrize("people", [STRANGER, KNOWN], ids=["stranger", "known"])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_state_is_the_one_that_is_scored(length: int, people: Ints, erasing: bool) -> None:
    scorer = made(erasing=erasing)
    for told in (
        history(length), history(length, asked=False), history(length, bare=True),
        replace(history(length), asked_at=np.array([-1])),
    ):  # fmt: skip
        found = lean(scorer, told, people)
        torch.testing.assert_close(found.state.detach(), scorer.states(told, people), rtol=1e-4, atol=1e-5)
        assert found.keys.shape == (1, min(length, MOST) + 1)


def test_all_that_is_told_is_read() -> None:
    scorer, told = made(), history(4)
    whole = lean(scorer, told, KNOWN).state
    later = replace(told, asked_at=told.asked_at + 7_200)  # type: ignore[operator]
    for other, people in (
        (told, STRANGER), (later, KNOWN), (replace(told, ratings=None), KNOWN),
        (replace(told, times=None), KNOWN),
    ):  # fmt: skip
        assert (lean(scorer, other, people).state - whole).abs().max() > 1e-3


@pytest.mark.parametrize("erasing", [False, True], ids=["whole", "erased"])
@pytest.mark.parametrize("length", [1, 2, MOST])
def test_before_is_the_state_without_the_last_event_asked_at_the_same_time(
    length: int, erasing: bool
) -> None:
    scorer = made(erasing=erasing)
    for told in (history(length), history(length, asked=False)):
        shorter = told.heads(np.array([length - 1]))
        before = lean(scorer, told, KNOWN).before
        assert before is not None and not before.requires_grad
        torch.testing.assert_close(before, scorer.states(shorter, KNOWN), rtol=1e-4, atol=1e-5)


def test_of_a_long_history_before_has_read_what_else_was_read() -> None:
    """The event that would enter at the other end was not read, and is not."""
    scorer, told = made(), history(12)
    newest = told.histories(np.array([0]), np.array([12]), most=MOST).heads(np.array([MOST - 1]))
    before = lean(scorer, told, STRANGER).before
    assert before is not None
    torch.testing.assert_close(before, scorer.states(newest, STRANGER), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_asked_is_what_the_time_of_asking_adds(length: int) -> None:
    scorer = made(erasing=True)
    found = lean(scorer, history(length), KNOWN)
    unasked = scorer.states(history(length, asked=False), KNOWN)
    assert found.asked.shape == (1, SIZE) and found.asked.abs().max() > 0.1
    torch.testing.assert_close(found.state.detach() - found.asked, unasked, rtol=1e-4, atol=1e-5)
    assert not lean(scorer, history(length, asked=False), KNOWN).asked.any()
    assert not lean(scorer, replace(history(length), asked_at=np.array([-1])), KNOWN).asked.any()


def state_at(scorer: Scorer, told: EventLog, people: Ints, keys: Tensor) -> Tensor:
    """The state [d] in float64 where events count `keys` [t + 1]."""
    network, length = scorer.network, np.minimum(told.lengths, MOST)
    with torch.no_grad():
        batch = event_arrays(told, scorer.events, people).batch(
            np.arange(1), told.offsets[1:] - length, length
        )
        events = network.told(batch, scorer.vectors, scorer.people).double()
        backbone = copy.deepcopy(network.backbone).double()
        states = backbone(events, keys=keys.double()[None])
        return network.erased(states.float()).double()[0, -1] if network.erasure is None else (
            copy.deepcopy(network.erasure).double()(states)[0, -1]
        )  # fmt: skip


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("erasing", [False, True], ids=["whole", "erased"])
@pytest.mark.parametrize("length", [1, 4, 12])
def test_derivatives_are_those_of_differences(length: int, erasing: bool, positions: str) -> None:
    scorer, told = made(erasing=erasing, positions=positions), history(length)
    directions = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(1))
    found = lean(scorer, told, KNOWN).of(directions)
    n = min(length, MOST)
    assert found.shape == (3, n) and not found.requires_grad
    for event in range(n):
        step = torch.zeros(n + 1)
        step[event + 1] = 1e-2
        moved = state_at(scorer, told, KNOWN, step) - state_at(scorer, told, KNOWN, -step)
        expected = directions.double() @ moved / 2e-2
        torch.testing.assert_close(found[:, event].double(), expected, rtol=5e-3, atol=2e-4)
    assert found.abs().max() > 1e-2


def test_nothing_is_owed_by_an_empty_history() -> None:
    found = lean(made(), history(0), KNOWN)
    assert found.before is None
    assert found.of(torch.ones(2, SIZE)).shape == (2, 0)


def test_directions_are_asked_one_by_one_or_together() -> None:
    scorer, told = made(), history(4)
    directions = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(1))
    together = lean(scorer, told, KNOWN).of(directions)
    for row, direction in enumerate(directions):
        alone = lean(scorer, told, KNOWN).of(direction[None])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-6)
    assert lean(scorer, told, KNOWN).of(directions[:0]).shape == (0, 4)


@pytest.mark.parametrize("trained", [True, False])
def test_weights_are_left_as_they_were(trained: bool) -> None:
    """Whether or not they may be trained; the item vectors were made for answering alone."""
    scorer = made(erasing=True, trained=trained)
    scorer.network.train()  # its dropout is not for reading
    assert scorer.vectors.is_inference()
    before = {name: tensor.clone() for name, tensor in scorer.network.state_dict().items()}
    first, second = (lean(scorer, history(4), KNOWN) for _ in range(2))
    assert torch.equal(first.state, second.state)
    assert torch.equal(first.of(torch.ones(1, SIZE)), second.of(torch.ones(1, SIZE)))
    assert all(parameter.grad is None for parameter in scorer.network.parameters())
    assert {parameter.requires_grad for parameter in scorer.network.parameters()} == {trained}
    after = scorer.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("cells", [1, CELLS // 3, 2 * CELLS])
@pytest.mark.parametrize("n", [1, 2, 7, AT_ONCE + 1])
def test_slopes_are_those_worked_out_one_by_one(n: int, cells: int) -> None:
    at = torch.tensor([[1.0, -2, 3]], requires_grad=True)
    ends = torch.stack([at[0, 0] ** 2 * at[0, 1], at[0, 2] * at[0, 1]])[None]
    # ∂ (x² y) = (2 x y, x², 0), ∂ (y z) = (0, z, y) at x, y, z = 1, -2, 3
    directions = torch.arange(2.0 * n).reshape(n, 1, 2)
    found = slopes(ends, at, directions, cells)
    by_hand = directions @ torch.tensor([[-4.0, 1, 0], [0, 3, -2]])
    assert found.shape == (n, 1, 3) and torch.equal(found, by_hand)


def test_no_more_are_worked_out_at_once_than_memory_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    grad = torch.autograd.grad

    def counted(ends: torch.Tensor, at: torch.Tensor, some: torch.Tensor, **options: bool) -> object:
        asked.append(len(some))
        return grad(ends, at, some, **options)

    monkeypatch.setattr(leaning.torch.autograd, "grad", counted)
    for cells in (1, CELLS // 3, 2 * CELLS):
        at = torch.ones(2, requires_grad=True)
        slopes(at * 2, at, torch.ones(AT_ONCE + 1, 2), cells)
    assert asked == [AT_ONCE, 1, *[3] * (AT_ONCE // 3 + 1), *[1] * (AT_ONCE + 1)]
