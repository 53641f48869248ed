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
from llm4rec.online.options import OnlineConfig
from llm4rec.online.progressed import UNJUDGED, Origin, Progressed
from llm4rec.online.reliability import Mean, Reliability
from llm4rec.online.reservoir import SCHEMA, Reservoir
from llm4rec.types import Array

PARTS = ("origin", "theta", "velocity", "fisher", "anchor", "good")
BEGUN = ("sampled", "judges")
TABLES = ("replayed", "judges_new", "unjudged", "reliability")
PEOPLE = {"user_id": pl.String, "lead": pl.Float64, "events": pl.Float64}


def told(reached: Progressed | Origin) -> dict[str, Any]:
    """The values that JSON can hold."""
    origin = reached if isinstance(reached, Origin) else reached.origin
    begun = {
        "position": origin.position,
        "passed": origin.sample.passed,
        "most": origin.sample.most,
        "seed": origin.sample.seed,
        "carried": None if origin.carried is None else origin.carried.power,
    }
    if isinstance(reached, Origin):
        return {"origin": begun}
    return {
        "origin": begun,
        "position": reached.position,
        "steps": reached.steps,
        "every": asdict(reached.reliability.every),
        "kinds": {kind: asdict(mean) for kind, mean in reached.reliability.kinds.items()},
        "passed": reached.reservoir.passed,
        "judged": reached.guard.judged,
        "undone": reached.guard.undone,
        "mended": reached.guard.mended,
        "drifts": reached.drift.found,
    }


def tensors(reached: Progressed | Origin) -> dict[str, dict[str, Array]]:
    """The arrays, by the names of their files."""
    origin = reached if isinstance(reached, Origin) else reached.origin
    parts: list[Mapping[str, Tensor]] = [origin.weights]
    arrays: dict[str, Array] = {}
    if isinstance(reached, Progressed):
        held = reached.consolidation
        parts += [reached.theta, reached.velocity, held.fisher, held.anchor, reached.guard.good]
        arrays["met"] = reached.met
        arrays["reference"] = reached.guard.reference
        arrays["losses"] = np.array(reached.drift.losses, dtype=np.float64)
    for part, named in zip(PARTS, parts, strict=False):
        arrays |= {f"{part}.{name}": tensor.numpy() for name, tensor in named.items()}
    if origin.carried is not None:
        arrays["carried"] = origin.carried.counts
    return {"online": arrays}


def tables(reached: Progressed | Origin) -> dict[str, pl.DataFrame]:
    """The tables, by the names of their files; items are numbers of the catalogue."""
    if isinstance(reached, Origin):
        return _begun(reached)
    known = reached.reliability.people
    people = {
        "user_id": list(known),
        "lead": [mean.value for mean in known.values()],
        "events": [mean.count for mean in known.values()],
    }
    return {
        **_begun(reached.origin),
        "replayed": reached.reservoir.events,
        "judges_new": reached.guard.new,
        "unjudged": reached.unjudged,
        "reliability": pl.DataFrame(people, schema=PEOPLE),
    }


def _begun(origin: Origin) -> dict[str, pl.DataFrame]:
    return dict(zip(BEGUN, (origin.sample.events, origin.judges), strict=True))


def restored(
    values: Mapping[str, Any],
    arrays: Mapping[str, Array],
    frames: Mapping[str, pl.DataFrame],
    shapes: Mapping[str, Tensor],
    options: OnlineConfig,
) -> Progressed | Origin:
    """What `told`, `tensors` and `tables` gave.

    Args:
        values: as `told`.
        arrays: those of `tensors`.
        frames: as `tables`.
        shapes: the weights that are trained, by name.
        options: of learning.

    Raises:
        ValueError: where they can't be what they gave; as KeyError and TypeError do.
    """
    named: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        if part in named:
            named[part][rest] = torch.from_numpy(array.copy())
    wanted = {name: tensor.shape for name, tensor in shapes.items()}
    for part in PARTS if "position" in values else ("origin",):
        if {name: tensor.shape for name, tensor in named[part].items()} != wanted:
            raise ValueError(f"the arrays of {part} are not those of the network's weights")
    for name in frames.keys() - {"reliability"}:
        schema = UNJUDGED if name == "unjudged" else SCHEMA
        if dict(frames[name].schema) != schema:
            raise ValueError(f"the table {name} does not have the columns {', '.join(schema)}")
    begun = values["origin"]
    power, seed = begun["carried"], int(begun["seed"])
    origin = Origin(
        int(begun["position"]),
        Reservoir(frames["sampled"], int(begun["most"]), int(begun["passed"]), seed),
        frames["judges"],
        named["origin"],
        None if power is None else Carried(float(power), arrays["carried"]),
    )
    if "position" not in values:
        return origin
    if len(arrays["reference"]) != origin.judges.height:
        raise ValueError("there is not one loss for each event that judges")
    kinds = {kind: Mean(**mean) for kind, mean in values["kinds"].items()}
    people = {user: Mean(lead, count) for user, lead, count in frames["reliability"].iter_rows()}
    return Progressed(
        position=int(values["position"]),
        steps=int(values["steps"]),
        origin=origin,
        met=arrays["met"],
        theta=named["theta"],
        velocity=named["velocity"],
        consolidation=Consolidation(options.consolidation, named["fisher"], named["anchor"]),
        reliability=Reliability(Mean(**values["every"]), kinds, people),
        reservoir=Reservoir(frames["replayed"], options.reservoir, int(values["passed"]), seed),
        unjudged=frames["unjudged"],
        guard=Guard(
            origin.judges,
            arrays["reference"],
            frames["judges_new"],
            named["good"],
            options.judges,
            options.tolerance,
            int(values["judged"]),
            int(values["undone"]),
            int(values["mended"]),
        ),
        drift=Drift(options.surprise, arrays["losses"].tolist(), int(values["drifts"])),
    )
