"""Stochastic gradient descent with momentum of the most important parameters, equations (26) to (30).

(26) v ← μ v + g, (27) θ ← θ − η v, of the rows that (29) and (30) choose. What is not chosen keeps its
momentum as it is, undecayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Importance = Literal["product", "gradient"]
"""s_j = |g_j θ_j|, or s_j = g_j², which also sees what is still 0."""


def important(
    gradients: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    fraction: float,
    importance: Importance = "gradient",
) -> dict[str, Tensor] | None:
    """The rows that are changed, equations (29) and (30): the most important, up to a share of all numbers.

    A row is what stands under one index of a parameter's first dimension, such as the vector of one item; a
    parameter of one dimension is one row. Its importance is the mean of s over its numbers. One row is chosen
    at least.

    Args:
        gradients: g by name.
        parameters: θ by name.
        fraction: ρ, above 0 and at most 1.
        importance: what s is.

    Returns:
        The numbers of the chosen rows by name [r], ascending; None where all are.
    """
    if fraction >= 1:
        return None
    names = list(gradients)
    scores: list[Tensor] = []
    for name in names:
        gradient = gradients[name]
        each = (gradient * parameters[name]).abs() if importance == "product" else gradient.square()
        scores.append(as_rows(each).mean(dim=1))
    sizes = torch.cat([
        torch.full((len(score),), gradients[name].numel() / len(score))
        for name, score in zip(names, scores, strict=True)
    ])
    order = torch.cat(scores).argsort(descending=True, stable=True)
    sizes = sizes.to(torch.float64)  # sums of many millions
    within = int((sizes[order].cumsum(dim=0) <= fraction * float(sizes.sum())).sum())
    chosen = torch.zeros(len(sizes), dtype=torch.bool)
    chosen[order[: max(within, 1)]] = True
    parts = chosen.split([len(score) for score in scores])
    return {name: part.nonzero().squeeze(1) for name, part in zip(names, parts, strict=True)}


def as_rows(tensor: Tensor) -> Tensor:
    """The rows [r, n] of a parameter, in the same memory."""
    return tensor.view(1, -1) if tensor.dim() < 2 else tensor.view(len(tensor), -1)


@torch.no_grad()
def descend(  # what equations (26) and (27) name
    parameters: Mapping[str, Tensor],
    velocity: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    *,
    rate: float,
    momentum: float,
    chosen: Mapping[str, Tensor] | None,
) -> None:
    """Change parameters and their velocity in place, equations (26) and (27).

    Args:
        parameters: θ by name.
        velocity: v by name.
        gradients: g by name.
        rate: η_t.
        momentum: μ.
        chosen: rows that are changed, by name, as `important` gives them; None for all.
    """
    for name, gradient in gradients.items():
        theta, speed = parameters[name], velocity[name]
        if chosen is None:
            speed.mul_(momentum).add_(gradient)
            theta.add_(speed, alpha=-rate)
        elif len(rows := chosen[name]):
            moved = as_rows(speed)[rows].mul_(momentum).add_(as_rows(gradient)[rows])
            as_rows(speed)[rows] = moved
            as_rows(theta)[rows] = as_rows(theta)[rows].add_(moved, alpha=-rate)
