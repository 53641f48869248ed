"""Charts with logarithmic axes: equal ratios are equal distances, and only whole powers are marked."""

from __future__ import annotations

import re

import pytest

from llm4rec.bench.charts import growth


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
