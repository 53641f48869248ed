"""The stages of training: the plain sum, cross-modal attention, the code head, both heads, query context.

A later stage leaves what came before as it is unless validation gains: the code head is trained on frozen
states with its codes fixed, attention and context stay only where they are better, and joint training only
where it is better by more than a standard error. What states should not tell is taken out of them before
anything is learnt from them as they will be served, and anew where joint training has moved them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from llm4rec.encode.fusion import BEHAVIOUR
from llm4rec.encode.tokens import Tokens
from llm4rec.evaluate.significance import Gain
from llm4rec.generate.semantic_id import GenerateConfig, Quality, SemanticIds, fit_ids, quality
from llm4rec.generate.teaching import Teaching
from llm4rec.generate.trie import build_trie
from llm4rec.model.heads import CodeHead
from llm4rec.model.network import Network
from llm4rec.train.checkpoint import STAGES, counts
from llm4rec.train.loop import Penalty, TrainConfig, TrainLog, train
from llm4rec.train.material import Material
from llm4rec.types import Array, Floats, Progress, silent

FLOOR, ATTENTION, CODES, JOINT, CONTEXT = STAGES

SOON = 3
"""Epochs without a better one that end the first stage of a network that was trained before."""

Validate = Callable[[Network], float]
Measured = TypeVar("Measured", float, Array)


class PersonMetric(Protocol):
    """A validation metric of what is served, person by person, higher is better."""

    def __call__(self, network: Network, *, timed: bool = False) -> Array:
        """Of the weights of the moment [p]; `timed` asks each case at the time its answer happened."""
        ...


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
    validate_served: Callable[[SemanticIds | None], PersonMetric],
    timed: bool,
    config: TrainConfig,
    generate: GenerateConfig,
    attention: bool,
    weights: Floats | None = None,
    normalised: bool = False,
    penalties: Sequence[Penalty] = (),
    erase: Callable[[Network], int] | None = None,
    begun: bool = False,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train the floor and the code head; add attention, joint training and context where each is better.

    Args:
        network: trained in place.
        material: its data.
        validate: the metric of the dense head.
        validate_codes: the metric of the code head, given the ids.
        validate_served: that of what is served, given the ids or None for the dense head alone: with the
            linear part, all weighed as suits the network as it is then.
        timed: whether events and cases have times, so that context can be learnt.
        config: options of the loop.
        generate: options of semantic ids.
        attention: whether to try cross-modal attention.
        weights: weight of each event as a target [e]; None weighs all alike. Every stage is given them, those
            on frozen states too: code head and context would draw lists back to what is not weighed.
        normalised: whether the loss of a step is divided by the sum of its weights.
        penalties: terms added to the loss wherever states are trained.
        erase: takes out of the states what they should not tell, and says of how many directions that was.
        begun: whether the network was trained before: it stays as it is where no epoch is better, and a few
            that are not end the first stage.
        checkpoints: where unfinished work is kept; None keeps none.
        progress: told of every step.

    Raises:
        InputError: where semantic ids can't be made.
    """
    if network.codes is not None:
        features = set(network.fusion.modalities) != {BEHAVIOUR}
        generate.refuse_impossible(material.n_items, features=features)
    run = partial(
        train, network, config=config, weights=weights, normalised=normalised, checkpoints=checkpoints,
        progress=progress,
    )  # fmt: skip
    if generate.mode == "only":
        ids, found = _ids(network, material.items, generate, config.seed)
        coded = replace(material, codes=torch.from_numpy(ids.codes), dense=False)
        with only(network, _but_content(network)):
            log = run(coded, stage=FLOOR, **_first(network, validate_codes(ids), config, begun, penalties))
        network.backbone.settle()
        kept = {"attention_kept": False, "context_kept": False}
        kept |= _erased(network, erase, validate_codes(ids))
        return Trained(ids, {"floor": asdict(log), **kept, "ids": asdict(found)} | _size(network))
    floor = run(material, stage=FLOOR, **_first(network, validate, config, begun, penalties))
    # what follows is trained on, and compared with, the states that will be served
    metric = _measured(network, validate) if network.backbone.settle() else floor.best_metric
    told: dict[str, Any] = {"floor": asdict(floor), "attention_kept": False, "context_kept": False}
    if attention and config.attention_epochs:
        penalised = partial(run, penalties=penalties)
        opened = _open_gate(network, material, penalised, validate, config, metric)
        told |= {"attention": asdict(opened), "attention_kept": network.fusion.attend}
    told |= _erased(network, erase, validate)
    ids = None
    if network.codes is not None:
        ids, found = _ids(network, material.items, generate, config.seed)
        network.codes.start_from(torch.from_numpy(ids.centres), network.head)
        coded = _coded(network, material, ids, generate, config)
        log = _learn_codes(network, network.codes, coded, run, validate_codes(ids), config, generate.epochs)
        told |= {"ids": asdict(found), "codes": asdict(log), "joint_kept": False}
        if generate.joint_epochs:
            dense, both = validate_served(None), validate_served(ids)
            before = max(_measured(network, dense), _measured(network, both), key=np.mean)
            joined = partial(run, penalties=penalties, epochs=generate.joint_epochs)
            log, kept = _learn_both(
                network,
                coded,
                joined,
                both,
                config,
                before,
                counts(penalties).values(),
                erase,
            )
            told |= {"joint": asdict(log), "joint_kept": kept}
        material = coded
    if timed and config.context_epochs:
        served = validate_served(ids)
        metric = float(_measured(network, served).mean())
        heard = _hear_time(network, material, run, _mean(served, timed=True), config, metric)
        told["context"] = asdict(heard) | {"metric_before": metric, "metric_after": max(heard.metrics)}
        told["context_kept"] = heard.best_epoch >= 0
    return Trained(ids, told | _size(network))


