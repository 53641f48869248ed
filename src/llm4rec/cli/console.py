"""What all commands share: how errors end, how progress is shown, how a machine is answered."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from llm4rec.data.printable import printable
from llm4rec.errors import InputError, LLM4RecError

if TYPE_CHECKING:
    import polars as pl

    from llm4rec.types import Progress

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Set one configuration key; may be repeated.")
]
Columns = Annotated[
    list[str],
    typer.Option(
        "--map",
        help="Columns by role: user=…,item=…,time=…,order=…,rating=…,type=…,split=…,propensity=…; of "
        "reviews and tags, where they are read, also text=…,summary=…,tag=…",
    ),
]

WRONG_PATH = (
    FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError,
)  # fmt: skip
QUOTED = """An id that holds a comma stands in double quotes: '"a,b",c'."""
# a part in double quotes, as CSV has them, and the blanks around it
QUOTED_PART = re.compile(r'(?:^|(?<=[,\n]))\s*("(?:[^"]|"")*")\s*(?=[,\n]|$)')
LINE_EVERY = 30.0  # seconds between two lines of one unfinished stage in a log file


class Guarded(TyperGroup):
    """A command group in which every error ends as one sentence and an exit code.

    An `LLM4RecError` brings its own exit code (2 for bad input, 1 for failed work); anything unforeseen
    is a 1. `LLM4REC_DEBUG=1` lets the traceback through.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it raises becomes a sentence on stderr."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except LLM4RecError as error:
            self._end(str(error), error.exit_code)
        except KeyboardInterrupt:
            self._end("Interrupted.", 1)
        except BrokenPipeError:
            # The reader of a pipe (head, less) has gone: nothing is wrong here.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            # A path the person gave can't be used; anything else (a full disk) is the machine's failure.
            place = f"{error.filename}: " if error.filename is not None else ""
            self._end(f"{place}{error.strerror or error}.", 2 if isinstance(error, WRONG_PATH) else 1)
        except UnicodeEncodeError as error:
            # bytes of the command line that are no text arrive as lone surrogates
            self._end(f"{error.object!r} is not written in UTF-8; give it in UTF-8.", 2)
        except Exception as error:
            if hasattr(error, "format_message"):  # a usage error, which typer prints itself
                raise
            cause = " ".join(str(error).split()) or "no message"
            self._end(
                f"Unexpected {type(error).__name__}: {cause}. "
                "Set LLM4REC_DEBUG=1 and run again to see the traceback.",
                1,
            )

    def _end(self, sentence: str, code: int) -> None:
        if os.environ.get("LLM4REC_DEBUG") == "1":
            raise  # called from an except block only
        typer.echo(f"Error: {printable(sentence)}", err=True)
        raise typer.Exit(code) from None


def example(*lines: str) -> str:
    """The epilogue of a help page; the leading mark keeps its lines unwrapped."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def note(sentence: str) -> None:
    """Say something to the person, apart from the answer."""
    typer.echo(printable(sentence), err=True)


def answer(document: Any) -> None:
    """Print one JSON document on stdout, in escapes where stdout can't hold every letter."""
    escaped = (sys.stdout.encoding or "").lower() not in {"utf-8", "utf8"}
    typer.echo(json.dumps(document, ensure_ascii=escaped, indent=2, allow_nan=False))


def names(text: str, option: str) -> list[str]:
    """The parts of a comma-separated option without blanks around; as in CSV, double quotes keep a comma.

    Raises:
        InputError: where a quote is not closed.
    """
    try:
        close = QUOTED_PART.sub(r"\1", text.strip().replace("\r", "\n"))
        rows = csv.reader(io.StringIO(close), skipinitialspace=True, strict=True)
        return [part.strip() for row in rows for part in row if part.strip()]
    except csv.Error:
        raise InputError(
            f"{option} {text[:80]!r} can't be taken apart: a part that begins with a double quote must end "
            """with one, right before the next comma, such as '"a,b",c'; write a quote within it twice."""
        ) from None


