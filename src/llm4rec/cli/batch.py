"""Many requests out of a file, answered into another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llm4rec.cli import console
from llm4rec.cli.notes import note_unheard
from llm4rec.cli.wording import as_json

if TYPE_CHECKING:
    import polars as pl

    from llm4rec.data.events import EventLog
    from llm4rec.explain.rewording import Rewriter
    from llm4rec.recommender import Recommender
    from llm4rec.types import Ints, Rankings

CHUNK, EXPLAINED = 4096, 64
"""Requests ranked at once, and with reasons: bounds memory, and the time between two signs of life."""


def answer(  # noqa: PLR0913  # what a person asked for
    recommender: Recommender,
    model: Path,
    requests: Path,
    out: Path,
    *,
    n: int,
    keep_seen: bool,
    language: str | None,
    rewriter: Rewriter | None,
    json: bool,
) -> None:
    """Answer the requests of a file into `out`, with reasons in a language where one is given."""
    import numpy as np
    import polars as pl

    from llm4rec.data.requests import read_requests
    from llm4rec.store import files

    names, histories, exclude = read_requests(str(requests), recommender.catalog, console.note)
    note_unheard(recommender, histories.asked_at is not None)
    n = min(n, len(recommender.catalog))  # a longer list only takes memory
    schema = _answered() | ({} if language is None else _explained(rewriter))
    parts: list[pl.DataFrame] = []
    size = CHUNK if language is None else EXPLAINED
    with console.progress() as report:
        for start in range(0, len(names), size):
            rows = np.arange(start, min(start + size, len(names)))
            asked = histories.histories(rows, histories.lengths[rows])
            unwanted = exclude.histories(rows, exclude.lengths[rows])
            found: list[pl.DataFrame] = []
            for some, known in _by_history(recommender, asked):
                left_out = unwanted.histories(some, unwanted.lengths[some])
                ranked = recommender.recommend_many(known, left_out, n, keep_seen=keep_seen)
                table = _table(recommender, rows[some], names, known, ranked, language, rewriter)
                found.append(table.cast({"row": pl.Int64, **schema}))
            parts.append(pl.concat(found).sort("row", maintain_order=True).drop("row"))
            report("recommend", int(rows[-1]) + 1, len(names))
    whole = pl.concat(parts)
    files.write_parquet(whole, out)
    if json:
        console.answer({"requests": len(names), "rows": whole.height, "out": str(out), "model": str(model)})
    else:
        typer.echo(f"{len(names)} requests answered with {whole.height} rows in {out}.")


def _answered() -> dict[str, Any]:
    """The columns of answers, and of what kind each is."""
    import polars as pl

    return {"request_id": pl.String, "rank": pl.Int64, "item_id": pl.String, "score": pl.Float32}


def _explained(rewriter: Rewriter | None) -> dict[str, Any]:
    """The columns of reasons; where they are put into other words, the plain ones too."""
    import polars as pl

    piece = {"type": pl.String, "id": pl.String, "label": pl.String, "contribution": pl.Float64}
    weights = {"preference": pl.Float64, "similarity": pl.Float64, "context": pl.Float64}
    return {
        "kind": pl.String,
        "text": pl.String,
        **({} if rewriter is None else {"plain": pl.String}),
        "weights": pl.Struct(weights),
        "evidence": pl.List(pl.Struct(piece)),
    }


def _by_history(recommender: Recommender, asked: EventLog) -> Iterator[tuple[Ints, EventLog]]:
    """Requests and histories; of one who is named and gives none, the stored one, as for --user."""
    import numpy as np

    stored = recommender.known_histories(asked.user_ids)
    by_name = (asked.lengths == 0) & (stored.lengths > 0)
    for rows, log in ((np.flatnonzero(~by_name), asked), (np.flatnonzero(by_name), stored)):
        if len(rows):
            asked_at = None if asked.asked_at is None else asked.asked_at[rows]
            yield rows, replace(log.histories(rows, log.lengths[rows]), asked_at=asked_at)


def _table(  # what a row of the answers is made of
    recommender: Recommender,
    requests: Ints,
    names: pl.Series,
    histories: EventLog,
    ranked: Rankings,
    language: str | None,
    rewriter: Rewriter | None,
) -> pl.DataFrame:
    """The answers to some requests, whose rows of the file come first."""
    import numpy as np
    import polars as pl

    row, place = np.nonzero(ranked.items >= 0)
    found: dict[str, Any] = {
        "row": requests[row],
        "request_id": names[requests[row]],
        "rank": place + 1,
        "item_id": recommender.catalog.ids[ranked.items[row, place]],
        "score": ranked.scores[row, place],
    }
    if language is not None:
        told = recommender.explain_many(histories, ranked, language)
        titles = recommender.catalog.titles[ranked.items[row, place]].to_list()
        rows = [
            as_json(each, None if rewriter is None else rewriter.reword(each, title).text)
            for each, title in zip(told, titles, strict=True)
        ]
        for name, kind in _explained(rewriter).items():
            found[name] = pl.Series([each[name] for each in rows], dtype=kind)
    return pl.DataFrame(found)
