"""Charts with logarithmic axes: equal ratios are equal distances, and only whole powers are marked."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from llm4rec.bench.charts import alone, curves, growth


def test_equal_ratios_are_equal_distances() -> None:
    lines = {"a <b>": [(1e3, 2.0), (1e4, 20.0), (1e6, 2000.0)], "flat": [(1e3, 5.0), (1e6, 5.0)]}
    drawn = growth(lines, "Cost", "items", "ms")
    paths = [
        [tuple(map(float, point.split(","))) for point in path.split()]
        for path in re.findall(r'<polyline points="([^"]+)"', drawn)
    ]
    (x1, y1), (x2, y2), (x3, y3) = paths[0]
    assert x3 - x2 == pytest.approx(2 * (x2 - x1), abs=0.3)
    assert y2 - y3 == pytest.approx(2 * (y1 - y2), abs=0.3)
    assert paths[1][0][1] == paths[1][1][1]
    for mark in (">1,000<", ">1,000,000<", ">10<", "a &lt;b&gt;"):
        assert mark in drawn
    assert ">3.5<" not in drawn


def test_a_chart_stands_alone_as_xml() -> None:
    chart = curves({"a <b> x=1": [0.1, 0.2], "c": [0.3]}, "NDCG@10 = over time", "round", "NDCG@10")
    root = ElementTree.fromstring(alone(chart))
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg" and root.get("aria-label") == "NDCG@10 = over time"
    texts = [each.text for each in root.iter(f"{space}text")]
    assert "a <b> x=1" in texts and "round" in texts
    lines = [each.get("points") for each in root.iter(f"{space}polyline")]
    assert lines == re.findall(r'polyline points="([^"]+)"', chart)
    assert all(line.get("class") == "grid" for line in root.iter(f"{space}line"))
