"""`llm4rec data get`: a known data set, in the three tables every other command reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm4rec.cli import console


def get(
    name: Annotated[
        str, typer.Argument(help="Data set, such as ml-100k or amazon-2014/Beauty; a wrong name lists all.")
    ],
    out: Annotated[Path, typer.Option(help="Directory for interactions, items and users (.parquet).")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Folder with the publisher's files, already downloaded."),
    ] = None,
    json: console.Json = False,
) -> None:
    """Get a data set as interactions.parquet, items.parquet and users.parquet."""
    from llm4rec.data import sources

    with console.progress() as report:
        notes = sources.get(name, out, source_dir=source, progress=report)
    files = sorted(path.name for path in out.glob("*.parquet"))
    if json:
        console.answer({"name": name, "out": str(out), "files": files, "notes": notes})
        return
    for sentence in notes:
        console.note(sentence)
    typer.echo(f"{name} is in {out}: {', '.join(files)}.")
