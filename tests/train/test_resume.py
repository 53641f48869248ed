"""A run that was killed and taken up again ends exactly like one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llm4rec.errors import ArtefactError
from llm4rec.generate.semantic_id import GenerateConfig
from llm4rec.model.network import Batch, Network, Offer
from llm4rec.train.checkpoint import STAGES
from llm4rec.train.stages import train_in_stages
from llm4rec.types import Floats

if TYPE_CHECKING:
    from conftest import Toy

Weights = Callable[[Network], dict[str, Tensor]]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class KillAfter:
    """Progress that kills the run at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed(stage)


def metric(network: Network) -> float:
    """Something that depends on every weight, so that a difference would show in the log."""
    return float(torch.stack([p.double().abs().sum() for p in network.parameters()]).sum()) % 1


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("steps", [1, 2, 5, 9], ids=lambda steps: f"after call {steps}")
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["every step", "every epoch"])
def test_resumed_is_undisturbed(
    toy: Toy, tmp_path: Path, weights: Weights, steps: int, seconds: float
) -> None:
    toy = toy.changed(checkpoint_seconds=seconds)
    whole, expected = toy.train(validate=metric)
    with pytest.raises(Killed):
        toy.train(validate=metric, checkpoints=tmp_path, progress=KillAfter(steps))
    resumed, log = toy.train(validate=metric, checkpoints=tmp_path)
    assert (log.losses, log.metrics, log.best_epoch) == (
        expected.losses,
        expected.metrics,
        expected.best_epoch,
    )
    assert equal(weights(resumed), weights(whole))


def test_a_run_may_be_killed_again_and_again(toy: Toy, tmp_path: Path, weights: Weights) -> None:
    whole, _ = toy.train(validate=metric)
    for _ in range(4):
        with pytest.raises(Killed):
            toy.train(validate=metric, checkpoints=tmp_path, progress=KillAfter(2))
    resumed, _ = toy.train(validate=metric, checkpoints=tmp_path)
    assert equal(weights(resumed), weights(whole))


def test_a_finished_run_is_not_run_again(toy: Toy, tmp_path: Path, weights: Weights) -> None:
    first, log = toy.train(validate=metric, checkpoints=tmp_path)
    calls: list[str] = []
    again, same = toy.train(
        validate=metric, checkpoints=tmp_path, progress=lambda stage, *_, **__: calls.append(stage)
    )
    assert calls == []
    assert equal(weights(first), weights(again))
    assert vars(log) == vars(same)


class Discriminator(torch.nn.Module):
    """A penalty that learns to tell odd people from even ones, which pulls at the states."""

    def __init__(self) -> None:
        super().__init__()
        self.plane = torch.nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(states @ self.plane, (owners % 2).float())


@pytest.mark.parametrize("steps", [1, 5, 9], ids=lambda steps: f"after call {steps}")
def test_a_penalty_that_learns_is_taken_up_too(
    toy: Toy, tmp_path: Path, weights: Weights, steps: int
) -> None:
    alone, _ = toy.train(validate=metric)
    undisturbed, taken_up = Discriminator(), Discriminator()
    whole, expected = toy.train(validate=metric, penalties=[undisturbed])
    assert not equal(weights(whole), weights(alone))
    with pytest.raises(Killed):
        toy.train(
            validate=metric, penalties=[Discriminator()], checkpoints=tmp_path, progress=KillAfter(steps)
        )
    resumed, log = toy.train(validate=metric, penalties=[taken_up], checkpoints=tmp_path)
    assert (log.losses, log.metrics) == (expected.losses, expected.metrics)
    assert equal(weights(resumed), weights(whole))
    assert torch.equal(taken_up.plane, undisturbed.plane)
    assert not torch.equal(taken_up.plane, Discriminator().plane)