def pairs(texts: list[str], option: str, wanted: str) -> dict[str, str]:
    """Read `a=b,c=d` (the option may also be repeated) into a dictionary.

    Raises:
        InputError: naming the part that has no equals sign, or says again what a part before it said.
    """
    found: dict[str, str] = {}
    for part in (part for text in texts for part in names(text, option)):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise InputError(
                f"{option} {part!r} is not of the form {wanted}; one with a comma in it stands in double "
                f"""quotes as a whole: {option} '"{wanted}"'."""
            )
        key, value = key.strip(), value.strip()
        if found.setdefault(key, value) != value:
            raise InputError(f"{option} says both {key}={found[key]} and {key}={value}: leave one out.")
    return found


def aspects(texts: list[str] | None, option: str) -> tuple[tuple[str, str], ...]:
    """Field and value of each FIELD=VALUE.

    Raises:
        InputError: naming one that is not of that form.
    """
    found: list[tuple[str, str]] = []
    for text in texts or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise InputError(f"{option} takes FIELD=VALUE, such as genre=Comedy, not {text!r}.")
        found.append((name, value))
    return tuple(found)


def beside(place: Path, ending: str) -> Path:
    """The path beside `place` that is named after it: `model` and `.checkpoint` make `model.checkpoint`."""
    if place.name in ("", ".."):
        place = place.resolve()
    return place.parent / f"{place.name}{ending}"


def check_not_read(file: Path, option: str, inputs: Mapping[str, Path | str | None]) -> None:
    """Let no file be written in the place of one that the command reads.

    Args:
        file: what is to be written.
        option: what names it, for messages.
        inputs: option → what is read, a path or an address.

    Raises:
        InputError: naming both options.
    """
    for other, source in inputs.items():
        if source is not None and file.resolve() == Path(source).resolve():
            raise InputError(f"{option} {file} would replace the file of {other}: name another place for it.")


def check_parquet(file: Path, option: str) -> None:
    """Make sure, before any work, that a Parquet file can be written to `file` and belongs there.

    Raises:
        InputError: where its name ends as that of another format does, or it can't be written.
        ArtefactError: where it lies in a model.
    """
    from llm4rec.data.files import FORMATS
    from llm4rec.store import artefact, files

    if FORMATS.get(file.suffix.lower(), "parquet") != "parquet":
        raise InputError(f"{option} {file} is written as Parquet: give it a name that ends in .parquet.")
    artefact.check_outside(file)
    files.check_writable(file)
    files.check_place(file)


def set_aside(rejected: pl.DataFrame, file: Path) -> int:
    """Write rejected rows, if there are any, and say how many there are.

    Where there are none, what an earlier run has set aside in `file` is removed: it would be taken for
    this run's. Anything else of that name stays.
    """
    from llm4rec.store.files import write_parquet

    if rejected.height:
        write_parquet(rejected, file)
    elif _was_set_aside(file):
        file.unlink()
    return rejected.height


def _was_set_aside(file: Path) -> bool:
    import polars as pl

    from llm4rec.data.files import REJECTED

    try:
        return file.is_file() and [*pl.read_parquet_schema(file)] == [*REJECTED]
    except pl.exceptions.PolarsError:
        return False


@contextmanager
def progress() -> Generator[Progress]:
    """Progress on stderr: bars where it is a terminal, else one line per finished stage or epoch."""
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bars() -> Generator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int, **figures: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, figures="")
            part = figures.pop("part", 0.0)
            bars.update(tasks[stage], completed=done + part, total=total)
            if figures:
                bars.update(tasks[stage], figures=show(figures))

        yield report


def _lines() -> Progress:
    last: dict[str, tuple[int, float]] = {}

    def report(stage: str, done: int, total: int, **figures: float) -> None:
        now = time.monotonic()
        # The first call only starts the stage's clock: a stage of a second needs no line before its last.
        before, since = last.setdefault(stage, (0, now))
        moved = done != before
        # An epoch brings figures and is worth a line; steps within one carry the `part` that is done.
        epoch = moved and bool(figures) and "part" not in figures
        if epoch or (moved and done >= total) or now - since >= LINE_EVERY:
            last[stage] = (done, now)
            typer.echo(f"{stage} {done}/{total} {show(figures)}".rstrip(), err=True)

    return report


def show(figures: dict[str, float]) -> str:
    """Figures beside a progress bar: `loss 6.1234  ndcg@10 0.1130`."""
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
