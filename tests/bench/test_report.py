from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llm4rec.bench import charts, render, report
from llm4rec.bench.peers import Peer
from llm4rec.bench.tables import Comparison, Estimate, Group, Row, Table
from llm4rec.errors import InputError
from llm4rec.store import artefact

HALF = Estimate(0.5, 0.4, 0.6)


def row(model: str, **accuracy: Estimate) -> Row:
    known = {"hr@10": HALF, "ndcg@10": HALF, "mrr@10": HALF} | accuracy
    return Row(model, 3, known, {"coverage@10": 0.25, "coverage@100": 0.75}, 12.34, 456.7, 1.5,
               {"p50": 0.5, "p95": 0.75, "p99": 1.0})  # fmt: skip


GAP = Comparison("ease", "ndcg@10", Estimate(0.02, 0.01, 0.03), Estimate(0.2, 0.1, 0.3), 0.001, 0.002)
TABLE = Table(
    rows=(row("ours"), row("ease")),
    comparisons=(GAP,),
    groups=(Group("target with 0 training events", 7, {"ours": 0.125, "ease": 0.0}),),
    curves={"ours": [0.1, 0.2, 0.15]},
    chosen={"ease": {"ridge": 300.0}},
    facts={"command": "llm4rec bench --out 'a <b>'", "seeds": "3", "intervals": "over people"},
)
HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "line", "circle", "polyline"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def test_markdown_by_hand() -> None:
    text = report.as_markdown(TABLE)
    assert "| model | HR@10 | NDCG@10 | MRR@10 | seeds |\n|---|---:|---:|---:|---:|" in text
    assert (
        "| ours | 0.5000 [0.4000, 0.6000] | 0.5000 [0.4000, 0.6000] | 0.5000 [0.4000, 0.6000] | 3 |" in text
    )
    assert "| ease | +0.0200 [+0.0100, +0.0300] | +20.0% [+10.0%, +30.0%] | 0.001 | 0.002 |" in text
    assert "| ours | 12.3 | 457 | 1.50 | 0.50 | 0.75 | 1.00 |" in text
    assert "- ease: EASE, its ridge chosen on validation: ridge 300" in text
    assert "| target with 0 training events | 7 | 0.1250 | 0.0000 |" in text


def test_lines_for_a_terminal_are_aligned() -> None:
    grid = render.Grid("Title", ("model", "x"), (("ours", "1"), ("a long name", "22")), "Note.")
    assert render.as_text(grid) == "Title\n  model         x\n  ours          1\n  a long name  22\nNote.\n"


def test_hostile_titles_and_names_are_escaped() -> None:
    peers = [Peer(HOSTILE, 3, HALF, HALF, GAP, GAP)]
    shown = report.Shown(HOSTILE, (HOSTILE,), (HOSTILE, "Amélie & co"), (HOSTILE, "Why & how"))
    tags = parsed(report.as_html(TABLE, peers, shown))
    assert "script" not in tags.tags
    assert tags.open == ["html"] or not tags.open
    assert "".join(tags.text).count(HOSTILE) == 5
    assert "Amélie & co" in "".join(tags.text) and "Why & how" in "".join(tags.text)


def test_report_asks_no_outside_host() -> None:
    html = report.as_html(TABLE, shown=report.Shown("1", ("a",), ("b",), ("c",)))
    assert not re.search(r"https?:|//[a-z]|\bsrc=|\bhref=|@import|url\(", html)


def test_report_holds_every_plot() -> None:
    tags = parsed(report.as_html(TABLE))
    assert tags.tags.count("svg") == 4  # accuracy, differences, coverage, validation
    assert "polyline" in tags.tags


def test_one_model_alone_can_be_reported() -> None:
    alone = Table((row("popularity"),), (), (), {}, {}, {})
    assert parsed(report.as_html(alone)).tags.count("svg") == 2


def test_files_are_written_whole(tmp_path: Path) -> None:
    document = report.write(TABLE, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "table.json", "tables.md"]
    assert json.loads((tmp_path / "table.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(document)
    )
    assert document["rows"][0]["accuracy"]["ndcg@10"] == {"mean": 0.5, "low": 0.4, "high": 0.6}


@pytest.mark.parametrize("name", ["report.html", "table.json", "tables.md"])
def test_a_file_of_somebody_elses_is_not_replaced(tmp_path: Path, name: str) -> None:
    report.check_place(tmp_path / "new")
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=name):
        report.check_place(tmp_path)
    (tmp_path / "runs").mkdir()  # the folder is a bench's: so is the file
    report.check_place(tmp_path)


def test_a_model_is_no_place_for_a_report(tmp_path: Path) -> None:
    artefact.write(tmp_path / "model", kind="model", meta={})
    (tmp_path / "model" / "runs").mkdir()  # of a bench that has written there all the same
    with pytest.raises(InputError, match=r"holds a model .* Name another place"):
        report.check_place(tmp_path / "model")


@pytest.mark.parametrize(
    "values",
    [
        {"a": Estimate(0.0, 0.0, 0.0)},
        {"a": Estimate(1e-9, 0.0, 2e-9)},
        {"a": Estimate(-5.0, -9.0, 1e4), "b": HALF},
    ],
)
def test_charts_stand_any_scale(values: dict[str, Estimate]) -> None:
    drawn = charts.intervals(values, "t", zero=True)
    numbers = [float(found) for found in re.findall(r"cx=([-\d.]+)", drawn)]
    assert len(numbers) == len(values)
    assert all(charts.LABELS <= number <= charts.WIDTH for number in numbers)


def test_axis_marks_are_round_and_inside() -> None:
    drawn = charts.intervals({"a": Estimate(0.1, 0.05, 0.12)}, "t")
    marks = [float(found) for found in re.findall(r"text-anchor=middle>([\d.]+)<", drawn)]
    assert marks == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12])


def test_names_of_points_at_one_place_do_not_overlap() -> None:
    drawn = charts.scatter({"a": (0.3, 0.1), "b": (0.3, 0.1), "c": (0.31, 0.1)}, "t", "x", "y")
    heights = sorted(float(y) for y in re.findall(r"<text x=[\d.]+ y=([\d.]+) text-anchor=\w+>[abc]<", drawn))
    assert len(heights) == 3
    assert all(later - earlier >= 13 for earlier, later in itertools.pairwise(heights))
