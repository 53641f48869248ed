"""`llm4rec evaluate`: a fitted model, asked about events it has not been shown."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm4rec.cli import console
from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.data.events import EventLog
    from llm4rec.data.ingest import DataConfig
    from llm4rec.data.split import Cases, Parts, Split
    from llm4rec.evaluate.protocol import Evaluation
    from llm4rec.recommender import Recommender
    from llm4rec.types import Progress


class Protocol(StrEnum):
    """How the questions are drawn from the events."""

    LEAVE_LAST_OUT = "leave-last-out"
    GLOBAL_TIME = "global-time"
    GIVEN = "given"


def evaluate(  # one parameter per option of the command
    model: Annotated[Path, typer.Option(help="Model directory, as written by fit.")],
    interactions: Annotated[str, typer.Option(help="Whole histories up to the events that are asked about.")],
    protocol: Annotated[
        Protocol,
        typer.Option(help="What is asked: each person's last event, all after a date, or a `split` column."),
    ] = Protocol.LEAVE_LAST_OUT,
    columns: console.Columns = [],  # noqa: B006  # typer copies defaults
    rejected: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="File for rows set aside; MODEL.evaluate.rejected.parquet by default."
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Score a model on the events of a file.

    The whole catalogue is ranked, seen items left out, so that an answer which repeats an item of its own
    history counts as missed. People the model does not know are scored like all others. Events on items
    outside the model's catalogue can't be answered and are left out, with a count.
    """
    from llm4rec.evaluate.protocol import evaluate as score
    from llm4rec.recommender import Recommender

    aside = place_aside(model, "evaluate", interactions, rejected)
    recommender = Recommender.load(model)
    mapping = console.pairs(columns, "--map", "role=column")
    with console.progress() as report:
        split, notes = questions(recommender, interactions, protocol, mapping, aside, report)
        result = score(
            recommender, split.test, train=split.train, catalog=recommender.catalog, progress=report
        )
    _show(_summary(result, model, protocol, notes), json)


def place_aside(model: Path, command: str, interactions: str, rejected: Path | None) -> Path:
    """Where rows that can't be used are set aside, checked before the work.

    Raises:
        InputError: where that is a file which is read, or no Parquet file.
    """
    from llm4rec.store import artefact

    aside = rejected or console.beside(model, f".{command}.rejected.parquet")
    console.check_not_read(aside, "--rejected", {"--interactions": interactions})
    if rejected is None:
        artefact.check_outside(aside)
    else:
        console.check_parquet(rejected, "--rejected")
    return aside


def questions(  # where events come from, how they are read, where rows are set aside
    recommender: Recommender,
    interactions: str,
    protocol: Protocol,
    mapping: dict[str, str],
    aside: Path,
    report: Progress,
) -> tuple[Split, list[str]]:
    """What a model is asked about the events of a file, and what there is to know about it, in sentences.

    Raises:
        InputError: where there is nothing to ask.
    """
    from llm4rec.data.ingest import ingest

    data = ingest(interactions, columns=mapping, config=as_fitted(recommender), progress=report)
    log, parts, left_out = data.numbered_by(recommender.catalog)
    if not log.n_events:
        raise InputError(
            f"None of the {left_out} events of {interactions} is on an item the model knows. "
            "Are they the same ids?"
        )
    split = _split(protocol, log, parts)
    if not len(split.test):
        unknown = f" {left_out} more are on items the model does not know." if left_out else ""
        raise InputError(
            f"The {log.n_events} events hold nothing to ask about under --protocol {protocol}: "
            f"leave-last-out needs people with three events or more, given needs test rows.{unknown}"
        )
    notes = list(data.report.notes)
    if console.set_aside(data.report.rejected, aside):
        notes.append(f"The rows set aside are in {aside}, each with its reason.")
    if known := _known_answers(recommender, split):
        notes.append(
            f"{known} of the {len(split.test)} answers are in the histories the model keeps: its figures are "
            "too good, unless a `split` column kept these events from its training. Fit without them, or "
            "evaluate on later ones."
        )
    if repeated := _repeats(split.test):
        notes.append(
            f"{repeated} of the {len(split.test.targets)} right answers repeat an item of their own history: "
            "seen items are not ranked, so these count as missed."
        )
    if left_out:
        notes.append(f"{left_out} events on items outside the model's catalogue were left out.")
    return split, notes


