"""`llm4rec items`: add, change and retire items of a fitted model, without training."""

from __future__ import annotations

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
    set aside in OUT.rejected.parquet and OUT.events.rejected.parquet.
    """
    from llm4rec.data.entities import read_entities
    from llm4rec.recommender import Recommender

    gone = console.names(retire, "--retire")
    if add is None and events is None and not gone:
        raise InputError("Say what changes: --add FILE, --events FILE, --retire a,b,c, or several of them.")
    place = out or model
    changed = recommender = Recommender.load(model)
    n_rejected = 0
    if add is not None:
        kinds: dict[str, Declared] = {field.name: field.modality for field in recommender.catalog.fields}
        given, rejected, notes = read_entities(add, "item", {}, kinds)
        n_rejected = console.set_aside(rejected, console.beside(place, ".rejected.parquet"))
        for sentence in notes:
            console.note(sentence)
        changed = changed.upsert_items(given, note=console.note)
    if events is not None:
        changed = _counted(changed, events, columns, place)
    changed = changed.retire_items(gone)
    changed.save(place)
    n_new = len(changed.catalog) - len(recommender.catalog)
    n_retired = len(changed.catalog.retired)
    if json:
        console.answer({
            "model": str(place),
            "items": len(changed.catalog),
            "new": n_new,
            "retired": n_retired,
            "rejected": n_rejected,
        })
        return
    typer.echo(
        f"{n_new} new items; the model in {place} knows {len(changed.catalog)}, {n_retired} of them retired."
    )


def _counted(recommender: Recommender, events: str, columns: list[str], place: Path) -> Recommender:
    """The model with new items counted in a file of events."""
    from llm4rec.data.ingest import ingest

    mapping = console.pairs(columns, "--map", "role=column")
    config = recommender.config.data.model_copy(update={"k_core": 0})  # few have taken what is new
    with console.progress() as report:
        data = ingest(events, columns=mapping, config=config, progress=report)
    for sentence in data.report.notes:
        console.note(sentence)
    aside = console.beside(place, ".events.rejected.parquet")
    if console.set_aside(data.report.rejected, aside):
        console.note(f"They are in {aside}, each with its reason.")
    log, _, left_out = data.numbered_by(recommender.catalog)
    if not log.n_events:
        raise InputError(f"No event of {events} is on an item the model knows. Are they the same ids?")
    if left_out:
        console.note(f"{left_out} events on items the model does not know were left out.")
    counted = recommender.count_new_items(log)
    console.note(f"New items that were taken in these events: {len(counted.fitted.arrivals.items)}.")
    return counted
