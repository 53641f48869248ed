"""A fitted model and the learner that trains it while it serves: what goes in, and what comes out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from llm4rec.data.events import EventLog
from llm4rec.fitted import Fitted, as_indexed, code_head
from llm4rec.model.scorer import Scorer
from llm4rec.online.learner import Learner, Surroundings, of_people


def begun(fitted: Fitted, position: int) -> Learner:
    """The learner of a model, where it stands; where it never learnt, it begins after a position of the log.

    It has a network of its own: the model answers as before meanwhile.
    """
    assert fitted.histories is not None  # the caller has seen to it
    around = Surroundings(
        items=fitted.scorer.items,
        people=fitted.scorer.people,
        person_rows=fitted.person_rows,
        space=fitted.spaces.events,
        carried=fitted.scorer.carried,
        timed=bool(fitted.about["training"].get("context_kept", False)),
        train=fitted.config.train,
    )
    return Learner(
        copy.deepcopy(fitted.scorer.network),
        around,
        fitted.config.online,
        copy.deepcopy(fitted.online),
        position=position,
        histories=fitted.histories,
    )


def published(fitted: Fitted, learner: Learner) -> Fitted:
    """The model with the weights of a learner, and with what it needs to go on from there."""
    if fitted.online is not None and learner.state.position == fitted.online.position:
        return fitted
    with learner.serving():
        network = copy.deepcopy(learner.network)
    before = fitted.scorer
    scorer = Scorer(
        network, learner.items, before.people, before.events, serve=before.serve, carried=before.carried
    )  # with nothing kept of what it read
    generator = fitted.generator
    if generator is not None:
        generator = replace(generator, head=code_head(network))
        scorer = replace(scorer, join=generator.join)
    changed = replace(fitted, scorer=scorer, generator=generator, online=learner.reached())
    found = as_indexed(fitted, changed)
    vars(found).pop("index", None)  # vectors of items have moved
    found.retrievers.pop("similar_item", None)
    cells = {kind: each for kind, each in fitted.cells.items() if kind != "similar_item"}
    return as_indexed(found, replace(found, cells=cells))


@dataclass(frozen=True)
class Since:
    """What people had done by a position of the log: what the model remembers, and what came since.

    Attributes:
        histories: what is remembered.
        came: events after that, with their `position` and those `as_log` reads, in the order of the log.
        as_log: makes an event log of some of them.
    """

    histories: EventLog
    came: pl.DataFrame
    as_log: Callable[[pl.DataFrame], EventLog]

    def known(self, end: int) -> Callable[[pl.Series], EventLog]:
        """The histories of people as they were at a position."""

        def of(people: pl.Series) -> EventLog:
            before = of_people(self.histories, people)
            positions = self.came["position"].to_numpy()
            came = self.came[: int(np.searchsorted(positions, end, side="right"))]
            came = came.filter(pl.col("user_id").is_in(people.unique().implode()))
            return before.joined(self.as_log(came)) if came.height else before

        return of
