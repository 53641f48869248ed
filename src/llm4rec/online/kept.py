"""What a learner has come to, as the arrays, tables and values of an artefact, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from llm4rec.model.offset import Carried
from llm4rec.online.consolidation import Consolidation
from llm4rec.online.drift import Drift
from llm4rec.online.guard import Guard
from llm4rec.online.learner import Progressed
from llm4rec.online.options import OnlineConfig
from llm4rec.online.reliability import Mean, Reliability
from llm4rec.online.reservoir import SCHEMA, Reservoir
from llm4rec.types import Array

PARTS = ("begun", "theta", "velocity", "fisher", "anchor", "good")
TABLES = ("replayed", "judges_old", "judges_new")
PEOPLE = {"user_id": pl.String, "lead": pl.Float64, "events": pl.Float64}


def told(state: Progressed) -> dict[str, Any]:
    """The values that JSON can hold."""
    return {
        "position": state.position,
        "steps": state.steps,
        "every": asdict(state.reliability.every),
        "kinds": {kind: asdict(mean) for kind, mean in state.reliability.kinds.items()},
        "passed": state.reservoir.passed,
        "seed": state.reservoir.seed,
        "judged": state.guard.judged,
        "undone": state.guard.undone,
        "drifts": state.drift.found,
        "carried": None if state.carried is None else state.carried.power,
    }


def tensors(state: Progressed) -> dict[str, dict[str, Array]]:
    """The arrays, by the names of their files."""
    parts: tuple[Mapping[str, Tensor], ...] = (
        state.begun,
        state.theta,
        state.velocity,
        state.consolidation.fisher,
        state.consolidation.anchor,
        state.guard.good,
    )
    arrays = {
        f"{part}.{name}": tensor.numpy()
        for part, named in zip(PARTS, parts, strict=True)
        for name, tensor in named.items()
    }
    arrays["met"] = state.met
    arrays["reference"] = state.guard.reference
    arrays["losses"] = np.array(state.drift.losses, dtype=np.float64)
    if state.carried is not None:
        arrays["carried"] = state.carried.counts
    return {"online": arrays}


def tables(state: Progressed) -> dict[str, pl.DataFrame]:
    """The tables, by the names of their files; items are numbers of the catalogue."""
    known = state.reliability.people
    people = {
        "user_id": list(known),
        "lead": [mean.value for mean in known.values()],
        "events": [mean.count for mean in known.values()],
    }
    return {
        "replayed": state.reservoir.events,
        "judges_old": state.guard.old,
        "judges_new": state.guard.new,
        "reliability": pl.DataFrame(people, schema=PEOPLE),
    }


def restored(
    values: Mapping[str, Any],
    arrays: Mapping[str, Array],
    frames: Mapping[str, pl.DataFrame],
    options: OnlineConfig,
) -> Progressed:
    """What `told`, `tensors` and `tables` gave.

    Raises:
        ValueError: where they can't be what they gave; as KeyError and TypeError do.
    """
    named: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        if part in named:
            named[part][rest] = torch.from_numpy(array.copy())
    for name in TABLES:
        if dict(frames[name].schema) != SCHEMA:
            raise ValueError(f"the table {name} does not have the columns {', '.join(SCHEMA)}")
    if len(arrays["reference"]) != frames["judges_old"].height:
        raise ValueError("there is not one loss for each event that judges")
    kinds = {kind: Mean(**mean) for kind, mean in values["kinds"].items()}
    people = {user: Mean(lead, count) for user, lead, count in frames["reliability"].iter_rows()}
    guard = Guard(
        frames["judges_old"],
        arrays["reference"],
        frames["judges_new"],
        named["good"],
        options.judges,
        options.tolerance,
        int(values["judged"]),
        int(values["undone"]),
    )
    power = values["carried"]
    return Progressed(
        position=int(values["position"]),
        steps=int(values["steps"]),
        begun=named["begun"],
        met=arrays["met"],
        theta=named["theta"],
        velocity=named["velocity"],
        consolidation=Consolidation(options.consolidation, named["fisher"], named["anchor"]),
        reliability=Reliability(Mean(**values["every"]), kinds, people),
        reservoir=Reservoir(
            frames["replayed"], options.reservoir, int(values["passed"]), int(values["seed"])
        ),
        guard=guard,
        drift=Drift(options.surprise, arrays["losses"].tolist(), int(values["drifts"])),
        carried=None if power is None else Carried(float(power), arrays["carried"]),
    )
