"""The state of a training run, and how it survives a kill."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llm4rec.errors import ArtefactError
from llm4rec.model.network import Network
from llm4rec.store import artefact

if TYPE_CHECKING:
    from llm4rec.train.loop import TrainConfig, TrainLog

KIND = "checkpoint"
RUN = "run"
"""The entry that says what all checkpoints beside it belong to."""
STAGES = ("floor", "attention", "codes", "joint", "context")


def claim(folder: Path, owner: str) -> None:
    """Let the checkpoints in `folder` belong to `owner`, a hash of what is trained on and how.

    Raises:
        ArtefactError: where there are some already that belong to another.
    """
    place = folder / RUN
    if not artefact.exists(place):
        artefact.write(place, kind=KIND, meta={"owner": owner})
    elif artefact.read(place, KIND).meta["owner"] != owner:
        raise ArtefactError(
            f"The checkpoints in {folder} were made with another configuration or other data. Resume with "
            "the same input and settings, or remove them to start afresh."
        )


def discard(folder: Path) -> None:
    """Remove the checkpoints in `folder`, and the folder itself where nothing else lies in it."""
    for name in (RUN, *STAGES):
        if artefact.exists(folder / name):
            shutil.rmtree(folder / name, ignore_errors=True)
        for unfinished in folder.glob(f".{name}.*"):
            shutil.rmtree(unfinished, ignore_errors=True)
    try:
        folder.rmdir()
    except OSError:
        pass  # it is not there, or it holds what is not ours


class Run:
    """Everything a training run changes: weights, their average, the best so far, the optimiser, the place.

    `begin` takes up the checkpoint of this stage where there is one; `finish_step` and `finish_epoch`
    leave one behind; `end` puts the best weights into the network.
    """

    def __init__(
        self,
        network: Network,
        config: TrainConfig,
        log: TrainLog,
        folder: Path | None,
        stage: str,
        penalties: Sequence[object] = (),
    ):
        self.network = network
        self.stage = stage
        self.log = log
        self.epoch = 0
        self.step = 0
        self.max_history = network.max_history
        self._config = config
        self._penalties = penalties
        self._folder = None if folder is None else folder / stage
        self._summed = 0.0
        self._seconds = 0.0
        self._updates = 0
        self._saved = time.monotonic()
        groups = network.parameter_groups(config.learning_rate)
        groups += _of_penalties(penalties, config.learning_rate)
        self._named = {n: p for _, named in groups for n, p in named.items()}  # as the optimiser numbers them
        self.optimiser = torch.optim.AdamW(
            [{"params": list(named.values()), "lr": rate} for rate, named in groups],
            weight_decay=config.weight_decay,
            foreach=True,
        )
        self._average = {n: p.detach().clone() for n, p in self._named.items()}
        self._best = {name: tensor.detach().clone() for name, tensor in self._kept.items()}

    @classmethod
    def begin(
        cls,
        network: Network,
        config: TrainConfig,
        log: TrainLog,
        folder: Path | None,
        stage: str,
        penalties: Sequence[object] = (),
    ) -> Run:
        """A new run, or the one a checkpoint in `folder` describes; it trains what penalties have to learn.

        Raises:
            ArtefactError: where the checkpoint is damaged or belongs to another model or configuration.
        """
        run = cls(network, config, log, folder, stage, penalties)
        if run._folder is not None and (run._folder.exists() or artefact.exists(run._folder)):
            run._restore(run._folder)
        return run

    @property
    def _kept(self) -> dict[str, Tensor]:
        """All that a step changes but the optimiser: what is trained, and what penalties count."""
        return {**self._named, **counts(self._penalties)}

    @property
    def mean_loss(self) -> float:
        """Mean loss of this epoch's steps so far."""
        return self._summed / max(self.step, 1)

    @property
    def stopped(self) -> bool:
        """Whether the best epoch lies `patience` epochs back, the fewest steps done."""
        begun = self._updates >= self._config.fewest_steps
        return begun and self.epoch - 1 - self.log.best_epoch >= self._config.patience

    def finish_step(self, loss: float, seconds: float) -> None:
        """Average the new weights in and count the step; a checkpoint where one is due."""
        self._updates += 1
        # a short memory first, or the average would remember its random start
        decay = min(self._config.averaging, self._updates / (self._updates + 10))
        with torch.no_grad():
            for name, parameter in self._named.items():
                self._average[name].lerp_(parameter, 1 - decay)
        self.step += 1
        self._summed += loss
        self._seconds += seconds
        if time.monotonic() - self._saved >= self._config.checkpoint_seconds:
            self._save()

    def finish_epoch(self, metric: float) -> None:
        """Note the epoch, keep its averaged weights if they are the best, and leave a checkpoint."""
        self.log.losses.append(self.mean_loss)
        self.log.metrics.append(metric)
        self.log.seconds.append(self._seconds)
        if metric > self.log.best_metric:
            self.log.best_metric, self.log.best_epoch = metric, self.epoch
            self._best = {name: tensor.clone() for name, tensor in (self._kept | self._average).items()}
        self.epoch += 1
        self.step, self._summed, self._seconds = 0, 0.0, 0.0
        self._save()

    @contextmanager
    def averaged(self) -> Generator[None]:
        """The network with averaged weights, for as long as it is validated."""
        current = {name: parameter.detach().clone() for name, parameter in self._named.items()}
        self._load(self._average)
        try:
            yield
        finally:
            self._load(current)

    def end(self) -> None:
        """Give the network the weights of its best epoch, and penalties what they had counted by then."""
        self._load(self._best)
        self.network.eval()

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            kept = self._kept
            for name, tensor in weights.items():
                kept[name].copy_(tensor)

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self._folder is None:
            return
        moments = self.optimiser.state_dict()["state"]
        names = list(self._named)
        groups: dict[str, Mapping[str, Tensor]] = {
            "weights": self._kept,
            "average": self._average,
            "best": self._best,
            "first_moment": {names[i]: state["exp_avg"] for i, state in moments.items()},
            "second_moment": {names[i]: state["exp_avg_sq"] for i, state in moments.items()},
        }
        artefact.write(
            self._folder,
            kind=KIND,
            meta={
                "epoch": self.epoch,
                "step": self.step,
                "summed": self._summed,
                "seconds": self._seconds,
                "updates": self._updates,
                "moments": {names[i]: float(state["step"]) for i, state in moments.items()},
                "config": self._config.model_dump(mode="json"),
                "log": vars(self.log),
            },
            tensors={g: {n: t.detach().numpy() for n, t in tensors.items()} for g, tensors in groups.items()},
        )

    def _restore(self, folder: Path) -> None:
        kept = artefact.read(folder, KIND)
        meta: dict[str, Any] = dict(kept.meta)
        if meta["config"] != self._config.model_dump(mode="json"):
            raise ArtefactError(
                f"The checkpoint in {folder} was made with another configuration. Resume with the same "
                "settings, or remove it to start afresh."
            )
        groups = {
            name: {key: torch.from_numpy(array.copy()) for key, array in kept.tensors(name).items()}
            for name in ("weights", "average", "best", "first_moment", "second_moment")
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in self._kept.items()}
        if {name: tuple(tensor.shape) for name, tensor in groups["weights"].items()} != shapes:
            raise ArtefactError(
                f"The checkpoint in {folder} belongs to another model or other data. Resume with the "
                "same input, or remove it to start afresh."
            )
        self._load(groups["weights"])
        self._average, self._best = groups["average"], groups["best"]
        state = self.optimiser.state_dict()
        for place, name in enumerate(self._named):
            if name in meta["moments"]:
                state["state"][place] = {
                    "step": torch.tensor(meta["moments"][name]),
                    "exp_avg": groups["first_moment"][name],
                    "exp_avg_sq": groups["second_moment"][name],
                }
        self.optimiser.load_state_dict(state)
        self.epoch, self.step = int(meta["epoch"]), int(meta["step"])
        self._summed, self._seconds = float(meta["summed"]), float(meta["seconds"])
        self._updates = int(meta["updates"])
        vars(self.log).update(meta["log"])


def counts(penalties: Sequence[object]) -> dict[str, Tensor]:
    """The buffers of penalties, by names no parameter has: what they have counted, and do not learn."""
    return {
        f"penalties.{place}.{name}": tensor
        for place, penalty in enumerate(penalties)
        if isinstance(penalty, nn.Module)
        for name, tensor in penalty.named_buffers()
    }


def _of_penalties(
    penalties: Sequence[object], learning_rate: float
) -> list[tuple[float, dict[str, nn.Parameter]]]:
    """What each penalty has to learn, by names no parameter of the network has, with its step size."""
    groups: list[tuple[float, dict[str, nn.Parameter]]] = []
    for place, penalty in enumerate(penalties):
        if isinstance(penalty, nn.Module):
            learnt = {f"penalties.{place}.{n}": p for n, p in penalty.named_parameters() if p.requires_grad}
            rate = getattr(penalty, "learning_rate", None)
            groups.append((learning_rate if rate is None else float(rate), learnt))
    return [(rate, learnt) for rate, learnt in groups if learnt]
