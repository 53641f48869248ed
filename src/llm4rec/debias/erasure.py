"""Attributes projected out of trained states, so that no straight border tells groups apart (LEACE).

Of all affine maps after which attributes and states do not covary, the one that moves states least, in the
metric of their own covariance Σ:

    h − W⁺ Π W (h − E h),  W = Σ^(−1/2),  Π the projection on the columns of W Cov(h, a)

Then no linear model does better than a constant at reading a from h, on the people it was fitted to. What
bends its borders may still read something: an adversary of equation (17) is of any shape, so this is the part
of it that has a closed form. It needs nobody's attribute when it is used. What the time of asking and what is
retrieved add to a state is added afterwards.

Source: Belrose et al., LEACE: Perfect linear concept erasure in closed form, NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.debias.adversary import Attribute
from llm4rec.errors import InputError
from llm4rec.model.network import Network
from llm4rec.model.scorer import Scorer
from llm4rec.types import Array, Ints

EMPTY = 1e-8
"""Share of the largest variance below which states are taken not to vary in a direction."""


def refuse_many(attributes: Sequence[Attribute], size: int) -> None:
    """Refuse attributes of so many values that little of states of `size` coordinates would be left.

    Every value but one takes a direction, whether it tells anything or not.

    Raises:
        InputError: where they may take more than a quarter.
    """
    wanted = {each.name: max(1, len(each.names) - 1) for each in attributes}
    if sum(wanted.values()) * 4 > size:
        name = max(wanted, key=lambda name: wanted[name])
        raise InputError(
            f"debias.adversary.erase would take up to {sum(wanted.values())} of {size} directions out of the "
            f"states, and a quarter is the most; {name!r} alone takes {wanted[name]}. Put its values into "
            "fewer categories, leave it out, or set model.embedding_size higher."
        )


def erase(
    scorer: Scorer, events: EventLog, rows: Ints, attributes: Sequence[Attribute], network: Network
) -> int:
    """Take attributes out of the states of a network, and say of how many directions that was.

    Args:
        scorer: knows items and people.
        events: what is trained on.
        rows: of its people in their table [u], -1 for strangers.
        attributes: of the same people.
        network: left in evaluation mode.
    """
    assert network.erasure is not None  # it was made with one
    network.erasure.clear()
    now = replace(scorer, network=network)
    met = np.flatnonzero(events.lengths)  # all states of those without an event are one
    events, rows = events.histories(met, events.lengths[met]), rows[met]
    states = np.empty((len(met), now.vectors.shape[1]), dtype=np.float32)
    for part, some in now.chunks(events):
        states[part] = now.states(some, rows[part]).numpy()
    middle, taken = fit_erasure(states, [replace(each, values=each.values[met]) for each in attributes])
    network.erasure.become(middle, taken)
    return round(float(np.trace(taken)))  # that of a projection is its rank


def fit_erasure(states: Array, attributes: Sequence[Attribute]) -> tuple[Array, Array]:
    """The middle m [d] and what is taken of the distance to it, P = W⁺ Π W [d, d].

    Args:
        states: one of each person [u, d].
        attributes: of these people, in the same order; one unknown in an attribute tells nothing of it.

    Raises:
        InputError: where a state is not finite, or there are fewer than two.
    """
    if len(states) < 2 or not np.isfinite(states).all():
        raise InputError("What states tell of people is learnt from two or more, whose states are finite.")
    found = states.astype(np.float64)
    middle = found.mean(axis=0)
    centred = found - middle
    variance, axes = np.linalg.eigh(centred.T @ centred / len(found))
    kept = variance > EMPTY * variance.max()
    deviation, axes = np.sqrt(variance[kept]), axes[:, kept]
    told = np.column_stack([_covariance(centred, each) for each in attributes])
    # in coordinates of variance 1, W⁺ and W are the axes with and over their deviations
    within, strength, _ = np.linalg.svd((axes / deviation).T @ told, full_matrices=False)
    within = within[:, strength > EMPTY * max(strength.max(initial=0.0), EMPTY)]
    return middle, (axes * deviation) @ within @ within.T @ (axes / deviation).T


def _covariance(states: Array, attribute: Attribute) -> Array:
    """Cov(h, a) [d, k] over the people whose value is known: a number, or categories one-hot."""
    numbers = attribute.values
    if attribute.kind == "numerical":
        known = ~np.isnan(numbers)
        values = numbers[known].astype(np.float64)[:, None]
    else:
        known = numbers >= 0
        values = np.eye(len(attribute.names))[numbers[known].astype(np.int64)]
    if not known.any():
        return np.zeros((states.shape[1], values.shape[1]))
    return states[known].T @ (values - values.mean(axis=0)) / len(values)