def _first(
    network: Network, validate: Validate, config: TrainConfig, begun: bool, penalties: Sequence[Penalty]
) -> dict[str, Any]:
    """Options of the first stage."""
    options: dict[str, Any] = {"validate": validate, "penalties": penalties}
    if begun:
        patience = min(config.patience, SOON)
        short = config.model_copy(update={"fewest_steps": 1, "patience": patience})
        options |= {"config": short, "to_beat": _measured(network, validate)}
    return options


def _erased(network: Network, erase: Callable[[Network], int] | None, validate: Validate) -> dict[str, Any]:
    """What states should not tell taken out of them, and what it costs."""
    if erase is None:
        return {}
    before = _measured(network, validate)
    directions = erase(network)
    after = _measured(network, validate)
    return {"erased": {"directions": directions, "metric_before": before, "metric_after": after}}


def _but_content(network: Network) -> list[nn.Parameter]:
    """All that is trained but what makes vectors of content: ids made of those stay true for new items."""
    behaviour = f"fusion.encoders.{BEHAVIOUR}."
    return [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and (not name.startswith("fusion.") or name.startswith(behaviour))
    ]


def _open_gate(
    network: Network,
    material: Material,
    run: Callable[..., TrainLog],
    validate: Validate,
    config: TrainConfig,
    to_beat: float,
) -> TrainLog:
    """Train cross-modal attention; where validation does not gain by it, the gate is closed again."""
    # of a few thousand items only, so that attention is not computed for all at every step
    sampled = config.model_copy(update={"full_softmax_up_to": 1, "patience": 2, "fewest_steps": 1})
    network.fusion.attend = True
    with only(network, network.fusion.gated()):  # closing the gate gives the floor back
        log = run(
            material, validate=validate, config=sampled, stage=ATTENTION, epochs=config.attention_epochs,
            to_beat=to_beat,
        )  # fmt: skip
    network.fusion.attend = log.best_epoch >= 0
    return log


