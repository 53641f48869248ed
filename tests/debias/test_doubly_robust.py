"""The doubly robust objective: by hand, over every draw of what is rated, and the model that imputes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.debias.doubly_robust import Imputation, doubly_robust_loss
from llm4rec.debias.rated import Rated
from llm4rec.debias.ratings import Features, RatingConfig, above, level_losses

NUMBERS = st.lists(st.floats(0, 3), min_size=4, max_size=4)


def test_the_loss_by_hand() -> None:
    """Two people, three items: person 0 rated one of them, person 1 two.

    Σ over ratings (.5 + 4 · .5) + (1 + 2 · −.5) + (.2 + 0) = 2.7; person 0 has two pairs without, of mean
    (.3 + .5) / 2, person 1 one, of which the only draw that is blank says .7: (2.7 + .8 + .7) / 6.
    """
    loss = doubly_robust_loss(
        errors=torch.tensor([1.0, 0.5, 0.2]),
        imputed=torch.tensor([0.5, 1.0, 0.2]),
        inverse=torch.tensor([4.0, 2.0, 9.0]),
        imputed_unseen=torch.tensor([[0.3, 0.5], [0.7, 99.0]]),
        blank=torch.tensor([[True, True], [True, False]]),
        n_blank=torch.tensor([2, 1]),
        n_items=3,
    )
    assert float(loss) == pytest.approx((2.7 + 0.8 + 0.7) / 6)


def over_all(errors: list[float], imputed: list[float], told: list[float], true: list[float]) -> float:
    """Its mean over every draw of which of one person's four items are rated, with all others imputed."""
    e, guess, mean = torch.tensor(errors), torch.tensor(imputed), 0.0
    for drawn in product((True, False), repeat=4):
        rated = torch.tensor(drawn)
        chance = float(np.prod([p if o else 1 - p for p, o in zip(true, drawn, strict=True)]))
        loss = doubly_robust_loss(
            e[rated], guess[rated], 1 / torch.tensor(told)[rated], guess.unsqueeze(0), ~rated.unsqueeze(0),
            (~rated).sum().unsqueeze(0), 4,
        )  # fmt: skip
        mean += chance * float(loss)
    return mean


@given(NUMBERS, NUMBERS, st.lists(st.floats(0.1, 0.9), min_size=4, max_size=4))
def test_right_propensities_are_enough(errors: list[float], imputed: list[float], p: list[float]) -> None:
    assert over_all(errors, imputed, p, p) == pytest.approx(np.mean(errors), abs=1e-4)


@given(NUMBERS, st.lists(st.floats(0.1, 0.9), min_size=8, max_size=8))
def test_a_right_imputation_is_enough(errors: list[float], p: list[float]) -> None:
    assert over_all(errors, errors, p[:4], p[4:]) == pytest.approx(np.mean(errors), abs=1e-4)


def test_neither_right_is_not_enough() -> None:
    assert abs(over_all([1, 2, 3, 0], [1, 1, 1, 1], [0.5] * 4, [0.1, 0.2, 0.9, 0.5]) - 1.5) > 0.1


def test_imputation_learns_the_errors_it_is_shown() -> None:
    """It ends nearer to them, and by the weighted ones."""
    draw = np.random.default_rng(0)
    keys = draw.choice(20 * 10, size=120, replace=False)
    rated = Rated.of(keys // 10, keys % 10, draw.integers(1, 4, size=120).astype(float), 20, 10)
    config = RatingConfig(size=4, dropout=0, hide=0, learning_rate=0.02)
    torch.manual_seed(0)
    imputation = Imputation.begin(Features(), rated, config)
    people = np.arange(20)
    items, classes = torch.from_numpy(rated.items), torch.from_numpy(rated.classes)
    owner, drawn = torch.from_numpy(rated.people), torch.zeros(20, 2, dtype=torch.int64)
    logits = torch.zeros(120, 2) + torch.tensor([2.0, -2.0])
    errors = level_losses(logits, above(classes, 3))
    weights = torch.ones(120)
    gaps: list[float] = []
    for _ in range(60):
        guess, unseen = imputation.labels(people, items, classes, owner, drawn)
        assert guess.shape == (120, 2) and unseen.shape == (20, 2, 2)
        gaps.append(float((errors - level_losses(logits, guess.detach())).square().mean()))
        imputation.learn(logits, errors, guess, weights)
    assert gaps[-1] < 0.7 * gaps[0]
