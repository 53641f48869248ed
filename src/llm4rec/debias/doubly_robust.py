"""The doubly robust objective: errors of pairs without a rating are imputed, and those with one correct it.

    E_DR = 1/|D| Σ_{(u, i) ∈ D} (ê_ui + o_ui (e_ui − ê_ui) / p_ui)

over all pairs D of a person and an item, o_ui = 1 where the pair is rated. Its mean is that of the true
errors e where either the propensities p or the imputed errors ê are right. ê is the loss of the prediction
against ratings that a second model guesses; that model is trained on what was rated, Σ o (e − ê)² / p, step
by step with the first. The sum over pairs without a rating is estimated from a few drawn for each person.

Source: Wang, Zhang, Sun and Qi, Doubly Robust Joint Learning for Recommendation on Data Missing Not at
Random, ICML 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llm4rec.debias.rated import Rated
from llm4rec.debias.ratings import Features, RatedSets, RatingConfig, level_losses
from llm4rec.types import Ints

DRAWS = 12
"""Pairs without a rating that are drawn for each person of a step."""


def doubly_robust_loss(
    errors: Tensor,
    imputed: Tensor,
    inverse: Tensor,
    imputed_unseen: Tensor,
    blank: Tensor,
    n_blank: Tensor,
    n_items: int,
) -> Tensor:
    """E_DR over all pairs of the people of a step.

    Args:
        errors: e of each rating [e].
        imputed: ê of each rating [e].
        inverse: 1 / p of each rating [e].
        imputed_unseen: ê of drawn pairs [b, s].
        blank: whether a drawn pair is without a rating [b, s]; the others are left out.
        n_blank: pairs of each person without a rating [b].
        n_items: items there are.
    """
    seen = (imputed + inverse * (errors - imputed)).sum()
    drawn = (imputed_unseen * blank).sum(dim=1) / blank.sum(dim=1).clamp(min=1)
    return (seen + (n_blank * drawn).sum()) / (len(n_blank) * n_items)


@dataclass
class Imputation:
    """The model that guesses ratings, with its optimiser.

    Attributes:
        model: of the same kind as the one whose errors it imputes.
        optimiser: its own.
        draws: pairs without a rating drawn for each person of a step.
    """

    model: RatedSets
    optimiser: torch.optim.Optimizer
    draws: int = DRAWS

    @classmethod
    def begin(cls, features: Features, rated: Rated, config: RatingConfig) -> Imputation:
        """An untrained one."""
        model = RatedSets(features, rated, config)
        return cls(model, model.optimiser(config))

    def labels(
        self, people: Ints, items: Tensor, classes: Tensor, owner: Tensor, drawn: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Guessed P(r > level) of ratings [e, k − 1] and of drawn pairs [b, s, k − 1], with their graph."""
        model = self.model.train()
        vectors, told = model.vectors(), model.told(torch.from_numpy(people))
        messages = model.messages(vectors)[items * model.n_levels + classes]
        states, others = model.read(told, messages, owner)
        seen = model.score(others, told[owner], vectors[items])
        wide = (len(people), drawn.shape[1], vectors.shape[1])
        unseen = model.score(states.unsqueeze(1).expand(wide), told.unsqueeze(1).expand(wide), vectors[drawn])
        return model.logits(seen).sigmoid(), model.logits(unseen).sigmoid()

    def learn(self, logits: Tensor, errors: Tensor, guessed: Tensor, weights: Tensor) -> None:
        """One step on the weighted mean of (e − ê)² over ratings.

        Args:
            logits: of the model whose errors are imputed [e, k − 1], without their graph.
            errors: e [e], without their graph.
            guessed: from `labels` [e, k − 1].
            weights: inverse propensities up to a factor [e].
        """
        loss = (weights * (errors - level_losses(logits, guessed)).square()).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
