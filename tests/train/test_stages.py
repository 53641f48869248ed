"""The stage that hears the time: it changes nothing else, and stays only where it gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llm4rec.generate.semantic_id import GenerateConfig, SemanticIds
from llm4rec.model.network import Network
from llm4rec.train import loop
from llm4rec.train.stages import PersonMetric, id_vectors, train_in_stages
from llm4rec.train.windows import cut_windows
from llm4rec.types import Floats

if TYPE_CHECKING:
    from conftest import Toy

Weights = Callable[[Network], dict[str, Tensor]]


def half(network: Network) -> float:
    return 0.5


def same(network: Network, *, timed: bool = False) -> Floats:
    return np.full(2, 0.5, dtype=np.float32)


def staged(
    toy: Toy, timed: Callable[[Network], float] | None, **options: Any
) -> tuple[Network, dict[str, Any]]:
    def served(network: Network, *, timed: bool = False) -> Floats:
        value = 0.5 if not timed or asked is None else asked(network)
        return np.full(2, value, dtype=np.float32)

    network, asked = toy.network(), timed
    told = train_in_stages(
        network, toy.material(), validate=half, validate_codes=lambda ids: half,
        validate_served=lambda ids: served, timed=timed is not None, config=toy.config,
        generate=GenerateConfig(), attention=False, **options,
    ).told  # fmt: skip
    return network, told


def others(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.startswith("context.")}


@pytest.mark.parametrize("sampled", [False, True], ids=["full", "sampled"])
@pytest.mark.parametrize("gains", [True, False], ids=["gains", "does not gain"])
def test_the_time_is_heard_where_that_gains_and_nothing_else_changes(
    toy: Toy, weights: Weights, gains: bool, sampled: bool
) -> None:
    if sampled:
        toy = toy.changed(full_softmax_up_to=1, negatives=20)
    metrics = iter([0.6, 0.7] if gains else [0.4, 0.5])  # an equal metric is no gain
    without, silent = staged(toy, None)
    network, told = staged(toy, lambda network: next(metrics))
    assert told["context_kept"] is gains
    assert told["context"]["metric_before"] == 0.5
    assert told["context"]["metric_after"] == pytest.approx(0.7 if gains else 0.5)
    assert all(bool(p.any()) is gains for p in network.context.parameters())
    for key, tensor in others(weights(without)).items():
        assert torch.equal(tensor, weights(network)[key]), key
    assert told["floor"]["losses"] == silent["floor"]["losses"]
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("why", ["no clock", "no epochs"])
def test_the_stage_can_be_left_out(toy: Toy, why: str) -> None:
    stages: list[str] = []
    toy = toy.changed(context_epochs=0) if why == "no epochs" else toy
    network, told = staged(
        toy,
        None if why == "no clock" else lambda network: 1.0,
        progress=lambda stage, *_, **__: stages.append(stage),
    )
    assert "context" not in stages and "context" not in told
    assert told["context_kept"] is False
    assert not any(bool(p.any()) for p in network.context.parameters())


def test_items_are_fused_once(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real, stage = Network.fuse, ["floor"]

    def counted(self: Network, *arguments: Any, **options: Any) -> Any:
        calls.append(stage[0])
        return real(self, *arguments, **options)

    def validate(network: Network) -> float:
        stage[0] = "context"
        return 0.5

    monkeypatch.setattr(Network, "fuse", counted)
    network = toy.network()
    train_in_stages(
        network, toy.changed(epochs=1).material(), validate=validate,
        validate_codes=lambda ids: validate,
        validate_served=lambda ids: same, timed=True, config=toy.changed(epochs=1).config,
        generate=GenerateConfig(), attention=False,
    )  # fmt: skip
    assert calls.count("context") == 1 and calls.count("floor") > 1


def test_a_step_of_frozen_items_has_the_loss_of_fused_ones(toy: Toy) -> None:
    """Also the gradient, which is then worked out for states alone."""
    network = toy.network(dropout=0.0).eval()
    with torch.no_grad():
        vectors = network.fuse(toy.material().items).vectors
    windows = cut_windows(toy.material().events.offsets, 6, np.random.default_rng(0))
    config, found = toy.changed(hide=0.0, precision="float32").config, []
    for frozen in (None, vectors):
        network.zero_grad()
        material = replace(toy.material(), timed=True, vectors=frozen)
        loss = loop.step(network, material, windows, np.arange(len(windows.rows)), config, None, [])
        loss.backward()
        gradient = network.context.hour.weight.grad
        assert gradient is not None and gradient[1:].any() and not gradient[0].any()
        found.append((loss.detach(), gradient.clone()))
    torch.testing.assert_close(found[0], found[1])


def test_who_hides_the_times_of_a_history_hides_the_gap_to_the_asking(toy: Toy) -> None:
    events = toy.material().events
    windows = cut_windows(events.offsets, 6, np.random.default_rng(0))
    inputs = windows.lengths - 1
    times = events.next_times(windows.starts, inputs)
    batch = events.batch(windows.rows, windows.starts, inputs, times)
    torch.manual_seed(0)
    now = loop._hidden(batch, 0.5)
    assert now.asked is not None and batch.asked is not None
    hidden = (now.gaps == 0).all(dim=1) & (batch.gaps > 0).any(dim=1)
    assert 0 < int(hidden.sum()) < len(hidden)
    assert not now.asked.gaps[hidden].any()
    kept = (now.gaps > 0).any(dim=1)
    assert torch.equal(now.asked.gaps[kept], batch.asked.gaps[kept])
    assert torch.equal(now.asked.hours, batch.asked.hours)
    assert torch.equal(now.asked.weekdays, batch.asked.weekdays)


def coded(toy: Toy, mode: str, joint_epochs: int = 0, **metrics: Any) -> tuple[Network, dict[str, Any]]:
    network = toy.network(codes=(3, 4))
    options: dict[str, Any] = {
        "validate": half, "validate_codes": lambda ids: half, "validate_served": lambda ids: same,
    } | metrics  # fmt: skip
    generate = GenerateConfig.model_validate({
        "mode": mode,
        "n_levels": 2,
        "codebook_size": 4,
        "epochs": 1,
        "joint_epochs": joint_epochs,
    })
    told = train_in_stages(
        network, toy.material(), timed=True, config=toy.config, generate=generate, attention=False, **options
    ).told
    return network, told


def test_codes_of_content_are_made_with_what_is_not_trained(toy: Toy) -> None:
    """A new item's id is made as the others' were, so what makes vectors of content must not have changed."""
    network, told = coded(toy, "only")
    assert told["floor"]["losses"][-1] < told["floor"]["losses"][0]
    items, start = toy.material().items, toy.network(codes=(3, 4))
    assert (id_vectors(network, items, "content") == id_vectors(start, items, "content")).all()
    assert not (id_vectors(network, items, "fused") == id_vectors(start, items, "fused")).all()


def test_with_a_code_head_context_is_judged_by_what_is_served(toy: Toy) -> None:
    """The dense head would gain by the time, both heads together do not: it is not kept."""

    def served(ids: SemanticIds | None) -> PersonMetric:
        before, after = (0.5, 0.9) if ids is None else (0.75, 0.625)
        return lambda network, *, timed=False: np.full(2, after if timed else before, dtype=np.float32)

    _, told = coded(toy, "joint", validate_served=served)
    assert told["context_kept"] is False
    assert (told["context"]["metric_before"], told["context"]["metric_after"]) == (0.75, 0.625)


class Counting(torch.nn.Module):
    """A penalty that counts the steps and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, network: Network, states: Tensor, *rest: object) -> Tensor:
        self.steps += 1
        return 0 * states.sum()


