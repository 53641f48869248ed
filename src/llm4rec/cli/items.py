"""`llm4rec items`: add, change and retire items of a fitted model, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm4rec.cli import console
from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.data.features import Declared


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
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where to write; in the place of MODEL by default.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Add, change and retire items of a fitted model.

    New items are read from their content; nothing is trained. Retired ones are never recommended again,
    though histories still read them; adding one again brings it back. Rows without a usable id are set
    aside in OUT.rejected.parquet.
    """
    from llm4rec.data.entities import read_entities
    from llm4rec.recommender import Recommender

    gone = console.names(retire, "--retire")
    if add is None and not gone:
        raise InputError("Say what changes: --add FILE, --retire a,b,c, or both.")
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
