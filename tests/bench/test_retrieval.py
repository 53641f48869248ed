"""The measurement of what retrieval adds: each part left out in turn, and random entries in their place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from tests.test_grounding import CATALOG, TINY, log

from llm4rec.bench import job
from llm4rec.data.split import leave_last_out
from llm4rec.settings import Config


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("retrieval")


def study(place: Path, stay: float) -> job.Study:
    events = log(stay)
    pl.DataFrame({
        "user_id": events.user_ids[events.rows],
        "item_id": CATALOG.ids[events.items],
        "order": range(events.n_events),
    }).write_parquet(place / "interactions.parquet")
    CATALOG.table.write_parquet(place / "items.parquet")
    found = job.read(job.Source.folder(place), "leave-last-out", Config().data)
    assert len(found.split.test) == len(leave_last_out(events).test)
    return found


def test_each_part_is_left_out_and_random_entries_lose(script: ModuleType, tmp_path: Path) -> None:
    config = Config.model_validate(TINY)
    found = script.compare(study(tmp_path, 0.9), config, seeds=2, parts=True, models=tmp_path)
    table = found["tables"]["all"]
    assert set(table) - {"people"} == {
        "nothing retrieved", "retrieval", "random entries", "without item_text", "without memory",
        "without semantic", "without overlap", "without similar_item", "without attention",
        "retrieval, first seed",
    }  # fmt: skip
    assert table["nothing retrieved"]["difference"] == [0, 0, 0]
    assert table["retrieval"]["difference"][1] > 0.05  # the lower end
    assert table["random entries"]["ndcg@10"] < table["retrieval"]["ndcg@10"] - 0.05
    weights = {(told["variant"], told["seed"]): told["weights"] for told in found["weighed"]}
    for kind in ("item_text", "memory"):
        assert kind not in weights[f"without {kind}", 0]
    assert all(row["overlap"] == 0 for row in weights["without overlap", 0].values())
    assert any(row["overlap"] > 0 for row in weights["retrieval", 0].values())
    assert {path.name for path in tmp_path.iterdir()} >= {"seed-0", "seed-1"}
    assert set(found["tables"]) == {"all", "people with fewer than 5 events"}
    again = script.compare(study(tmp_path, 0.9), config, seeds=1, parts=False, models=tmp_path)
    assert json.dumps(again["weighed"][0]["weights"]) == json.dumps(weights["retrieval", 0])
