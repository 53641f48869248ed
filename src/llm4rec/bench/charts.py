"""Small charts as inline SVG: no script, no font and no library has to come from anywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

from llm4rec.bench.tables import Estimate

WIDTH = 720
LABELS = 190  # left margin for the names of models
EDGE = 30  # right margin
LINE = 26  # height of one model's line
HEIGHT = 320  # of a chart with two axes
FOOT = 44  # for the axis below
COLOURS = ("#1f6feb", "#d1495b", "#2a9d8f", "#8d6a9f", "#e09f3e", "#5c677d", "#6a994e", "#9c6644")


def intervals(values: Mapping[str, Estimate], title: str, *, zero: bool = False) -> str:
    """One dot and interval per name; with `zero` a line marks no difference."""
    low = min(value.low for value in values.values())
    high = max(value.high for value in values.values())
    axis = _Axis(min(low, 0.0), max(high, 0.0), LABELS, WIDTH - EDGE)
    height = LINE * len(values) + FOOT
    parts = [_grid(axis, height - FOOT, height)]
    if zero:
        parts.append(f"<line class=zero x1={axis(0)} x2={axis(0)} y1=0 y2={height - FOOT} />")
    for place, (name, value) in enumerate(values.items()):
        y = LINE * place + LINE / 2
        colour = COLOURS[0] if place == 0 and not zero else COLOURS[5]
        parts.append(
            f"<text x={LABELS - 10} y={y + 4:.1f} text-anchor=end>{escape(name)}</text>"
            f'<line x1={axis(value.low)} x2={axis(value.high)} y1={y} y2={y} stroke="{colour}" '
            f"stroke-width=2 />"
            f'<circle cx={axis(value.mean)} cy={y} r=4.5 fill="{colour}"><title>{escape(name)}: '
            f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]</title></circle>"
        )
    return _svg(parts, height, title)


def scatter(points: Mapping[str, tuple[float, float]], title: str, across: str, upwards: str) -> str:
    """One named dot per (x, y), both axes from zero."""
    x = _Axis(0.0, max(point[0] for point in points.values()), 60, WIDTH - EDGE)
    y = _Axis(0.0, max(point[1] for point in points.values()), HEIGHT - FOOT, 10)
    parts = [_grid(x, HEIGHT - FOOT, HEIGHT, across), _side(y, upwards)]
    labels: list[tuple[float, float]] = []
    for place, (name, (a, b)) in enumerate(sorted(points.items(), key=lambda point: -point[1][1])):
        colour = COLOURS[place % len(COLOURS)]
        end = "end" if x(a) > WIDTH * 0.75 else "start"
        label = (x(a) + (-9 if end == "end" else 9), y(b) + 4)
        while any(abs(label[0] - u) < LABELS and abs(label[1] - v) < 13 for u, v in labels):
            label = (label[0], label[1] + 1)  # downwards: the points come from the top
        labels.append(label)
        parts.append(
            f'<circle cx={x(a)} cy={y(b)} r=5 fill="{colour}"><title>{escape(name)}: {a:.4f}, {b:.4f}</title>'
            f"</circle><text x={label[0]:.1f} y={label[1]:.1f} text-anchor={end}>{escape(name)}</text>"
        )
    return _svg(parts, HEIGHT, title)


def curves(lines: Mapping[str, Sequence[float]], title: str, across: str, upwards: str) -> str:
    """One line per name over the whole numbers from 1."""
    longest = max(len(line) for line in lines.values())
    x = _Axis(1.0, float(max(longest, 2)), 60, WIDTH - EDGE)
    y = _Axis(0.0, max(max(line) for line in lines.values()), HEIGHT - FOOT, 10)
    parts = [_grid(x, HEIGHT - FOOT, HEIGHT, across), _side(y, upwards)]
    for place, (name, line) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{x(step)},{y(value)}" for step, value in enumerate(line, start=1))
        parts.append(
            f'<polyline points="{path}" fill=none stroke="{colour}" stroke-width=2 />'
            f"<text x={WIDTH - EDGE} y={HEIGHT - FOOT - 12 - 16 * place} text-anchor=end "
            f'style="fill:{colour}">{escape(name)}</text>'
        )
    return _svg(parts, HEIGHT, title)


def growth(lines: Mapping[str, Sequence[tuple[float, float]]], title: str, across: str, upwards: str) -> str:
    """One line per name through its (x, y), both axes logarithmic; values must be above 0."""
    points = [(math.log10(x), math.log10(y)) for line in lines.values() for x, y in line]
    lowest, highest = math.floor(min(y for _, y in points)), math.ceil(max(y for _, y in points))
    x = _Axis(min(x for x, _ in points), max(x for x, _ in points), 60, WIDTH - EDGE)
    y = _Axis(lowest, max(highest, lowest + 1), HEIGHT - FOOT, 10)
    parts = [_grid(x, HEIGHT - FOOT, HEIGHT, across, power=True), _side(y, upwards, power=True)]
    for place, (name, line) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{x(math.log10(a))},{y(math.log10(b))}" for a, b in line)
        dots = "".join(
            f'<circle cx={x(math.log10(a))} cy={y(math.log10(b))} r=4 fill="{colour}">'
            f"<title>{escape(name)}: {a:,.15g}, {b:g}</title></circle>"
            for a, b in line
        )
        parts.append(
            f'<polyline points="{path}" fill=none stroke="{colour}" stroke-width=2 />{dots}'
            f'<text x=70 y={30 + 16 * place} style="fill:{colour}">{escape(name)}</text>'
        )
    return _svg(parts, HEIGHT, title)


def alone(chart: str) -> str:
    """A chart as a file of its own, an SVG with a white ground that a browser opens.

    Inside a page attributes need no quotes and colours come from the page's style.
    """
    drawn = chart[chart.index("<svg ") : chart.index("</figure>")]
    tags = re.sub(r"<[^>]+>", lambda tag: re.sub(r"([\w-]+)=([^\"\s>]+)", r'\1="\2"', tag[0]), drawn)
    style = (
        "text { font: 12px sans-serif; fill: #5c677d; } .grid { stroke: #d8dee4; } "
        ".zero { stroke: #24292f; stroke-dasharray: 4 3; }"
    )
    head, body = tags.split(">", 1)
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{ground}{body}\n'


class _Axis:
    """Values to pixels, and round numbers to mark."""

    def __init__(self, low: float, high: float, start: float, end: float):
        self._low = low
        self._span = (high - low) or 1.0
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        return round(self._start + (value - self._low) / self._span * (self._end - self._start), 1)

    def ticks(self) -> list[float]:
        """Three to eight round numbers inside the axis."""
        wanted = self._span / 6
        tenth = 10.0 ** math.floor(math.log10(wanted))
        step = next(m * tenth for m in (1, 2, 5, 10) if m * tenth >= wanted * (1 - 1e-9))
        first = int(self._low / step) - 1
        marks = [step * k for k in range(first, first + 60)]
        return [m for m in marks if self._low - 1e-12 <= m <= self._low + self._span + 1e-12]


def _grid(axis: _Axis, floor: float, height: float, label: str = "", *, power: bool = False) -> str:
    marks = "".join(
        f"<line class=grid x1={axis(tick)} x2={axis(tick)} y1=0 y2={floor} />"
        f"<text x={axis(tick)} y={floor + 16} text-anchor=middle>{_mark(tick, power)}</text>"
        for tick in (round(tick, 10) for tick in axis.ticks())
        if not power or tick.is_integer()
    )
    return marks + f"<text x={WIDTH / 2} y={height - 6} text-anchor=middle>{escape(label)}</text>"


def _side(axis: _Axis, label: str, *, power: bool = False) -> str:
    marks = "".join(
        f"<line class=grid x1=60 x2={WIDTH - EDGE} y1={axis(tick)} y2={axis(tick)} />"
        f"<text x=54 y={axis(tick) + 4} text-anchor=end>{_mark(tick, power)}</text>"
        for tick in (round(tick, 10) for tick in axis.ticks())
        if not power or tick.is_integer()
    )
    return marks + f"<text x=64 y=12 class=label>{escape(label)}</text>"


def _mark(tick: float, power: bool) -> str:
    """A mark's number; with `power` it stands for a power of ten."""
    return f"{10**tick:,.10g}" if power else f"{tick:g}"


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {height}" role=img '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )
