"""The stages of training: the plain sum first, then cross-modal attention where validation gains by it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from llm4rec.model.network import Network
from llm4rec.train.checkpoint import STAGES
from llm4rec.train.loop import Material, TrainConfig, train
from llm4rec.types import Progress, silent

FLOOR, ATTENTION = STAGES


def train_in_stages(
    network: Network,
    material: Material,
    *,
    validate: Callable[[Network], float],
    config: TrainConfig,
    attention: bool,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train the floor, then open the fusion gate and keep it open only where validation is better for it.

    Returns:
        what happened, by stage, and whether attention was kept: values JSON can hold.
    """
    run = partial(train, network, material, validate=validate, checkpoints=checkpoints, progress=progress)
    floor = run(config=config, stage=FLOOR)
    told: dict[str, Any] = {"floor": asdict(floor), "attention_kept": False}
    if attention and config.attention_epochs:
        # of a few thousand items only, so that attention is not computed for all at every step
        sampled = config.model_copy(update={"full_softmax_up_to": 1, "patience": 2})
        with _behind_the_gate(network):
            opened = run(
                config=sampled, stage=ATTENTION, epochs=config.attention_epochs, to_beat=floor.best_metric
            )
        told["attention"] = asdict(opened)
        network.fusion.attend = told["attention_kept"] = opened.best_epoch >= 0
    told["gate"] = float(network.fusion.gate.detach()) if network.fusion.attend else 0.0
    told["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    return told


@contextmanager
def _behind_the_gate(network: Network) -> Generator[None]:
    """Attention computed, nothing trained but what is behind the gate: closing it gives the floor back."""
    network.fusion.attend = True
    network.requires_grad_(False)
    for parameter in network.fusion.gated():
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        network.requires_grad_(True)