def _coded(
    network: Network, material: Material, ids: SemanticIds, generate: GenerateConfig, config: TrainConfig
) -> Material:
    """What the code head is taught with: fixed item vectors, ids, and the dense head where it can teach."""
    network.eval()
    with torch.no_grad():
        vectors = network.fuse(material.items).vectors
    teaching = None
    if generate.distil and material.n_items <= config.full_softmax_up_to:
        teaching = Teaching(build_trie(ids.codes), generate.codebook_size, generate.distil)
    return replace(material, vectors=vectors, codes=torch.from_numpy(ids.codes), teaching=teaching)


def _learn_codes(
    network: Network,
    head: CodeHead,
    material: Material,
    run: Callable[..., TrainLog],
    validate: Validate,
    config: TrainConfig,
    epochs: int,
) -> TrainLog:
    """Train the code head on frozen states."""
    short = config.model_copy(update={"patience": 3, "fewest_steps": 1})
    with only(network, head.parameters()):
        return run(
            replace(material, dense=False), validate=validate, config=short, stage=CODES, epochs=epochs
        )


def _learn_both(
    network: Network,
    material: Material,
    run: Callable[..., TrainLog],
    served: PersonMetric,
    config: TrainConfig,
    before: Array,
    counted: Iterable[Tensor],
    erase: Callable[[Network], int] | None,
) -> tuple[TrainLog, bool]:
    """Train states and both heads, item vectors fixed; where that does not gain, all stays as it was.

    The best of several epochs is above what was `before` [p] by chance already: it must be so by more than
    a standard error. A pretrained decoder is settled by then: what surrounds it is trained. What penalties
    have `counted`, and what is taken out of states, is left as it was with the rest; where states have moved,
    what they should not tell is taken out anew before it is judged.
    """
    slow = config.model_copy(
        update={"patience": 2, "fewest_steps": 1, "learning_rate": config.learning_rate / 4}
    )
    parameters = [
        p for name, p in network.named_parameters() if p.requires_grad and not name.startswith("fusion.")
    ]
    changed = [*parameters, *counted, *(() if network.erasure is None else network.erasure.buffers())]
    start = [tensor.detach().clone() for tensor in changed]
    with only(network, parameters):
        log = run(
            material, validate=_mean(served), config=slow, stage=JOINT,
            to_beat=float(before.mean()),
        )  # fmt: skip
    if erase is not None:
        erase(network)
    kept = Gain.of(_measured(network, served) - before).exceeds()
    if not kept:
        with torch.no_grad():
            for tensor, values in zip(changed, start, strict=True):
                tensor.copy_(values)
    return log, kept


def _mean(served: PersonMetric, *, timed: bool = False) -> Validate:
    return lambda network: float(served(network, timed=timed).mean())


def _measured(network: Network, validate: Callable[[Network], Measured]) -> Measured:
    network.eval()
    with torch.no_grad():
        return validate(network)


def _hear_time(
    network: Network,
    material: Material,
    run: Callable[..., TrainLog],
    validate: Validate,
    config: TrainConfig,
    to_beat: float,
) -> TrainLog:
    """Learn what the time of asking says; where validation does not gain by it, it adds nothing still."""
    network.eval()
    with torch.no_grad():  # nothing that makes item vectors is trained
        vectors = network.fuse(material.items).vectors
    timed = replace(material, vectors=vectors, timed=True)
    short = config.model_copy(update={"patience": 2, "fewest_steps": 1})
    with only(network, network.context.parameters()):
        return run(
            timed, validate=validate, config=short, stage=CONTEXT, epochs=config.context_epochs,
            to_beat=to_beat,
        )  # fmt: skip


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
    vectors = id_vectors(network, items, generate.of)
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
    every = list(network.parameters())  # walked once: a step of online learning takes milliseconds
    trained = [parameter for parameter in every if parameter.requires_grad]
    for parameter in every:
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in every:
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
