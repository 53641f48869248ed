"""Small logs: with every default, the model finds what a few thousand events tell."""

from __future__ import annotations

import numpy as np
import polars as pl

from llm4rec import Recommender
from llm4rec.bench.baselines import fit_ease, fit_popularity
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import build_log
from llm4rec.data.split import leave_last_out
from llm4rec.evaluate.protocol import mean_ndcg
from llm4rec.settings import Config

N_PEOPLE, N_GROUPS, PER_GROUP = 250, 4, 25


def test_the_defaults_learn_a_small_log() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(3, 16, size=N_PEOPLE)
    people = np.repeat(np.arange(N_PEOPLE), lengths)
    taste = draw.integers(N_GROUPS, size=N_PEOPLE)[people]
    group = np.where(draw.random(len(people)) < 0.8, taste, draw.integers(N_GROUPS, size=len(people)))
    items = group * PER_GROUP + draw.integers(PER_GROUP, size=len(people))
    log = build_log(pl.Series(people).cast(pl.String), items, times=np.arange(len(people)))
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{item}" for item in range(N_GROUPS * PER_GROUP)]}), ())
    split = leave_last_out(log)
    found = Recommender.fit(split.train, catalog, Config(), valid=split.valid)
    popular = fit_popularity(split, catalog)
    ours, lowest = (mean_ndcg(model, split.test, len(catalog)) for model in (found, popular))
    assert ours > 2 * lowest
    told = found.meta["training"]["floor"]
    assert told["best_metric"] > 0.09  # the network itself: who knows the group, not the item, reaches .14


def test_a_log_whose_order_means_nothing_is_answered_as_by_ease() -> None:
    """A decoder reads an order that is not there, and is surer than it may be."""
    draw = np.random.default_rng(1)
    sets = [
        draw.permutation(np.concatenate([10 * group + np.arange(10) for group in draw.permutation(10)[:2]]))
        for _ in range(280)
    ]
    items = [taken[: draw.integers(4, 15)] for taken in sets]
    people = np.repeat(np.arange(280), [len(taken) for taken in items])
    log = build_log(pl.Series(people).cast(pl.String), np.concatenate(items))
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{item}" for item in range(100)]}), ())
    split = leave_last_out(log)
    found = Recommender.fit(split.train, catalog, Config(), valid=split.valid)
    ours, ease = (mean_ndcg(model, split.test, 100) for model in (found, fit_ease(split, catalog)))
    assert ours > 0.95 * ease
    assert max(found.fitted.linear.exponents[1:]) < 1  # nobody is asked at an empty history here
