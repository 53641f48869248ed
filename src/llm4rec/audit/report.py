"""An audit as one HTML file that asks no outside host, and as Markdown and JSON beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, cast

import numpy as np

from llm4rec.audit.fairness import Fairness, OfAttribute
from llm4rec.audit.selection import Weighed
from llm4rec.audit.strengths import Correction, Point
from llm4rec.bench import charts
from llm4rec.bench.render import Grid, as_html, as_markdown
from llm4rec.bench.report import STYLE
from llm4rec.errors import InputError
from llm4rec.evaluate.attacker import Attack
from llm4rec.evaluate.exposure import ExposureDrift, ExposureParity
from llm4rec.evaluate.fairness import Disparity
from llm4rec.evaluate.resampling import Estimate
from llm4rec.store import artefact, files

FILES = ("audit.json", "audit.md", "audit.html")
LARGEST = 5
"""Differences of exposure that are listed."""
TITLES: Mapping[Correction, str] = {
    "popularity": "Popularity taken out of the scores (debias.popularity.strength)",
    "diversity": "Lists varied (rerank.diversity)",
}


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        selection: accuracy with answers weighed by propensity.
        curves: by correction, lists at each of its strengths.
        fairness: by way of answering, what groups get: as the model is, and after corrections.
        facts: how it was measured.
        notes: sentences on the data.
        logged: whether the propensities of the answers were logged, and not assumed.
    """

    selection: tuple[Weighed, ...]
    curves: dict[Correction, tuple[Point, ...]]
    fairness: dict[str, Fairness]
    facts: dict[str, str]
    notes: tuple[str, ...]
    logged: bool = False


def check_place(out: Path) -> None:
    """Make sure, before the work, that an audit can be written to `out` and replaces nobody's file.

    Raises:
        InputError: naming the file that is in the way, or where `out` is a model.
    """
    artefact.check_outside(out)
    there = [name for name in FILES if (out / name).exists()]
    if there and len(there) < len(FILES):
        raise InputError(
            f"{out / there[0]} exists, and {out} holds no earlier audit: it is not this command's to "
            "replace. Name another directory, or remove the file."
        )


def write(found: Audit, out: Path) -> dict[str, Any]:
    """Write audit.html, audit.md and audit.json to `out`; returns what the JSON holds."""
    document = cast("dict[str, Any]", plain(asdict(found)))
    tables = list(grids(found))
    as_json, markdown, page = (out / name for name in FILES)
    files.write_json(document, as_json)
    facts = [f"- {name}: {value}" for name, value in found.facts.items()]
    lines = ["# Audit", "", *map(as_markdown, tables), "## How this was measured", "", *facts]
    files.write_text("\n".join([*lines, *(f"- {note}" for note in found.notes), ""]), markdown)
    files.write_text(_page(found, tables), page)
    return document


