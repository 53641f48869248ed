"""What people do while a model serves: one event at once, and a log of them from where the model stands.

Source: paper, equation (31). What is positive becomes part of histories; what says that an item is not wanted
keeps it from its person. The weights of kinds need a learner.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from llm4rec import learning, lifecycle
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.feedback import RATED, checked
from llm4rec.data.joining import parted
from llm4rec.errors import InputError
from llm4rec.fitted import Fitted, as_indexed, beside
from llm4rec.online.learner import Learner
from llm4rec.online.opposed import DISLIKE, LOW, SKIP
from llm4rec.types import Feedback, Place, Progress, silent

if TYPE_CHECKING:
    from llm4rec.store.eventlog import FeedbackLog  # brings a database library along

NAMED = (RATED, DISLIKE, SKIP)
KEPT = ("position", "event_id", "user_id", "item", "event_type", "kind", "value", "timestamp")
LEARNT = {
    "position": pl.Int64, "event_id": pl.String, "user_id": pl.String, "item": pl.Int64, "kind": pl.String,
    "time": pl.Int64, "value": pl.Float64, "against": pl.Boolean,
}  # fmt: skip
POSITIVE = ("click", "like", "purchase", "rating", "view")
"""Kinds that say a person took to an item, in lower case; a rating does so from `data.min_rating` on."""
TRAINED, REMEMBERED = 8_192, 200_000
"""Positions of a log, at least, between two moments at which a model on its way can be saved: where it is
trained, and where not. To train on so many takes some twelve seconds, to write a model half of one."""


@dataclass(frozen=True)
class Learnt:
    """What was made of the events of a log.

    Attributes:
        start: the position after which it was read.
        place: up to where.
        read: events read.
        learnt: events that are remembered now.
        unknown: positive events on items that the catalogue does not have.
        others: kind → events that are not positive.
        refused: those of them that say an item is not wanted.
        people: people whose events are remembered.
        trained: the position up to which the network was trained; None where it is not.
        undone: how often what was trained was undone, since it was worse.
        mended: how often of these it was kept once it had been learnt again.
        drifts: how often it was found that people do other things than they did.
        kinds: kind → its reliability and weight, equation (32).
        gap: whether events were dropped from the log before they were read, or trained on.
    """

    start: int
    place: Place
    read: int = 0
    learnt: int = 0
    unknown: int = 0
    others: Mapping[str, int] = field(default_factory=dict[str, int])
    people: int = 0
    gap: bool = False
    refused: int = 0
    trained: int | None = None
    undone: int = 0
    mended: int = 0
    drifts: int = 0
    kinds: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])


def observe(fitted: Fitted, feedback: Feedback) -> Fitted:
    """The model that knows of one more event; see `Recommender.observe`.

    Raises:
        InputError: where it can be no event.
    """
    told = _sorted_out(fitted, checked([feedback]))
    known = told["positive"][0] and told["item"][0] >= 0
    return _heeded(lifecycle.remember(fitted, _as_log(fitted, told)) if known else fitted, told)


def learn(
    fitted: Fitted,
    log: FeedbackLog,
    after: int | None = None,
    progress: Progress = silent,
    each: Callable[[Fitted], None] | None = None,
) -> tuple[Fitted, Learnt]:
    """The model that has read a log to its end; see `Recommender.learn`.

    `each` is given it as it is wherever what was learnt was just judged and `TRAINED` positions have passed,
    as long as at least one step is left.

    Raises:
        InputError: where the model has learnt from another log or has read further than `after`, the log is
            behind the model, or the model keeps no histories.
        EventLogError: where the log can't be read.
    """
    if fitted.histories is None:
        raise InputError(
            "This model keeps no histories (it was fitted or saved without them), so nothing can be "
            "remembered in it: fit it with histories to let it learn."
        )
    histories, last = fitted.histories, log.position
    start = _start(fitted.learnt, log, last, after)
    reader = str(uuid.uuid4()) if fitted.learnt is None else fitted.learnt.reader
    if fitted.online is not None and _moves(fitted.learnt, log, start):
        fitted = as_indexed(fitted, replace(fitted, online=fitted.online.moved(start)))
    trains, size = learning.trains(fitted), fitted.config.online.batch_size
    begin = learning.reached(fitted, start) if trains else start
    # whole steps that are to be made on what is remembered already: somebody was forgotten, or it trained not
    again = trains and begin // size * size + size <= start
    if again:
        for page in log.pages(begin):
            past = _known(_sorted_out(fitted, page.filter(pl.col("position") <= start)))
            histories = parted(histories, _as_log(fitted, past))
            if int(page["position"][-1]) >= start:
                break
    learner = learning.begun(fitted, start, histories) if trains else None
    gap = log.dropped > begin
    waiting = pl.DataFrame(schema=LEARNT)  # read, and not yet trained on
    people = set[str]()
    others, read, kept, unknown, refused, position = Counter[str](), 0, 0, 0, 0, start
    for page, position, stops in _parts(log, begin, _stops(learner, begin)):
        told = _sorted_out(fitted, page)
        new = told.filter(pl.col("position") > start)
        others.update(new.filter(~pl.col("positive"))["kind"].to_list())
        known = _known(new)
        read, kept = read + new.height, kept + known.height
        unknown += int(new["positive"].sum()) - known.height
        people.update(known["user_id"].to_list())
        came = _known(told) if again else known
        if learner is not None:
            since = learning.Since(histories, came, partial(_as_log, fitted))
            waiting = _train(since, learner, pl.concat([waiting, _taught(told)]), position)
        if known.height:
            fitted = lifecycle.remember(fitted, _as_log(fitted, known))
        assert fitted.histories is not None  # they were there
        histories = histories.joined(_as_log(fitted, came)) if again else fitted.histories
        refused += int(new["refused"].sum())
        fitted = _heeded(fitted, new)
        if stops and each is not None and position + _step(fitted, learner) <= last:
            each(_standing(fitted, learner, Place(log.identity, max(start, position), reader)))
        progress("learn", max(position - start, 0), max(last, position) - start)
    place = Place(log.identity, max(start, position, last), reader)
    if learner is not None:
        since = learning.Since(histories, waiting.clear(), partial(_as_log, fitted))
        _train(since, learner, waiting, place.position)
    found = Learnt(start, place, read, kept, unknown, dict(sorted(others.items())), len(people), gap, refused)
    if learner is not None:
        state = learner.state
        found = replace(
            found,
            trained=state.position,
            undone=state.guard.undone,
            mended=state.guard.mended,
            drifts=state.drift.found,
            kinds=state.reliability.told(),
        )
    return _standing(fitted, learner, place), found


def _standing(fitted: Fitted, learner: Learner | None, place: Place) -> Fitted:
    """The model as it is at a place of the log."""
    if learner is not None:
        fitted = learning.published(fitted, learner)
    return as_indexed(fitted, replace(fitted, learnt=place))


def _step(fitted: Fitted, learner: Learner | None) -> int:
    """Positions after which a model is another: so one that was saved on the way is always saved again."""
    return 1 if learner is None else fitted.config.online.batch_size


def _stops(learner: Learner | None, begin: int) -> Iterator[int]:
    """The positions at which a model can be saved: where it was just judged, if it is trained."""
    if learner is None:
        return itertools.count(begin + REMEMBERED, REMEMBERED)
    first, between = learning.judgements(learner)
    stride = -(-TRAINED // between) * between
    return itertools.count(first + stride - between, stride)


def _parts(log: FeedbackLog, begin: int, stops: Iterator[int]) -> Iterator[tuple[pl.DataFrame, int, bool]]:
    """The events of a log after a position, none empty, up to where each part goes, and if that is a stop."""
    stop = next(stops)
    for page in log.pages(begin):
        while page.height:
            while stop < int(page["position"][0]):  # nothing came since the last one
                stop = next(stops)
            part = page.filter(pl.col("position") <= stop)
            page, last = page[part.height :], int(part["position"][-1])
            stops_here = last == stop or page.height > 0
            yield part, stop if stops_here else last, stops_here


def _known(told: pl.DataFrame) -> pl.DataFrame:
    """Of events, as `_sorted_out` leaves them, those that a history can take."""
    return told.filter(pl.col("positive") & (pl.col("item") >= 0)).select(KEPT)


def _train(since: learning.Since, learner: Learner, waiting: pl.DataFrame, position: int) -> pl.DataFrame:
    """Train on what is `waiting`, as far as whole micro-batches go up to a position; what waits on."""
    size = learner.options.batch_size
    while (end := learner.state.position // size * size + size) <= position:
        batch = waiting.filter(pl.col("position") <= end)
        taken, against = batch.filter(~pl.col("against")), batch.filter("against")
        learner.take(taken, end, since.known(end), against)
        waiting = waiting.filter(pl.col("position") > end)
    return waiting


def _taught(told: pl.DataFrame) -> pl.DataFrame:
    """What of some events teaches a network; a rating that speaks against its item is a kind of its own."""
    heard = told.filter((pl.col("positive") | pl.col("against")) & (pl.col("item") >= 0))
    low = pl.col("against") & (pl.col("kind") == RATED)
    return heard.with_columns(kind=pl.when(low).then(pl.lit(LOW)).otherwise("kind")).select(*LEARNT)


def _start(learnt: Place | None, log: FeedbackLog, last: int, after: int | None) -> int:
    """The position after which a model reads a log."""
    if after is not None and not 0 <= after <= last:
        raise InputError(
            f"The event log {log.shown} goes up to position {last}: there is nothing after {after}."
        )
    if learnt is None or (learnt.log != log.identity and after is not None):
        return after or 0
    if learnt.log != log.identity:
        raise InputError(
            f"The model has learnt from another event log than {log.shown}, so its position says nothing "
            "here. Name that log, or say with --after up to which position of this one the model knows it "
            "already (0: nothing of it)."
        )
    if learnt.position > last and after is None:
        raise InputError(
            f"The model has read up to position {learnt.position}, and the event log {log.shown} goes up to "
            f"{last}: an older copy of it was brought back. Say with --after up to which position of it the "
            "model knows it already."
        )
    if after is not None and after < learnt.position <= last:
        raise InputError(
            f"The model has learnt up to position {learnt.position} of this log: after {after}, events would "
            "be learnt twice. Leave --after out."
        )
    return learnt.position if after is None else after


def _moves(learnt: Place | None, log: FeedbackLog, start: int) -> bool:
    """Whether positions a model has kept say nothing of a log: it is another, or an older copy."""
    return learnt is not None and (learnt.log != log.identity or start < learnt.position)


def _sorted_out(fitted: Fitted, events: pl.DataFrame) -> pl.DataFrame:
    """The events with what is made of each.

    The `kind` is in lower case, `item` a number (−1: unknown). It is `positive`, or speaks `against` the
    item, or neither; what was disliked or rated too low is `refused`, and not what was only passed by.
    """
    least = fitted.config.data.min_rating
    kinds = [name.lower() for name in events["event_type"].to_list()]
    values = events["value"].to_numpy()  # NaN where there is none
    enough = ~np.isnan(values) if least is None else values >= least
    positive = np.array([kind in POSITIVE for kind in kinds], dtype=np.bool_)
    rated, disliked, skipped = (np.array([kind == each for kind in kinds], dtype=np.bool_) for each in NAMED)
    low = rated & ~enough & ~np.isnan(values)
    return events.hstack([
        pl.Series("kind", kinds, dtype=pl.String),
        pl.Series("item", fitted.catalog.numbers(events["item_id"])),
        pl.Series("positive", positive & (enough | ~rated)),
        pl.Series("refused", disliked | low),
        pl.Series("against", disliked | low | skipped),
        events["timestamp"].rename("time"),
    ])


def _heeded(fitted: Fitted, told: pl.DataFrame) -> Fitted:
    """The model that keeps from people what they do not want, and no longer what they took to since."""
    if fitted.histories is None:  # nothing is kept under a name
        return fitted
    refusals = fitted.refusals.after(told.filter(pl.col("positive") | pl.col("refused")))
    return fitted if refusals is fitted.refusals else beside(fitted, refusals=refusals)


def _as_log(fitted: Fitted, events: pl.DataFrame) -> EventLog:
    """The events in the manner of the histories they join: with times, ratings and types if those have."""
    known = fitted.memories if fitted.histories is None else fitted.histories
    return build_log(
        events["user_id"],
        events["item"].to_numpy(),
        times=None if known is not None and known.times is None else events["timestamp"].to_numpy(),
        ratings=None
        if known is None or known.ratings is None
        else np.where(events["kind"].to_numpy() == RATED, events["value"].to_numpy(), np.nan),
        event_types=None if known is None or known.kinds is None else events["event_type"],
    )
