"""Events weighed by inverse propensities in training, equations (13) and (14): IPS and SNIPS.

L_IPS = (1/|U||I|) Σ_observed ℓ / max(e, c). Here ℓ is −log p(item | history), the softmax over the
catalogue at every event. A softmax with weights w is best where p is w times how often an item is taken,
over their sum. If that is propensity times relevance, as Saito et al. assume, weights 1/e leave relevance.

Deviations, both stated because the paper says neither:

- Its O is "interacted". For what people took it is exposure here. The loss of Saito et al. is one of pairs,
  where each taken pair counts 1/e as relevant and 1 − 1/e as not; in a softmax the others lose what an item
  gains, so that only what was taken is weighed.
- The sum is divided by that of the weights and not by the number of pairs. It is the same at its minimum,
  and a step's size does not depend on the scale of propensities, which is not known of those of popularity.
  IPS divides by the mean weight of the whole log, so that every event counts what its weight says, whatever
  shares its step. SNIPS divides each step by its own sum: it varies less where few weights are large, and
  what is rare counts less in a step full of it. Over the whole log at once both are SNIPS.

With propensities of popularity p is divided by popularity to their power, as `debias.popularity` divides it
after training. What is not weighed: the linear part, the counts of the prior, and the validation that stops
training.

Sources: Saito et al., Unbiased Recommender Learning from Missing-Not-At-Random Implicit Feedback, WSDM 2020;
Swaminathan and Joachims, The Self-Normalized Estimator for Counterfactual Learning, NeurIPS 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field as Option

from llm4rec.config import Section
from llm4rec.data.events import EventLog
from llm4rec.debias.propensity import Clipping, clippings, of_popularity, weights
from llm4rec.errors import InputError
from llm4rec.types import Array, Floats


class SelectionConfig(Section):
    """Whether training weighs events by how unlikely they were exposed (section `debias.selection`)."""

    weights: Literal["none", "ips", "snips"] = Option(
        default="none",
        description="How events count in training: all alike, by 1 / propensity, or by that over its sum in "
        "each step.",
    )
    of: Literal["popularity", "logged"] = Option(
        default="popularity",
        description="Where propensities come from: of how often an item was taken, or logged with the events "
        "(column propensity).",
    )
    power: float = Option(
        default=0.5, gt=0, le=1, description="Power of popularity that is taken for a propensity."
    )
    clip: float = Option(
        default=0.05,
        ge=0,
        lt=1,
        description="Quantile of the propensities below which they are raised to it; 0 raises none.",
    )


@dataclass(frozen=True)
class Selection:
    """Weights of events, and what they are worth.

    Attributes:
        of: where the propensities come from.
        weights: inverse propensities, of mean 1 [e].
        normalised: whether a step is divided by the sum of its own weights.
        clipping: what the bound does, and the effective size that is left [events].
    """

    of: str
    weights: Floats
    normalised: bool
    clipping: Clipping

    @classmethod
    def of_events(cls, log: EventLog, n_items: int, config: SelectionConfig) -> Self | None:
        """Those of the events that are trained on; None where all weigh alike.

        Raises:
            InputError: where propensities are to be those logged and some event has none.
        """
        if config.weights == "none":
            return None
        found = _logged(log) if config.of == "logged" else _popular(log, n_items, config.power)
        bound = float(np.quantile(found, config.clip)) if config.clip else 0.0
        return cls(
            of=config.of,
            weights=weights(found, clip=bound).astype(np.float32),
            normalised=config.weights == "snips",
            clipping=clippings(found, [bound])[0],
        )

    def told(self) -> dict[str, Any]:
        """What a model says of it: figures of `Clipping`; the largest weight is in means."""
        line = self.clipping
        return {
            "weights": "snips" if self.normalised else "ips",
            "of": self.of,
            "clip": line.clip,
            "clipped": line.clipped,
            "kept": line.kept,
            "effective": line.effective,
            "events": len(self.weights),
            "largest": line.largest / line.mean,
        }


def said(told: dict[str, Any]) -> str:
    """The sentence on what `Selection.told` tells."""
    return (
        f"Events were weighed by inverse propensities ({told['weights']}, {told['of']}): {told['events']} of "
        f"them say as much as {told['effective']:.0f} weighed alike, the largest weight is "
        f"{told['largest']:.3g} times the mean. {told['clipped']:.1%} of the propensities were raised to "
        f"{told['clip']:.3g}, which keeps {told['kept']:.1%} of the weight."
    )


def _logged(log: EventLog) -> Array:
    missing = log.n_events if log.propensities is None else int(np.isnan(log.propensities).sum())
    if log.propensities is None or missing:
        raise InputError(
            f"debias.selection.of=logged needs the propensity of every event that is trained on, and it "
            f"is missing in {missing} of {log.n_events}. Give a column propensity (--map propensity=COLUMN), "
            "leave those events out, or set debias.selection.of=popularity."
        )
    return log.propensities.astype(np.float64)


def _popular(log: EventLog, n_items: int, power: float) -> Array:
    return of_popularity(log.item_counts(n_items), power)[log.items]
