"""A learned propensity: a logistic model of which pairs are rated, over features and factors.

    logit P(O_ui = 1) = a + b_u + b_i + p_u · q_i

p and q are fused from features and vectors of single people and items. What is rated stands beside pairs
without a rating that are drawn at random and weighed by how many there are, so that the probabilities are
those of all pairs. It is cross-fitted: the propensity of each rating comes from a model that was not told of
it, since one that was finds it likelier than it was, and the weight too small. Held-out predictions are then
set right by

    e = (1 − ρ) σ(α logit + β) + ρ · density

with α, β and ρ the most likely ones: a factor model is too sure of what nobody would take, which is where the
weights are large. (Platt, Probabilistic Outputs for Support Vector Machines, 1999; ρ is ours.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn

from llm4rec.debias.propensity import Calibration, calibration
from llm4rec.debias.rated import Rated
from llm4rec.debias.ratings import Features, fused, with_own
from llm4rec.types import Array, Bools, Ints

SIZE, RATE, DECAY, OWN_DECAY = 9, 1e-2, 0.01, 1.0
STEPS, EVERY, PATIENCE = 2000, 20, 3
"""The most steps, steps between two looks at what is held out, and looks without gain before it stops."""
BATCH, DRAWN = 4096, 3
"""Ratings per step, and pairs without a rating drawn for each."""


class Factors(nn.Module):
    """The logistic model."""

    def __init__(self, features: Features, rated: Rated) -> None:
        super().__init__()
        self.items = fused(features.item_space, rated.n_items, SIZE)
        self.people = fused(features.people_space, rated.n_people, SIZE)
        self.item_tokens = with_own(features.items, rated.items, rated.n_items)
        self.people_tokens = with_own(features.people, rated.people, rated.n_people)
        self.level = nn.Parameter(torch.tensor(math.log(rated.density / (1 - rated.density))))

    def forward(self, people: Ints, items: Ints) -> Tensor:
        """Logits of pairs [p]."""
        p = self.people(self.people_tokens).vectors[torch.tensor(people)]
        q = self.items(self.item_tokens).vectors[torch.tensor(items)]
        return self.level + math.sqrt(SIZE) * (p[:, 0] + q[:, 0]) + (p[:, 1:] * q[:, 1:]).sum(dim=1)


@dataclass(frozen=True)
class Exposure:
    """Propensities of what was rated.

    Attributes:
        propensities: e of each rating [e], held out.
        calibration: predictions against what was rated, over ratings and drawn pairs that were held out.
        models: one per fold.
        right: from a model's logits to probabilities.
    """

    propensities: Array
    calibration: Calibration
    models: tuple[Factors, ...]
    right: Callable[[Array], Array]

    @torch.no_grad()
    def predict(self, people: Ints, items: Ints) -> Array:
        """Propensities of pairs [p], by the mean logit of the models."""
        return self.right(np.mean([model(people, items).double().numpy() for model in self.models], axis=0))


def learn_exposure(rated: Rated, features: Features, *, folds: int = 5, seed: int = 0) -> Exposure:
    """Fit a model per fold of the ratings, and take the propensities of what each has not seen."""
    rng = np.random.default_rng([seed, 1])
    fold = rng.permutation(len(rated)) % folds
    found = np.empty(len(rated))
    predicted: list[Array] = []
    happened: list[Array] = []
    counted: list[Array] = []
    models: list[Factors] = []
    n_blank = rated.n_people * rated.n_items - len(rated)
    for number in range(folds):
        held = fold == number
        blank = _blank(rated, DRAWN * int(held.sum()), rng)
        model = _fit(rated, features, held, blank, rng)
        models.append(model)
        with torch.no_grad():
            found[held] = model(rated.people[held], rated.items[held]).double().numpy()
            of_blank = model(*blank).double().numpy()
        predicted += [found[held], of_blank]
        happened += [np.ones(int(held.sum())), np.zeros(len(of_blank))]
        # a fold's ratings stand for themselves and the drawn pairs for a share of all pairs without one
        counted += [np.ones(int(held.sum())), np.full(len(of_blank), n_blank / folds / len(of_blank))]
    logits, happened_all, counts = (np.concatenate(parts) for parts in (predicted, happened, counted))
    right = set_right(logits, happened_all, counts, rated.density)
    told = calibration(right(logits), happened_all, counts)
    return Exposure(right(found), told, tuple(models), right)


def set_right(logits: Array, happened: Array, counts: Array, density: float) -> Callable[[Array], Array]:
    """The most likely map from logits [p] to probabilities; of three numbers, it learns no pair by heart.

    Args:
        logits: held-out predictions [p].
        happened: 0 or 1 [p].
        counts: pairs each stands for [p].
        density: share of all pairs that are rated.
    """

    def mapped(parameters: Array, values: Array) -> Array:
        slope, shift, mix = parameters
        rho = expit(mix)
        return (1 - rho) * expit(slope * values + shift) + rho * density

    def loss(parameters: Array) -> float:
        p = np.clip(mapped(parameters, logits), 1e-9, 1 - 1e-9)
        return -float(np.average(np.where(happened > 0, np.log(p), np.log1p(-p)), weights=counts)) / density

    found = minimize(loss, np.array([1.0, 0.0, -4.0]), method="Nelder-Mead")
    return lambda values: mapped(found.x, values)


def _fit(
    rated: Rated, features: Features, held: Bools, blank: tuple[Ints, Ints], rng: np.random.Generator
) -> Factors:
    """A model that is not told of the ratings held out; they and the pairs `blank` stop it."""
    known = np.flatnonzero(~held)
    n_blank = rated.n_people * rated.n_items - len(rated)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        model = Factors(features, rated)
        own = [model.items.encoders["behaviour"], model.people.encoders["behaviour"]]
        tables = [parameter for encoder in own for parameter in encoder.parameters()]
        ids = {id(parameter) for parameter in tables}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
        groups = [{"params": tables, "weight_decay": OWN_DECAY}, {"params": rest, "weight_decay": DECAY}]
        optimiser = torch.optim.AdamW(groups, lr=RATE, fused=True)
        best, left, chosen = np.inf, PATIENCE, _state(model)
        for step in range(1, STEPS + 1):
            some = rng.choice(known, size=min(BATCH, len(known)), replace=False)
            others = _blank(rated, DRAWN * len(some), rng)
            yes = model(rated.people[some], rated.items[some])
            no = model(*others)
            share = len(rated) / (len(rated) + n_blank)
            loss = share * F.softplus(-yes).mean() + (1 - share) * F.softplus(no).mean()
            optimiser.zero_grad(set_to_none=True)
            (loss / share).backward()
            optimiser.step()
            if step % EVERY:
                continue
            with torch.no_grad():
                yes, no = model(rated.people[held], rated.items[held]), model(*blank)
            now = float(share * F.softplus(-yes).mean() + (1 - share) * F.softplus(no).mean())
            if now < best:
                best, left, chosen = now, PATIENCE, _state(model)
            else:
                left -= 1
                if not left:
                    break
        model.load_state_dict(chosen)
    return model


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _blank(rated: Rated, n: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """About `n` pairs without a rating, drawn uniformly."""
    people, items = rng.integers(rated.n_people, size=n), rng.integers(rated.n_items, size=n)
    blank = ~rated.has(people, items)
    return people[blank], items[blank]
