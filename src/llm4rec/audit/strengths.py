"""What a correction does to lists, strength by strength, and what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.evaluate.protocol import Evaluation, evaluate
from llm4rec.evaluate.significance import paired
from llm4rec.recommender import Recommender
from llm4rec.types import Progress, silent

Correction = Literal["popularity", "diversity"]
"""What `Recommender.adjusted` takes a strength of."""
STRENGTHS: dict[Correction, tuple[float, ...]] = {
    "popularity": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    "diversity": (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
}
SEEN = ("coverage@10", "gini@10", "novelty@10", "popularity_lift@10", "ild@10")
"""What lies beyond accuracy."""


@dataclass(frozen=True)
class Point:
    """Lists at one strength.

    Attributes:
        strength: of the correction, 0 leaving lists as they are.
        ndcg: NDCG@10, the mean over people.
        difference: of it from the first strength, with the ends of its 95% interval, paired by person.
        relative: the same as shares of the NDCG@10 at the first strength; None where that is 0.
        seen: coverage, Gini, novelty, popularity lift and intra-list diversity of the lists of ten.
    """

    strength: float
    ndcg: float
    difference: tuple[float, float, float]
    relative: tuple[float, float, float] | None
    seen: dict[str, float]


def curve(  # a model, what it is asked, and what is changed
    model: Recommender,
    cases: Cases,
    train: EventLog,
    correction: Correction,
    strengths: Sequence[float] | None = None,
    progress: Progress = silent,
) -> list[Point]:
    """The lists of `cases` at each strength; differences are from the first.

    Args:
        model: its own strength of that does not matter.
        cases: questions with known answers.
        train: what popularity and novelty are counted on.
        correction: what the strengths are of.
        strengths: from 0 to 1; those of `STRENGTHS` where None.
        progress: told after each strength.
    """
    found: list[Point] = []
    first: Evaluation | None = None
    strengths = STRENGTHS[correction] if strengths is None else strengths
    for number, strength in enumerate(strengths, start=1):
        changed = model.adjusted(**{correction: strength})
        now = evaluate(changed, cases, train=train, catalog=model.catalog, ks=(10,), n=20)
        first = first or now
        found.append(_point(strength, now, first))
        progress(correction, number, len(strengths))
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
