"""`llm4rec audit`: selection, popularity and fairness of a fitted model, before and after corrections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm4rec.cli import console
from llm4rec.cli.evaluate import Protocol, place_aside, questions

if TYPE_CHECKING:
    from llm4rec.audit.report import Audit
    from llm4rec.data.catalog import Catalog
    from llm4rec.data.split import Cases, Split
    from llm4rec.recommender import Recommender
    from llm4rec.types import Progress


def audit(  # noqa: PLR0913  # one parameter per option of the command
    model: Annotated[Path, typer.Option(help="Model directory, as written by fit.")],
    interactions: Annotated[str, typer.Option(help="Whole histories up to the events that are asked about.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Directory for the report.")],
    users: Annotated[
        str | None,
        typer.Option(help="People with their attributes, as for fit; those of the model by default."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Columns that people are grouped by, with commas between; the protected by default."
        ),
    ] = "",
    protocol: Annotated[
        Protocol,
        typer.Option(help="What is asked: each person's last event, all after a date, or a `split` column."),
    ] = Protocol.LEAVE_LAST_OUT,
    epsilon: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Largest difference of exposure by category between groups of people, in lists that are "
            "ranked anew.",
        ),
    ] = 0.02,
    cases: Annotated[int, typer.Option(min=1, help="The most questions, drawn at random.")] = 5_000,
    columns: console.Columns = [],  # noqa: B006  # typer copies defaults
    rejected: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="File for rows set aside; MODEL.audit.rejected.parquet by default."
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Hold a model to account: what it owes to selection and popularity, and how groups are served.

    Selection: accuracy with answers weighed by how likely they were to be seen. Popularity and variety: the
    lists at several strengths of each correction, and what it costs. Fairness: by attribute of people, who is
    shown what, how often the list holds what they take next, and whether the attribute can be read from the
    model's states; by category and popularity of items; over time. Leaves OUT/audit.html, audit.md and
    audit.json.
    """
    from llm4rec.audit import report
    from llm4rec.recommender import Recommender

    aside = place_aside(model, "audit", interactions, rejected)
    report.check_place(out)
    recommender = Recommender.load(model)
    mapping = console.pairs(columns, "--map", "role=column")
    with console.progress() as progress:
        people, said = _people(recommender, users, mapping)
        named = console.names(by, "--by")
        split, notes = questions(recommender, interactions, protocol, mapping, aside, progress)
        found = _audited(recommender, split, people, named, [*said, *notes], cases, epsilon, progress)
        out.mkdir(parents=True, exist_ok=True)
        document = report.write(found, out)
    if json:
        console.answer(document | {"report": str(out / "audit.html")})
        return
    from llm4rec.bench.render import as_text

    for sentence in found.notes:
        console.note(sentence)
    for grid in report.grids(found):
        typer.echo("\n".join(map(console.printable, as_text(grid).split("\n"))))
    typer.echo(f"The report is {out / 'audit.html'}.")


def _people(
    recommender: Recommender, users: str | None, mapping: dict[str, str]
) -> tuple[Catalog | None, list[str]]:
    """The table of people, and sentences on what was set aside of it."""
    from llm4rec.data.columns import roles_of
    from llm4rec.data.entities import read_entities

    if users is None:
        return recommender.fitted.people, []
    data = recommender.config.data
    people, rejected, notes = read_entities(users, "user", roles_of(mapping), data.modalities, data.protected)
    if len(rejected):
        notes = [*notes, f"{len(rejected)} rows of {users} can't be used and were passed over."]
    return people, notes


def _audited(  # a model, what it is asked, and of whom
    model: Recommender,
    split: Split,
    people: Catalog | None,
    named: list[str],
    notes: list[str],
    most: int,
    epsilon: float,
    progress: Progress,
) -> Audit:
    from dataclasses import replace

    import polars as pl

    from llm4rec.audit import fairness, selection, strengths
    from llm4rec.audit.report import Audit
    from llm4rec.choosing import sample
    from llm4rec.debias.popularity import Popularity, PopularityConfig
    from llm4rec.debias.selection import said
    from llm4rec.errors import InputError
    from llm4rec.evaluate.protocol import evaluate
    from llm4rec.recommender import Recommender

    attributes = fairness.attributes(people, named, model.config.data.protected)
    if not attributes:
        notes = [*notes, "Nothing protected is known of people: name columns of --users by --by."]
    if not split.train.n_events:
        raise InputError(
            "There are no events before those that are asked about, and popularity is counted in them: give "
            "whole histories, with rows of the split `train` where it is given."
        )
    asked = sample(split.test, most, 0)
    values: list[pl.Series] = []
    if people is not None:
        rows = pl.Series(people.numbers(asked.log.user_ids)).cast(pl.Int64)
        here = rows.set(rows < 0, None)  # a stranger has no value
        values = [people.table[name].gather(here) for name in attributes]
    if not model.fitted.popularity.known:
        counted = Popularity.of(split.train, len(model.catalog), PopularityConfig())
        model = Recommender(replace(model.fitted, popularity=counted))
        notes = [*notes, "The model has no counts of its items: popularity is that of the events given here."]
    if model.meta.get("selection"):
        notes = [*notes, said(model.meta["selection"])]
    found = evaluate(
        model, asked, train=split.train, catalog=model.catalog, ks=(10,), n=20, progress=progress
    )
    grouped = fairness.item_groups(model.catalog, split.train)
    ways = {"as it is": fairness.measure(model, found, asked, grouped, values)}
    if values:
        way = f"{grouped[0].kind} held at {epsilon:g}"
        ways[way] = fairness.held(model, asked, grouped, values, epsilon)
    return Audit(
        selection=tuple(selection.measure(found, asked, split.train)),
        curves={
            name: tuple(strengths.curve(model, asked, split.train, name, progress=progress))
            for name in strengths.STRENGTHS
        },
        fairness=ways,
        facts=_facts(model, asked, split),
        notes=tuple(notes),
        logged=selection.logged(asked) is not None,
    )


def _facts(model: Recommender, asked: Cases, split: Split) -> dict[str, str]:
    import numpy as np

    import llm4rec

    return {
        "questions": f"{len(asked)} of {len(split.test)}, to {len(np.unique(asked.rows))} people "
        f"({split.protocol}); the whole catalogue ranked, seen items left out",
        "the model's own strengths": f"popularity {model.fitted.popularity.strength:g}, "
        f"diversity {model.config.rerank.diversity:g}",
        "intervals": "95%, bootstrap over people; of weighed accuracy normal, over people",
        "version": llm4rec.__version__,
    }
