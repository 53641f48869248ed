"""The stages of training: the plain sum first, then cross-modal attention where validation gains by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm4rec.model.network import Network
from llm4rec.train.loop import Material, TrainConfig, TrainLog, train
from llm4rec.types import Progress, silent


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
    options: dict[str, Any] = {"validate": validate, "config": config, "checkpoints": checkpoints}
    floor = train(network, material, stage="floor", progress=progress, **options)
    told: dict[str, Any] = {"floor": asdict(floor), "attention_kept": False}
    if attention and config.attention_epochs:
        opened = _open(network, material, options | {"to_beat": floor.best_metric}, config, progress)
        told["attention"] = asdict(opened)
        network.fusion.attend = told["attention_kept"] = opened.best_epoch >= 0
    told["gate"] = float(network.fusion.gate.detach()) if network.fusion.attend else 0.0
    told["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    return told


def _open(
    network: Network, material: Material, options: dict[str, Any], config: TrainConfig, progress: Progress
) -> TrainLog:
    """Train what is behind the gate and nothing else, so that closing it gives the floor back.

    Negatives are sampled: the vectors of a few thousand items are then computed per step, not of all.
    """
    sampled = config.model_copy(update={"full_softmax_up_to": 1, "patience": 2})
    network.fusion.attend = True
    behind = {id(parameter) for parameter in network.fusion.gated()}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in behind)
    try:
        return train(
            network,
            material,
            stage="attention",
            epochs=config.attention_epochs,
            progress=progress,
            **options | {"config": sampled},
        )
    finally:
        network.requires_grad_(True)
