"""What a fit keeps from training, never reads, and takes up again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.errors import ArtefactError
from llm4rec.fitting import fit, hold_out
from llm4rec.settings import Config
from llm4rec.types import Progress, silent

CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(20)]}))
LOG = build_log(
    pl.Series([f"u{u}" for u in range(12) for _ in range(5)]), np.random.default_rng(0).integers(20, size=60)
)


def config(**train: Any) -> Config:
    return Config.model_validate({
        "train": {"epochs": 2, "attention_epochs": 1, "batch_size": 16} | train,
        "model": {"embedding_size": 8, "layers": 1, "heads": 1},
    })


def test_the_last_events_of_some_are_kept_for_validation() -> None:
    lengths = np.arange(90) % 5
    log = EventLog(
        pl.Series([f"u{row}" for row in range(90)]), np.cumsum([0, *lengths]), np.arange(lengths.sum()) % 7
    )
    train, valid = hold_out(log, 20, seed=0)
    assert len(valid) == 20
    assert (log.lengths[valid.rows] >= 3).all()
    assert train.n_events == log.n_events - 20
    np.testing.assert_array_equal(valid.targets, log.items[log.offsets[valid.rows + 1] - 1])


def test_without_questions_some_are_held_out() -> None:
    none = hold_out(LOG.heads(np.full(LOG.n_users, 2)), 5, seed=0)[1]
    assert len(none) == 0
    assert fit(LOG, CATALOG, config(), valid=none).about["n_events"] == LOG.n_events - LOG.n_users


def test_protected_fields_of_people_are_never_read() -> None:
    columns = {"user_id": LOG.user_ids, "Gender": [["a", "b"][u % 2 :] for u in range(12)]}
    table = pl.DataFrame(columns | {"city": [["x", "y"][u % 3 == 0 :] for u in range(12)]})
    people = Catalog(table, (Field("Gender", "categorical"), Field("city", "categorical")), "user_id")
    space = fit(LOG, CATALOG, config(), people=people).spaces.people
    assert space is not None and list(space.vocabularies) == ["city"]
    alone = replace(people, fields=people.fields[:1])
    assert fit(LOG, CATALOG, config(), people=alone).spaces.people is None


class StopError(Exception):
    """Raised where a run is to break off."""


def broken_off(folder: Path) -> None:
    def stop(stage: str, done: int, *_: object, **__: float) -> None:
        if stage == "floor" and done == 1:
            raise StopError

    progress: Progress = stop
    with pytest.raises(StopError):
        fit(LOG, CATALOG, config(), checkpoints=folder, progress=progress)


def test_only_its_own_checkpoints_are_removed_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "floor").mkdir()
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "floor" / "plan.txt").write_text("of a house")
    with pytest.raises(ArtefactError, match="not a complete checkpoint"):
        fit(LOG, CATALOG, config(), checkpoints=tmp_path)
    assert (tmp_path / "thesis.txt").exists() and (tmp_path / "floor" / "plan.txt").exists()


@pytest.mark.parametrize("what", ["configuration", "data"])
def test_unfinished_work_of_another_run_is_not_taken_up(tmp_path: Path, what: str) -> None:
    broken_off(tmp_path)
    other = build_log(LOG.user_ids[LOG.rows], LOG.items[::-1].copy()) if what == "data" else LOG
    settings = (
        config()
        if what == "data"
        else config().model_copy(update={"model": config().model.model_copy(update={"dropout": 0.1})})
    )
    with pytest.raises(ArtefactError, match="another configuration or other data"):
        fit(other, CATALOG, settings, checkpoints=tmp_path, resume=True)
    fit(other, CATALOG, settings, checkpoints=tmp_path, resume=False, progress=silent)
