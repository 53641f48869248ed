"""A model that is read answers at once as it will ever answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import build_log
from llm4rec.recommender import Recommender
from llm4rec.settings import Config

TINY = Config.model_validate({
    "train": {"epochs": 1, "attention_epochs": 0, "batch_size": 64},
    "model": {"embedding_size": 8, "layers": 1, "heads": 1},
    "encode": {"behaviour_dropout": 0.5},
})


def test_nothing_is_dropped_at_random_by_a_model_just_read(tmp_path: Path) -> None:
    table = pl.DataFrame({
        "item_id": [f"i{i}" for i in range(20)],
        "kind": [["a", "b"][i % 2 :] for i in range(20)],
    })
    users = pl.Series([f"u{u}" for u in range(12) for _ in range(5)])
    log = build_log(users, np.arange(60) * 7 % 20)
    fitted = Recommender.fit(log, Catalog(table, (Field("kind", "categorical"),)), TINY)
    fitted.save(tmp_path / "model")
    items = np.arange(20)
    read = Recommender.load(tmp_path / "model").modality_weights(items)  # before anything else is asked
    np.testing.assert_array_equal(read, fitted.modality_weights(items))
    assert (read[:, fitted.modalities.index("behaviour")] > 0).sum() > 10