@pytest.mark.parametrize(
    ("dense", "later", "gains"),
    [
        ([0.55, 0.55], [0.6, 0.62], True),
        ([0.65, 0.65], [0.6, 0.62], False),
        ([0.55, 0.55], [0.55, 0.8], True),  # .125 above the dense head, with a standard error of .088
        ([0.55, 0.55], [0.5, 0.8], False),  # .1 above it, with one of .106
    ],
    ids=["gains", "dense is better", "surely", "by chance"],
)
def test_both_heads_trained_on_must_beat_the_dense_one_too_and_more_than_by_chance(
    toy: Toy, weights: Weights, dense: list[float], later: list[float], gains: bool
) -> None:
    """They go from 0.5 to `later`: where that is no gain, all stays as it was."""

    def served(ids: SemanticIds | None) -> PersonMetric:
        both = iter([[0.5, 0.5]] + [later] * 20)
        return lambda network, *, timed=False: np.array(dense if ids is None else next(both), np.float32)

    first, then = Counting(), Counting()
    start, _ = coded(toy, "joint", validate_served=served, penalties=[first])
    network, told = coded(toy, "joint", joint_epochs=1, validate_served=served, penalties=[then])
    assert told["joint_kept"] is gains
    assert bool(then.steps == first.steps) is not gains
    alike = [torch.equal(tensor, weights(network)[name]) for name, tensor in others(weights(start)).items()]
    assert all(alike) is not gains
