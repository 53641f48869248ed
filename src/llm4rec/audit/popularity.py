"""What taking popularity out of the scores does to lists, strength by strength, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.evaluate.protocol import Evaluation, evaluate
from llm4rec.evaluate.significance import paired
from llm4rec.recommender import Recommender
from llm4rec.types import Progress, silent

STRENGTHS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
SEEN = ("coverage@10", "gini@10", "novelty@10", "popularity_lift@10")
"""Of what lies beyond accuracy, what popularity is in."""


@dataclass(frozen=True)
class Point:
    """Lists at one strength.

    Attributes:
        strength: γ of equation (15).
        ndcg: NDCG@10, the mean over people.
        difference: of it from the first strength, with the ends of its 95% interval, paired by person.
        relative: the same as shares of the NDCG@10 at the first strength; None where that is 0.
        seen: coverage, Gini, novelty and popularity lift of the lists of ten.
    """

    strength: float
    ndcg: float
    difference: tuple[float, float, float]
    relative: tuple[float, float, float] | None
    seen: dict[str, float]


def curve(
    model: Recommender,
    cases: Cases,
    train: EventLog,
    strengths: Sequence[float] = STRENGTHS,
    progress: Progress = silent,
) -> list[Point]:
    """The lists of `cases` at each strength; differences are from the first.

    Args:
        model: its own strength does not matter.
        cases: questions with known answers.
        train: what popularity and novelty are counted on.
        strengths: from 0 to 1.
        progress: told after each strength.
    """
    found: list[Point] = []
    first: Evaluation | None = None
    for number, strength in enumerate(strengths, start=1):
        now = evaluate(
            model.adjusted(popularity=strength), cases, train=train, catalog=model.catalog, ks=(10,), n=20
        )
        first = first or now
        found.append(_point(strength, now, first))
        progress("popularity", number, len(strengths))
    return found


def _point(strength: float, now: Evaluation, first: Evaluation) -> Point:
    before, after = (each.per_person("ndcg@10") for each in (first, now))
    gap = paired(after, before)
    difference, base = (gap.difference, gap.low, gap.high), float(before.mean())
    return Point(
        strength=strength,
        ndcg=float(after.mean()),
        difference=difference,
        relative=None if not base else (gap.difference / base, gap.low / base, gap.high / base),
        seen={name: now.summary[name] for name in SEEN if name in now.summary},
    )