def as_fitted(recommender: Recommender) -> DataConfig:
    """Which events count for a fitted model: those that its training counted, with nothing too new."""
    config = recommender.config.data.model_copy(update={"k_core": 0})
    if config.min_rating is not None:
        console.note(
            f"The model was fitted with data.min_rating = {config.min_rating:g}, which holds here too: "
            "events rated below it do not count."
        )
    return config


def _known_answers(recommender: Recommender, split: Split) -> int:
    """How many cases have an answer that the model's own history of that person holds.

    Something done again is another event: times tell it from the first where there are any, and otherwise
    how often it was done before the answer. None counts where the model was fitted on the training part of
    this very split: it then keeps whole histories, and has learnt nothing of the answers.
    """
    import polars as pl

    kept, cases = recommender.fitted.histories, split.test
    own = split.protocol == "given" and split.train.n_events == recommender.meta["n_events"]
    # without valid rows the model would have held out some of the training part itself
    if kept is None or (own and len(split.valid)):
        return 0
    first = cases.targets[cases.target_offsets[:-1]]
    asked = pl.DataFrame({"user": cases.log.user_ids[cases.rows], "item": first})
    known = pl.DataFrame({"user": kept.user_ids[kept.rows], "item": kept.items})
    if kept.times is not None and cases.times is not None:
        asked, known = asked.with_columns(time=cases.times), known.with_columns(time=kept.times)
        return asked.join(known, on=["user", "item", "time"], how="semi").height
    before = cases.histories()
    done = pl.DataFrame({"case": before.rows, "item": before.items}).group_by("case", "item").len("before")
    asked = asked.with_row_index("case").with_columns(pl.col("case").cast(pl.Int64))
    asked = asked.join(done, on=["case", "item"], how="left").with_columns(pl.col("before").fill_null(0))
    counted = asked.join(known.group_by("user", "item").len("kept"), on=["user", "item"])
    return counted.filter(pl.col("kept") > pl.col("before")).height


def _repeats(cases: Cases) -> int:
    """How many right answers are in the very history they are asked for."""
    import numpy as np
    import polars as pl

    log, answers = cases.log, np.diff(cases.target_offsets)
    place = np.arange(log.n_events) - log.offsets[log.rows]
    first = pl.DataFrame({"row": log.rows, "item": log.items, "place": place}).unique(
        ["row", "item"], keep="first", maintain_order=True
    )
    asked = pl.DataFrame({
        "row": np.repeat(cases.rows, answers),
        "item": cases.targets,
        "end": np.repeat(cases.ends, answers),
    })
    return asked.join(first, on=["row", "item"]).filter(pl.col("place") < pl.col("end")).height


def _split(protocol: Protocol, log: EventLog, parts: Parts | None) -> Split:
    from llm4rec.data import split

    match protocol:
        case Protocol.LEAVE_LAST_OUT:
            return split.leave_last_out(log)
        case Protocol.GLOBAL_TIME:
            return split.global_time(log)
        case Protocol.GIVEN:
            if parts is None:
                raise InputError(
                    "--protocol given needs a column 'split' in the events (train, valid, test); there is "
                    "none. Name it by --map split=COLUMN, or choose another protocol."
                )
            return split.given(log, parts)


def _summary(result: Evaluation, model: Path, protocol: Protocol, notes: list[str]) -> dict[str, Any]:
    from llm4rec.evaluate.significance import interval

    metrics: dict[str, Any] = {}
    for name in result.per_case:
        people = result.per_person(name)
        low, high = interval(people)
        metrics[name] = {"mean": float(people.mean()), "low": float(low), "high": float(high)}
    return {
        "model": str(model),
        "protocol": str(protocol),
        "cases": len(result.people),
        "people": len(set(result.people.tolist())),
        "metrics": metrics,
        "beyond": {name: float(v) for name, v in result.summary.items() if name not in result.per_case},
        "interval": "95%, percentile bootstrap over people",
        "notes": notes,
    }


def _show(summary: dict[str, Any], json: bool) -> None:
    if json:
        console.answer(summary)
        return
    for sentence in summary["notes"]:
        console.note(sentence)
    typer.echo(
        f"{summary['cases']} questions to {summary['people']} people ({summary['protocol']}), the whole "
        f"catalogue ranked; intervals: {summary['interval']}."
    )
    for name, figure in summary["metrics"].items():
        typer.echo(f"{name:<16} {figure['mean']:.4f}   {figure['low']:.4f}–{figure['high']:.4f}")
    for name, value in summary["beyond"].items():
        typer.echo(f"{name:<16} {value:.4f}")
