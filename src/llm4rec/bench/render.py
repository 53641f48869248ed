"""A table as grids of text, and a grid as Markdown, HTML or lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from llm4rec.bench.lineup import OURS
from llm4rec.bench.peers import Peer
from llm4rec.bench.tables import ACCURACY, COMPARED, Comparison, Estimate, Table


@dataclass(frozen=True)
class Grid:
    """A titled table of text; `note` says how to read it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def grids(table: Table, peers: Sequence[Peer] = ()) -> list[Grid]:
    """All grids of a table, most important first."""
    found = [_accuracy(table), *_differences(table), *_peers(peers), _beyond(table), _cost(table)]
    return [*found, *_groups(table)]


def as_markdown(grid: Grid) -> str:
    """A grid as a Markdown table under a heading."""
    lines = [f"## {grid.title}", ""]
    lines.append(_pipes(grid.header))
    lines.append("|---" + "|---:" * (len(grid.header) - 1) + "|")
    lines.extend(_pipes(row) for row in grid.rows)
    return "\n".join([*lines, *(["", grid.note] if grid.note else []), ""])


def as_text(grid: Grid) -> str:
    """A grid in aligned columns, for a terminal or a log."""
    widths = [max(len(row[i]) for row in (grid.header, *grid.rows)) for i in range(len(grid.header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()

    body = [line(grid.header), *(line(row) for row in grid.rows)]
    return "\n".join([grid.title, *(f"  {text}" for text in body), *([grid.note] if grid.note else []), ""])


def as_html(grid: Grid) -> str:
    """A grid as an HTML table; every cell is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in grid.header)
    body = "\n".join(
        f"<tr{' class=ours' if row[0] == OURS else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in grid.rows
    )
    note = f"<p class=note>{escape(grid.note)}</p>" if grid.note else ""
    return (
        f"<h2>{escape(grid.title)}</h2>\n<div class=wide><table>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>\n{note}"
    )


def _accuracy(table: Table) -> Grid:
    rows = [
        (row.model, *(_with_interval(row.accuracy[name]) for name in ACCURACY), str(row.seeds))
        for row in table.rows
    ]
    return Grid(
        "Accuracy, whole catalogue ranked",
        ("model", *(name.upper() for name in ACCURACY), "seeds"),
        tuple(rows),
        f"In brackets: {table.facts.get('intervals', '95% interval')}.",
    )


def _differences(table: Table) -> Iterator[Grid]:
    if not table.comparisons:
        return
    rows = tuple((found.other, *_comparison(found)) for found in table.comparisons)
    yield Grid(
        f"Ours minus each other model, {COMPARED.upper()}, paired by person",
        ("other", "difference", "of the other's mean", "p", "p (Holm)"),
        rows,
        "A difference whose interval excludes zero is in favour of ours where positive.",
    )


def _peers(peers: Sequence[Peer]) -> Iterator[Grid]:
    if not peers:
        return
    rows = tuple(
        (
            peer.name,
            _with_interval(peer.hr),
            _with_interval(peer.ndcg),
            _signed(peer.hr_difference.difference),
            _signed(peer.ndcg_difference.difference),
            f"{peer.ndcg_difference.p_holm:.3f}",
            str(peer.people),
        )
        for peer in peers
    )
    yield Grid(
        "Beside other systems' ranks of the same answers",
        ("system", "HR@10", "NDCG@10", "ours − it, HR@10", "ours − it, NDCG@10", "p (Holm)", "people"),
        rows,
        "Ours is the mean of its seeds.",
    )


def _beyond(table: Table) -> Grid:
    names = list(table.rows[0].beyond)
    return Grid(
        "Beyond accuracy",
        ("model", COMPARED.upper(), *names),
        tuple(
            (
                row.model,
                f"{row.accuracy[COMPARED].mean:.4f}",
                *(f"{row.beyond.get(name, float('nan')):.3f}" for name in names),
            )
            for row in table.rows
        ),
        "Coverage is the share of the catalogue that reaches anybody's list; a Gini near 1 means a few items "
        "take all places; novelty in bits; popularity lift over what people chose in training.",
    )


def _cost(table: Table) -> Grid:
    return Grid(
        "Cost",
        ("model", "fit s", "peak MiB", "model MiB", "p50 ms", "p95 ms", "p99 ms"),
        tuple(
            (
                row.model,
                f"{row.fit_seconds:.1f}",
                f"{row.peak_mib:.0f}",
                f"{row.size_mib:.2f}",
                *(f"{row.milliseconds[name]:.2f}" for name in ("p50", "p95", "p99")),
            )
            for row in table.rows
        ),
        "Each run in a process of its own; the peak is that of the whole process, data and libraries "
        "included; a run that was interrupted counts the seconds of all its processes and the highest of "
        "their peaks; milliseconds are of single requests.",
    )


def _groups(table: Table) -> Iterator[Grid]:
    if table.groups:
        models = [row.model for row in table.rows]
        yield Grid(
            f"Warm and cold apart, {COMPARED.upper()}",
            ("cases", "number", *models),
            tuple(
                (group.name, str(group.cases), *(f"{group.means[model]:.4f}" for model in models))
                for group in table.groups
            ),
        )


def _comparison(found: Comparison) -> tuple[str, str, str, str]:
    relative = found.relative
    share = "–" if relative is None else f"{relative.mean:+.1%} [{relative.low:+.1%}, {relative.high:+.1%}]"
    return _signed(found.difference), share, f"{found.p:.3f}", f"{found.p_holm:.3f}"


def _with_interval(value: Estimate) -> str:
    return f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"


def _signed(value: Estimate) -> str:
    return f"{value.mean:+.4f} [{value.low:+.4f}, {value.high:+.4f}]"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
