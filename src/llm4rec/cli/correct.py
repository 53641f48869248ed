"""`llm4rec correct`: what a person says they want more or less of, kept in a fitted model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llm4rec.cli import console
from llm4rec.cli.explain import profile_lines
from llm4rec.cli.notes import note_unknown_person
from llm4rec.errors import InputError


def correct(
    model: Annotated[Path, typer.Option(help="Model directory, as written by fit.")],
    user: Annotated[str, typer.Option(help="The person by name, also one the model does not know.")],
    more: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="What they want more of, such as genre=Comedy. Repeatable."),
    ] = None,
    less: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="What they want less of. Repeatable.")
    ] = None,
    undo: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Of what they take back what they said. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where to write; in the place of MODEL by default.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Keep what a person says they want more or less of.

    It changes what they are recommended from the next answer on; nothing is trained. What the model takes
    them to like is printed as it is then (`explain --user` prints it at any time), also what they said.
    """
    from llm4rec.keeping import KIND
    from llm4rec.recommender import Recommender
    from llm4rec.store import artefact
    from llm4rec.store.alone import alone
    from llm4rec.types import Query

    said = [console.aspects(given, f"--{name}") for name, given in (("more", more), ("less", less))]
    back = console.aspects(undo, "--undo")
    if not any((*said, back)):
        raise InputError("Say what to correct: --more, --less or --undo, each with a FIELD=VALUE.")
    place = out or model
    with alone(place):
        recommender = Recommender.load(model)
        artefact.check_place(place, KIND)
        note_unknown_person(recommender, user)
        changed = recommender.correct(user, more=said[0], less=said[1], undo=back)
        held = {(each.field, each.value) for each in recommender.profile(Query(user=user)) if each.corrected}
        for name, value in back:
            if (name, value) not in held:
                console.note(f"Nothing was said of {name} = {value}: there is nothing to take back.")
        changed.save(place, by="correct", keep=changed.config.online.versions if place == model else 0)
    preferences = [asdict(each) for each in changed.profile(Query(user=user))]
    if json:
        console.answer({"user": user, "preferences": preferences, "model": str(place)})
        return
    typer.echo("\n".join(console.printable(line) for line in profile_lines(preferences)))
