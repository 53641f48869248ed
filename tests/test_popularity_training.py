"""Models whose dense head was trained beside popularity: what they serve, keep and refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec.answering import exact, shortlisted
from llm4rec.config import load
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.legal import legal_items
from llm4rec.errors import ArtefactError, ConfigError
from llm4rec.fitted import Fitted
from llm4rec.fitting import fit
from llm4rec.recommender import Recommender
from llm4rec.settings import Config, sasrec_config

N_ITEMS = 24
CATALOG = Catalog(
    pl.DataFrame({
        "item_id": [f"i{i}" for i in range(N_ITEMS)],
        "kind": [["ab"[i % 2]] for i in range(N_ITEMS)],
    }),
    (Field("kind", "categorical"),),
)


def walks() -> EventLog:
    """People who take what is popular, and times at which that is not the same."""
    draw = np.random.default_rng(0)
    items = [(draw.geometric(0.15, 6) + 3 * u // 10) % N_ITEMS for u in range(40)]
    times = [u * 100 + np.arange(6) for u in range(40)]
    return build_log(
        pl.Series([f"u{u}" for u in range(40) for _ in range(6)]),
        np.concatenate(items),
        times=np.concatenate(times),
    )


def config(training: float, **popularity: Any) -> Config:
    return Config.model_validate({
        "train": {"epochs": 3, "attention_epochs": 0, "context_epochs": 0, "batch_size": 64},
        "model": {"embedding_size": 8, "layers": 1, "heads": 1},
        "linear": {"items": 0},
        "retrieve": {"enabled": False},
        "debias": {"popularity": {"training": training} | popularity},
    })


@pytest.fixture(scope="module")
def model() -> Recommender:
    return Recommender.fit(walks(), CATALOG, config(0.5, window=0.1))


def alone(model: Recommender, **changes: Any) -> Fitted:
    """Its dense head, without the prior."""
    return replace(model.fitted, prior=replace(model.fitted.prior, shares=(0.0,) * 4), **changes)


def carried(model: Recommender) -> np.ndarray:
    found = model.fitted.scorer.carried
    assert found is not None
    return found.counts


def test_what_training_was_given_the_strength_takes_out(model: Recommender) -> None:
    asked = walks().heads(np.arange(40) % 5)
    fitted, rows = alone(model.adjusted(popularity=0.5)), np.full(40, -1)
    served = exact(fitted, asked, legal_items(CATALOG, 40, []), N_ITEMS)
    liked = replace(fitted.scorer, carried=None)
    plain = torch.from_numpy(liked.log_scores(asked, rows))
    np.testing.assert_allclose(
        np.take_along_axis(plain.numpy(), served.items, axis=1), served.scores, atol=2e-5
    )
    order = exact(
        replace(fitted, scorer=liked, popularity=fitted.popularity.at(0.0)),
        asked, legal_items(CATALOG, 40, []), N_ITEMS,
    )  # fmt: skip
    np.testing.assert_array_equal(served.items, order.items)
    with_it = exact(alone(model), asked, legal_items(CATALOG, 40, []), N_ITEMS)
    assert (with_it.items != served.items).any()  # at strength 0 it is in what is served


def test_a_shortlist_is_of_the_logits_that_carry_it(model: Recommender) -> None:
    asked = walks().heads(np.arange(40) % 5)
    legal = legal_items(CATALOG, 40, [])
    fitted = alone(model)
    whole, some = exact(fitted, asked, legal, 5), shortlisted(fitted, asked, legal, 5)
    np.testing.assert_array_equal(whole.items, some.items)
    np.testing.assert_allclose(whole.scores, some.scores, atol=1e-4)


def test_it_is_kept(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    again = Recommender.load(tmp_path / "model")
    np.testing.assert_array_equal(carried(again), carried(model))
    asked = walks().heads(np.arange(40) % 5)
    np.testing.assert_array_equal(again.rank(asked, 5).items, model.rank(asked, 5).items)
    np.testing.assert_array_equal(again.rank(asked, 5).scores, model.rank(asked, 5).scores)


def test_a_new_item_has_the_smallest_count(model: Recommender) -> None:
    grown = model.upsert_items(pl.DataFrame({"item_id": ["new"], "kind": [["a"]]}))
    np.testing.assert_array_equal(carried(grown), [*carried(model), 0.5])
    assert len(grown.recommend_many(walks(), None, 3).items) == 40


def test_what_is_remembered_moves_popularity_and_what_was_indexed_with_it(model: Recommender) -> None:
    asked, legal = walks().heads(np.arange(40) % 5), legal_items(CATALOG, 40, [])
    shortlisted(model.fitted, asked, legal, 5)  # there is an index
    later = build_log(
        pl.Series(["new"] * 60), np.full(60, N_ITEMS - 1), times=np.arange(60) + walks().times.max() + 1
    )
    after = model.remember(later)
    assert carried(after).argmax() == N_ITEMS - 1 != carried(model).argmax()
    fitted = alone(after)
    whole, some = exact(fitted, asked, legal, 5), shortlisted(fitted, asked, legal, 5)
    np.testing.assert_array_equal(whole.items, some.items)
    np.testing.assert_allclose(whole.scores, some.scores, atol=1e-4)


def test_strength_and_window_belong_to_what_comes_after_training_and_training_does_not(
    tmp_path: Path,
) -> None:
    class StopError(Exception):
        pass

    def stop(stage: str, done: int, *_: object, **__: float) -> None:
        if stage == "floor" and done == 1:
            raise StopError

    with pytest.raises(StopError):
        fit(walks(), CATALOG, config(0.5), checkpoints=tmp_path, progress=stop)
    with pytest.raises(ArtefactError, match="another configuration or other data"):
        fit(walks(), CATALOG, config(0.4), checkpoints=tmp_path, resume=True)
    resumed = fit(walks(), CATALOG, config(0.5, strength=0.5, window=0.1), checkpoints=tmp_path, resume=True)
    np.testing.assert_array_equal(resumed.scorer.vectors, fit(walks(), CATALOG, config(0.5)).scorer.vectors)


def test_where_popularity_can_be_given_to_nothing_it_is_refused() -> None:
    given = "debias.popularity.training=0.5"
    with pytest.raises(ConfigError, match=r"plain dot products do not have: set model\.cosine = true"):
        load(Config, settings=[given, "model.cosine=false"], environment={})
    with pytest.raises(ConfigError, match="only trains no dense head"):
        load(Config, settings=[given, "generate.mode=only"], environment={})
    assert sasrec_config(config(0.5)).debias.popularity.training == 0
