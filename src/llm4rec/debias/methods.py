"""Ways of learning from ratings people chose to give, and the choice among them that validation makes.

naive; ips, snips and dr (equation 14 and doubly robust); popularity, whose logarithm is added in training and
left out of predictions (equation 15); and exposure, which has the learned propensity as a covariate. None is
best everywhere, so what is held out decides, weighed by inverse propensities, and naive learning stays unless
something is shown to be better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llm4rec.debias.exposure import Exposure, learn_exposure
from llm4rec.debias.learning import CrossFitted, Objective, cross_fit
from llm4rec.debias.propensity import of_popularity, weights
from llm4rec.debias.rated import Rated, at_least
from llm4rec.debias.ratings import Features, RatingConfig
from llm4rec.evaluate.metrics import auc
from llm4rec.evaluate.significance import Gain
from llm4rec.types import Array

METHODS = ("naive", "ips", "snips", "dr", "popularity", "exposure")
CLIP = 0.05
"""Quantile of the propensities below which they are raised to it."""
STRENGTH = 0.1
"""Power of popularity."""


def objectives(rated: Rated, propensities: Array, learnt: Exposure) -> dict[str, Objective]:
    """What each of `METHODS` makes small.

    Args:
        rated: the ratings.
        propensities: e of each [e]; those of `learnt` where none were logged.
        learnt: the model of which pairs are rated.
    """
    bound = float(np.quantile(propensities, CLIP))
    ips = weights(propensities, clip=bound, density=rated.density).astype(np.float32)
    snips = weights(propensities, clip=bound).astype(np.float32)
    log_popularity = np.log(of_popularity(np.bincount(rated.items, minlength=rated.n_items), 1.0))
    centred = (log_popularity - log_popularity.mean()).astype(np.float32)
    return {
        "naive": Objective(),
        "ips": Objective(weights=ips),
        "snips": Objective(weights=snips, normalised=True),
        "dr": Objective(weights=snips, doubly=True),
        "popularity": Objective(offsets=STRENGTH * centred),
        "exposure": Objective(exposure=learnt),
    }


@dataclass(frozen=True)
class Held:
    """What held-out ratings say of a method, weighed by inverse propensities.

    Attributes:
        losses: log loss of each person, of mean that of all [u] (nats).
        order: AUC.
    """

    losses: Array
    order: float


def held(rated: Rated, fitted: CrossFitted, propensities: Array, like: float) -> Held:
    """How well P(rating ≥ `like`) of what a method had not seen fits.

    Args:
        rated: the ratings.
        fitted: the models, and their held-out predictions.
        propensities: e of each rating [e].
        like: the least rating that is a liking.
    """
    weight = weights(propensities, clip=float(np.quantile(propensities, CLIP)))
    p = np.clip(at_least(rated.levels, fitted.held_out.astype(np.float64), like), 1e-7, 1 - 1e-7)
    liked = rated.levels[rated.classes] >= like
    loss = -np.where(liked, np.log(p), np.log1p(-p)) * weight / weight.sum()
    return Held(np.bincount(rated.people, loss, rated.n_people) * rated.n_people, auc(liked, p, weight))


def choose(found: Mapping[str, Held]) -> str:
    """The method of the least loss among those that order no worse than naive, or naive.

    It has to be better by more than a standard error over people.
    """
    naive = found["naive"]
    best = min(
        (name for name, each in found.items() if each.order >= naive.order),
        key=lambda name: found[name].losses.mean(),
    )
    return best if Gain.of(naive.losses - found[best].losses).exceeds() else "naive"


@dataclass(frozen=True)
class Learnt:
    """Ratings learnt the way validation chose.

    Attributes:
        method: its name.
        fitted: its models.
        held: by method, what validation says of it.
        exposure: the model of which pairs are rated.
    """

    method: str
    fitted: CrossFitted
    held: dict[str, Held]
    exposure: Exposure


def learn(  # what every method goes by
    rated: Rated,
    features: Features,
    config: RatingConfig,
    *,
    like: float,
    propensities: Array | None = None,
    methods: Sequence[str] = METHODS,
    folds: int = 5,
    seed: int = 0,
) -> Learnt:
    """Learn ratings by each of `methods` and keep the one that validation chooses.

    Args:
        rated: the ratings.
        features: of people and items.
        config: options of the model.
        like: the least rating that is a liking, which the choice is about.
        propensities: e of each rating [e] where they were logged; learned where None.
        methods: some of `METHODS`; naive is among them always.
        folds: ratings are dealt into.
        seed: of weights and folds.

    Raises:
        InputError: where there are too few ratings for the folds.
        TrainingError: where a loss stops being finite.
    """
    exposure = learn_exposure(rated, features)
    known = exposure.propensities if propensities is None else propensities
    fitted = {
        name: cross_fit(rated, features, config, objective, folds=folds, seed=seed)
        for name, objective in objectives(rated, known, exposure).items()
        if name == "naive" or name in methods
    }
    told = {name: held(rated, each, known, like) for name, each in fitted.items()}
    method = choose(told)
    return Learnt(method, fitted[method], told, exposure)
