"""A fitted model and the learner that trains it while it serves: what goes in, and what comes out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from llm4rec import lifecycle
from llm4rec.data.events import EventLog
from llm4rec.fitted import Fitted, as_indexed
from llm4rec.online.learner import Learner, of_people
from llm4rec.online.progressed import Origin, Progressed, Surroundings


def trains(fitted: Fitted) -> bool:
    """Whether a model is trained on what comes; one with the code head alone has no scores to train."""
    return fitted.config.online.train and fitted.config.generate.mode != "only"


def reached(fitted: Fitted, position: int) -> int:
    """Up to where in its log a model is trained; where it never was, that is the given position."""
    return position if fitted.online is None else fitted.online.position


def begun(fitted: Fitted, position: int, histories: EventLog | None = None) -> Learner:
    """The learner of a model, where it stands, or where it is to begin anew.

    It has a network of its own: the model answers as before meanwhile.

    Args:
        fitted: the model.
        position: of the log after which it begins where it never learnt.
        histories: what people had done where it stands; where None, what the model remembers.
    """
    histories = fitted.histories if histories is None else histories
    assert histories is not None  # the caller has seen to it
    around = Surroundings(
        items=fitted.scorer.items,
        people=fitted.scorer.people,
        person_rows=fitted.person_rows,
        space=fitted.spaces.events,
        carried=fitted.scorer.carried,
        timed=bool(fitted.about["training"].get("context_kept", False)),
        train=fitted.config.train,
    )
    options, network = fitted.config.online, copy.deepcopy(fitted.scorer.network)
    stands = copy.deepcopy(fitted.online)
    if stands is None:
        stands = Origin.of(network, histories, fitted.untrained, around, options, position)
    return Learner(network, around, options, stands, histories)


def judgements(learner: Learner) -> tuple[int, int]:
    """The position at which what was learnt is judged next, and from one such position to the next."""
    size, period = learner.options.batch_size, learner.options.period
    steps = period - learner.state.steps % period
    return (learner.state.position // size + steps) * size, period * size


def published(fitted: Fitted, learner: Learner) -> Fitted:
    """The model with the weights of a learner, and with what it needs to go on from there."""
    if isinstance(fitted.online, Progressed) and learner.state.position == fitted.online.position:
        return fitted
    with learner.serving():
        network = copy.deepcopy(learner.network)
    # the learner goes on marking which items it has met
    items = {
        modality: replace(tokens, mask=tokens.mask.clone()) for modality, tokens in learner.items.items()
    }
    found = lifecycle.rewired(fitted, network, items)
    return as_indexed(found, replace(found, online=learner.reached()))


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
