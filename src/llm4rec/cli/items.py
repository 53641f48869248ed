"""`llm4rec items`: add, change and retire items of a fitted model, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm4rec.cli import console
from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.data.features import Declared
    from llm4rec.recommender import Recommender


def items(
    model: Annotated[Path, typer.Option(help="Model directory, as written by fit.")],
    add: Annotated[
        str | None,
        typer.Option(help="Items that are new or have changed: a file or database URL, as for fit."),
    ] = None,
    retire: Annotated[
        str,
        typer.Option(
            help=f"Item ids that are never to be recommended again, with commas between. {console.QUOTED}"
        ),
    ] = "",
    events: Annotated[
        str | None,
        typer.Option(
            help="All events since training, with times, as for fit: how often new items were taken in them "
            "counts for these from now on."
        ),
    ] = None,
    columns: console.Columns = [],  # noqa: B006  # typer copies defaults
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where to write; in the place of MODEL by default.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Add, change and retire items of a fitted model.

    New items are read from their content; nothing is trained. With --events, how often they were taken
    since they came counts too; what an earlier file said is replaced. Retired ones are never recommended
    again, though histories still read them; adding one again brings it back. Rows that can't be used are
    set aside in OUT.items.rejected.parquet and OUT.events.rejected.parquet.
    """
    from llm4rec.data.columns import roles_of
    from llm4rec.keeping import KIND
    from llm4rec.recommender import Recommender
    from llm4rec.store import artefact
    from llm4rec.store.alone import alone

    gone = console.names(retire, "--retire")
    if add is None and events is None and not gone:
        raise InputError("Say what changes: --add FILE, --events FILE, --retire a,b,c, or several of them.")
    mapping = roles_of(console.pairs(columns, "--map", "role=column"))
    idle = [f"{role}=…" for role in mapping if events is None and (add is None or role != "item")]
    if idle:
        what = "a column" if len(idle) == 1 else "columns"
        whose = "--events" if add is not None else "--add or --events"
        raise InputError(f"--map {','.join(idle)} names {what} of {whose}, and there is none.")
    place = out or model
    with alone(place):
        changed = recommender = Recommender.load(model)
        artefact.check_place(place, KIND)  # before the work, and before rows are set aside beside it
        told: dict[str, int] = {"rejected": 0}
        if add is not None:
            changed, told["rejected"] = _added(changed, add, mapping, place, alone=events is None)
        if events is not None:
            changed, counted = _counted(changed, events, mapping, place)
            told |= counted
        changed = changed.retire_items(gone)
        changed.save(place, by="items", keep=changed.config.online.versions if place == model else 0)
    n_new = len(changed.catalog) - len(recommender.catalog)
    n_retired = len(changed.catalog.retired)
    if json:
        known = {"model": str(place), "items": len(changed.catalog), "new": n_new, "retired": n_retired}
        console.answer(known | told)
        return
    typer.echo(
        f"{n_new} new items; the model in {place} knows {len(changed.catalog)}, {n_retired} of them retired."
    )


def _added(
    recommender: Recommender, add: str, mapping: Mapping[str, str], place: Path, *, alone: bool
) -> tuple[Recommender, int]:
    """The model with the items of a file, and how many of its rows were set aside.

    The mapping may be meant for the events, unless the file is `alone`.
    """
    from llm4rec.data.entities import read_entities

    kinds: dict[str, Declared] = {field.name: field.modality for field in recommender.catalog.fields}
    given, rejected, notes = read_entities(add, "item", mapping, kinds, must_map=alone)
    aside = console.beside(place, ".items.rejected.parquet")
    if console.set_aside(rejected, aside):
        notes.append(f"The rows set aside are in {aside}, each with its reason.")
    for sentence in notes:
        console.note(sentence)
    return recommender.upsert_items(given, note=console.note), rejected.height


def _counted(
    recommender: Recommender, events: str, mapping: Mapping[str, str], place: Path
) -> tuple[Recommender, dict[str, int]]:
    """The model with new items counted in a file of events, and what became of its rows."""
    import numpy as np

    from llm4rec.cli.evaluate import as_fitted
    from llm4rec.data.ingest import ingest

    with console.progress() as report:
        data = ingest(events, columns=mapping, config=as_fitted(recommender), progress=report)
    for sentence in data.report.notes:
        console.note(sentence)
    aside = console.beside(place, ".events.rejected.parquet")
    if console.set_aside(data.report.rejected, aside):
        console.note(f"The rows set aside are in {aside}, each with its reason.")
    log, _, left_out = data.numbered_by(recommender.catalog)
    if not log.n_events:
        raise InputError(f"No event of {events} is on an item the model knows. Are they the same ids?")
    if log.times is None:
        raise InputError(
            f"{events} has no times, and how often a new item was taken is told by those since it came: add "
            "a column of times, or name it with --map time=COLUMN."
        )
    if left_out:
        console.note(f"{left_out} events on items the model does not know were left out.")
    taken = int(np.isin(recommender.fitted.new_items, log.items).sum())
    console.note(f"New items that were taken in these events: {taken}.")
    return recommender.count_new_items(log), {
        "new_taken": taken,
        "events": log.n_events,
        "events_left_out": left_out,
        "events_rejected": data.report.rejected.height,
    }
