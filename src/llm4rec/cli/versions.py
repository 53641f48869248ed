"""`llm4rec versions` and `llm4rec rollback`: the earlier states of a model, and going back to one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm4rec.cli import console

if TYPE_CHECKING:
    from llm4rec.store.versions import Version

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

    artefact.read(model, KIND)
    found = kept.of(model, KIND)
    if json:
        console.answer({"model": str(model), "versions": [_document(each) for each in found]})
        return
    for each in found:
        told = _document(each)
        position = "" if told["position"] is None else f", event log up to {told['position']}"
        now = " (current)" if each.current else ""
        typer.echo(
            f"{each.number}{now}: {each.by or 'unknown'} at {each.created}, of {each.parent or 'nothing'}"
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
    json: console.Json = False,
) -> None:
    """Go back to an earlier version of a model: its content becomes a new version, the current one.

    The place in the event log comes back with it, so that the next learn reads the events since then again;
    with --keep-position it does not, and they are neither remembered nor trained on.
    """
    from llm4rec import keeping
    from llm4rec.recommender import Recommender
    from llm4rec.store.alone import alone

    with alone(model):
        keep = max(Recommender.load(model).config.online.versions, 1)
        now = keeping.roll_back(model, to, keep=keep, keep_position=keep_position)
    if json:
        console.answer({"model": str(model), **_document(now)})
        return
    position = _document(now)["position"]
    again = "" if position is None or keep_position else " The next learn reads the events after that again."
    where = "" if position is None else f" Its place in the event log is {position}.{again}"
    typer.echo(f"Version {now.number} of {model} is current: {now.by}.{where}")


def _document(version: Version) -> dict[str, Any]:
    place = version.meta.get("learnt")
    return {
        "number": version.number,
        "parent": version.parent or None,
        "by": version.by,
        "created": version.created,
        "current": version.current,
        "position": None if place is None else place["position"],
        "own_bytes": version.size,
    }
