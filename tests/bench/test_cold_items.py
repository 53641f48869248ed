"""The measurement of items added after training: what is kept back, who is asked, and what counts."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.world import WorldConfig, make_world
from llm4rec.settings import Config


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("cold_items")


def small() -> tuple[EventLog, Catalog]:
    """Items a and b have five events each, c and d fewer."""
    rows = [("u", "abcab"), ("v", "bad"), ("w", "aab"), ("x", "bca")]
    users = pl.Series([user for user, items in rows for _ in items])
    items = np.array(["abcd".index(item) for _, items in rows for item in items])
    return (
        build_log(users, items, times=np.arange(len(items))),
        Catalog(pl.DataFrame({"item_id": list("abcd")})),
    )


def test_what_is_kept_back_comes_last_and_is_asked_about_once(script: ModuleType) -> None:
    log, catalog, n_warm = script.cold_last(*small(), 1, 0)
    cold = catalog.ids[3]
    assert n_warm == 3 and cold in "ab"
    cases = script.cold_cases(log, n_warm, 100, 0)
    assert (cases.targets == 3).all() and (cases.ends > 0).all()
    # of each person the first time, and not where it is the first event of all
    assert log.user_ids[cases.rows].to_list() == (["v", "x"] if cold == "a" else ["u", "w"])
    assert script.unseen(cases, n_warm, 4).all()
    known = script.popularity_scores(log, cases, n_warm, 4)[:, 0]
    assert known.tolist() == ([2, 5] if cold == "a" else [0, 3])
    with pytest.raises(SystemExit, match="Only 2 items have 5 events"):
        script.cold_last(*small(), 2, 0)


def test_ties_count_against_the_right_answer(script: ModuleType) -> None:
    scores = np.array([[1.0] * 10 + [0.0] * 2, [1.0] * 11 + [0.0], [0.0] * 12])
    legal = np.ones((3, 12), dtype=bool)
    assert script.hits_of(scores, legal, np.array([0, 0, 0])).tolist() == [1, 0, 0]
    legal[1, 1] = False
    assert script.hits_of(scores, legal, np.array([0, 0, 0])).tolist() == [1, 1, 0]


def test_new_items_are_recommended_better_than_at_random(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "MOMENTS", 6)
    world = make_world(WorldConfig(n_events=6000, n_users=250, n_items=120, n_impressions=0, n_trial=0))
    config = Config.model_validate({
        "encode": {"text": {"encoder": "hash"}},
        "train": {"epochs": 12, "attention_epochs": 0, "batch_size": 256, "learning_rate": 0.005},
        "model": {"embedding_size": 32, "layers": 1, "heads": 1, "dropout": 0.1},
        "retrieve": {"enabled": False},
    })
    found = script.compare(world.log, world.catalog, config, people=None, n_cold=40, seed=0)
    assert (found["cold_items"], found["warm_items"]) == (40, 80)
    models = found["models"]
    assert set(models) == {"ours", "counted", "popularity", "content-knn", "random"}
    assert models["counted"]["low"] > models["random"]["hr@10"]
    assert set(models["popularity"]) >= {"ours_less_this", "counted_less_this"}
    assert models["ours"]["low"] > models["random"]["hr@10"]
    assert models["random"]["hr@10"] == pytest.approx(10 / 40, abs=0.1)
