"""How much of an accuracy is owed to what people were led to: the same answers, weighed by propensity.

Answers are what people took, and popular items are taken because they are seen. Weighed by 1 / propensity
they stand for what would be taken if everything were seen alike. Where each answer has a propensity that was
logged with it, that is taken as it is; elsewhere it has to be assumed: e_i = (n_i / max n)^½ of an item taken
n_i times.

Sources: Yang et al., Unbiased Offline Recommender Evaluation for Missing-Not-at-Random Implicit Feedback,
RecSys 2018; that of the propensity is named at `of_popularity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.debias.propensity import of_popularity
from llm4rec.evaluate.off_policy import Logged, Value, check, snips
from llm4rec.evaluate.protocol import Evaluation
from llm4rec.types import Array

CLIPS = (0.0, 0.01, 0.05, 0.1, 0.2, 1.0)
"""Least propensities that weights are made of; 1 weighs all alike."""


@dataclass(frozen=True)
class Weighed:
    """NDCG@10 with answers weighed by 1 / max(propensity, clip).

    Attributes:
        clip: the least propensity.
        value: the self-normalised mean, with its interval over people.
        effective: (Σ w)² / Σ w², the number of unweighted answers that say as much.
        largest: the largest weight, of weights whose mean is 1.
        clipped: share of the answers whose propensity is below `clip`.
    """

    clip: float
    value: Value
    effective: float
    largest: float
    clipped: float


def measure(
    found: Evaluation, cases: Cases, train: EventLog, clips: Sequence[float] = CLIPS
) -> list[Weighed]:
    """NDCG@10 at each clip; of a case with several answers the first is weighed."""
    answers = cases.targets[cases.target_offsets[:-1]]
    exposed = logged(cases)
    if exposed is None:
        counts = train.item_counts(int(max(train.items.max(initial=0), answers.max())) + 1)
        exposed = of_popularity(counts)[answers]
    told: list[Weighed] = []
    for clip in clips:
        log = Logged(
            rewards=found.per_case["ndcg@10"].astype(np.float64),
            actions=answers,
            propensities=np.maximum(exposed, clip),
            probabilities=np.ones(len(answers)),
            people=cases.rows,
        )
        weighing = check(log)
        told.append(
            Weighed(
                clip=clip,
                value=snips(log),
                effective=weighing.effective,
                largest=weighing.largest / weighing.mean,
                clipped=float((exposed < clip).mean()),
            )
        )
    return told


def logged(cases: Cases) -> Array | None:
    """The propensity that was logged with the first answer of each case [c]; None unless all have one."""
    log = cases.log
    place = log.offsets[cases.rows] + cases.ends
    if log.propensities is None or (place >= log.offsets[cases.rows + 1]).any():
        return None
    found = log.propensities[place].astype(np.float64)
    same = log.items[place] == cases.targets[cases.target_offsets[:-1]]
    return found if same.all() and not np.isnan(found).any() else None
