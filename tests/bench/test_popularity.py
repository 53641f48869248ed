"""The measurement of what taking popularity out of the scores costs and gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import polars as pl
from tests.test_grounding import CATALOG, TINY, log

from llm4rec.bench import job
from llm4rec.settings import Config


def test_lists_at_each_strength_stand_beside_those_at_none(
    benchmark_script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    script = benchmark_script("popularity")
    events = log(0.9)
    pl.DataFrame({
        "user_id": events.user_ids[events.rows],
        "item_id": CATALOG.ids[events.items],
        "order": range(events.n_events),
    }).write_parquet(tmp_path / "interactions.parquet")
    CATALOG.table.write_parquet(tmp_path / "items.parquet")
    config = Config.model_validate(TINY)
    study = job.read(job.Source.folder(tmp_path), "leave-last-out", config.data)
    (run,) = script.measured(study, config, seeds=1, models=tmp_path)
    points = {point["strength"]: point for point in run["points"]}
    assert points[0.0]["difference"] == (0, 0, 0)
    assert run["chosen"]["strength"] in points
    assert points[0.5]["seen"]["popularity_lift@10"] <= points[0.0]["seen"]["popularity_lift@10"]
    (again,) = script.measured(study, config, seeds=1, models=tmp_path)  # the model that was kept
    assert again == run
