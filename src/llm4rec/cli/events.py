"""`llm4rec events`: bring events into the event log, take them out, and say what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm4rec.cli import console
from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.store.eventlog import FeedbackLog


def events(  # noqa: PLR0913  # each an option
    events: Annotated[
        str, typer.Option(help="The event log: the path of an SQLite file, or postgresql://….")
    ],
    append: Annotated[
        str | None,
        typer.Option(help="Events to add, with times: a file or database URL, as for fit. Makes the log."),
    ] = None,
    columns: Annotated[
        list[str],
        typer.Option(
            "--map",
            help="Columns of --append by role: user=…,item=…,time=…,type=…,rating=…,value=…,event_id=…",
        ),
    ] = [],  # noqa: B006  # typer copies defaults
    rejected: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File for rows set aside; FILE.rejected.parquet by default."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Parquet file to write the events to; fit can read it."),
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Position after which --export begins.")] = 0,
    drop_before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Drop what is older, once every model that learns has read it."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Model whose place in the log is put down: what it has still to read is kept."),
    ] = None,
    json: console.Json = False,
) -> None:
    """Add events to an event log, export them, drop old ones; without an option, say what is there.

    An event whose event_id is there already is not added again. Where a file has no event ids, each row gets
    one made of what it says, so that the same file can be added again after an interruption. An event without
    a type is a rating where it has one, else a click. With --model the log is told how far a model has read
    it, as learn and rollback --events tell it; say so where an older copy of a model was brought back.
    """
    from llm4rec.cli.recommend import utc_seconds
    from llm4rec.data.columns import roles_of
    from llm4rec.store.eventlog import FeedbackLog

    mapping = roles_of(console.pairs(columns, "--map", "role=column"))
    if mapping and append is None:
        raise InputError("--map names columns of --append, and there is none.")
    if export is not None:
        console.check_parquet(export, "--export")
    oldest = None if drop_before is None else utc_seconds(drop_before, "--drop-before")
    with FeedbackLog.open(events, create=append is not None) as log:
        told: dict[str, Any] = {}
        if append is not None:
            told |= _append(log, append, mapping, rejected)
        if export is not None:
            told["exported"], told["exported_to"] = log.export(export, after)
        if model is not None:
            _tell(log, model)
        if oldest is not None:
            told["dropped"] = log.drop_before(oldest)
        told |= {"events": len(log), "position": log.position, "readers": log.readers}
        shown, identity = log.shown, log.identity
    if json:
        console.answer({"log": shown, "identity": identity} | told)
        return
    for sentence in _sentences(told):
        typer.echo(sentence)


def _tell(log: FeedbackLog, model: Path) -> None:
    """Tell a log after which position a model has still to read it."""
    from llm4rec import keeping
    from llm4rec.cli.versions import put_down

    place = keeping.unread(model)
    if place is None:
        raise InputError(f"The model in {model} has learnt from no event log: there is nothing to tell.")
    put_down(log, place)


def _sentences(told: Mapping[str, Any]) -> list[str]:
    said: list[str] = []
    if "added" in told:
        said.append(f"Added {told['added']} events; {told['known']} were there already.")
    if "exported" in told:
        said.append(f"Exported {told['exported']} events, up to position {told['exported_to']}.")
    if "dropped" in told:
        said.append(f"Dropped {told['dropped']} events.")
    behind = ", ".join(f"{name} at {position}" for name, position in told["readers"].items())
    readers = f" Models that learn from it: {behind}." if behind else ""
    said.append(f"The log holds {told['events']} events, the newest at position {told['position']}.{readers}")
    return said


def _append(
    log: FeedbackLog, source: str, mapping: Mapping[str, str], rejected: Path | None
) -> dict[str, Any]:
    """Add the events of a file, batch by batch: what is acknowledged stays where a later batch fails."""
    from llm4rec.data.feedback import read_feedback
    from llm4rec.store.eventlog import PAGE

    aside = rejected or _beside(source)
    console.check_parquet(aside, "--rejected")
    console.check_not_read(aside, "--rejected", {"--append": source})
    with console.progress() as report:
        report("read events", 0, 1)
        frame, bad, notes = read_feedback(source, mapping)
        report("read events", 1, 1)
        if console.set_aside(bad, aside):
            notes.append(f"The rows set aside are in {aside}, each with its reason.")
        for sentence in notes:
            console.note(sentence)
        added = 0
        for start in range(0, frame.height, PAGE):
            added += int(log.append(frame[start : start + PAGE]).sum())
            report("add events", min(start + PAGE, frame.height), frame.height)
    return {"added": added, "known": frame.height - added, "rejected": bad.height}


def _beside(source: str) -> Path:
    """Where rows of a source are set aside."""
    return console.beside(Path("events" if "://" in source else source), ".rejected.parquet")
