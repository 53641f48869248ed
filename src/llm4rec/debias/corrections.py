"""What is done about bias: all options in one place, and what acts while a network is trained.

What acts on a trained model, popularity taken out of its scores and exposure balanced, is `popularity` and
`balance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from llm4rec.config import Section
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.debias.adversary import Adversary, AdversaryConfig, Attribute, attributes_of
from llm4rec.debias.balance import ParityConfig
from llm4rec.debias.dual import Dual
from llm4rec.debias.erasure import erase, refuse_many
from llm4rec.debias.popularity import PopularityConfig
from llm4rec.debias.selection import Selection, SelectionConfig
from llm4rec.errors import ConfigError
from llm4rec.evaluate.groups import Groups
from llm4rec.model.network import Network
from llm4rec.model.scorer import Scorer
from llm4rec.train.loop import Penalty, TrainConfig
from llm4rec.types import Array, Floats, Ints

AFTERWARDS: Any = {"parity": True, "popularity": PopularityConfig.model_fields.keys() - {"training"}}
"""Of the options, what no training of the network depends on; a parity that is trained tells itself."""


class DebiasConfig(Section):
    """What is done about bias (section `debias`); all of it is off until it is asked for."""

    adversary: AdversaryConfig = AdversaryConfig()
    parity: ParityConfig = ParityConfig()
    popularity: PopularityConfig = PopularityConfig()
    selection: SelectionConfig = SelectionConfig()

    def refuse_twice(self) -> None:
        """Refuse to fit what takes popularity out by weights and out of the scores as well.

        Models once fitted may be given a strength all the same, so that an audit can tell what it costs.

        Raises:
            ConfigError: where both are asked for.
        """
        weighed = self.selection.weights != "none" and self.selection.of == "popularity"
        popularity = self.popularity
        if weighed and (popularity.strength or popularity.choose or popularity.training):
            raise ConfigError(
                "debias.selection weighs by popularity, and debias.popularity takes it out of the "
                'scores: that would be twice. Set debias.selection.weights="none", or strength=0, '
                "training=0 and choose=false in debias.popularity."
            )


@dataclass(frozen=True)
class Corrections:
    """What acts while a network is trained; each is None, or empty, where it is not asked for.

    Attributes:
        selection: weights of the events.
        adversary: what states should not tell.
        dual: exposure held equal.
        erased: attributes that are projected out of trained states.
    """

    selection: Selection | None
    adversary: Adversary | None
    dual: Dual | None
    erased: tuple[Attribute, ...]

    @classmethod
    def of(  # noqa: PLR0913  # all that any of them goes by
        cls,
        config: DebiasConfig,
        events: EventLog,
        catalog: Catalog,
        people: Catalog | None,
        rows: Ints,
        groups: Groups | None,
        *,
        size: int,
        train: TrainConfig,
        attention: bool,
    ) -> Self:
        """Those of a configuration.

        Args:
            config: options.
            events: what is trained on.
            catalog: the items.
            people: their table, None without one.
            rows: row of each person of the log in that table [u], -1 for strangers.
            groups: of the people's table, whose exposure is to be held equal; None for none.
            size: d of the states.
            train: options of the loop.
            attention: whether cross-modal attention is tried, which is trained on few items at a step.

        Raises:
            InputError: where what one of them needs is not there.
        """
        hidden = config.adversary.attributes if config.adversary.erase else ()
        erased = attributes_of(people, hidden, rows) if hidden else []
        refuse_many(erased, size)
        return cls(
            Selection.of_events(events, len(catalog), config.selection),
            Adversary.of(config.adversary, people, rows, size=size, seed=train.seed),
            Dual.of(config.parity, groups, rows, events, catalog, train, attention=attention),
            tuple(erased),
        )

    @property
    def weights(self) -> Floats | None:
        """Weight of each event as a target [e]."""
        return None if self.selection is None else self.selection.weights

    @property
    def normalised(self) -> bool:
        """Whether the loss of a step is divided by the sum of its weights."""
        return self.selection is not None and self.selection.normalised

    @property
    def penalties(self) -> list[Penalty]:
        """Terms of the loss."""
        return [each for each in (self.adversary, self.dual) if each is not None]

    def eraser(self, scorer: Scorer, events: EventLog, rows: Ints) -> Callable[[Network], int] | None:
        """What projects attributes out of the states of a network, given what `erase` needs beside it."""
        return partial(erase, scorer, events, rows, self.erased) if self.erased else None

    def arrays(self) -> list[Array]:
        """What training hangs on here, for the identity of a run."""
        read = () if self.adversary is None else self.adversary.attributes
        found = [each.values for each in (*read, *self.erased)]
        found += [] if self.selection is None else [self.selection.weights]
        return found + ([] if self.dual is None else self.dual.arrays())

    def told(self) -> dict[str, Any]:
        """What became of them; values JSON can hold."""
        return {
            "selection": None if self.selection is None else self.selection.told(),
            "parity_in_training": None if self.dual is None else self.dual.told(),
        }

    def notes(self) -> list[str]:
        """What did not go as it was asked for, in sentences."""
        return [] if self.dual is None else self.dual.notes()
