"""Gradient reversal: states from which protected attributes are hard to read, equations (16) and (17).

Beside the network, a small discriminator D per attribute learns to read it from the states, by
L_adv = −E log D(a | h_u). The gradient that goes on to the states is turned round and weighed by λ, so that
the network follows L_rec − λ L_adv: it learns to be read badly. Attributes are what discriminators are judged
by; the network never reads them.

Deviations: with (17) as it stands the sum in (16) would have the encoder help the adversary; the sign is that
of the reversal. An attribute that is a number is read as one, by (a − D(h))² / 2 of the standardised number,
which is −log of a normal density but for a constant. D reads states that are brought to mean 0 and variance
1: what a state says of items lies in its direction, and by its length alone a loss without bounds could be
raised.

Source of the reversal: Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from pydantic import Field as Option
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from llm4rec.config import Section
from llm4rec.data.catalog import Catalog
from llm4rec.errors import InputError
from llm4rec.evaluate.groups import groups_of, numbers_of
from llm4rec.model.network import Batch, Network, Offer
from llm4rec.types import Floats, Ints


class AdversaryConfig(Section):
    """What states should not tell of people (section `debias.adversary`)."""

    weight: float = Option(
        default=0.0,
        ge=0,
        le=1000,
        description="λ, how much hiding an attribute counts beside predicting the next event; 0: not at all.",
    )
    weights: dict[str, float] = Option(
        default={},
        description="Attribute → a weight of its own, in place of `weight`; 0 leaves it alone.",
    )
    attributes: tuple[str, ...] = Option(
        default=(),
        description="Columns of the people that states should not tell: categories, or numbers as numbers.",
    )
    erase: bool = Option(
        default=False,
        description="After training, project out of states what a straight border reads of the attributes.",
    )
    learning_rate: float = Option(
        default=0.01,
        gt=0,
        le=10,
        description="Step size of the discriminators: several times train.learning_rate, so that they keep "
        "up with states that evade them.",
    )
    hidden: int = Option(default=64, ge=1, le=4096, description="Width of each discriminator's hidden layer.")

    @model_validator(mode="after")
    def _of_attributes(self) -> Self:
        strange = [name for name in self.weights if name not in self.attributes]
        if strange:
            raise ValueError(
                f"debias.adversary.weights names {strange[0]!r}, and debias.adversary.attributes does not"
            )
        if (self.weight or self.erase) and not self.attributes:
            raise ValueError(
                f"debias.adversary.{'weight' if self.weight else 'erase'} is set, and "
                "debias.adversary.attributes names no column"
            )
        if self.attributes and not self.reversals and not self.erase:
            raise ValueError(
                "debias.adversary.attributes names columns, and neither weight, weights nor erase says what "
                "to do about them"
            )
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError("a weight in debias.adversary.weights is below 0")
        return self

    @property
    def reversals(self) -> dict[str, float]:
        """Attribute → λ, of those whose λ is above 0."""
        found = {name: self.weights.get(name, self.weight) for name in self.attributes}
        return {name: weight for name, weight in found.items() if weight}


@dataclass(frozen=True)
class Attribute:
    """What is known of one attribute of the people of a log.

    Attributes:
        name: of its column.
        kind: how it is read.
        values: of each row of the log [u]: the number of the category, -1 unknown; or the standardised
            number, NaN unknown.
        names: of the categories.
    """

    name: str
    kind: Literal["categorical", "numerical"]
    values: Ints | Floats
    names: tuple[str, ...] = ()


def attribute(people: Catalog, name: str, rows: Ints) -> Attribute:
    """One attribute of the people of a log.

    Args:
        people: their table; it may hold columns that are no features, as protected ones are.
        name: the column.
        rows: row of each person of the log in that table [u], -1 for one who is not there.

    Raises:
        InputError: where there is no such column, or all of the log are alike in it.
    """
    if name not in people.table.columns or name == people.key:
        listing = ", ".join(column for column in people.table.columns if column != people.key)
        raise InputError(
            f"debias.adversary.attributes names {name!r}, which is no column of the people. "
            f"Columns: {listing or 'none'}."
        )
    column = people.table[name]
    numbers = numbers_of(column)
    if numbers is not None:
        values = np.append(numbers, np.nan)[rows]
        known = values[~np.isnan(values)]
        if len(known) and known.std() > 0:
            standard = ((values - known.mean()) / known.std()).astype(np.float32)
            return Attribute(name, "numerical", standard)
    else:
        groups = groups_of(column).of_rows(rows)
        held, codes = np.unique(groups.members[groups.members >= 0], return_inverse=True)
        if len(held) > 1:  # a category that only others have would be an output that nothing trains
            values = np.full(len(rows), -1, dtype=np.int64)
            values[groups.members >= 0] = codes
            return Attribute(name, "categorical", values, tuple(groups.names[a] for a in held))
    raise InputError(
        f"debias.adversary.attributes names {name!r}, in which all people who are trained on are alike or "
        "unknown: there is nothing to hide. Leave it out."
    )


def attributes_of(people: Catalog | None, names: Sequence[str], rows: Ints) -> list[Attribute]:
    """Several attributes of the people of a log; the arguments are those of `attribute`.

    Raises:
        InputError: where there are no people, or an attribute can't be read.
    """
    if people is None:
        raise InputError(
            "debias.adversary hides attributes of people, and there is no table of them: give one with "
            "--users."
        )
    return [attribute(people, name, rows) for name in names]


class Adversary(nn.Module):
    """A `Penalty`: one discriminator per attribute, of which the states learn the opposite.

    Its own parameters are trained by the loop and not kept with the model. It goes by the rows of the log: a
    person who is hidden from the network in a step is known to it, so that the states of those who come
    without a name are taught alike.

    Args:
        attributes: what is read, each by a discriminator.
        reversals: λ of each.
        size: d of the states.
        hidden: width of the hidden layers.
        seed: of the first weights.
        learning_rate: step size of the discriminators; that of training where None.
    """

    def __init__(
        self,
        attributes: Sequence[Attribute],
        reversals: Sequence[float],
        size: int,
        hidden: int,
        seed: int,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.attributes = tuple(attributes)
        self.reversals = tuple(reversals)
        self.labels = tuple(torch.from_numpy(each.values) for each in attributes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([seed, 5]).generate_state(1)[0]))
            self.heads = nn.ModuleList(
                nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, max(1, len(each.names))))
                for each in attributes
            )

    @classmethod
    def of(
        cls, config: AdversaryConfig, people: Catalog | None, rows: Ints, *, size: int, seed: int
    ) -> Self | None:
        """The adversary of a configuration; None where no attribute has a weight.

        Args:
            config: options.
            people: the table of the people, with the columns that are no features.
            rows: row of each person of the log that is trained on in that table [u], -1 for strangers.
            size: d of the states.
            seed: of the first weights.

        Raises:
            InputError: where there are no people, or an attribute can't be read.
        """
        reversals = config.reversals
        if not reversals:
            return None
        attributes = attributes_of(people, list(reversals), rows)
        weights = list(reversals.values())
        return cls(attributes, weights, size, config.hidden, seed, config.learning_rate)

    def forward(self, network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer) -> Tensor:
        """Σ of the discriminators' losses on states [p, d] of log rows `owners` [p], in nats."""
        del network, batch, offer
        return torch.stack(self.losses(states, owners)).sum()

    def losses(self, states: Tensor, owners: Tensor) -> list[Tensor]:
        """L_adv of each attribute over the states whose people's value is known; 0 where there is none."""
        plain = functional.layer_norm(states, states.shape[-1:])
        found: list[Tensor] = []
        for each, weight, labels, head in zip(
            self.attributes, self.reversals, self.labels, self.heads, strict=True
        ):
            wanted = labels[owners]
            known = wanted >= 0 if each.kind == "categorical" else ~wanted.isnan()
            read, right = head(reverse(plain[known], weight)), wanted[known]
            if not len(right):
                found.append(0 * read.sum())
            elif each.kind == "categorical":
                found.append(functional.cross_entropy(read, right))
            else:
                found.append((read.squeeze(-1) - right).square().mean() / 2)
        return found


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: float) -> Tensor:  # type: ignore[override]
        ctx.weight = weight
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


def reverse(states: Tensor, weight: float) -> Tensor:
    """The same states; a gradient that comes back through them is turned round and weighed."""
    return cast(Tensor, _Reversal.apply(states, weight))
