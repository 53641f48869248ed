"""The backbone reads the past, all of it, in order, and nothing else."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from llm4rec.model.backbone import BackboneConfig, CompactBackbone

SIZE, TIME = 8, 6
POSITIONS = ["rotary", "learned"]


def backbone(positions: str, **options: float) -> CompactBackbone:
    torch.manual_seed(0)
    config = {
        "embedding_size": SIZE,
        "layers": 2,
        "heads": 2,
        "positions": positions,
        "dropout": 0.5,
        **options,
    }
    made = CompactBackbone(BackboneConfig.model_validate(config), TIME)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)  # far from the tame start, so that a leak can't hide below a tolerance
    return made.eval()


def events(seed: int = 1, n: int = 2) -> Tensor:
    return torch.randn(n, TIME, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("positions", POSITIONS)
def test_strictly_causal_and_reads_the_whole_past(positions: str) -> None:
    model = backbone(positions)
    with torch.no_grad():
        before = model(events())
        for t in range(TIME):
            changed = events()
            changed[:, t] += torch.randn(SIZE, generator=torch.Generator().manual_seed(t))
            moved = (model(changed) - before).abs().amax(dim=2)
            assert (moved[:, :t] == 0).all(), f"event {t} is seen by an earlier state"
            assert (moved[:, t:] > 1e-4).all(), f"event {t} is not seen by a later state"


@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_on_the_right_is_harmless(positions: str) -> None:
    model, long = backbone(positions), events()
    with torch.no_grad():
        short = model(long[:, :3])
        torch.testing.assert_close(model(long)[:, :3], short, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_rows_of_a_batch_do_not_meet(positions: str) -> None:
    model, both = backbone(positions), events()
    with torch.no_grad():
        torch.testing.assert_close(model(both)[1:], model(both[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_order_of_the_past_is_told(positions: str) -> None:
    model, told = backbone(positions), events()
    swapped = told[:, [0, 2, 1, 3, 4, 5]]
    with torch.no_grad():
        assert ((model(told) - model(swapped))[:, -1].abs().amax(dim=1) > 1e-3).all()


def test_learned_places_are_all_that_tells_the_order() -> None:
    """With equal places the earlier events are a set: rotary positions are really off."""
    model, told = backbone("learned", layers=1), events()
    assert model.places is not None and model.places.shape == (TIME, SIZE)
    swapped = told[:, [0, 2, 1, 3, 4, 5]]
    with torch.no_grad():
        model.places.zero_()
        torch.testing.assert_close(model(told)[:, -1], model(swapped)[:, -1], rtol=1e-4, atol=1e-5)


def test_learned_places_learn() -> None:
    model = backbone("learned")
    model(events()[:, :4]).square().sum().backward()
    assert model.places is not None and model.places.grad is not None
    moved = model.places.grad.abs().sum(dim=1)
    assert (moved[:4] > 0).all() and (moved[4:] == 0).all()
    assert backbone("rotary").places is None


@pytest.mark.parametrize("positions", POSITIONS)
def test_dropout_is_for_training_only(positions: str) -> None:
    model, told = backbone(positions), events()
    with torch.no_grad():
        assert torch.equal(model(told), model(told))
        model.train()
        assert not torch.equal(model(told), model(told))


def test_every_parameter_is_used_and_there_is_no_vocabulary() -> None:
    model = backbone("learned")
    model(events()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert not any("embed" in name for name, _ in model.named_parameters())


def test_building_it_says_nothing(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        backbone("rotary")
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""