def plain(value: Any) -> Any:
    """A value as JSON can hold it: arrays as lists, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, np.ndarray):
        return plain(cast("list[Any]", value.tolist()))
    if isinstance(value, list | tuple):
        return [plain(each) for each in cast("Sequence[Any]", value)]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def grids(found: Audit) -> Iterator[Grid]:
    """All tables of an audit, in the order of the report."""
    yield _selection(found.selection, found.logged)
    for correction, points in found.curves.items():
        yield _curve(TITLES[correction], points)
    ways = found.fairness
    for attribute in dict.fromkeys(each.attribute for way in ways.values() for each in way.people):
        of = {name: each for name, way in ways.items() for each in way.people if each.attribute == attribute}
        yield _gaps(attribute, of)
        yield from _exposed(attribute, next(iter(of.values())))
    first = next(iter(ways.values()))
    for kind, disparity in first.items.items():
        yield _of_items(kind, disparity)
    for kind, drift in first.drift.items():
        yield _drifted(kind, drift)


def _selection(weighed: Sequence[Weighed], logged: bool) -> Grid:
    assumed = (
        "Exposure was not logged: the propensity of an item is taken to be the square root of how often it "
        "was taken beside the commonest."
    )
    return Grid(
        "Selection: NDCG@10, answers weighed by 1 / max(propensity, clip)",
        ("clip", "NDCG@10", "effective answers", "largest weight", "clipped"),
        tuple(
            (
                f"{each.clip:g}",
                f"{each.value.mean:.4f} [{each.value.low:.4f}, {each.value.high:.4f}]",
                f"{each.effective:,.0f}",
                f"{each.largest:.1f}",
                f"{each.clipped:.1%}",
            )
            for each in weighed
        ),
        f"{'The propensities are those logged with the answers.' if logged else assumed} Clipped at 1 all "
        "answers weigh alike. A small clip is less biased and less sure.",
    )


def _curve(title: str, points: Sequence[Point]) -> Grid:
    names = list(points[0].seen)
    return Grid(
        title,
        ("strength", "NDCG@10", "difference", "relative", *names),
        tuple(
            (
                f"{point.strength:g}",
                f"{point.ndcg:.4f}",
                "{:+.4f} [{:+.4f}, {:+.4f}]".format(*point.difference),
                "–" if point.relative is None else "{:+.1%} [{:+.1%}, {:+.1%}]".format(*point.relative),
                *(f"{point.seen[name]:.3f}" for name in names),
            )
            for point in points
        ),
        "Differences from the first row are paired by person.",
    )


def _gaps(attribute: str, ways: Mapping[str, OfAttribute]) -> Grid:
    """What an attribute makes a difference to, before and after."""
    rows: list[tuple[str, ...]] = []
    for way, found in ways.items():
        for kind, parity in found.exposure.items():
            figures = _estimate(parity.largest), f"{parity.chance:.4f}", f"{parity.p:.3f}"
            rows.append((f"exposure by {kind}", way, *figures))
        for each in found.accuracy:
            figures = _estimate(each.difference), f"{each.chance:.4f}", f"{each.p:.3f}"
            rows.append((each.metric, way, *figures))
        if found.attack is not None:
            rows.append(_attacked(found.attack, way))
        if found.cost is not None:
            rows.append(("cost, NDCG@10", way, "{:+.4f} [{:+.4f}, {:+.4f}]".format(*found.cost), "", ""))
    notes = dict.fromkeys(note for found in ways.values() for note in found.notes)
    return Grid(
        f"Fairness by {attribute}: largest difference between groups",
        ("of", "way", "difference", "by chance", "p"),
        tuple(rows),
        " ".join([
            "By chance: the mean of the same when people are dealt to the groups at random; p: how often "
            "that is as large. hr@10 is equal opportunity.",
            *notes,
        ]),
    )


def _attacked(found: Attack, way: str) -> tuple[str, ...]:
    what = f"read from states: balanced accuracy, guessing {found.guessing:.2f}"
    return what, way, _estimate(found.accuracy), f"{found.chance:.4f}", f"{found.p:.3f}"


def _exposed(attribute: str, found: OfAttribute) -> Iterator[Grid]:
    """The largest differences of exposure of a model as it is."""
    for kind, parity in found.exposure.items():
        if parity.largest is not None:
            yield Grid(
                f"Exposure by {kind}, the largest differences by {attribute}",
                (kind, "between", "difference"),
                tuple(_largest(parity)),
            )


def _largest(parity: ExposureParity) -> Iterator[tuple[str, ...]]:
    size = np.abs(parity.differences)
    for place in np.argsort(-size, axis=None, kind="stable")[:LARGEST]:
        pair, item = np.unravel_index(int(place), size.shape)
        a, b = (parity.groups.names[group] for group in parity.pairs[pair])
        value, low, high = (each[pair, item] for each in (parity.differences, parity.low, parity.high))
        yield parity.items[item], f"{a} − {b}", f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def _of_items(kind: str, found: Disparity) -> Grid:
    order = np.argsort(-np.nan_to_num(found.means, nan=-1.0), kind="stable")
    return Grid(
        f"How often the list holds the answer ({found.metric}), by {kind} of the answer",
        (kind, "people", found.metric),
        tuple(
            (
                found.groups.names[g],
                str(found.groups.sizes[g]),
                _with_interval(*(float(each[g]) for each in (found.means, found.low, found.high))),
            )
            for g in order
            if found.groups.sizes[g]
        ),
    )


def _drifted(kind: str, found: ExposureDrift) -> Grid:
    moved = np.abs(found.differences).max(axis=0, initial=0)
    return Grid(
        f"Exposure by {kind} over time, the groups that moved most",
        (kind, *found.stretches.names),
        tuple(
            (found.items[g], *(f"{share:.3f}" for share in found.shares[:, g]))
            for g in np.argsort(-moved, kind="stable")[:LARGEST]
        ),
        f"Largest step between neighbours: {_estimate(found.largest)}. Who asks changes over time too.",
    )


def _estimate(found: Estimate | None) -> str:
    return "–" if found is None else _with_interval(found.value, found.low, found.high)


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.4f} [{low:.4f}, {high:.4f}]" if math.isfinite(low) else f"{value:.4f}"


def _page(found: Audit, tables: Sequence[Grid]) -> str:
    plots = [
        charts.scatter(
            {f"{point.strength:g}": (point.seen[across], point.ndcg) for point in points},
            f"{TITLES[correction]}: NDCG@10 and {across} by strength",
            across,
            "NDCG@10",
        )
        for correction, points in found.curves.items()
        for across in (("gini@10", "coverage@10") if correction == "popularity" else ("ild@10",))
        if across in points[0].seen
    ]
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in found.facts.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    return (
        "<!doctype html>\n<html lang=en>\n<head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>llm4rec audit</title><style>{STYLE}</style></head>\n<body>\n<h1>Audit</h1>\n"
        + "\n".join([*plots, *map(as_html, tables)])
        + f"\n<h2>How this was measured</h2>\n<dl>{facts}</dl>\n<ul class=note>{notes}</ul>\n"
        + "</body>\n</html>\n"
    )
