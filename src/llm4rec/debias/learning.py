"""Training the model of ratings: naive, weighted by inverse propensities, or doubly robust.

The one training loop predicts events one after the other by a softmax over all items. Here an event is
predicted from all others of its person and a loss is of one pair, and the doubly robust objective draws
pairs that nobody rated; so these have a loop of their own, with the same manners: a step is seeded, epochs
are chosen by what is held out, and it ends with the best weights.

Everything is cross-fitted: the ratings are dealt into folds, a model per fold is trained on the others and
stops by its own, and what it holds out it predicts. So every rating has a prediction that has not seen it,
for choosing among objectives, and the answer to a new pair is the mean of the folds' models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import logit
from torch import Tensor

from llm4rec.debias.doubly_robust import Imputation, doubly_robust_loss
from llm4rec.debias.exposure import Exposure
from llm4rec.debias.rated import Rated
from llm4rec.debias.ratings import Features, RatedSets, RatingConfig, above, level_losses
from llm4rec.errors import InputError, TrainingError
from llm4rec.types import Array, Floats, Ints


@dataclass(frozen=True)
class Objective:
    """What is made small.

    Attributes:
        weights: weight of each rating [e], of mean 1 where propensities are right; None weighs all alike.
        normalised: whether the weights of a step are divided by their sum (SNIPS), not by their number (IPS).
        doubly: whether the errors of pairs without a rating are imputed (doubly robust).
        offsets: added to the score of each item in training and left out of predictions [i]: what is not
            the item's own doing, such as γ · log popularity (equation 15).
        exposure: a model of which pairs are rated, whose logit is a covariate of the rating: what people take
            says something of what they like. (Wang, Liang, Charlin and Blei, Causal Inference for
            Recommender Systems, RecSys 2020: the deconfounded recommender.)
    """

    weights: Floats | None = None
    normalised: bool = False
    doubly: bool = False
    offsets: Floats | None = None
    exposure: Exposure | None = None

    def __post_init__(self) -> None:
        if self.doubly and (self.exposure is not None or self.offsets is not None):
            raise InputError("The doubly robust objective takes neither offsets nor a model of exposure.")

    @cached_property
    def covariates(self) -> Floats | None:
        """Of each rating [e]."""
        return None if self.exposure is None else _spread(self.exposure.propensities)


@dataclass(frozen=True)
class CrossFitted:
    """Models of the folds, and what each predicts of the ratings it has not seen.

    Attributes:
        models: one per fold.
        held_out: P(r > level) of each rating [e, k − 1].
        epochs: passes each took.
    """

    models: tuple[RatedSets, ...]
    held_out: Floats
    epochs: tuple[int, ...]
    exposure: Exposure | None = None

    def predict(self, history: Rated, people: Ints, items: Ints) -> Floats:
        """P(r > level) of pairs [p, k − 1], the mean of the models."""
        exposed = None if self.exposure is None else _spread(self.exposure.predict(people, items))
        return np.mean([model.predict(history, people, items, exposed) for model in self.models], axis=0)


def _spread(propensities: Array) -> Floats:
    """Logits of propensities, around those of one in a hundred."""
    return (logit(propensities) - logit(0.01)).astype(np.float32)


def cross_fit(
    rated: Rated,
    features: Features,
    config: RatingConfig,
    objective: Objective,
    *,
    folds: int = 5,
    seed: int = 0,
) -> CrossFitted:
    """Train a model per fold.

    Raises:
        InputError: where there are fewer than two folds, or fewer ratings than folds.
        TrainingError: where a loss stops being finite.
    """
    if not 2 <= folds <= len(rated):
        raise InputError(
            f"{len(rated)} ratings can't be dealt into {folds} folds: take 2 or more, at most one each."
        )
    fold = np.random.default_rng(seed).permutation(len(rated)) % folds
    held_out = np.empty((len(rated), len(rated.levels) - 1), dtype=np.float32)
    models: list[RatedSets] = []
    epochs: list[int] = []
    for number in range(folds):
        held = fold == number
        model, n_epochs = fit(rated, features, config, objective, held, seed=seed * folds + number)
        x = None if objective.covariates is None else objective.covariates[held]
        held_out[held] = model.predict(rated.take(~held), rated.people[held], rated.items[held], x)
        models.append(model)
        epochs.append(n_epochs)
    return CrossFitted(tuple(models), held_out, tuple(epochs), objective.exposure)


def fit(
    rated: Rated, features: Features, config: RatingConfig, objective: Objective, held: Array, *, seed: int
) -> tuple[RatedSets, int]:
    """Train on the ratings that are not `held` [e], until the loss of those that are stops falling.

    Returns:
        The model with the weights of its best epoch, and that epoch, counted from 1.

    Raises:
        TrainingError: where the loss stops being finite.
    """
    known = rated.take(~held)
    weights = np.ones(len(rated), np.float32) if objective.weights is None else objective.weights
    exposed = None if objective.covariates is None else objective.covariates[~held]
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RatedSets(features, known, config)
        imputation = Imputation.begin(features, known, config) if objective.doubly else None
        optimiser = model.optimiser(config)
        left, best, chosen, best_epoch = config.patience, np.inf, _state(model), 0
        for epoch in range(1, config.epochs + 1):
            model.train()
            for people in _batches(known, config.batch_size, rng):
                loss = _step(model, known, people, weights[~held], exposed, objective, imputation, rng)
                if not bool(torch.isfinite(loss)):
                    raise TrainingError(
                        f"The loss of the ratings became {float(loss.detach())} in epoch {epoch}: lower the "
                        f"learning rate (now {config.learning_rate:g}) or clip the weights."
                    )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            now = _held_out_loss(model, known, rated, held, weights, objective)
            if now < best:
                left, best, chosen, best_epoch = config.patience, now, _state(model), epoch
            else:
                left -= 1
                if not left:
                    break
        model.load_state_dict(chosen)
    model.eval()
    return model, best_epoch


def _state(model: RatedSets) -> Mapping[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _batches(rated: Rated, size: int, rng: np.random.Generator) -> list[Ints]:
    """People in random order, ascending within a batch, about `size` ratings together."""
    lengths = np.diff(rated.offsets)
    who = rng.permutation(np.flatnonzero(lengths > 0))
    n_batches = max(1, round(len(rated) / size))
    filled = np.cumsum(lengths[who]) - lengths[who]
    cuts = np.searchsorted(filled, np.arange(1, n_batches) * len(rated) / n_batches)
    return [np.sort(part) for part in np.split(who, cuts) if len(part)]


def _step(
    model: RatedSets,
    rated: Rated,
    people: Ints,
    weights: Floats,
    exposed: Floats | None,
    objective: Objective,
    imputation: Imputation | None,
    rng: np.random.Generator,
) -> Tensor:
    """The loss of one batch of people, with its graph."""
    lengths = rated.offsets[people + 1] - rated.offsets[people]
    start = np.cumsum(lengths) - lengths
    events = np.repeat(rated.offsets[people] - start, lengths) + np.arange(int(lengths.sum()))
    owner = torch.from_numpy(np.repeat(np.arange(len(people)), lengths))
    items, classes = torch.from_numpy(rated.items[events]), torch.from_numpy(rated.classes[events])
    vectors, told = model.vectors(), model.told(torch.from_numpy(people))
    states, others = model.read(told, model.messages(vectors)[items * model.n_levels + classes], owner)
    scores = model.score(others, told[owner], vectors[items])
    if objective.offsets is not None:
        scores = scores + torch.from_numpy(objective.offsets)[items]
    if exposed is not None:
        scores = scores + model.taken * torch.from_numpy(exposed[events])
    errors = level_losses(model.logits(scores), above(classes, model.n_levels))
    weight = torch.from_numpy(weights[events])
    if imputation is None:
        return (errors * weight).sum() / (weight.sum() if objective.normalised else len(weight))
    drawn = rng.integers(rated.n_items, size=(len(people), imputation.draws))
    rows = np.repeat(people, imputation.draws)
    blank = torch.from_numpy(~rated.has(rows, drawn.ravel()).reshape(drawn.shape))
    wanted = torch.from_numpy(drawn)
    unseen = model.score(
        states.unsqueeze(1).expand(-1, imputation.draws, -1),
        told.unsqueeze(1).expand(-1, imputation.draws, -1),
        vectors[wanted],
    )
    guess, guess_unseen = imputation.labels(people, items, classes, owner, wanted)
    logits = model.logits(scores)
    imputation.learn(logits.detach(), errors.detach(), guess, weight)
    imputed = level_losses(logits, guess.detach())
    imputed_unseen = level_losses(model.logits(unseen), guess_unseen.detach())
    return doubly_robust_loss(
        errors, imputed, weight / rated.density, imputed_unseen, blank,
        torch.from_numpy(rated.n_items - lengths), rated.n_items,
    )  # fmt: skip


def _held_out_loss(
    model: RatedSets, known: Rated, rated: Rated, held: Array, weights: Floats, objective: Objective
) -> float:
    """The weighted mean loss of the ratings that are held out, the weights divided by their sum."""
    items = rated.items[held]
    exposed = None if objective.covariates is None else objective.covariates[held]
    p = model.predict(known, rated.people[held], items, exposed).astype(np.float64)
    if objective.offsets is not None:
        shift = np.exp(objective.offsets[items].astype(np.float64))[:, None]
        p = p * shift / (1 - p + p * shift)
    p = np.clip(p, 1e-7, 1 - 1e-7)
    higher = rated.classes[held][:, None] > np.arange(p.shape[1])
    losses = -np.where(higher, np.log(p), np.log1p(-p)).mean(axis=1)
    return float(np.average(losses, weights=weights[held]))
