"""`llm4rec fit`: from a log of events and a table of items to a model directory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from llm4rec.cli import console
from llm4rec.errors import InputError, LLM4RecError

if TYPE_CHECKING:
    from llm4rec.data.features import Declared
    from llm4rec.data.ingest import Ingested
    from llm4rec.data.remarks import Manner
    from llm4rec.recommender import Config, Recommender
    from llm4rec.types import Progress

CHECKPOINT = ".checkpoint"


def _help_config(wanted: bool) -> None:
    if not wanted:
        return
    from llm4rec import config
    from llm4rec.recommender import Config

    for key, kind, default, description in config.options(Config):
        typer.echo(f"{key} = {default}  ({kind})\n    {description}")
    raise typer.Exit


Modalities = Annotated[
    list[str], typer.Option(help="COLUMN=KIND; KIND is text, categorical, numerical, image, time or ignore.")
]
HelpConfig = Annotated[
    bool,
    typer.Option("--help-config", callback=_help_config, is_eager=True, help="List all configuration keys."),
]


def fit(  # noqa: PLR0913  # one parameter per option of the command
    interactions: Annotated[
        str,
        typer.Option(
            help="Events: CSV, TSV, JSONL (also .gz, .zst), Parquet, RecBole .inter, or a database URL."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write the model to; an older model is replaced.")],
    items: Annotated[str | None, typer.Option(help="Items with their features, in the same formats.")] = None,
    users: Annotated[str | None, typer.Option(help="People with their features.")] = None,
    reviews: Annotated[
        str | None, typer.Option(help="Reviews of the items, to be retrieved from: who, what, text, when.")
    ] = None,
    tags: Annotated[str | None, typer.Option(help="Tags that people gave to items, likewise.")] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration file (TOML).")] = None,
    settings: console.Settings = [],  # noqa: B006  # typer copies defaults
    columns: console.Columns = [],  # noqa: B006
    modality: Modalities = [],  # noqa: B006
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from OUT.checkpoint, if there is one.")
    ] = False,
    histories: Annotated[
        bool,
        typer.Option(
            "--histories/--no-histories",
            help="Keep known people's histories in the model, and remember them to others.",
        ),
    ] = True,
    rejected: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File for rows set aside; OUT.rejected.parquet by default."),
    ] = None,
    help_config: HelpConfig = False,
    json: console.Json = False,
) -> None:
    """Fit a model and write it to a directory.

    Rows that can't be read are set aside in a file and counted. While training runs, OUT.checkpoint/
    holds what is needed to go on after an interruption; it is removed at the end. If the events have a
    `split` column, the model is fitted on its train rows and its epochs are chosen on its valid rows;
    the histories it keeps are of all rows, so that nobody is recommended what they have done.
    """
    from llm4rec import config as configuration
    from llm4rec.data.ingest import ingest
    from llm4rec.keeping import KIND
    from llm4rec.recommender import Config
    from llm4rec.store import artefact, files
    from llm4rec.store.alone import alone
    from llm4rec.train.checkpoint import discard

    del help_config
    aside = rejected or console.beside(out, ".rejected.parquet")
    artefact.check_place(out, KIND)  # before hours of work, not after
    files.check_writable(out)
    if rejected is not None:
        if out.resolve() in rejected.resolve().parents:
            raise InputError(f"--rejected {rejected} lies in --out {out}, which holds the model alone.")
        console.check_parquet(rejected, "--rejected")
    read = {"--interactions": interactions, "--items": items, "--users": users}
    console.check_not_read(aside, "--rejected", {**read, "--reviews": reviews, "--tags": tags})
    settings_read = configuration.load(Config, file=config, settings=settings)
    if not histories:  # a memory is a part of somebody's history
        settings_read = settings_read.without_memories()
    mapping = console.pairs(columns, "--map", "role=column")
    kinds = _modalities(console.pairs(modality, "--modality", "column=kind"))
    with alone(out), console.progress() as report:
        data = ingest(
            interactions,
            items,
            users,
            remarks=_given({"review": reviews, "tag": tags}),
            columns=mapping,
            modalities=kinds,
            config=settings_read.data,
            progress=report,
        )
        n_rejected = console.set_aside(data.report.rejected, aside)
        for sentence in data.report.notes:
            console.note(sentence)
        recommender = _train(data, settings_read, out, resume, report)
        for sentence in recommender.meta["notes"]:
            console.note(sentence)
        recommender.save(out, histories=histories, by="fit")
        discard(console.beside(out, CHECKPOINT))
    _show(_summary(data, recommender, out, aside if n_rejected else None, n_rejected), json)


def _show(summary: dict[str, Any], json: bool) -> None:
    if json:
        console.answer(summary)
        return
    if summary["rejected"]:
        typer.echo(
            f"{summary['rejected']} rows were set aside in {summary['rejected_file']}, each with its reason."
        )
    typer.echo(
        f"Fitted on {summary['people']} people, {summary['items']} items and {summary['events']} events; "
        f"{summary['held_out']} events were held out. The model is in {summary['model']}."
    )
    for sentence in (*_of_bias(summary), *_of_retrieval(summary), *_of_aspects(summary)):
        typer.echo(sentence)


def _of_bias(summary: dict[str, Any]) -> Iterator[str]:
    """What was done about bias, in sentences."""
    from llm4rec.debias.selection import said

    if summary["selection"] is not None:
        yield said(summary["selection"])
    erased = summary["training"].get("erased")
    if erased is not None:
        before, after = erased["metric_before"], erased["metric_after"]
        yield (
            f"What a straight border reads of hidden attributes was taken out of the states, in "
            f"{erased['directions']} directions; the network's validation NDCG@10 went from {before:.4f} to "
            f"{after:.4f}."
        )
    if summary["parity"] is not None and summary["parity"]["gap"] is not None:
        before, after = summary["parity"]["before"], summary["parity"]["gap"]
        yield (
            f"Exposure on the validation lists differs by {after:.3f} at most between groups, and by "
            f"{before:.3f} without offsets."
        )


def _of_retrieval(summary: dict[str, Any]) -> Iterator[str]:
    """What became of retrieval, in sentences."""
    if summary["remarks"]:
        counts = (f"{count} {manner}s" for manner, count in summary["remarks"].items())
        yield f"Read {' and '.join(counts)}."
    told = summary["retrieval"]
    if told is None:  # it was not to be tried
        return
    if told["gain"] is None:
        yield "Nothing is retrieved: too few people were held out to tell what it is worth."
        return
    gain = f"NDCG@10 {told['gain']['mean']:+.4f} on validation, standard error {told['gain']['error']:.4f}"
    kinds = ", ".join(told["weights"])
    yield f"Retrieved: {kinds} ({gain})." if kinds else f"Nothing is retrieved: it does not gain ({gain})."


def _of_aspects(summary: dict[str, Any]) -> Iterator[str]:
    """What preferences are worth, in a sentence."""
    told = summary["training"]["aspects"]
    if told is None:  # there were none to learn, or too few people to judge by
        return
    said = f"Preferences among {told['aspects']} values of categories"
    if not told["steps"]:
        yield f"{said} are the same for everybody: no state told more of what people took next."
        return
    yield (
        f"{said}: what held-out people took next has a cross-entropy of {told['cross_entropy']:.3f} nats by "
        f"their states, and {told['base_rates']:.3f} by how common each value is."
    )


def _modalities(declared: dict[str, str]) -> dict[str, Declared]:
    from llm4rec.data.catalog import Modality

    known: list[str] = [*get_args(Modality), "ignore"]
    found: dict[str, Declared] = {}
    for column, text in declared.items():
        if text not in known:
            raise InputError(f"--modality {column}={text}: {text!r} is no kind. Known: {', '.join(known)}.")
        found[column] = cast("Declared", text)
    return found


def _given(sources: dict[Manner, str | None]) -> dict[Manner, str]:
    return {manner: source for manner, source in sources.items() if source is not None}


def _train(data: Ingested, config: Config, out: Path, resume: bool, report: Progress) -> Recommender:
    from llm4rec.data.split import given
    from llm4rec.recommender import Recommender

    events, valid, histories = data.log, None, None
    if data.parts is not None:
        split = given(data.log, data.parts)
        # asked for by name, a person is answered from all that the file says they did
        events, valid, histories = split.train, split.valid, data.log
    out.parent.mkdir(parents=True, exist_ok=True)
    with checkpointed(out, resume) as checkpoints:
        return Recommender.fit(
            events,
            data.catalog,
            config,
            people=data.people,
            valid=valid,
            histories=histories,
            remarks=data.remarks,
            checkpoints=checkpoints,
            resume=resume,
            progress=report,
        )


@contextmanager
def checkpointed(model: Path, resume: bool) -> Generator[Path]:
    """Where the unfinished work of a fit is kept; says what becomes of it, also where the fit is stopped.

    Raises:
        LLM4RecError: where it is interrupted; it says how to go on.
    """
    place = console.beside(model, CHECKPOINT)
    if place.exists() and not resume:
        console.note(f"{place} holds an interrupted run; without --resume it is started anew.")
    if resume and not place.exists():
        console.note(f"There is no {place} to go on from: the run starts from the beginning.")
    try:
        yield place
    except KeyboardInterrupt:
        kept = f"{place} is kept: the same command with --resume goes on from there."
        lost = "No checkpoint had been written yet."
        raise LLM4RecError(f"Interrupted. {kept if place.exists() else lost}") from None


def _summary(
    data: Ingested, recommender: Recommender, out: Path, aside: Path | None, n_rejected: int
) -> dict[str, Any]:
    meta = recommender.meta
    return {
        "model": str(out),
        "people": meta["n_users"],
        "items": len(data.catalog),
        "events": meta["n_events"],
        "held_out": data.log.n_events - meta["n_events"],
        "rejected": n_rejected,
        "rejected_file": None if aside is None else str(aside),
        "notes": [*data.report.notes, *meta["notes"]],
        "seconds": meta["seconds"],
        "training": meta["training"],
        "linear": meta["linear"],
        "remarks": {manner: len(said) for manner, said in data.remarks.items()},
        "retrieval": meta["retrieval"],
        "selection": meta["selection"],
        "popularity": meta["popularity"],
        "parity": meta["parity"],
    }
