"""What can be read of people's attributes in their states, by one who has nothing to do with training.

A ridge regression learns the groups of some people from their states and guesses those of others; groups
weigh alike, however large they are. That it finds nothing says that there is nothing for such an attacker to
find among so many people, not that nothing is there; `curved` looks beyond straight borders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llm4rec.errors import InputError
from llm4rec.evaluate.groups import LEAST, Compared, Groups
from llm4rec.evaluate.resampling import Estimate, draws_of_means
from llm4rec.types import Array, Ints

FOLDS = 5
RIDGES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the ridge that are tried, per person and for features of unit variance."""
CURVES = 256
"""Random features of a curved attacker."""


@dataclass(frozen=True)
class Attack:
    """How well groups are guessed from states.

    Attributes:
        attribute: what is guessed.
        groups: those that are told apart [a]; the others and the unknown are left out.
        accuracy: balanced accuracy, the mean over groups of the share of their people who are found out; with
            the interval over people, the attacker being as it is.
        recalls: that share of each group [a].
        guessing: what guessing gives, 1 ÷ groups.
        chance: mean balanced accuracy when the groups are shuffled among the people.
        p: share of the shuffles, with the one that was measured, that are found out as well.
        notes: sentences on people who are left out.
    """

    attribute: str
    groups: tuple[str, ...]
    accuracy: Estimate
    recalls: Array
    guessing: float
    chance: float
    p: float
    notes: tuple[str, ...]


def attack(
    states: Array,
    groups: Groups,
    *,
    curved: bool = False,
    least: int = LEAST,
    shuffles: int = 20,
    seed: int = 0,
    draws: int = 2000,
) -> Attack:
    """Guess the groups of people from their states, each time of people the attacker has not learnt from.

    Numbers are guessed as bands of them: `groups_of(ages, bands=2)` asks for the half above the median.

    Args:
        states: one of each person [p, d]; what is learnt from some people is judged on others.
        groups: of these people, in the same order.
        curved: whether tanh of random directions is read beside the states.
        least: people below which a group is left out.
        shuffles: how often the groups are shuffled for comparison.
        seed: of folds, random directions, shuffles and draws.
        draws: of the bootstrap, which is made within each group.

    Raises:
        InputError: where fewer than two groups have `least` people, a state is not finite, or states and
            groups are not of the same people.
    """
    if len(states) != len(groups.members):
        raise InputError(
            f"There are {len(states)} states and groups of {len(groups.members)} people; give one state each."
        )
    if not np.isfinite(states).all():
        raise InputError("An attribute can't be read from states that are not finite numbers.")
    shown, codes = Compared.people(groups, np.arange(len(states)), least)
    if np.count_nonzero(shown.among) < 2:
        raise InputError(
            f"{groups.attribute}: guessing needs two groups of {least} people or more. "
            + " ".join(shown.notes)
        )
    keep = shown.among[codes]
    held, truth = np.unique(codes[keep], return_inverse=True)
    features = _curved(states[keep], seed) if curved else states[keep].astype(np.float64)
    right = _found_out(features, truth, seed)
    parts = [right[truth == a] for a in range(len(held))]
    recalls = np.array([part.mean() for part in parts])
    found = float(recalls.mean())
    drawn = np.stack([draws_of_means(part[:, None], [seed, a], draws)[:, 0] for a, part in enumerate(parts)])
    shuffled = np.array([_balanced(features, each, seed) for each in _shuffled(truth, shuffles, seed)])
    return Attack(
        attribute=groups.attribute,
        groups=tuple(shown.names[a] for a in held),
        accuracy=Estimate.of(found, drawn.mean(axis=0)),
        recalls=recalls,
        guessing=1 / len(held),
        chance=float(shuffled.mean()) if shuffles else float("nan"),
        p=float((1 + np.count_nonzero(shuffled >= found - 1e-12)) / (1 + shuffles)),
        notes=shown.notes,
    )


def _shuffled(truth: Ints, shuffles: int, seed: int) -> Iterator[Ints]:
    rng = np.random.default_rng([seed, 3])
    return (rng.permutation(truth) for _ in range(shuffles))


def _balanced(features: Array, truth: Ints, seed: int) -> float:
    right = _found_out(features, truth, seed)
    return float(np.mean([right[truth == a].mean() for a in range(int(truth.max()) + 1)]))


def _found_out(features: Array, truth: Ints, seed: int) -> Array:
    """Whether each person's group [p] is guessed right, 1 or 0, by what was learnt from the other folds."""
    right = np.zeros(len(truth))
    folds = _folds(truth, seed)
    for fold in range(FOLDS):
        mine = folds == fold
        scale = features[~mine].std(axis=0)
        scaled = features / np.where(scale > 0, scale, 1)
        weights, intercepts = _learnt(scaled[~mine], truth[~mine], int(truth.max()) + 1)
        right[mine] = (scaled[mine] @ weights + intercepts).argmax(axis=1) == truth[mine]
    return right


def _folds(truth: Ints, seed: int) -> Ints:
    """A fold of each person [p], every group spread over all folds as evenly as can be."""
    rng = np.random.default_rng([seed, 1])
    folds = np.empty(len(truth), dtype=np.int64)
    for group in range(int(truth.max()) + 1):
        held = rng.permutation(np.flatnonzero(truth == group))
        folds[held] = (np.arange(len(held)) + group) % FOLDS
    return folds


def _learnt(features: Array, truth: Ints, n: int) -> tuple[Array, Array]:
    """Weights [d, n] and intercepts [n] of a ridge regression on the groups, in which each weighs alike.

    W = (Xᵀ V X + κ I)⁻¹ Xᵀ V Y around the weighted means, Y one-hot and v_p = people ÷ (n · people of the
    group). κ is that of `RIDGES` × people with the least weighted squared error of leaving each one out,
    (y − ŷ) / (1 − h) with h = v xᵀ (Xᵀ V X + κ I)⁻¹ x.
    """
    weight = (len(truth) / (n * np.bincount(truth, minlength=n)))[truth][:, None]
    middle, half = (weight * features).mean(axis=0), 1 / n  # of one-hot groups that weigh alike
    centred, target = features - middle, np.eye(n)[truth] - half
    values, vectors = np.linalg.eigh(centred.T @ (weight * centred))
    turned = centred @ vectors
    slope = turned.T @ (weight * target)
    best, least = slope, np.inf
    for ridge in RIDGES:
        inverse = 1 / (np.maximum(values, 0) + ridge * len(truth))
        solved = inverse[:, None] * slope
        leverage = weight * (np.square(turned) @ inverse)[:, None]
        left_out = (target - turned @ solved) / np.maximum(1 - leverage, 1e-6)
        error = float((weight * np.square(left_out)).sum())
        if error < least:
            best, least = solved, error
    weights = vectors @ best
    return weights, half - middle @ weights


def _curved(states: Array, seed: int) -> Array:
    """The states, scaled, with tanh of `CURVES` random directions beside them [p, d + 256]."""
    scale = states.std(axis=0)
    scaled = (states - states.mean(axis=0)) / np.where(scale > 0, scale, 1)
    rng = np.random.default_rng([seed, 2])
    turned = rng.standard_normal((states.shape[1], CURVES)) / np.sqrt(states.shape[1])
    return np.column_stack([scaled, np.tanh(scaled @ turned + rng.standard_normal(CURVES))])
