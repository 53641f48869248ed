"""`llm4rec learn` and `llm4rec forget-user`: a model and the event log it learns from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm4rec.cli import console
from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.observing import Learnt
    from llm4rec.recommender import Recommender
    from llm4rec.store.eventlog import FeedbackLog

DOUBTED = 0.8
"""The weight of a kind of feedback below which it is said."""
Model = Annotated[Path, typer.Option(help="Model directory, as written by fit.")]


def learn(
    model: Model,
    events: Annotated[
        str, typer.Option(help="The event log: the path of an SQLite file, or postgresql://….")
    ],
    after: Annotated[
        int | None,
        typer.Option(
            help="Position up to which the model knows the log already, as `events --export` told of the "
            "file it was fitted on. Only for a model that has not learnt from this log before."
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Let a model learn what came to the event log since it last did.

    Clicks, views, likes, purchases and ratings (from data.min_rating on) become part of people's histories,
    of what is remembered to others, and of recent popularity. What somebody dislikes, or rates below that, is
    left out for them from then on, until they take to it; other kinds are counted. The network is trained on
    the former, its rating head (model.pointwise) also on what was disliked, rated low or skipped: a step for
    every online.batch_size positions of the log (with online.train=false none). The model is replaced as a
    whole together with its position in the log, at the end and every 8,192 positions (where it was just
    judged): after an interruption at any moment, the same command, without --after, goes on where the model
    stands, and ends with the same.
    """
    from llm4rec.recommender import Recommender
    from llm4rec.store.alone import alone
    from llm4rec.store.eventlog import FeedbackLog

    with FeedbackLog.open(events, create=False) as log, alone(model), console.progress() as report:
        before = Recommender.load(model)

        def save(found: Recommender, unfinished: bool = True) -> None:
            keep = found.config.online.versions
            found.save(model, by="learn", keep=keep, unfinished=unfinished)
            _tell(log, model)

        changed, told = before.learn(log, after=after, progress=report, each=save)
        # where somebody was forgotten, it is trained anew on what it has read already
        if told.place != before.fitted.learnt or changed.fitted.online is not before.fitted.online:
            report("write", 0, 1)
            save(changed, unfinished=False)
            report("write", 1, 1)
        else:
            _tell(log, model)
        shown = log.shown
    if told.gap:
        console.note(
            "Events were dropped from the log before the model had read them, or was trained on them: they "
            "are not learnt."
        )
    if told.unknown:
        console.note(
            f"{told.unknown} events on items that the model does not know were passed over: add the items "
            "(llm4rec items --add) before their events come."
        )
    if told.others:
        counts = ", ".join(f"{count} {kind!r}" for kind, count in told.others.items())
        console.note(f"Not remembered, since only what is positive is: {counts}.")
    if told.refused:
        console.note(
            f"{told.refused} of these say that somebody does not want an item: it is left out for them until "
            "they take to it."
        )
    if json:
        console.answer(_document(told, model, shown))
        return
    typer.echo(
        f"Read {told.read} events, positions {told.start + 1} to {told.place.position}; {told.learnt} of "
        f"{told.people} people are remembered now. The model is in {model}."
        if told.read
        else f"Nothing new: {model} has read the log up to position {told.place.position}."
    )
    if told.trained is not None:
        typer.echo(_of_training(told))


def _tell(log: FeedbackLog, model: Path) -> None:
    """Tell a log after which position a model has still to read it, where it learns from this one."""
    from llm4rec import keeping

    place = keeping.unread(model)
    if place is not None and place.log == log.identity:
        log.register(place.reader, place.position)


def _of_training(told: Learnt) -> str:
    assert told.trained is not None  # the caller has seen to it
    said = f"It is trained on up to position {told.trained}."
    if told.trained < told.place.position:
        said += " What came after that waits for a whole step."
    if told.undone:
        said += (
            f" What was trained was undone {told.undone} times, since held-out events were foreseen worse; "
            f"{told.mended} of these times it was kept once it had been learnt again."
        )
    if told.drifts:
        said += f" Drift was found {told.drifts} times."
    doubted = [kind for kind, of in told.kinds.items() if of["weight"] < DOUBTED]
    if doubted:
        said += f" Less is made of these kinds of feedback, which are foreseen badly: {', '.join(doubted)}."
    return said


def _document(told: Learnt, model: Path, shown: str) -> dict[str, Any]:
    return {
        "model": str(model),
        "events": shown,
        "start": told.start,
        "position": told.place.position,
        "read": told.read,
        "learnt": told.learnt,
        "people": told.people,
        "unknown_items": told.unknown,
        "not_positive": dict(told.others),
        "refused": told.refused,
        "gap": told.gap,
        "trained": told.trained,
        "undone": told.undone,
        "mended": told.mended,
        "drifts": told.drifts,
        "kinds": {kind: dict(of) for kind, of in told.kinds.items()},
    }


def forget_user(
    model: Model,
    user: Annotated[str, typer.Option(help="The person by name.")],
    events: Annotated[
        str | None, typer.Option(help="The event log, which a model that has learnt from one needs.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Forget a person: in the event log, and in the model what it keeps of them by name.

    Events, history, features, wishes, reviews, what others were told of them, and earlier versions of
    the model go. Where learn was taught by them, weights go back to where learning began, and the next learn
    trains anew without them. What the fit and counts made of them is in numbers that name nobody; it is gone
    with the next fit without them. Backups of either are not reached. Interrupted, the same command does the
    rest.
    """
    from llm4rec.recommender import Recommender
    from llm4rec.store.alone import alone
    from llm4rec.store.eventlog import FeedbackLog

    with alone(model):
        recommender = Recommender.load(model)
        learnt = recommender.fitted.learnt
        if events is None and learnt is not None:
            raise InputError(
                f"The model in {model} has learnt from an event log, which keeps the person's events: name "
                "it with --events."
            )
        erased = 0 if events is None else _erase(events, user, None if learnt is None else learnt.log)
        history = recommender.known_history(user)
        recommender.forget_user(user).save(model, by="forget-user")  # earlier versions hold the person
        if events is not None:
            with FeedbackLog.open(events, create=False) as log:
                _tell(log, model)  # what it taught is trained on anew
    known = 0 if history is None else history.n_events
    if json:
        console.answer({"user": user, "model": str(model), "log_events": erased, "model_events": known})
        return
    where = "" if events is None else f" and {erased} in the log"
    typer.echo(f"Forgot {console.printable(user)}: {known} events in the model's histories{where}.")


def _erase(events: str, user: str, learnt: str | None) -> int:
    """Remove a person from a log; says so where it is not the one a model has learnt from."""
    from llm4rec.store.eventlog import FeedbackLog

    with FeedbackLog.open(events, create=False) as log:
        if learnt not in (None, log.identity):
            console.note(
                f"The model has learnt from another event log than {log.shown}: the person's events in that "
                "one are still there."
            )
        return log.erase(user)
