"""The stages of training: the plain sum first, then cross-modal attention where validation gains by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from llm4rec.model.network import Network
from llm4rec.train.loop import Material, TrainConfig, train
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
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.fusion.attend = True
        opened = train(
            network, material, stage="attention", epochs=config.attention_epochs, progress=progress, **options
        )
        told["attention"] = asdict(opened)
        told["attention_kept"] = opened.best_metric > floor.best_metric
        if not told["attention_kept"]:
            network.load_state_dict(before)
            network.fusion.attend = False
    told["gate"] = float(network.fusion.gate.detach())
    with torch.no_grad():
        told["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    return told
