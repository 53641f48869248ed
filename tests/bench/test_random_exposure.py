"""The script that tests ratings people chose to give on pairs drawn at random."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from llm4rec.debias.methods import METHODS

Script = Callable[[str], ModuleType]


def write(folder: Path) -> None:
    """Sixty people who rate the even items they like more often than the odd ones, and six drawn for each."""
    draw = np.random.default_rng(0)
    n_people, n_items = 60, 16
    good = np.arange(n_items) % 2 == 0
    ratings = np.clip(draw.integers(1, 5, size=(n_people, n_items)) + good, 1, 5)
    e = np.where(ratings >= 3, 0.5, 0.2)
    people, items = np.nonzero(draw.random(e.shape) < e)
    drawn = np.argsort(draw.random((n_people, n_items)), axis=1)[:, :6]
    who, what = np.repeat(np.arange(n_people), 6), drawn.ravel()
    pl.concat([
        pl.DataFrame({
            "user_id": [f"u{u}" for u in rows],
            "item_id": [f"i{i}" for i in columns],
            "rating": ratings[rows, columns].astype(np.float64),
            "split": split,
            "propensity": e[rows, columns],
        })
        for split, rows, columns in (("test", who, what), ("train", people[::-1], items[::-1]))
    ]).write_parquet(folder / "interactions.parquet")
    people_table = {"user_id": [f"u{u}" for u in range(n_people)], "gender": ["f", "m"] * (n_people // 2)}
    pl.DataFrame(people_table).write_parquet(folder / "users.parquet")
    kinds = {"item_id": [f"i{i}" for i in range(n_items)], "category": np.where(good, "good", "odd")}
    pl.DataFrame(kinds).write_parquet(folder / "items.parquet")


def test_ndcg_by_hand(benchmark_script: Script) -> None:
    """Person 0 has hits in places 2 and 3 of 3, cut at 2; person 1 has none."""
    found = benchmark_script("random_exposure").ndcg(
        np.array([1, 0, 0, 0]), np.array([False, True, False, True]), np.array([0.1, 0.2, 0.9, 0.5]), 2
    )
    assert found[0] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3))) and np.isnan(found[1])


def test_every_method_is_measured(
    benchmark_script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    script, out = benchmark_script("random_exposure"), tmp_path / "out.json"
    trial = script.read(tmp_path)
    assert trial.features.people_space is None  # the only column is protected
    truth = (
        pl.read_parquet(tmp_path / "interactions.parquet").filter(split="train").sort("user_id", "item_id")
    )
    mine = pl.DataFrame({
        "user_id": [f"u{u}" for u in trial.rated.people],
        "item_id": [f"i{i}" for i in trial.rated.items],
        "rating": trial.rated.levels[trial.rated.classes].astype(np.float64),
        "propensity": trial.propensities,
    }).sort("user_id", "item_id")
    assert mine.equals(truth.select(mine.columns))
    arguments = ["--data", tmp_path, "--seeds", 2, "--folds", 2, "--epochs", 5, "--out", out]
    monkeypatch.setattr("sys.argv", ["random_exposure.py", *map(str, arguments)])
    monkeypatch.setattr("llm4rec.debias.exposure.STEPS", 40)
    script.main()
    told = json.loads(out.read_text())
    plot = out.with_suffix(".svg").read_text()
    assert plot.count("<circle") == 2 * sum(
        share > 0 for share in told["propensities"]["learned"]["observed"]
    )
    assert set(told["methods"]) == {*METHODS, "default"} and told["seeds"] == 2
    assert told["propensities"]["of"] == "the data" and told["propensities"]["clipping"][0]["kept"] == 1
    for found in told["methods"].values():
        for name in script.FIGURES:
            assert found[name]["low"] <= found[name]["mean"] <= found[name]["high"]
    naive = told["methods"]["naive"]
    assert naive["auc"]["mean"] > 0.55 and naive["over naive"]["auc"]["mean"] == 0
    assert len(told["methods"]["default"]["chosen"]) == 2
