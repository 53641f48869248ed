"""`llm4rec bench`: models side by side on one set of questions."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import llm4rec
from llm4rec.cli import console
from llm4rec.errors import InputError, LLM4RecError

if TYPE_CHECKING:
    from llm4rec.bench.job import Source, Study
    from llm4rec.bench.peers import Peer
    from llm4rec.bench.run import Failure, Plan
    from llm4rec.bench.tables import Table


class Protocol(StrEnum):
    """How the questions are drawn from the events."""

    LEAVE_LAST_OUT = "leave-last-out"
    GLOBAL_TIME = "global-time"


def bench(  # noqa: PLR0913  # one parameter per option of the command
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Directory for runs, table.json, tables.md and report.html.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Directory with interactions.parquet, items.parquet, users.parquet.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="Events with a `split` column; their items are the catalogue.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Item features for --splits.")] = None,
    users: Annotated[Path | None, typer.Option(help="People's features for --splits.")] = None,
    protocol: Annotated[Protocol | None, typer.Option(help="How --data is split.")] = None,
    models: Annotated[
        str | None, typer.Option(help="Names with commas between; all that the data allows by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, 0 upwards.")] = 1,
    config: Annotated[Path | None, typer.Option(help="Configuration file (TOML).")] = None,
    settings: console.Settings = [],  # noqa: B006  # typer copies defaults
    keep: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Directory for the model of ours with seed 0; none is kept by default."
        ),
    ] = None,
    peer_ranks: Annotated[
        Path | None, typer.Option(help="user_id and a column of test ranks per other system (Parquet).")
    ] = None,
    json: console.Json = False,
) -> None:
    """Fit models and measure them side by side.

    The whole catalogue is ranked, seen items left out. Each model and seed runs in a process of its
    own. What an earlier command has finished on the same data, configuration and code is reused, so a
    long table may be gathered over several commands.
    """
    from llm4rec import config as configuration
    from llm4rec.bench import job, lineup, peers, report, tables
    from llm4rec.bench import run as runs
    from llm4rec.keeping import KIND
    from llm4rec.recommender import Config
    from llm4rec.store import artefact, files

    report.check_place(out)
    files.check_writable(out / "report.html")
    wanted = [] if models is None else console.names(models, "--models")
    if models is not None and not wanted:
        raise InputError("--models names no model: give names with commas between, or leave it out for all.")
    if keep is not None:
        if keep.resolve() in (out.resolve(), *out.resolve().parents):
            raise InputError(f"--keep {keep} would hold --out {out}: give the model a directory of its own.")
        artefact.check_place(keep, KIND)
    source = _source(data, splits, items, users, protocol)
    settings_read = configuration.load(Config, file=config, settings=settings)
    ranks = None if peer_ranks is None else peers.read_ranks(peer_ranks)
    questions = "given" if source.given else str(protocol or Protocol.LEAVE_LAST_OUT)
    source.content()  # a missing file is said before anything is read
    with console.progress() as shows:
        study = job.read(source, questions, settings_read.data, shows)
        chosen = lineup.choose(wanted, study.catalog, study.has_clock, settings_read)
        if keep is not None and lineup.OURS not in chosen:
            raise InputError(f"--keep is for the model {lineup.OURS}, which is not among --models.")
        for sentence in study.data.report.notes:
            console.note(sentence)
        aside = out / "bench.rejected.parquet"  # OUT may be a folder of `data get`, with a file of its own
        if console.set_aside(study.data.report.rejected, aside):
            console.note(f"The rows set aside are in {aside}, each with its reason.")
        facts = plan_facts(source, study, seeds)
        del study  # the workers need the memory
        if ranks is not None and lineup.OURS not in chosen:
            console.note(f"--peer-ranks is compared with {lineup.OURS}, which is not among --models.")
        plan = runs.Plan(source, questions, chosen, seeds, settings_read, out, keep)
        results, failures = runs.run(plan, say=console.note, progress=shows)
    if failures and not results:
        raise LLM4RecError(_failed(failures))
    table = tables.summarise(results, facts)
    ours = [result for result in results if result.model == lineup.OURS]
    beside = peers.beside(ours, ranks) if ranks is not None and ours else []
    publish(table, plan, beside, json=json)
    if failures:
        raise LLM4RecError(_failed(failures))


def plan_facts(source: Source, study: Study, seeds: int) -> dict[str, str]:
    """What the report says about how its figures came to be."""
    from llm4rec.bench import facts, tables

    log = study.data.log
    return {
        "command": facts.command(),
        "commit": facts.commit(),
        "version": llm4rec.__version__,
        "machine": facts.machine(),
        "data": ", ".join(source.files.values()),
        "size": f"{log.n_users:,} people, {len(study.catalog):,} items, {log.n_events:,} events",
        "protocol": f"{study.split.protocol}, {len(study.split.test):,} questions, whole catalogue ranked, "
        "seen items left out",
        "policy": "every model is fitted on the training part only; epochs and settings are chosen on "
        "validation; at test time a history is all events before the answer",
        "seeds": f"{seeds} (0 to {seeds - 1}) where a model is random; one where a modality is left out",
        "intervals": tables.INTERVALS,
    }


def publish(table: Table, plan: Plan, peers: list[Peer], *, json: bool) -> None:
    """Write the report's files and print the table."""
    from llm4rec.bench import render, report

    document = report.write(table, plan.out, peers=peers)
    if json:
        console.answer(document)
        return
    named = [replace(peer, name=console.printable(peer.name)) for peer in peers]  # columns of a file
    for grid in render.grids(table, named):
        typer.echo(render.as_text(grid))
    typer.echo(
        f"The report is in {plan.out / 'report.html'}, its tables in tables.md and table.json beside it."
    )


def _source(
    data: Path | None, splits: Path | None, items: Path | None, users: Path | None, protocol: Protocol | None
) -> Source:
    from llm4rec.bench.job import Source

    if (data is None) == (splits is None):
        raise InputError("Give either --data DIR or --splits FILE with --items FILE.")
    if data is not None:
        if items is not None or users is not None:
            raise InputError("--items and --users belong to --splits; --data DIR brings its own.")
        return Source.folder(data)
    if items is None:
        raise InputError("--splits needs --items, the features of its items.")
    if protocol is not None:
        raise InputError(
            "--protocol belongs to --data; with --splits the file itself says who is asked what."
        )
    return Source(str(splits), str(items), None if users is None else str(users), given=True)


def _failed(failures: list[Failure]) -> str:
    named = " ".join(f"{failure.model}, seed {failure.seed}: {failure.reason}" for failure in failures)
    return f"{len(failures)} runs have no figures. {named} What is finished is kept and reused."
