"""What validation chooses, asked as what is served will be asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec import choosing
from llm4rec.choosing import Questions
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import build_log
from llm4rec.data.split import Split, leave_last_out
from llm4rec.evaluate.protocol import case_ndcg
from llm4rec.generate.generator import Generator
from llm4rec.generate.semantic_id import GenerateConfig
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.types import Floats

N_ITEMS = 30
JOINT = GenerateConfig(mode="joint", codebook_size=6, n_levels=2, epochs=5, joint_epochs=1, beam=8)


@pytest.fixture(scope="module")
def split() -> Split:
    """Three tastes of ten items each; everybody takes eight of one, in any order."""
    rng = np.random.default_rng(3)
    taken = [10 * (user % 3) + rng.permutation(10)[:8] for user in range(240)]
    return leave_last_out(
        build_log(pl.Series([f"u{user}" for user in range(240) for _ in range(8)]), np.concatenate(taken))
    )


@pytest.fixture(scope="module")
def model(split: Split) -> Recommender:
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "kind": [[f"k{item // 5}"] for item in range(N_ITEMS)],
    })
    config = Config.model_validate({
        "train": {"epochs": 3, "attention_epochs": 0, "batch_size": 128, "learning_rate": 0.01},
        "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.0},
        "linear": {"ridge": 1.0},
        "generate": JOINT.model_dump(),
        "retrieve": {"enabled": False},
    })
    catalog = Catalog(table, (Field("kind", "categorical"),))
    return Recommender.fit(split.train, catalog, config, valid=split.valid)


def questions(model: Recommender, split: Split) -> Questions:
    return Questions(split.valid, None, N_ITEMS, replace(model.fitted.scorer, join=None))


def generator(model: Recommender) -> Generator:
    assert model.fitted.generator is not None
    return model.fitted.generator


@pytest.mark.parametrize("heads", ["dense", "both"])
def test_a_stage_is_judged_by_what_is_served(model: Recommender, split: Split, heads: str) -> None:
    """The linear part and the share suit the network as it is; the prior alone is left out."""
    fitted, asked = model.fitted, questions(model, split)
    join = None
    options = JOINT.model_copy(update={"share": 0.4})
    if heads == "both":
        join = replace(generator(model), share=0.4).joined
    scorer = replace(fitted.scorer, join=join)
    linear = asked.linear(scorer, fitted.linear)
    no_prior = replace(fitted.prior, shares=tuple(0.0 for _ in fitted.prior.shares))
    served = Recommender(replace(fitted, scorer=scorer, linear=linear, prior=no_prior))
    ids = generator(model).ids if heads == "both" else None
    network = fitted.scorer.network
    metric = asked.served_metric(network, ids, fitted.linear, options)
    twice = split.valid.take(np.concatenate([np.arange(len(split.valid)), [0]]))
    cases = case_ndcg(served, split.valid, N_ITEMS)
    np.testing.assert_allclose(metric(network), cases, atol=1e-6)
    again = replace(asked, cases=twice).served_metric(network, ids, fitted.linear, options)
    assert len(again(network)) == len(cases)  # one figure per person
    assert any(linear.strengths)


@pytest.mark.parametrize(
    ("gains", "kept"),
    [
        (np.tile([0.1, 0.0], 120), True),  # .05 on average, its standard error .003
        (np.tile([0.0, -0.1], 120), False),
        (np.repeat([0.8, -0.6, 0.0], [1, 1, 238]), False),  # .0008 on average, its standard error .0042
    ],
    ids=["gains", "loses", "by chance"],
)
def test_codes_weigh_nothing_where_the_linear_part_says_as_much(
    model: Recommender, split: Split, monkeypatch: pytest.MonkeyPatch, gains: Floats, kept: bool
) -> None:
    def case_ndcg(model: Any, cases: Any, n_items: int) -> Floats:
        return np.full(len(gains), 0.3) + (0 if model.scorer.join is None else gains)

    fitted, asked = model.fitted, questions(model, split)
    scorer, ids = asked.scorer, generator(model).ids
    likeliest = asked._likeliest(scorer, ids, JOINT)
    assert likeliest.share > 0
    monkeypatch.setattr(choosing, "case_ndcg", case_ndcg)
    found = asked.generator(scorer, ids, fitted.linear, JOINT)
    assert found.share == (likeliest.share if kept else 0)
    given = JOINT.model_copy(update={"share": 0.25})
    assert asked.generator(scorer, ids, fitted.linear, given).share == 0.25
    only = JOINT.model_copy(update={"mode": "only"})
    assert asked.generator(scorer, ids, fitted.linear, only).share == 1
