"""`llm4rec versions` and `llm4rec rollback`: the earlier states of a model, and going back to one."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm4rec.cli import console
from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.store.eventlog import FeedbackLog
    from llm4rec.store.versions import Version
    from llm4rec.types import Place

Model = Annotated[Path, typer.Option(help="Model directory, as written by fit.")]


def versions(model: Model, json: console.Json = False) -> None:
    """List the states of a model: the current one, and those before it that are kept.

    Every command that changes a model (learn, refit, items, correct, rollback) leaves the state before as an
    earlier version, online.versions of them (5). What two states have in common lies on the disk once.
    forget-user drops all earlier ones, since they hold the person.
    """
    from llm4rec.keeping import KIND
    from llm4rec.store import artefact
    from llm4rec.store import versions as kept
    from llm4rec.store.steady import steady

    def read() -> list[Version]:
        artefact.read(model, KIND)  # says what is wrong with it
        return kept.of(model, KIND)

    found = steady(model, read)
    if json:
        console.answer({"model": str(model), "versions": [_document(each) for each in found]})
        return
    for each in found:
        told = _document(each)
        position = "" if told["position"] is None else f", event log up to {told['position']}"
        now = " (current)" if each.current else ""
        by = (each.by or "unknown") + (", which was stopped," if each.unfinished else "")
        typer.echo(
            f"{each.number}{now}: {by} at {each.created}, of {each.parent or 'nothing'}"
            f"{position}, {each.size:,} bytes of its own"
        )


def rollback(
    model: Model,
    to: Annotated[
        int | None, typer.Option(min=1, help="Number of the version; that before the current one by default.")
    ] = None,
    keep_position: Annotated[
        bool,
        typer.Option(
            "--keep-position",
            help="Never learn again what was learnt from the event log since that version.",
        ),
    ] = False,
    events: Annotated[
        str | None,
        typer.Option(
            help="The event log the model learns from, which then drops nothing that is read again."
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Go back to an earlier version of a model: its content becomes a new version, the current one.

    The place in the event log comes back with it, so that the next learn reads the events since then again;
    with --keep-position it does not, and they are neither remembered nor trained on. A version that had
    learnt from no log reads it from the beginning: where it was fitted on an export of it, say so with learn
    --after N. Name the log with --events: it is told before the model is replaced, so that it keeps those
    events.
    """
    from llm4rec import keeping
    from llm4rec.recommender import Recommender
    from llm4rec.store.alone import alone
    from llm4rec.store.eventlog import FeedbackLog

    log = None if events is None else FeedbackLog.open(events, create=False)
    with nullcontext() if log is None else log, alone(model):
        before = keeping.unread(model)
        keep = max(Recommender.load(model).config.online.versions, 1)
        tell = None if log is None else partial(put_down, log)
        now = keeping.roll_back(model, to, keep=keep, keep_position=keep_position, tell=tell)
        after = keeping.unread(model)
    gone = before is not None and after is not None and _is_before(after, before)
    if log is None and gone:
        console.note(
            "The event log was not told that the model has gone back, and may drop what is to be read again. "
            f"Tell it: llm4rec events --events URL --model {shlex.quote(str(model))}"
        )
    if json:
        console.answer({"model": str(model), **_document(now)})
        return
    position = _document(now)["position"]
    again = "" if position is None or keep_position else " The next learn reads the events after that again."
    where = "" if position is None else f" Its place in the event log is {position}.{again}"
    if position == 0 and not keep_position:
        where += (
            " It had learnt from no log: where it was fitted on an export of it, say so with learn --after N."
        )
    typer.echo(f"Version {now.number} of {model} is current: {now.by}.{where}")


def _is_before(place: Place, other: Place) -> bool:
    """Whether a log has to be kept from an earlier position on, or another log."""
    return place.log != other.log or place.position < other.position


def put_down(log: FeedbackLog, place: Place) -> None:
    """Tell a log after which position a model has still to read it.

    Raises:
        InputError: where the model learns from another log.
    """
    if place.log != log.identity:
        raise InputError(
            f"The model learns from another event log than {log.shown}: name that one with --events."
        )
    log.register(place.reader, place.position)
    if log.dropped > place.position:
        console.note(
            f"Events up to position {log.dropped} were dropped from the log already, and the model has read "
            f"it up to {place.position}: those between are not learnt again."
        )


def _document(version: Version) -> dict[str, Any]:
    place = version.meta.get("learnt")
    return {
        "number": version.number,
        "parent": version.parent or None,
        "by": version.by,
        "unfinished": version.unfinished,
        "created": version.created,
        "current": version.current,
        "position": None if place is None else place["position"],
        "own_bytes": version.size,
    }
