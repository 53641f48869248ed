"""The models a table can hold, by name: ours, ours with parts left out, and the baselines."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llm4rec.data.catalog import Catalog, Modality
from llm4rec.data.events import EventLog
from llm4rec.data.remarks import Manner, Remarks
from llm4rec.data.split import Split
from llm4rec.errors import InputError
from llm4rec.types import Progress, Rankings, Recommends, silent

if TYPE_CHECKING:
    from llm4rec.recommender import Config, Recommender

OURS = "ours"


@dataclass(frozen=True)
class Task:
    """What a model is fitted with; every model of a table is given the same split and catalogue."""

    split: Split
    catalog: Catalog
    people: Catalog | None
    config: Config
    remarks: Mapping[Manner, Remarks] = field(default_factory=dict[Manner, Remarks])
    seed: int = 0
    checkpoints: Path | None = None
    progress: Progress = field(default=silent)


@dataclass(frozen=True)
class Entry:
    """One model of the line-up.

    Attributes:
        fit: fits it on the training part; epochs and settings are chosen on validation.
        seeded: whether it depends on the seed; what does not is run once.
        ablates: the modality it does without; such a model is run at one seed.
        needs_clock: whether it reads event times.
        says: what the name stands for, in words.
        by_name_only: whether it is left out unless it is asked for.
    """

    fit: Callable[[Task], Recommends]
    says: str
    seeded: bool = True
    ablates: Modality | Literal["behaviour"] | None = None
    needs_clock: bool = False
    by_name_only: bool = False


def _ours(task: Task) -> Recommender:
    from llm4rec.recommender import Recommender

    config = task.config.model_copy(
        update={"train": task.config.train.model_copy(update={"seed": task.seed})}
    )
    return Recommender.fit(
        task.split.train,
        task.catalog,
        config,
        people=task.people,
        valid=task.split.valid,
        remarks=task.remarks,
        checkpoints=task.checkpoints,
        resume=True,
        progress=task.progress,
    )


def _ids(task: Task) -> Recommender:
    return _ours(replace(task, catalog=replace(task.catalog, fields=()), people=None, remarks={}))


def _without(modality: Modality) -> Callable[[Task], Recommends]:
    def fit(task: Task) -> Recommends:
        remarks = {} if modality == "text" else task.remarks  # they are texts too
        return _ours(replace(task, catalog=task.catalog.without(modality), remarks=remarks))

    return fit


def _without_behaviour(task: Task) -> Recommends:
    encode = task.config.encode.model_copy(update={"behaviour": False})
    return _ours(replace(task, config=task.config.model_copy(update={"encode": encode})))


def _unaided(task: Task) -> Task:
    """The task with a configuration without linear part."""
    linear = task.config.linear.model_copy(update={"items": 0})
    return replace(task, config=task.config.model_copy(update={"linear": linear}))


def _without_retrieval(task: Task) -> Task:
    """The task with a configuration without retrieval."""
    retrieve = task.config.retrieve.model_copy(update={"enabled": False})
    return replace(task, config=task.config.model_copy(update={"retrieve": retrieve}))


def _generating(**options: Any) -> Callable[[Task], Recommends]:
    def fit(task: Task) -> Recommends:
        generate = task.config.generate.model_copy(update=options)
        return _ours(replace(task, config=task.config.model_copy(update={"generate": generate})))

    return fit


def _sasrec(task: Task) -> Recommends:
    from llm4rec.settings import sasrec_config

    split = task.split
    ordered = replace(split, train=_bare(split.train), valid=replace(split.valid, log=_bare(split.valid.log)))
    return OrderOnly(without_prior(_ids(replace(task, config=sasrec_config(task.config), split=ordered))))


def without_prior(model: Recommender) -> Recommender:
    """The network alone: the prior of recent popularity has no share in what it answers."""
    prior = model.fitted.prior
    plain = replace(prior, shares=(0.0,) * len(prior.shares))
    return type(model)(replace(model.fitted, prior=plain))


@dataclass(frozen=True)
class OrderOnly:
    """A model that is told the order of events and nothing else of them: no times, ratings or kinds."""

    inner: Recommender

    @property
    def meta(self) -> dict[str, Any]:
        return self.inner.meta

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        return self.inner.rank(_bare(histories), n, keep_seen=keep_seen)

    def save(self, path: Path) -> None:
        """Write the model inside."""
        self.inner.save(path)


def _bare(log: EventLog) -> EventLog:
    return EventLog(log.user_ids, log.offsets, log.items)


def _ease(task: Task) -> Recommends:
    from llm4rec.bench.baselines import fit_ease

    return fit_ease(task.split, task.catalog, progress=task.progress)


def _item_knn(task: Task) -> Recommends:
    from llm4rec.bench.baselines import fit_item_knn

    return fit_item_knn(task.split, task.catalog, progress=task.progress)


def _popularity(task: Task) -> Recommends:
    from llm4rec.bench.baselines import fit_popularity

    return fit_popularity(task.split, task.catalog, progress=task.progress)


def _recent_popularity(task: Task) -> Recommends:
    from llm4rec.bench.baselines import fit_recent_popularity

    return fit_recent_popularity(task.split, task.catalog, progress=task.progress)


LINEUP: dict[str, Entry] = {
    OURS: Entry(_ours, "all modalities fused"),
    "ids": Entry(_ids, "ours on ids alone, without any feature"),
    "sasrec": Entry(
        _sasrec,
        "our decoder on ids alone with learnt positions, without times, ratings, prior and linear part",
    ),
    "ease": Entry(_ease, "EASE, its ridge chosen on validation", seeded=False),
    "itemknn": Entry(_item_knn, "item neighbours, k and shrinkage chosen on validation", seeded=False),
    "popularity": Entry(_popularity, "training events per item", seeded=False),
    "recent-popularity": Entry(
        _recent_popularity, "recent training events per item", seeded=False, needs_clock=True
    ),
    "ours-text": Entry(_without("text"), "ours without text", ablates="text"),
    "ours-categorical": Entry(
        _without("categorical"), "ours without categorical fields", ablates="categorical"
    ),
    "ours-numerical": Entry(_without("numerical"), "ours without numerical fields", ablates="numerical"),
    "ours-image": Entry(_without("image"), "ours without images", ablates="image"),
    "ours-time": Entry(_without("time"), "ours without time fields", ablates="time"),
    "ours-behaviour": Entry(
        _without_behaviour, "ours without the learned vector per item", ablates="behaviour"
    ),
    "ours-linear": Entry(
        lambda task: _ours(_unaided(task)), "ours without the linear part", by_name_only=True
    ),
    "ours-retrieval": Entry(
        lambda task: _ours(_without_retrieval(task)), "ours with nothing retrieved", by_name_only=True
    ),
    "dense": Entry(
        _generating(mode="off"), "ours with the dense head and the linear part", by_name_only=True
    ),
    "codes": Entry(
        _generating(mode="joint", share=1.0),
        "ours with the code head, taught by the dense head, and the linear part",
        by_name_only=True,
    ),
    "both": Entry(
        _generating(mode="joint", share=None),
        "ours with both heads, their shares chosen on validation, and the linear part",
        by_name_only=True,
    ),
    "tiger": Entry(
        lambda task: _generating(mode="only")(_without_retrieval(_unaided(task))),
        "codes of content, no dense head, no linear part, nothing retrieved, in the manner of TIGER",
        by_name_only=True,
    ),
}


def choose(wanted: list[str], catalog: Catalog, has_clock: bool, config: Config) -> list[str]:
    """The models to run, in the order of the line-up: `wanted`, or all that this data allows.

    Raises:
        InputError: on an unknown name, or where a wanted model can't be fitted on this data.
    """
    unknown = [name for name in wanted if name not in LINEUP]
    if unknown:
        close = difflib.get_close_matches(unknown[0], LINEUP, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"--models: {unknown[0]!r} is unknown.{meant} Known: {', '.join(LINEUP)}.")
    modalities = {column.modality for column in catalog.fields}
    chosen: list[str] = []
    for name, entry in LINEUP.items():
        if name not in wanted and (wanted or entry.by_name_only):
            continue
        lack = None
        if entry.needs_clock and not has_clock:
            lack = "event times, and the data has only an order within each person"
        elif entry.ablates == "behaviour":
            lack = None if modalities and config.encode.behaviour else "features and the behaviour vector"
        elif entry.ablates is not None and entry.ablates not in modalities:
            lack = f"{entry.ablates} fields in the items"
        elif name == "ids" and not modalities and not wanted:
            continue  # without features it is the same model as ours
        if lack is None:
            chosen.append(name)
        elif wanted:
            raise InputError(f"--models: {name} needs {lack}.")
    return chosen


def seeds(name: str, n_seeds: int) -> range:
    """The seeds a model is run with: all, one where a modality is left out or nothing is random."""
    entry = LINEUP[name]
    return range(n_seeds if entry.seeded and entry.ablates is None else 1)
