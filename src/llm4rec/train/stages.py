"""The stages of training: the plain sum, cross-modal attention, the code head.

Each later stage leaves what came before as it is: attention stays only where validation gains by it, and
the code head is trained on frozen states, its codes fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llm4rec.encode.fusion import BEHAVIOUR
from llm4rec.encode.tokens import Tokens
from llm4rec.errors import InputError
from llm4rec.generate.semantic_id import GenerateConfig, Quality, SemanticIds, fit_ids, quality
from llm4rec.model.network import Network
from llm4rec.train.checkpoint import STAGES
from llm4rec.train.loop import Material, TrainConfig, train
from llm4rec.types import Floats, Progress, silent

FLOOR, ATTENTION, CODES = STAGES

Validate = Callable[[Network], float]


@dataclass(frozen=True)
class Trained:
    """Semantic ids, None without a code head, and what happened by stage: values JSON can hold."""

    ids: SemanticIds | None
    told: dict[str, Any]


def train_in_stages(  # noqa: PLR0913  # what each stage needs
    network: Network,
    material: Material,
    *,
    validate: Validate,
    validate_codes: Callable[[SemanticIds], Validate],
    config: TrainConfig,
    generate: GenerateConfig,
    attention: bool,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train the floor, open the fusion gate where that is better, and teach the code head.

    Args:
        network: trained in place.
        material: its data.
        validate: the metric of the dense head.
        validate_codes: the metric of the code head, given the ids.
        config: options of the loop.
        generate: options of semantic ids.
        attention: whether to try cross-modal attention.
        checkpoints: where unfinished work is kept; None keeps none.
        progress: told of every step.

    Raises:
        InputError: where ids are to be made of content and the items have none.
    """
    run = partial(train, network, config=config, checkpoints=checkpoints, progress=progress)
    if generate.mode == "only":
        ids, found = _ids(network, material.items, generate, config.seed)
        coded = replace(material, codes=torch.from_numpy(ids.codes), dense=False)
        log = run(coded, validate=validate_codes(ids), stage=FLOOR)
        network.backbone.settle()
        told = {"floor": asdict(log), "attention_kept": False, "ids": asdict(found)}
        return Trained(ids, told | _size(network))
    floor = run(material, validate=validate, stage=FLOOR)
    network.backbone.settle()  # what follows is trained on the states that will be served
    told: dict[str, Any] = {"floor": asdict(floor), "attention_kept": False}
    if attention and config.attention_epochs:
        # of a few thousand items only, so that attention is not computed for all at every step
        sampled = config.model_copy(update={"full_softmax_up_to": 1, "patience": 2})
        network.fusion.attend = True
        with only(network, network.fusion.gated()):  # closing the gate gives the floor back
            opened = run(
                material, validate=validate, config=sampled, stage=ATTENTION,
                epochs=config.attention_epochs, to_beat=floor.best_metric,
            )  # fmt: skip
        told["attention"] = asdict(opened)
        network.fusion.attend = told["attention_kept"] = opened.best_epoch >= 0
    ids = None
    if network.codes is not None:
        ids, found = _ids(network, material.items, generate, config.seed)
        network.codes.start_from(torch.from_numpy(ids.centres), network.head)
        coded = replace(material, codes=torch.from_numpy(ids.codes), dense=False)
        short = config.model_copy(update={"patience": 3})
        with only(network, network.codes.parameters()):
            log = run(coded, validate=validate_codes(ids), config=short, stage=CODES, epochs=generate.epochs)
        told |= {"codes": asdict(log), "ids": asdict(found)}
    return Trained(ids, told | _size(network))


def id_vectors(network: Network, items: Mapping[str, Tokens], source: str) -> Floats:
    """What semantic ids are made of [i, d]: the directions the dense head compares states with.

    Args:
        network: in whatever mode; it is left in evaluation mode.
        items: modality → tokens of the items.
        source: `fused`, or `content` for the items as if nobody had touched them.
    """
    network.eval()
    if source == "content" and BEHAVIOUR in items:
        hidden = items[BEHAVIOUR]
        items = {**items, BEHAVIOUR: Tokens(hidden.values, torch.zeros_like(hidden.mask))}
    with torch.no_grad():
        return network.head.directions(network.fuse(items).vectors).numpy()


def _ids(
    network: Network, items: Mapping[str, Tokens], generate: GenerateConfig, seed: int
) -> tuple[SemanticIds, Quality]:
    source = "content" if generate.mode == "only" else generate.source
    if source == "content" and set(network.fusion.modalities) == {BEHAVIOUR}:
        raise InputError(
            "Semantic ids of content need items with features. Give some, or set generate.mode=joint and "
            "generate.source=fused."
        )
    vectors = id_vectors(network, items, source)
    ids = fit_ids(vectors, n_levels=generate.n_levels, codebook_size=generate.codebook_size, seed=seed)
    return ids, quality(ids, vectors)


def _size(network: Network) -> dict[str, Any]:
    return {
        "gate": float(network.fusion.gate.detach()) if network.fusion.attend else 0.0,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


@contextmanager
def only(network: Network, parameters: Iterable[nn.Parameter]) -> Generator[None]:
    """Nothing trained but `parameters`; afterwards what was trained before."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        network.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
