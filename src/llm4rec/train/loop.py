"""The one training loop.

Example weights carry inverse propensities, penalties carry fairness and consolidation; early stopping
looks at a callable that the caller gives. Each step is seeded by (seed, epoch, step), so a run that
was killed and resumed from a checkpoint ends like one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from pydantic import Field as Option
from torch import Tensor

from llm4rec.config import Section
from llm4rec.errors import TrainingError
from llm4rec.model.network import Batch, Network, Offer
from llm4rec.model.offset import Offsets
from llm4rec.model.precision import Precision, dtype_of
from llm4rec.train.checkpoint import Run
from llm4rec.train.material import Material
from llm4rec.train.objective import rating_loss, sampled_softmax_loss, soft_codes, softmax_loss
from llm4rec.train.windows import Windows, batches, cut_windows
from llm4rec.types import Floats, Ints, Progress, silent

SMALLEST_BATCH = 64  # events a step predicts even where an epoch gets few steps that way


class TrainConfig(Section):
    """How the model is trained (section `train`)."""

    epochs: int = Option(default=40, ge=1, description="The most passes over the training events.")
    patience: int = Option(
        default=8, ge=1, description="Epochs without a better validation NDCG@10 before it stops."
    )
    fewest_steps: int = Option(
        default=600,
        ge=1,
        description="Steps before patience may end it: at first a model learns what is popular, and its "
        "metric may stand still.",
    )
    learning_rate: float = Option(default=2e-3, gt=0, le=10, description="Step size of AdamW.")
    weight_decay: float = Option(default=0.01, ge=0, le=100, description="Decoupled weight decay of AdamW.")
    batch_size: int = Option(default=2048, ge=1, description="The most events predicted per step [events].")
    steps_per_epoch: int = Option(
        default=32,
        ge=1,
        description="Steps an epoch should have: on small data fewer events than batch_size are predicted "
        "per step, down to 64.",
    )
    averaging: float = Option(
        default=0.99,
        ge=0,
        lt=1,
        description="Decay of the weight average that is validated and kept; 0 = last weights.",
    )
    hide: float = Option(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of histories whose times, ratings, kinds or owners are hidden at a step, each by "
        "itself.",
    )
    full_softmax_up_to: int = Option(
        default=30_000, ge=1, description="Catalogue size above which negatives are sampled [items]."
    )
    negatives: int = Option(
        default=4096, ge=1, le=1_000_000, description="Shared negatives per step when sampling [items]."
    )
    precision: Precision = Option(
        default="auto",
        description="Numbers multiplied by the full softmax over the catalogue; auto takes bfloat16 where "
        "the processor multiplies it natively.",
    )
    attention_epochs: int = Option(
        default=4, ge=0, description="The most epochs of the stage that opens the fusion gate."
    )
    context_epochs: int = Option(
        default=2,
        ge=0,
        description="The most epochs of the stage that learns what the time of asking says, without changing "
        "anything else; kept where validation gains by it.",
    )
    validation_people: int = Option(
        default=10_000, ge=1, description="The most cases validation asks [cases]."
    )
    checkpoint_seconds: float = Option(
        default=60.0, ge=0, description="Time between checkpoints within an epoch [s]."
    )
    seed: int = Option(
        default=0, ge=0, lt=2**32, description="Seed of initial weights, batches, dropout and negatives."
    )

    @property
    def dtype(self) -> torch.dtype:
        """What `precision` means on this machine."""
        return dtype_of(self.precision)

    def events_per_step(self, n_events: int) -> int:
        """Events predicted per step where an epoch has `n_events` of them [events]."""
        return min(self.batch_size, max(SMALLEST_BATCH, n_events // self.steps_per_epoch))


class Penalty(Protocol):
    """A term added to the loss of every step.

    One that is an `nn.Module` has its parameters trained with the network's and kept in checkpoints, by the
    step size of its attribute `learning_rate`, that of training where it has none or None. What it counts in
    buffers is kept beside them, so that a run that is taken up goes on from there.
    """

    def __call__(
        self, network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer
    ) -> Tensor:
        """The term.

        Args:
            network: as it is trained.
            states: those that predict an event [p, d].
            batch: what was read; some of its people are hidden.
            owners: the row of the log that each state belongs to [p], also where the person is hidden.
            offer: the items that this step scores.
        """
        ...


class Weigh(Protocol):
    """What each target of a step counts for beside its weight, by what is foreseen of it."""

    def __call__(self, network: Network, states: Tensor, offer: Offer, items: Tensor) -> Tensor:
        """Factors [p].

        Args:
            network: as it is trained.
            states: those that predict an event [p, d].
            offer: the items that this step scores.
            items: the targets [p].
        """
        ...


@dataclass
class TrainLog:
    """What happened: one entry per finished epoch, the best of them, and why it ended."""

    losses: list[float] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_metric: float = -1.0


def train(  # noqa: PLR0913  # what every kind of training can ask for
    network: Network,
    material: Material,
    *,
    validate: Callable[[Network], float],
    config: TrainConfig,
    epochs: int | None = None,
    to_beat: float = -1.0,
    weights: Floats | None = None,
    normalised: bool = False,
    penalties: Sequence[Penalty] = (),
    checkpoints: Path | None = None,
    stage: str = "train",
    progress: Progress = silent,
) -> TrainLog:
    """Train `network` in place; it ends with the weights of its best epoch on `validate`.

    Args:
        network: the model.
        material: its data.
        validate: the metric that chooses the epoch, higher is better.
        config: options.
        epochs: the most epochs, `config.epochs` where None.
        to_beat: the metric of the weights it starts from; it ends with those where no epoch is better.
        weights: weight of each event as a target [e]; None weighs all alike. The loss of a step is the mean
            of weight times loss, Σ w ℓ / p over its p events.
        normalised: whether it is Σ w ℓ / Σ w instead, the sums over the step; weights have to be positive.
        penalties: terms added to the loss.
        checkpoints: where to keep, and from where to take up, unfinished work; None keeps none.
        stage: name of this stage in checkpoints and progress.
        progress: told of every step.

    Raises:
        TrainingError: where the loss stops being finite; the message names epoch, step and remedy.
    """
    epochs = config.epochs if epochs is None else epochs
    run = Run.begin(network, config, TrainLog(best_metric=to_beat), checkpoints, stage, penalties)
    step_weights = None if weights is None else torch.from_numpy(np.append(weights, 0).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        while run.epoch < epochs and not run.stopped:
            _epoch(run, material, config, step_weights, normalised, penalties, progress, epochs)
            metric = _validated(run, validate)
            run.finish_epoch(metric)
            progress(stage, run.epoch, epochs, loss=run.log.losses[-1], ndcg=metric)
    run.end()
    return run.log


def _epoch(
    run: Run,
    material: Material,
    config: TrainConfig,
    weights: Tensor | None,
    normalised: bool,
    penalties: Sequence[Penalty],
    progress: Progress,
    epochs: int,
) -> None:
    rng = np.random.default_rng([config.seed, run.epoch])
    windows = cut_windows(material.events.offsets, run.max_history, rng)
    plan = list(batches(windows, config.events_per_step(int(windows.lengths.sum())), rng))
    run.network.train()
    while run.step < len(plan):
        began = time.perf_counter()
        torch.manual_seed(
            int(np.random.SeedSequence([config.seed, run.epoch, run.step]).generate_state(1)[0])
        )
        loss = step(run.network, material, windows, plan[run.step], config, weights, penalties, normalised)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"The loss became {float(loss.detach())} in epoch {run.epoch + 1}, step {run.step + 1}. "
                f"Lower train.learning_rate (now {config.learning_rate:g}) and look for extreme numbers "
                "in the item features."
            )
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        run.optimiser.step()
        run.finish_step(float(loss.detach()), time.perf_counter() - began)
        progress(run.stage, run.epoch, epochs, loss=run.mean_loss, part=run.step / len(plan))


def _validated(run: Run, validate: Callable[[Network], float]) -> float:
    with run.averaged():
        run.network.eval()
        with torch.no_grad():
            return validate(run.network)


def step(  # noqa: PLR0913  # what every kind of step can ask for
    network: Network,
    material: Material,
    windows: Windows,
    chosen: Ints,
    config: TrainConfig,
    weights: Tensor | None,
    penalties: Sequence[Penalty],
    normalised: bool = False,
    weigh: Weigh | None = None,
) -> Tensor:
    """The loss of one batch of windows, with its graph; `weigh` is asked where there are weights."""
    rows, starts, lengths = windows.rows[chosen], windows.starts[chosen], windows.lengths[chosen] - 1
    asked_at = material.events.next_times(starts, lengths) if material.timed else None
    batch = _hidden(material.events.batch(rows, starts, lengths, asked_at), config.hide)
    targets, place = _targets(windows, chosen)
    if normalised and weights is not None:  # what weighs nothing is only read
        counted = weights[targets] > 0
        targets, place = targets[counted], place[counted]
    wanted = material.events.items[targets]
    offsets = None if material.offsets is None else material.offsets.of_events(targets)
    sampled = material.dense and material.n_items > config.full_softmax_up_to
    if sampled:
        states, wanted_vectors, offer, losses = _sampled(
            network, material, batch, place, wanted, config.negatives, offsets
        )
    else:
        vectors = material.fused(network)
        states = network.read(batch, vectors, material.people).flatten(0, 1)[place]
        losses = states.new_zeros(len(wanted))
        wanted_vectors = vectors[wanted] if network.pointwise is not None else vectors[:0]
        offer = Offer(torch.arange(len(vectors)), vectors, None if offsets is None else offsets.newest)
    share = torch.full((len(wanted),), 1 / len(wanted))
    if weights is not None:
        own = weights[targets]
        if weigh is not None:
            own = own * weigh(network, states, offer, wanted)
        share = own / own.sum() if normalised else share * own
    taken = share if material.against is None else _without(share, material.against[targets])
    if material.dense and not sampled:
        loss = softmax_loss(network.head, states, offer.vectors, wanted, taken, config.dtype, offsets)
    else:
        loss = (losses * taken).sum()
    if material.codes is not None and network.codes is not None:
        soft = None
        if material.teaching is not None:
            teaching, every = material.teaching, material.fused(network)
            soft = soft_codes(network.head, states, every, wanted, teaching, offsets)
        part = 0.0 if material.teaching is None else material.teaching.share
        loss = loss + (network.codes.losses(states, material.codes[wanted], soft, part) * taken).sum()
    if network.pointwise is not None and material.dense:
        errors = rating_loss(network.pointwise, states, wanted_vectors, material.ratings[targets])
        loss = loss + network.pointwise_weight * (errors * share).sum()
    if penalties:
        owners = torch.from_numpy(rows)[place // (batch.items.shape[1] + 1)]
        for penalty in penalties:
            loss = loss + penalty(network, states, batch, owners, offer)
    return loss


def _without(share: Tensor, against: Tensor) -> Tensor:
    """What each target weighs in a softmax [p]: nothing where it speaks against its item.

    The others weigh as much together as all did: what is taken teaches the same beside whatever is not.
    """
    kept = share.masked_fill(against, 0)
    return kept * (share.sum() / kept.sum()) if bool((kept > 0).any()) else kept


def _sampled(
    network: Network,
    material: Material,
    batch: Batch,
    place: Tensor,
    wanted: Tensor,
    n_negatives: int,
    offsets: Offsets | None,
) -> tuple[Tensor, Tensor, Offer, Tensor]:
    """States and vectors of the targets [p, d], what was drawn, losses [p]; few items have vectors then."""
    negatives = torch.randint(material.n_items, (n_negatives,))
    inputs = batch.items.clamp(min=0).flatten()
    needed, index = torch.unique(torch.cat([inputs, wanted, negatives]), return_inverse=True)
    read, right, wrong = index.split([len(inputs), len(wanted), n_negatives])
    vectors = material.fused(network, needed)
    local = replace(batch, items=torch.where(batch.items >= 0, read.view(batch.items.shape), batch.items))
    states = network.read(local, vectors, material.people).flatten(0, 1)[place]
    log_counts = torch.full((n_negatives,), math.log(n_negatives / material.n_items))
    losses = sampled_softmax_loss(
        network.head, states, vectors[right], vectors[wrong], wanted, negatives, log_counts, offsets
    )
    carried = None if offsets is None else offsets.newest[negatives]
    return states, vectors[right], Offer(negatives, vectors[wrong], carried), losses


def _targets(windows: Windows, chosen: Ints) -> tuple[Tensor, Tensor]:
    """Events that are targets [p], and the place of the state that predicts each in the flattened [b, t]."""
    starts, lengths, first = windows.starts[chosen], windows.lengths[chosen], windows.first[chosen]
    width = int(lengths.max())
    place = np.arange(width)
    # in a window from mid-history the first event was already a target of the window before
    valid = (place < lengths[:, None]) & (first[:, None] | (place > 0))
    events = np.where(valid, starts[:, None] + place, 0)[valid]
    return torch.from_numpy(events), torch.from_numpy(np.flatnonzero(valid))


def _hidden(batch: Batch, share: float) -> Batch:
    """Some histories without times, ratings or kinds, some of strangers, as some requests come."""
    if not share:
        return batch
    times, ratings, named = (torch.rand(len(batch.items), 1) >= share for _ in range(3))
    people = batch.people.masked_fill(~named.squeeze(1), -1)
    kinds = batch.kinds
    if bool((kinds > 0).any()):
        kinds = kinds * (torch.rand(len(batch.items), 1) >= share)
    asked = batch.asked  # who does not say when the history was does not know the time since then
    asked = None if asked is None else replace(asked, gaps=asked.gaps * times)
    return Batch(batch.items, batch.gaps * times, batch.ratings * ratings, kinds, people, asked)
