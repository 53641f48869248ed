"""`llm4rec explain`: why an item, why not another, and what if the history were another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm4rec.cli import console
from llm4rec.cli.notes import note_empty, note_unheard, note_unknown, note_unknown_person
from llm4rec.cli.recommend import WANTED, utc_seconds
from llm4rec.cli.wording import Llm, as_json, rewriter
from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.explain.rewording import Rewriter
    from llm4rec.explaining import Standing
    from llm4rec.recommender import Recommender
    from llm4rec.types import Query

CALLED = {
    "history_item": "chosen before",
    "aspect": "a trait of several",
    "context": "a circumstance",
}
"""What to call each type of evidence, but for what was retrieved: that is called by its kind."""


def explain(  # noqa: PLR0913  # one parameter per option of the command
    model: Annotated[Path, typer.Option(help="Model directory, as written by fit.")],
    item: Annotated[
        str | None, typer.Option(help="The item, by its id. Without one, what the person is taken to like.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="A person by name.")] = None,
    history: Annotated[
        str | None,
        typer.Option(help=f"Item ids, oldest first, with commas between; may be empty. {console.QUOTED}"),
    ] = None,
    text: Annotated[str | None, typer.Option(help="A wish in plain words.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="When they ask, as for recommend.")] = None,
    more: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help=f"{WANTED.format('more')} Repeatable.")
    ] = None,
    less: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help=f"{WANTED.format('less')} Repeatable.")
    ] = None,
    than: Annotated[
        str | None, typer.Option(help="Another item, by its id: why the one rather than the other.")
    ] = None,
    language: Annotated[str, typer.Option(help="Of the texts: en or de.")] = "en",
    llm: Llm = None,
    json: console.Json = False,
) -> None:
    """Say why an item stands where it does for a person.

    Evidence is what moved its score, in nats, to first order and by one reading of the history. Each item of
    the history that is evidence is then taken out and everything scored again: that is where the item would
    stand without it. Without an item, the traits that somebody is expected to choose more of than others do.
    """
    from llm4rec.recommender import Recommender
    from llm4rec.types import Context, Query

    if user is None and history is None and text is None:
        raise InputError("Say for whom: --user U, --history a,b,c or --text 'a wish'.")
    if user is not None and history is not None:
        raise InputError("Give --user or --history, not both: --user brings the stored history.")
    if item is None and than is not None:
        raise InputError("--than needs --item, the item that it is compared with.")
    if item is None and llm is not None:
        raise InputError("--llm puts a reason into other words: give --item too.")
    query = Query(
        history=tuple(console.names(history or "", "--history")),
        user=user,
        text=text,
        context=Context(None if at is None else utc_seconds(at)),
        more=console.aspects(more, "--more"),
        less=console.aspects(less, "--less"),
    )
    recommender = Recommender.load(model)
    note_unknown(recommender, "the history", query.history)
    note_unknown_person(recommender, user)
    note_empty(text)
    note_unheard(recommender, query.context.time is not None)
    told: dict[str, Any]
    if item is None:
        told = {"preferences": [asdict(each) for each in recommender.profile(query)]}
    else:
        say = None if json else partial(typer.echo, nl=False)
        told = _told(recommender, query, item, language, rewriter(recommender, llm, language), say)
    if item is not None and than is not None:
        told["than"] = _contrast(recommender, query, item, than, language)
    if json:
        console.answer({**told, "model": str(model)})
    else:
        typer.echo("\n".join(console.printable(line) for line in _lines(told)))


def _told(
    recommender: Recommender,
    query: Query,
    item: str,
    language: str,
    words: Rewriter | None,
    say: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Why, and what if; `say` is given the words of a language model as they come."""
    explanation = recommender.explain(query, item, language)
    text = None if words is None else ""
    for sentence in () if words is None else words.stream(explanation, _title(recommender, item)):
        text = f"{text}{sentence}"
        if say is not None:
            say(console.printable(sentence))
    cited = [piece for piece in explanation.evidence if piece.type == "history_item"]
    now, *without = recommender.standings(query, item, [piece.id for piece in cited])
    return {
        "item_id": item,
        "title": _title(recommender, item),
        **_standing(now),
        "explanation": as_json(explanation, text),
        "without": [
            {"item_id": piece.id, "title": piece.label, **_standing(then)}
            for piece, then in zip(cited, without, strict=True)
        ],
        "fusion": _fusion(recommender, item),
    }


