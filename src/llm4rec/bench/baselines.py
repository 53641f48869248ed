"""The models every recommender must beat, each fitted on train with its choices made on validation.

All count a person's item once, read a history as a set, and rank by popularity where a history holds
nothing they know. Every tuned baseline chooses by NDCG@10 on the same validation cases.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.split import Split
from llm4rec.evaluate.beyond import people_share
from llm4rec.topn import top_n
from llm4rec.types import Floats, Progress, Rankings, silent


@dataclass(frozen=True)
class Popularity:
    """The same scores for everybody."""

    scores: Floats
    chosen: dict[str, float] = field(default_factory=dict[str, float])

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        scores = np.broadcast_to(self.scores, (histories.n_users, len(self.scores)))
        return top_n(scores, n, None if keep_seen else histories)


def popularity(split: Split, catalog: Catalog, *, progress: Progress = silent) -> Popularity:
    """Items by the share of people who took them in training."""
    return Popularity(people_share(split.train, len(catalog)).astype(np.float32))