class Counter(torch.nn.Module):
    """A penalty that learns nothing and counts: each step pulls at the states as hard as it has seen many."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer) -> Tensor:
        self.seen += len(states)
        return self.seen.clone() * states.square().mean() / 100


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["every step", "every epoch"])
@pytest.mark.parametrize("steps", [5, 9], ids=lambda steps: f"after call {steps}")
def test_what_a_penalty_counts_is_taken_up_too(
    toy: Toy, tmp_path: Path, weights: Weights, steps: int, seconds: float
) -> None:
    toy = toy.changed(checkpoint_seconds=seconds)
    undisturbed, taken_up = Counter(), Counter()
    whole, expected = toy.train(validate=metric, penalties=[undisturbed])
    with pytest.raises(Killed):
        toy.train(validate=metric, penalties=[Counter()], checkpoints=tmp_path, progress=KillAfter(steps))
    resumed, log = toy.train(validate=metric, penalties=[taken_up], checkpoints=tmp_path)
    assert (log.losses, log.metrics) == (expected.losses, expected.metrics)
    assert equal(weights(resumed), weights(whole))
    assert taken_up.seen == undisturbed.seen > 0


def test_what_a_penalty_counted_by_the_best_epoch_stays(toy: Toy) -> None:
    metrics, counter, best = iter([0.1, 0.3, 0.2, 0.1, 0.3]), Counter(), Counter()
    toy.train(validate=lambda _: next(metrics), penalties=[counter])
    toy.changed(epochs=2).train(validate=lambda _: next(metrics), penalties=[best])
    assert counter.seen == best.seen > 0


def test_a_checkpoint_without_the_penalty_is_refused(toy: Toy, tmp_path: Path) -> None:
    toy.train(checkpoints=tmp_path)
    with pytest.raises(ArtefactError, match="another model or other data"):
        toy.train(penalties=[Discriminator()], checkpoints=tmp_path)


GENERATE = GenerateConfig(mode="joint", n_levels=2, codebook_size=4, epochs=2)


def code_metric(network: Network) -> float:
    assert network.codes is not None
    return float(network.codes.bias.detach().sum())


def served_metric(network: Network, *, timed: bool = False) -> Floats:
    """Grows with every step of the backbone, and timed with what is learnt of time: both stages are kept."""
    learnt = [*network.backbone.parameters(), *(network.context.parameters() if timed else ())]
    return np.full(2, float(sum(p.detach().abs().sum() for p in learnt)), dtype=np.float32)


def test_the_code_head_learns_and_leaves_all_else_as_it_was(toy: Toy) -> None:
    network, told = staged(toy, None, joint_epochs=0)
    before, _ = toy.train(toy.network(codes=(3, 4)), validate=metric)
    assert told["codes"]["losses"][-1] < told["codes"]["losses"][0]
    assert told["ids"]["twins"] >= 1
    items = toy.material().items
    network.fusion.attend = False
    assert torch.equal(network.fuse(items).vectors, before.fuse(items).vectors)


def staged(
    toy: Toy, folder: Path | None, progress: Any = None, **generate: Any
) -> tuple[Network, dict[str, Any]]:
    network = toy.network(codes=(3, 4))
    told = train_in_stages(
        network, toy.material(), validate=metric, validate_codes=lambda ids: code_metric,
        validate_served=lambda ids: served_metric, timed=True, config=toy.config,
        generate=GENERATE.model_copy(update=generate),
        attention=True, checkpoints=folder,
        **({} if progress is None else {"progress": progress}),
    ).told  # fmt: skip
    for stage in STAGES:
        told.get(stage, {}).pop("seconds", None)
    return network, told


@pytest.mark.parametrize("steps", [1, 3, 6])
@pytest.mark.parametrize(
    ("killed", "left"),
    [
        ("attention", {"attention", "codes", "joint", "context"}),
        ("codes", {"codes", "joint", "context"}),
        ("joint", {"joint", "context"}),
        ("context", {"context"}),
    ],
)
def test_a_later_stage_is_taken_up_too(
    toy: Toy, tmp_path: Path, weights: Weights, steps: int, killed: str, left: set[str]
) -> None:
    whole, expected = staged(toy, None)

    class KillInStage(KillAfter):
        def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
            if stage == killed:
                super().__call__(stage, done, total, **figures)

    with pytest.raises(Killed, match=killed):
        staged(toy, tmp_path, KillInStage(steps))
    stages: list[str] = []
    resumed, told = staged(toy, tmp_path, lambda stage, *_, **__: stages.append(stage))
    assert set(stages) == left  # the stages before are done
    assert told == expected
    assert equal(weights(resumed), weights(whole))
    assert whole.context.hour.weight.any() and told["context_kept"]


def test_attention_is_kept_where_it_gains_and_leaves_the_floor_where_not(toy: Toy) -> None:
    for gains in (True, False):
        network = toy.network()

        def validate(now: Network, gains: bool = gains) -> float:
            return 0.5 + (0.1 if gains else -0.1) * now.fusion.attend

        floor, _ = toy.train(validate=validate)
        told = train_in_stages(
            network, toy.material(), validate=validate, validate_codes=lambda ids: validate,
            validate_served=lambda ids: served_metric,
            timed=False, config=toy.config, generate=GENERATE, attention=True,
        ).told  # fmt: skip
        assert told["attention_kept"] is gains
        assert network.fusion.attend is gains
        assert (told["gate"] != 0) is gains
        items = toy.material().items
        same = torch.equal(network.fuse(items).vectors, floor.fuse(items).vectors)
        assert same is not gains
        assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_checkpoint_of_another_configuration_is_refused(toy: Toy, tmp_path: Path) -> None:
    toy.train(checkpoints=tmp_path)
    with pytest.raises(
        ArtefactError, match=r"another configuration\. Resume with the same settings, or remove"
    ):
        toy.changed(learning_rate=0.02).train(checkpoints=tmp_path)


def test_a_checkpoint_of_another_model_is_refused(toy: Toy, tmp_path: Path) -> None:
    toy.train(checkpoints=tmp_path)
    with pytest.raises(ArtefactError, match="another model or other data"):
        toy.train(toy.network(embedding_size=16), checkpoints=tmp_path)


def test_a_damaged_checkpoint_is_refused(toy: Toy, tmp_path: Path) -> None:
    toy.train(checkpoints=tmp_path)
    file = tmp_path / "train" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match=r"weights\.safetensors .* cut short"):
        toy.train(checkpoints=tmp_path)


def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(
    toy: Toy, tmp_path: Path, weights: Weights
) -> None:
    """Between moving the old one away and the new one in, the old one is still found."""
    from llm4rec.store import replace

    whole, _ = toy.train(validate=metric)
    with pytest.raises(Killed):
        toy.train(validate=metric, checkpoints=tmp_path, progress=KillAfter(5))
    (tmp_path / "train").rename(replace.previous(tmp_path / "train"))
    calls: list[float] = []
    resumed, _ = toy.train(
        validate=metric,
        checkpoints=tmp_path,
        progress=lambda *_, **figures: calls.append(figures.get("part", 0)),
    )
    undisturbed: list[float] = []
    toy.train(validate=metric, progress=lambda *_, **figures: undisturbed.append(figures.get("part", 0)))
    assert len(calls) == len(undisturbed) - 5
    assert equal(weights(resumed), weights(whole))