def _fusion(recommender: Recommender, item: str) -> dict[str, float] | None:
    """How much each modality weighs in the item's vector, equation (6); None where they are summed."""
    import polars as pl

    weights = recommender.modality_weights(recommender.catalog.numbers(pl.Series([item])))
    return None if weights is None else dict(zip(recommender.modalities, weights[0].tolist(), strict=True))


def _contrast(recommender: Recommender, query: Query, item: str, other: str, language: str) -> dict[str, Any]:
    text, evidence = recommender.contrast(query, item, other, language)
    (standing,) = recommender.standings(query, other)
    return {
        "item_id": other,
        "title": _title(recommender, other),
        **_standing(standing),
        "text": text,
        "evidence": [asdict(piece) for piece in evidence],
    }


def _title(recommender: Recommender, item: str) -> str:
    import polars as pl

    return recommender.catalog.titles[int(recommender.catalog.numbers(pl.Series([item]))[0])]


def _standing(standing: Standing) -> dict[str, Any]:
    return {"rank": standing.rank, "score": standing.score}


def _lines(told: dict[str, Any]) -> list[str]:
    """What is told, for a person."""
    from llm4rec.explain.writer import shown

    if "preferences" in told:
        return profile_lines(told["preferences"])
    said = "plain" in told["explanation"]  # as it came
    lines = ["" if said else told["explanation"]["text"], "", _stands(told)]
    lines += _table("   adds", told["explanation"]["evidence"])
    if told["without"] and told["rank"] is not None:
        lines += ["", "Without one of these it would stand"]
        lines += [f"{_rank(each['rank']):>7}  without {shown(each['title'])}" for each in told["without"]]
    if told["fusion"] is not None:
        shares = sorted(told["fusion"].items(), key=lambda pair: -pair[1])
        lines += [
            "",
            "What is known of it weighs: " + ", ".join(f"{name} {share:.0%}" for name, share in shares),
        ]
    if "than" in told:
        lines += ["", told["than"]["text"], _stands(told["than"])]
        lines += _table(" favour", told["than"]["evidence"], "the largest differences")
    return lines


def profile_lines(preferences: list[dict[str, Any]]) -> list[str]:
    """A profile for a person: shares, traits with what was said of them, and what they come from."""
    from llm4rec.explain.writer import shown

    if not preferences:
        return ["Nothing is expected to be chosen more than it is by others."]
    lines = [" share    usual  trait"]
    if not any(each["evidence"] for each in preferences):
        lines = ["Nothing is known of what they chose. Newcomers to this model:", *lines]
    for each in preferences:
        trait = f"{shown(each['value'])} ({each['field']})"
        if each["corrected"] is not None:
            trait += f", {each['corrected']} wanted"
        lines.append(f"{each['share']:>6.1%}  {each['usual']:>6.1%}  {trait}")
        titles = [shown(piece["label"]) for piece in each["evidence"]]
        if titles:
            lines.append(f"{'':16}because of {', '.join(titles)}")
    return lines


def _stands(told: dict[str, Any]) -> str:
    from llm4rec.explain.writer import shown

    title = shown(told["title"])
    if told["rank"] is None:
        return f"{title} can't be recommended here: it was chosen before, or has been retired."
    return f"{title} stands {_rank(told['rank'])} (log-probability {told['score']:.2f})."


def _rank(rank: int | None) -> str:
    return "nowhere" if rank is None else f"at {rank:,}"


def _table(head: str, evidence: list[dict[str, Any]], what: str = "evidence") -> list[str]:
    from llm4rec.explain.writer import shown

    if not evidence:
        return []
    lines = [f"{head}  {what}"]
    for piece in evidence:
        kind = piece["id"].partition(":")[0].replace("_", " ")
        called = f"{kind} found by it" if piece["type"] == "retrieved" else CALLED[piece["type"]]
        lines.append(f"{piece['contribution']:>+7.3f}  {shown(piece['label'])} ({called})")
    return lines
