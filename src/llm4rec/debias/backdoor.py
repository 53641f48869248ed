"""The effect of showing an item, popularity adjusted for by the back door, equation (15).

    popularity z ──▶ shown i ──▶ taken Y
        └────────────────────────▲

What is popular is shown more (z → i) and taken more when shown (z → Y), so items are seen most when they are
taken most, and the share of impressions that were taken says more than the items do. The back door is closed
by P(Y | do(i)) = Σ_z P(Y | i, z) P(z). An item has one popularity at a time, so P(Y | i, z) can't be had for
every z without a model: P(Y | u, i, z) = f(u, i) · z^γ is assumed, with one γ for all (PDA). Then an item's
own ups and downs tell γ, whatever its f.

Assumed besides: who an item is shown to does not change with its popularity, nothing but popularity moves
both showing and taking over time, and popularity is measured without error.

Source: Zhang et al., Causal Intervention for Leveraging Popularity Bias in Recommendation, SIGIR 2021; the
conditional likelihood: Hausman, Hall & Griliches, Econometrica 52, 1984.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llm4rec.errors import InputError
from llm4rec.types import Array

STEPS = 50
CLOSE = 1e-10


@dataclass(frozen=True)
class Effect:
    """What showing items would earn if they were as popular as time brings it.

    Attributes:
        exponents: γ of popularity, then of each further common cause [k].
        errors: their standard errors [k].
        value: mean probability that what was shown is taken, popularity adjusted for.
        naive: the share of what was shown that was taken.
    """

    exponents: Array
    errors: Array
    value: float
    naive: float


def backdoor(shown: Array, taken: Array, causes: Array) -> Effect:
    """The effect of showing, from counts by item and period.

    With y_ip of n_ip impressions taken, y_ip ~ Poisson(n_ip · f_i · exp(Σ_k γ_k · log x_ipk)). Given each
    item's total, y_i is multinomial over periods and f_i falls out: γ is where that likelihood is highest.
    The value is Σ_i n_i · f_i · mean_p exp(Σ_k γ_k · log x_ipk) ÷ Σ_i n_i.

    Args:
        shown: impressions that were looked at, by item and period [i, p].
        taken: of these, the ones taken [i, p].
        causes: logarithms of popularity, and of whatever else moves both [k, i, p].

    Raises:
        InputError: where nothing was taken, no item was shown at two values of a cause, or a cause is not
            finite.
    """
    if not np.isfinite(causes).all():
        raise InputError("A cause is not a finite number everywhere; give logarithms of what is above 0.")
    if not taken.sum():
        raise InputError("Nothing that was shown was taken, so no effect can be told.")
    totals = taken.sum(axis=1)
    exponents = np.zeros(len(causes))
    information = np.zeros((len(causes),) * 2)
    with np.errstate(divide="ignore"):
        log_shown = np.log(shown.astype(np.float64))
    for _ in range(STEPS):
        weights = _shares(log_shown + np.tensordot(exponents, causes, axes=1))
        expected = (causes * weights).sum(axis=2)  # [k, i]
        slope = (causes * taken).sum(axis=(1, 2)) - expected @ totals
        spread = np.einsum("kip,lip,ip,i->kl", causes, causes, weights, totals)
        information = spread - (expected * totals) @ expected.T
        if np.linalg.matrix_rank(information) < len(causes):
            raise InputError(
                "No item was shown at different values of each cause, so what they do can't be told from the "
                "items. Give more periods."
            )
        step = np.linalg.solve(information, slope)
        exponents = exponents + step
        if np.abs(step).max() < CLOSE:
            break
    else:
        raise InputError(
            f"The powers of the causes were not found in {STEPS} steps: too little was taken to tell them."
        )
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    adjusted = value(shown, taken, causes, exponents)
    return Effect(exponents, errors, adjusted, float(taken.sum() / shown.sum()))


def value(shown: Array, taken: Array, causes: Array, exponents: Array) -> float:
    """Mean probability that what was shown is taken, each item at the causes that time brings it.

    Arguments as of `backdoor`; `exponents` [k] are those of the causes.
    """
    lift = np.exp(np.tensordot(exponents, causes, axes=1))
    reached = (shown * lift).sum(axis=1)
    own = np.divide(taken.sum(axis=1), reached, out=np.zeros(len(taken)), where=reached > 0)
    return float((shown.sum(axis=1) * own * lift.mean(axis=1)).sum() / shown.sum())


def _shares(logits: Array) -> Array:
    """Softmax over periods [i, p]; zeros for an item that was never shown."""
    top = logits.max(axis=1, keepdims=True)
    parts = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = parts.sum(axis=1, keepdims=True)
    return np.divide(parts, total, out=np.zeros_like(parts), where=total > 0)


def by_period(
    items: Array, periods: Array, taken: Array, n_items: int, n_periods: int
) -> tuple[Array, Array]:
    """Impressions [e] by item and period: how many were shown [i, p], and `taken` (truth values [e])."""
    cell = items * n_periods + periods
    size = n_items * n_periods
    shown = np.bincount(cell, minlength=size).reshape(n_items, n_periods)
    return shown, np.bincount(cell, weights=taken, minlength=size).reshape(n_items, n_periods)
