"""`llm4rec demo`: the main job on real data, from nothing to a model, a table and a list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm4rec.cli import console
from llm4rec.errors import LLM4RecError

if TYPE_CHECKING:
    from llm4rec.bench.job import Study
    from llm4rec.bench.report import Shown
    from llm4rec.recommender import Recommender

DATA = "ml-100k"
MODELS = ("ours", "ease", "itemknn", "popularity")
SHOWN = 10
SETTINGS: tuple[str, ...] = (
    "train.epochs=20",
    "train.attention_epochs=2",
)
"""Settings that keep the demo within ten minutes on two cores; what the person sets comes after them."""


def demo(
    out: Annotated[Path, typer.Option(help="Directory for data, model, runs and report.")] = Path("demo"),
    settings: console.Settings = [],  # noqa: B006  # typer copies defaults
    json: console.Json = False,
) -> None:
    """The main job on real data, from nothing to a report.

    Gets MovieLens-100K, fits a model, measures it beside baselines, and recommends to one person, saying why.

    Leaves OUT/model and OUT/report.html. If it is interrupted, the same command goes on where it was.
    """
    from llm4rec import config as configuration
    from llm4rec.bench import job, render, report, tables
    from llm4rec.bench import run as runs
    from llm4rec.cli.bench import plan_facts
    from llm4rec.recommender import Config, Recommender

    report.check_place(out)
    config = configuration.load(Config, settings=[*SETTINGS, *settings])
    with console.progress() as shows:
        folder = out / "data"
        if not (folder / "interactions.parquet").exists():
            from llm4rec.data import sources

            for sentence in sources.get(DATA, folder, progress=shows):
                console.note(sentence)
        source = job.Source.folder(folder)
        study = job.read(source, "leave-last-out", config.data, shows)
        plan = runs.Plan(source, "leave-last-out", MODELS, 1, config, out, keep=out / "model")
        results, failures = runs.run(plan, say=console.note, progress=shows)
    if failures:
        raise LLM4RecError(" ".join(f"{failed.model}: {failed.reason}" for failed in failures))
    table = tables.summarise(results, plan_facts(source, study, 1))
    recommender = Recommender.load(out / "model")
    shown = _person(recommender, study)
    document = report.write(table, out, shown=shown)
    if json:
        console.answer(document | {"person": vars(shown), "model": str(out / "model")})
        return
    for grid in render.grids(table)[:2]:
        typer.echo(render.as_text(grid))
    history, recommended, reasons = (
        map(console.printable, texts) for texts in (shown.history, shown.recommended, shown.reasons)
    )
    typer.echo(f"Person {console.printable(shown.person)}, whose latest films are:")
    typer.echo("".join(f"      {title}\n" for title in history))
    typer.echo("is recommended:")
    for rank, (title, reason) in enumerate(zip(recommended, reasons, strict=True), start=1):
        typer.echo(f"  {rank:>2}  {title}\n      {reason}")
    typer.echo("")
    typer.echo(f"The model is in {out / 'model'}, the report in {out / 'report.html'}.")


def _person(recommender: Recommender, study: Study) -> Shown:
    """The first person asked, all they did, what they may like next, and why."""
    from llm4rec.bench.report import Shown
    from llm4rec.types import Query

    row = int(study.split.test.rows[0])
    log = study.data.log
    history = study.catalog.ids[log.history(row)].to_list()
    query = Query(history=tuple(history))
    ranking = recommender.recommend(query, SHOWN)
    titles = dict(zip(study.catalog.ids, study.catalog.titles, strict=True))
    return Shown(
        person=str(log.user_ids[row]),
        history=tuple(titles[item] for item in reversed(history[-SHOWN // 2 :])),
        recommended=tuple(titles[item] for item in ranking.item_ids),
        reasons=tuple(why.text for why in recommender.explain_each(query, ranking.item_ids)),
    )
