"""`llm4rec recommend`: one person by name, by a bare history or by a wish, or many from a file."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm4rec.cli import console
from llm4rec.cli.batch import answer
from llm4rec.cli.notes import note_empty, note_unheard, note_unknown, note_unknown_person
from llm4rec.cli.wording import Llm, as_json, rewriter
from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.explain.rewording import Rewriter
    from llm4rec.recommender import Recommender
    from llm4rec.types import Query, Ranking

CHUNK = 4096  # requests ranked at once: bounds memory, whatever the size of the file

WANTED = "A value of a categorical field that is wanted {} this once; `correct` keeps it."


def recommend(  # noqa: PLR0913  # one parameter per option of the command
    model: Annotated[Path, typer.Option(help="Model directory, as written by fit.")],
    user: Annotated[
        str | None, typer.Option(help="A person by name; an unknown one gets a first list.")
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(help=f"Item ids, oldest first, with commas between; may be empty. {console.QUOTED}"),
    ] = None,
    text: Annotated[str | None, typer.Option(help="A wish in plain words.")] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When they ask: 2026-11-24T18:00 (in UTC, or name an offset), or UTC seconds.",
        ),
    ] = None,
    exclude: Annotated[
        str, typer.Option(help="Item ids that must not come back, written as for --history.")
    ] = "",
    allow: Annotated[
        str | None, typer.Option(help="The only item ids that may come back, written as for --history.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="Only items with this value of a categorical field. Repeatable: values of one field widen, "
            "fields narrow down.",
        ),
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help=f"{WANTED.format('more')} Repeatable.")
    ] = None,
    less: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help=f"{WANTED.format('less')} Repeatable.")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help="A table with request_id and history (a list, oldest first); optional timestamps, ratings, "
            "user_id, exclude, request_time."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Parquet file for the answers to --requests.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Length of each list.")] = 10,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Leave items of the history in.")] = False,
    reasons: Annotated[bool, typer.Option("--explain", help="Say why for each item.")] = False,
    language: Annotated[str | None, typer.Option(help="Of the reasons: en (default) or de.")] = None,
    llm: Llm = None,
    json: console.Json = False,
) -> None:
    """Recommend to one person, or to each of a file.

    Items and people the model has never seen are served from what is known of them; where nothing is
    known, recent popularity decides. A score is a log-probability (nats).
    """
    from llm4rec.recommender import Recommender

    if language is not None and not reasons:
        raise InputError("--language is that of the reasons: give --explain too.")
    if llm is not None and not reasons:
        raise InputError("--llm puts reasons into other words: give --explain too.")
    if requests is not None:
        if out is None:
            raise InputError("--requests needs --out, the Parquet file for the answers.")
        single = (user, history, text, at, allow)
        if exclude or where or more or less or any(one is not None for one in single):
            raise InputError(
                "--requests can't be joined with --user, --history, --text, --at, --exclude, --allow, "
                "--where, --more or --less."
            )
        console.check_not_read(out, "--out", {"--requests": requests})  # before the work, not after
        console.check_parquet(out, "--out")
        recommender = Recommender.load(model)
        answer(
            recommender,
            model,
            requests,
            out,
            n=n,
            keep_seen=keep_seen,
            language=(language or "en") if reasons else None,
            rewriter=rewriter(recommender, llm, language),
            json=json,
        )
        return
    if out is not None:
        raise InputError("--out belongs to --requests; a single answer is printed.")
    if user is None and history is None and text is None:
        raise InputError("Say for whom: --user U, --history a,b,c, --text 'a wish', or --requests FILE.")
    if user is not None and history is not None:
        raise InputError("Give --user or --history, not both: --user brings the stored history.")
    allowed = None if allow is None else tuple(console.names(allow, "--allow"))
    if allowed == ():
        raise InputError("--allow names no item: give ids with commas between, or leave it out to allow all.")
    from llm4rec.types import Context, Query

    query = Query(
        history=tuple(console.names(history or "", "--history")),
        user=user,
        text=text,
        exclude=tuple(console.names(exclude, "--exclude")),
        keep_seen=keep_seen,
        context=Context(None if at is None else utc_seconds(at)),
        allow=allowed,
        where=_where(where or []),
        more=console.aspects(more, "--more"),
        less=console.aspects(less, "--less"),
    )
    recommender = Recommender.load(model)
    words = rewriter(recommender, llm, language)
    rows = _one(recommender, query, n, (language or "en") if reasons else None, words)
    if json:
        console.answer({"recommendations": rows, "model": str(model)})
    else:
        typer.echo(as_text(rows) if rows else "There is no item left to recommend.")


def _where(pairs: list[str]) -> dict[str, list[str]]:
    """Field → values of FIELD=VALUE pairs."""
    found: dict[str, list[str]] = {}
    for name, value in console.aspects(pairs, "--where"):
        found.setdefault(name, []).append(value)
    return found


def utc_seconds(text: str, option: str = "--at") -> int:
    """UTC seconds of a time: ISO 8601, in UTC where it names no offset, or the seconds themselves.

    Raises:
        InputError: where it is neither, or lies outside 1970 to 2100.
    """
    from llm4rec.data.validate import LATEST

    text = text.strip()
    try:
        if re.fullmatch(r"[+-]?[0-9]+", text):
            seconds = int(text)
        else:
            time = datetime.fromisoformat(text)
            seconds = math.floor((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    except ValueError:
        raise InputError(
            f"{option} {text!r} is no time: give one such as 2026-11-24T18:00 (UTC), 2026-11-24T18:00+02:00 "
            "or UTC seconds."
        ) from None
    if not 0 <= seconds < LATEST:
        raise InputError(f"{option} {text} lies outside 1970 to 2100; times are UTC seconds or ISO 8601.")
    if re.fullmatch(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])", text):
        raise InputError(f"{option} {text} looks like a date: write {text[:4]}-{text[4:6]}-{text[6:]}.")
    return seconds


def _one(
    recommender: Recommender, query: Query, n: int, language: str | None, words: Rewriter | None
) -> list[dict[str, Any]]:
    """One list, ready for JSON, with reasons in a language where one is given."""
    note_unknown(recommender, "the history", query.history)
    note_unknown(recommender, "--allow", query.allow or ())
    note_unknown(recommender, "--exclude", query.exclude)
    for name, values in query.where.items():
        absent = [value for value in values if not len(recommender.catalog.having(name, [value]))]
        if absent:
            console.note(f"No item has {name} = {' or '.join(absent)}.")
    note_unknown_person(recommender, query.user)
    note_empty(query.text)
    note_unheard(recommender, query.context.time is not None)
    ranking = recommender.recommend(query, min(n, len(recommender.catalog)))
    rows = listed(recommender, ranking)
    if language is not None:
        reasons = recommender.explain_each(query, ranking.item_ids, language)
        for row, explanation in zip(rows, reasons, strict=True):
            text = None if words is None else words.reword(explanation, row["title"]).text
            row["explanation"] = as_json(explanation, text)
    return rows


def listed(recommender: Recommender, ranking: Ranking) -> list[dict[str, Any]]:
    """A ranking with ranks and titles, ready for JSON."""
    import polars as pl

    numbers = recommender.catalog.numbers(pl.Series(list(ranking.item_ids), dtype=pl.String))
    titles = recommender.catalog.titles[numbers].to_list()
    return [
        {"rank": rank, "item_id": item_id, "title": title, "score": float(score)}
        for rank, (item_id, title, score) in enumerate(
            zip(ranking.item_ids, titles, ranking.scores, strict=True), start=1
        )
    ]


def as_text(rows: list[dict[str, Any]]) -> str:
    """Aligned columns for a person: rank, score, item id, title; below a row why, where that was asked."""
    ids = [console.printable(row["item_id"]) for row in rows]
    titles = [console.printable(row["title"]) if row["title"] != row["item_id"] else "" for row in rows]
    width = max(map(len, ids))
    lines: list[str] = []
    for row, item_id, title in zip(rows, ids, titles, strict=True):
        lines.append(f"{row['rank']:>4}  {row['score']:>8.3f}  {item_id:<{width}}  {title}".rstrip())
        if "explanation" in row:
            lines.append(f"{'':16}{row['explanation']['text']}")
    return "\n".join(lines)
