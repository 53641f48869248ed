"""What a person is expected to choose more of than others do, and what they chose that tells so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.explain.aspects import Aspects
from llm4rec.explain.corrections import Said, corrected
from llm4rec.explain.evidence import chosen
from llm4rec.model.leaning import lean
from llm4rec.model.scorer import Scorer
from llm4rec.types import Floats, Ints, Preference

BEHIND = 3
"""Items of the history that a preference is shown by, at most."""
LEAST = 1e-6
"""What a preference has to tell to be one (nats): below it lies what float32 rounds away."""

TINY = float(np.finfo(np.float32).tiny)
"""The least share a logarithm is taken of."""


def preferences(
    scorer: Scorer,
    aspects: Aspects,
    catalog: Catalog,
    history: EventLog,
    people: Ints,
    n: int,
    said: Said,
    weight: float,
) -> tuple[Preference, ...]:
    """The n aspects that tell most of what comes next: those of the largest p log(p / usual), equation (19).

    These are the largest terms of the divergence of p_u from what is usual. What each event adds to log p_u,k
    is found as it is for a score, see `influence`. With what the person said, p is p' of equation (31); what
    they spoke of is always among the aspects, also where it tells least, and events are what speaks for it
    beside what was said.

    Args:
        scorer: what reads.
        aspects: W_p and what is usual.
        catalog: the items.
        history: one row; when it is asked changes nothing.
        people: row of its owner's tokens [1], or -1.
        n: of preferences, beside those that were spoken of; fewer where fewer are above what is usual.
        said: what the person said of aspects.
        weight: of that.
    """
    leaning = lean(scorer, replace(history, asked_at=None), people)
    p = aspects.preferences(leaning.state)[0]
    shares = corrected(p, said, weight)
    tells = shares * np.log(np.maximum(shares, TINY) / aspects.rates)
    order = np.argsort(-tells, kind="stable")
    spoken_of = np.isin(order, [*said])
    listed = (tells[order] > LEAST) & ~spoken_of
    found = order[spoken_of | (listed & (np.cumsum(listed) <= n))]
    added = np.zeros((len(found), history.n_events), dtype=np.float32)
    if leaning.before is not None and len(found):
        # ∂ log p_k / ∂h = W_k − Σ_j p_j W_j
        read = leaning.of(torch.from_numpy(aspects.weights[found] - p @ aspects.weights)).numpy()
        read[:, -1] = np.log(p[found] / aspects.preferences(leaning.before)[0, found])
        added[:, history.n_events - read.shape[1] :] = read
    return tuple(
        Preference(
            field=aspects.fields[aspect],
            value=aspects.values[aspect],
            share=float(shares[aspect]),
            usual=float(aspects.rates[aspect]),
            evidence=tuple(
                chosen(catalog, item, float(owed)) for item, owed in _most(history.items, added[row])
            ),
            corrected=None if aspect not in said else "more" if said[aspect] else "less",
        )
        for row, aspect in enumerate(found.tolist())
    )


def _most(items: Ints, added: Floats) -> list[tuple[int, float]]:
    """The items that add most, and what all their events add; only those that add anything."""
    known, place = np.unique(items, return_inverse=True)
    owed = np.bincount(place, added, minlength=len(known))
    order = np.argsort(-owed, kind="stable")[:BEHIND]
    return [(int(known[number]), float(owed[number])) for number in order if owed[number] > 0]
