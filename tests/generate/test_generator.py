"""Generation end to end: ids are made, a head is taught, and what it finds joins the dense head's scores."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.errors import InputError
from llm4rec.generate.generator import Generator, choose_share
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.types import Query

N_ITEMS = 24
CATALOG = Catalog(
    pl.DataFrame({
        "item_id": [f"i{i}" for i in range(N_ITEMS)],
        "kind": [[f"k{i // 6}"] for i in range(N_ITEMS)],
    }),
    (Field("kind", "categorical"),),
)


def walks(n_people: int = 120, each: int = 7) -> EventLog:
    """Everybody walks along the items in steps of one."""
    starts = np.random.default_rng(0).integers(N_ITEMS, size=n_people)
    items = (starts[:, None] + np.arange(each)) % N_ITEMS
    return build_log(pl.Series([f"u{u}" for u in range(n_people) for _ in range(each)]), items.ravel())


def config(**generate: Any) -> Config:
    return Config.model_validate({
        "train": {"epochs": 25, "attention_epochs": 0, "batch_size": 128, "learning_rate": 0.01},
        "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.0},
        "generate": {"mode": "joint", "codebook_size": 6, "n_levels": 2, "beam": 6} | generate,
    })


@pytest.fixture(scope="module")
def model() -> Recommender:
    return Recommender.fit(walks(), CATALOG, config())


def generator(model: Recommender) -> Generator:
    assert model.fitted.generator is not None
    return model.fitted.generator


def test_codes_alone_know_what_comes_next() -> None:
    alone = Recommender.fit(walks(), CATALOG, config(share=1.0))
    hits = [alone.recommend(Query((f"i{i}", f"i{i + 1}", f"i{i + 2}")), 1).item_ids[0] for i in range(20)]
    assert sum(hit == f"i{i + 3}" for i, hit in enumerate(hits)) >= 14


def test_content_codes_without_a_dense_head_learn_too() -> None:
    alone = Recommender.fit(walks(), CATALOG, config(mode="only"))
    hits = [alone.recommend(Query((f"i{i}", f"i{i + 1}", f"i{i + 2}")), 3).item_ids for i in range(20)]
    assert sum(f"i{i + 3}" in hit for i, hit in enumerate(hits)) >= 14
    with pytest.raises(InputError, match="need items with features"):
        Recommender.fit(walks(), replace(CATALOG, fields=()), config(mode="only"))


def test_where_codes_weigh_nothing_all_is_as_without_them(tmp_path: Path) -> None:
    """Retrieval and attention to it included, bit for bit, also after what comes and goes."""
    options: dict[str, Any] = {"share": 0.0, "joint_epochs": 0, "exact_up_to": 0}
    off = Recommender.fit(walks(), CATALOG, config(**options | {"mode": "off"}))
    none = Recommender.fit(walks(), CATALOG, config(**options))
    assert none.meta["retrieval"] == off.meta["retrieval"]
    none.save(tmp_path / "model")
    new = pl.DataFrame({"item_id": ["new"], "kind": [["k2"]]})
    for one, other in [(none, off), (Recommender.load(tmp_path / "model"), off)]:
        for a, b in [(one, other), (one.upsert_items(new), other.upsert_items(new))]:
            assert generator(a).join is None and a.fitted.scorer.join is None
            for query in (Query(("i3", "i4")), Query(), Query(("i9",), exclude=("i10",))):
                assert a.recommend(query, 10) == b.recommend(query, 10)


@pytest.mark.parametrize("share", [0.01, 0.4, 1.0])
def test_scores_are_joined_as_promised(model: Recommender, share: float) -> None:
    """With a beam over everything the joined scores are (1 − w) p_dense + w p_code of every item."""
    scorer = model.fitted.scorer
    asked = walks().heads(np.full(120, 3))
    with torch.inference_mode():
        states = scorer.states(asked, np.full(120, -1))
        dense = scorer.network.score(states, scorer.vectors)
        all_items = torch.arange(N_ITEMS).expand(120, -1)
        whole = replace(generator(model), beam=N_ITEMS, share=share)
        found = whole.joined(states, dense, 5)
        expected = (1 - share) * dense.exp() + share * whole.log_probability(states, all_items).exp()
    torch.testing.assert_close(found.exp(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(120), atol=1e-4, rtol=0)


def test_what_neither_head_finds_likely_falls_behind_for_no_other_reason(model: Recommender) -> None:
    """With a beam of one nearly nothing is worked out: the rest keeps the dense head's proportions."""
    scorer = model.fitted.scorer
    asked = walks().heads(np.full(120, 3))
    with torch.inference_mode():
        states = scorer.states(asked, np.full(120, -1))
        dense = scorer.network.score(states, scorer.vectors)
        narrow = replace(generator(model), beam=1, share=0.4)
        found = narrow.joined(states, dense, 1)
        exact = narrow.log_probability(states, torch.arange(N_ITEMS).expand(120, -1)).exp()
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(120), atol=1e-4, rtol=0)
    gain = found - dense
    others = torch.isclose(gain, gain.median(dim=1, keepdim=True).values, atol=1e-4, rtol=0)
    assert (others.sum(dim=1) >= N_ITEMS - 2).all()  # one found by each head
    mixed = 0.6 * dense.exp() + 0.4 * exact
    torch.testing.assert_close(found.exp()[~others], mixed[~others], atol=1e-5, rtol=1e-4)
    assert (~others).sum() >= 100


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_every_list_is_full_legal_and_without_repetition(model: Recommender, share: float) -> None:
    scorer, asked = model.fitted.scorer, walks()
    joined = replace(generator(model), beam=1, share=share).joined
    lists = Recommender(replace(model.fitted, scorer=replace(scorer, join=joined))).rank(asked, N_ITEMS)
    for row in range(asked.n_users):
        seen = set(asked.history(row).tolist())
        found = [item for item in lists.items[row].tolist() if item >= 0]
        assert sorted(found) == sorted(set(range(N_ITEMS)) - seen)


def test_the_generator_finds_what_it_says(model: Recommender) -> None:
    made, scorer = generator(model), model.fitted.scorer
    legal = torch.ones(120, N_ITEMS, dtype=torch.bool)
    legal[:, ::2] = False
    with torch.inference_mode():
        states = scorer.states(walks().heads(np.full(120, 3)), np.full(120, -1))
        items, log_p = made.generate(states, 20, legal)
        assert (items[:, 12:] == -1).all() and (items[:, :12] % 2 == 1).all()
        torch.testing.assert_close(made.log_probability(states, items[:, :12]), log_p[:, :12])


def test_the_share_is_the_most_likely() -> None:
    even = np.full(10, math.log(0.5), dtype=np.float32)
    assert choose_share(even, even - 1) == 0
    assert choose_share(even - 1, even) == 1
    # each is right where the other is lost
    one = np.log(np.array([0.8, 0.01] * 5, dtype=np.float32))
    assert choose_share(one, one[::-1].copy()) == pytest.approx(0.5)


def test_a_stored_generator_answers_alike(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    np.testing.assert_array_equal(generator(loaded).ids.codes, generator(model).ids.codes)
    assert generator(loaded).share == generator(model).share
    states, leaves = torch.randn(3, 16), torch.arange(N_ITEMS).expand(3, -1)
    with torch.inference_mode():
        found, expected = (generator(one).log_probability(states, leaves) for one in (loaded, model))
    assert torch.equal(found, expected) and found.std() > 0.1
