"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated

import typer

import llm4rec
from llm4rec.cli.audit import audit
from llm4rec.cli.bench import bench
from llm4rec.cli.console import Guarded, example, note
from llm4rec.cli.correct import correct
from llm4rec.cli.data import get
from llm4rec.cli.demo import demo
from llm4rec.cli.evaluate import evaluate
from llm4rec.cli.events import events
from llm4rec.cli.explain import explain
from llm4rec.cli.fit import fit
from llm4rec.cli.items import items
from llm4rec.cli.learn import forget_user, learn
from llm4rec.cli.recommend import recommend
from llm4rec.cli.refit import refit
from llm4rec.cli.versions import rollback, versions

app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=example(
        "llm4rec demo",
        "llm4rec fit --interactions events.csv --items items.csv --out model",
        "llm4rec recommend --model model --history a,b,c",
    ),
)
data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Get known data sets.",
    epilog=example("llm4rec data get ml-100k --out ml-100k"),
)
app.add_typer(data_app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(llm4rec.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Recommend from a log of events and a table of items, and measure how well.

    Exit codes: 0 done, 2 usage or bad input, 1 failure. LLM4REC_DEBUG=1 shows where an error came from.
    """


app.command(epilog=example("llm4rec demo --out demo"))(demo)
data_app.command(epilog=example("llm4rec data get ml-100k --out ml-100k"))(get)
app.command(
    epilog=example(
        "llm4rec fit --interactions events.csv --items items.csv --out model",
        "llm4rec fit --interactions log.parquet --items items.parquet --out model \\",
        "    --map user=customer,item=sku,time=bought_at --set train.epochs=20",
    )
)(fit)
app.command(
    epilog=example(
        "llm4rec recommend --model model --user 42",
        "llm4rec recommend --model model --history a,b,c -n 5 --json",
        "llm4rec recommend --model model --text 'a quiet film about the sea'",
        "llm4rec recommend --model model --user 42 --at 2026-11-24T18:00",
        "llm4rec recommend --model model --history a,b,c --explain",
        "llm4rec recommend --model model --requests requests.parquet --out answers.parquet -n 100",
    )
)(recommend)
app.command(
    epilog=example(
        "llm4rec explain --model model --history a,b,c --item x",
        "llm4rec explain --model model --user 42 --item x --than y --json",
        "llm4rec explain --model model --user 42",
    )
)(explain)
app.command(
    epilog=example(
        "llm4rec correct --model model --user 42 --less genre=Horror",
        "llm4rec correct --model model --user 42 --more genre=Comedy --undo genre=Horror",
    )
)(correct)
app.command(
    epilog=example(
        "llm4rec items --model model --add new-items.parquet",
        "llm4rec items --model model --retire 50,181 --out model-without",
    )
)(items)
app.command(
    epilog=example(
        "llm4rec events --events events.db --append clicks.csv",
        "llm4rec events --events postgresql://me@host/shop --export events.parquet",
        "llm4rec events --events events.db --drop-before 2026-01-01",
    )
)(events)
app.command(
    epilog=example(
        "llm4rec learn --model model --events events.db",
        "llm4rec learn --model model --events postgresql://me@host/shop --json",
    )
)(learn)
app.command(epilog=example("llm4rec refit --model model", "llm4rec refit --model model --resume"))(refit)
app.command(epilog=example("llm4rec versions --model model", "llm4rec versions --model model --json"))(
    versions
)
app.command(
    epilog=example("llm4rec rollback --model model", "llm4rec rollback --model model --to 3 --keep-position")
)(rollback)
app.command("forget-user", epilog=example("llm4rec forget-user --model model --events events.db --user 42"))(
    forget_user
)
app.command(epilog=example("llm4rec evaluate --model model --interactions events.csv --json"))(evaluate)
app.command(
    epilog=example(
        "llm4rec audit --model model --interactions events.csv --out audit",
        "llm4rec audit --model model --interactions events.csv --users users.csv --by gender,age --out audit",
    )
)(audit)
app.command(
    epilog=example(
        "llm4rec bench --data ml-100k --protocol leave-last-out --seeds 3 --out bench",
        "llm4rec bench --splits splits.parquet --items items.parquet --models ours,ease --out bench",
    )
)(bench)


def main() -> None:
    """Run the command line of this process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a title may hold letters the terminal does not know
    warnings.showwarning = _say
    app(prog_name="llm4rec")


def _say(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one sentence, without the line of code that gave it."""
    note(" ".join(str(message).split()))
