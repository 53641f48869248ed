"""A table as one HTML file that asks no outside host, and as Markdown and JSON beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from llm4rec.bench import charts, render
from llm4rec.bench.lineup import LINEUP
from llm4rec.bench.peers import Peer
from llm4rec.bench.run import RUNS
from llm4rec.bench.tables import COMPARED, Table
from llm4rec.errors import InputError
from llm4rec.store import artefact, files

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d0d7de; --mark: #eaf2ff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; --mark: #15233b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.ours { background: var(--mark); font-weight: 600; }
.note { color: #6e7781; max-width: 46rem; } figure { margin: 1.5rem 0; }
figcaption { font-weight: 600; margin-bottom: .4rem; } svg { width: 100%; max-width: 720px; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .grid { stroke: var(--line); } svg .zero { stroke: var(--ink); stroke-dasharray: 4 3; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


FILES = ("table.json", "tables.md", "report.html")


@dataclass(frozen=True)
class Shown:
    """One person's recent history and the list made for them, as titles, and why each is in it."""

    person: str
    history: tuple[str, ...]
    recommended: tuple[str, ...]
    reasons: tuple[str, ...]


def check_place(out: Path) -> None:
    """Make sure, before hours of work, that a report can be written to `out` and replaces nobody's file.

    Raises:
        InputError: naming the file that is in the way, or where `out` is a model.
    """
    artefact.check_outside(out)
    if (out / RUNS).is_dir():
        return
    for name in FILES:
        if (out / name).exists():
            raise InputError(
                f"{out / name} exists, and {out} holds no earlier runs: it is not this command's to replace. "
                "Name another directory, or remove the file."
            )


def write(
    table: Table, out: Path, *, peers: Sequence[Peer] = (), shown: Shown | None = None
) -> dict[str, Any]:
    """Write report.html, tables.md and table.json to `out`; returns what the JSON holds."""
    document = as_document(table, peers)
    as_json, markdown, page = (out / name for name in FILES)
    files.write_json(document, as_json)
    files.write_text(as_markdown(table, peers), markdown)
    files.write_text(as_html(table, peers, shown), page)
    return document


def as_document(table: Table, peers: Sequence[Peer] = ()) -> dict[str, Any]:
    """Everything a table says, as plain values."""
    return asdict(table) | {"peers": [asdict(peer) for peer in peers]}


def as_markdown(table: Table, peers: Sequence[Peer] = ()) -> str:
    """All grids, and the facts they rest on, as Markdown."""
    grids = [render.as_markdown(grid) for grid in render.grids(table, peers)]
    models = [f"- {name}: {value}" for name, value in _says(table)]
    facts = [f"- {name}: {value}" for name, value in table.facts.items()]
    return "\n".join([
        "# Bench",
        "",
        *grids,
        "## The models",
        "",
        *models,
        "",
        "## How this was measured",
        "",
        *facts,
        "",
    ])


def as_html(table: Table, peers: Sequence[Peer] = (), shown: Shown | None = None) -> str:
    """The whole report; every name and title is escaped."""
    grids = [render.as_html(grid) for grid in render.grids(table, peers)]
    body = [grids[0], *_plots(table), *grids[1:], *_person(shown), _models(table), _facts(table)]
    return (
        "<!doctype html>\n<html lang=en>\n<head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>llm4rec bench</title><style>{STYLE}</style></head>\n<body>\n<h1>Models side by side</h1>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _plots(table: Table) -> list[str]:
    name = COMPARED.upper()
    found = [
        charts.intervals({row.model: row.accuracy[COMPARED] for row in table.rows}, f"{name}, 95% interval")
    ]
    if table.comparisons:
        found.append(
            charts.intervals(
                {other.other: other.difference for other in table.comparisons},
                f"Ours minus each other model, {name}, paired 95% interval",
                zero=True,
            )
        )
    deepest = max(
        (key for key in table.rows[0].beyond if key.startswith("coverage@")), default=None, key=_depth
    )
    if deepest is not None:
        points = {row.model: (row.beyond[deepest], row.accuracy[COMPARED].mean) for row in table.rows}
        found.append(charts.scatter(points, f"Accuracy and {deepest}", deepest, name))
    if table.curves:
        found.append(charts.curves(table.curves, f"Validation {name} by epoch", "epoch", name))
    return found


def _depth(name: str) -> int:
    return int(name.partition("@")[2])


def _person(shown: Shown | None) -> list[str]:
    if shown is None:
        return []
    rows = [
        f"<li>{escape(title)}<p>{escape(reason)}</p></li>"
        for title, reason in zip(shown.recommended, shown.reasons, strict=True)
    ]
    before = "".join(f"<li>{escape(title)}</li>" for title in shown.history)
    return [
        f"<h2>Recommended to person {escape(shown.person)}</h2>",
        f"<p>Their latest items, newest first:</p><ul>{before}</ul>",
        f"<p>The list:</p><ol>{''.join(rows)}</ol>",
    ]


def _models(table: Table) -> str:
    return f"<h2>The models</h2>\n<dl>{_terms(_says(table))}</dl>"


def _says(table: Table) -> list[tuple[str, str]]:
    """What each model is, and the settings validation chose for it."""
    found: list[tuple[str, str]] = []
    for row in table.rows:
        settings = ", ".join(f"{name} {value:g}" for name, value in table.chosen.get(row.model, {}).items())
        found.append((row.model, LINEUP[row.model].says + (f": {settings}" if settings else "")))
    return found


def _facts(table: Table) -> str:
    return f"<h2>How this was measured</h2>\n<dl>{_terms(list(table.facts.items()))}</dl>"


def _terms(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
