"""What a fit keeps from training, never reads, and takes up again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec import fitting
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.debias.balance import ParityConfig
from llm4rec.errors import ArtefactError, ConfigError
from llm4rec.fitting import fit, hold_out
from llm4rec.model.linear import LinearConfig
from llm4rec.model.past import ServeConfig
from llm4rec.retrieve.repository import RetrieveConfig
from llm4rec.settings import Config, DebiasConfig
from llm4rec.train.stages import train_in_stages
from llm4rec.types import Progress, silent

CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(20)]}))
PRICED = Catalog(
    CATALOG.table.with_columns(price=pl.int_range(20).cast(pl.Float64)), (Field("price", "numerical"),)
)
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


def test_people_are_found_by_name_whatever_their_order() -> None:
    table = pl.DataFrame({"user_id": LOG.user_ids, "city": [["x", "y", "z"][u % 3 :] for u in range(12)]})
    people = Catalog(table, (Field("city", "categorical"),), "user_id")
    newcomer = pl.DataFrame({"user_id": ["new"], "city": [["elsewhere"]]})
    turned = replace(people, table=pl.concat([newcomer, table.reverse()]))
    one, other = (fit(LOG, CATALOG, config(), people=each) for each in (people, turned))
    told = one.scorer.states(LOG, one.person_rows(LOG))
    torch.testing.assert_close(told, other.scorer.states(LOG, other.person_rows(LOG)))
    assert not torch.equal(told, one.scorer.states(LOG, np.roll(one.person_rows(LOG), 1)))


def test_what_is_kept_of_people_may_be_more_than_was_trained_on() -> None:
    part = LOG.heads(np.full(LOG.n_users, 4))
    fitted = fit(part, CATALOG, config(), histories=LOG)
    assert fitted.histories is LOG
    assert fitted.about["n_events"] == part.n_events - LOG.n_users  # one each is asked for validation


class StopError(Exception):
    """Raised where a run is to break off."""


def broken_off(folder: Path, log: EventLog = LOG, settings: Config | None = None) -> None:
    def stop(stage: str, done: int, *_: object, **__: float) -> None:
        if stage == "floor" and done == 1:
            raise StopError

    progress: Progress = stop
    with pytest.raises(StopError):
        fit(log, PRICED, settings or config(), checkpoints=folder, progress=progress)


def test_how_it_will_be_served_does_not_keep_a_fit_from_going_on(tmp_path: Path) -> None:
    broken_off(tmp_path)
    settings = config().model_copy(update={"serve": ServeConfig(past_mib=0)})
    resumed = fit(LOG, PRICED, settings, checkpoints=tmp_path, resume=True)
    whole = fit(LOG, PRICED, config())
    np.testing.assert_array_equal(resumed.scorer.vectors, whole.scorer.vectors)
    assert resumed.config.serve.past_mib == 0


def test_only_its_own_checkpoints_are_removed_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "floor").mkdir()
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "floor" / "plan.txt").write_text("of a house")
    with pytest.raises(ArtefactError, match="not a complete checkpoint"):
        fit(LOG, CATALOG, config(), checkpoints=tmp_path)
    assert (tmp_path / "thesis.txt").exists() and (tmp_path / "floor" / "plan.txt").exists()


CHANCES = np.random.default_rng(1).uniform(0.05, 1, LOG.n_events).astype(np.float32)


def test_weights_line_up_with_the_events_that_are_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def watched(network: Any, material: Any, **options: Any) -> Any:
        given.update(options, items=material.events.items)
        return train_in_stages(network, material, **options)

    monkeypatch.setattr(fitting, "train_in_stages", watched)
    log = replace(LOG, propensities=CHANCES)
    fitted = fit(log, CATALOG, weighing("snips", "logged"))
    trained = hold_out(log, 10_000, config().train.seed)[0]
    inverse = 1 / trained.propensities  # type: ignore[operator]
    assert given["weights"] == pytest.approx(inverse / inverse.mean(), rel=1e-5)
    assert given["items"][: trained.n_events].tolist() == trained.items.tolist()
    assert given["normalised"] is True
    assert fitted.about["selection"]["events"] == trained.n_events == len(given["weights"])
    plain = fit(log, CATALOG, config())
    assert given["weights"] is None and given["normalised"] is False
    assert plain.about["selection"] is None


def test_propensities_that_are_not_used_change_nothing() -> None:
    told, plain = (fit(log, CATALOG, config()) for log in (replace(LOG, propensities=CHANCES), LOG))
    np.testing.assert_array_equal(told.scorer.vectors, plain.scorer.vectors)
    weighed = fit(LOG, CATALOG, weighing("ips", "popularity"))
    assert not np.array_equal(weighed.scorer.vectors, plain.scorer.vectors)


def test_popularity_taken_out_twice_is_refused_before_any_work() -> None:
    twice = weighing("ips", "popularity")
    popularity = twice.debias.popularity.model_copy(update={"strength": 0.5})
    debias = twice.debias.model_copy(update={"popularity": popularity})
    with pytest.raises(ConfigError, match="that would be twice"):
        fit(LOG, CATALOG, twice.model_copy(update={"debias": debias}))


def weighing(weights: str, of: str) -> Config:
    selection = {"weights": weights, "of": of, "clip": 0.0}
    return Config.model_validate(config().model_dump() | {"debias": {"selection": selection}})


def test_unfinished_work_with_other_weights_is_not_taken_up(tmp_path: Path) -> None:
    log, settings = replace(LOG, propensities=CHANCES), weighing("ips", "logged")
    broken_off(tmp_path, log, settings)
    others = replace(LOG, propensities=CHANCES[::-1].copy())
    with pytest.raises(ArtefactError, match="another configuration or other data"):
        fit(others, PRICED, settings, checkpoints=tmp_path, resume=True)
    resumed = fit(log, PRICED, settings, checkpoints=tmp_path, resume=True)
    np.testing.assert_array_equal(resumed.scorer.vectors, fit(log, PRICED, settings).scorer.vectors)


@pytest.mark.parametrize("what", ["configuration", "linear part", "events", "features", "questions"])
def test_unfinished_work_of_another_run_is_not_taken_up(tmp_path: Path, what: str) -> None:
    broken_off(tmp_path)
    log, catalog, settings, valid = LOG, PRICED, config(), None
    if what == "configuration":
        settings = config().model_copy(update={"model": config().model.model_copy(update={"dropout": 0.1})})
    elif what == "linear part":  # later stages are judged beside it
        settings = config().model_copy(update={"linear": LinearConfig(ridge=7)})
    elif what == "events":
        log = build_log(LOG.user_ids[LOG.rows], LOG.items[::-1].copy())
    elif what == "features":  # of the same distribution, but not of the same items
        catalog = replace(PRICED, table=PRICED.table.with_columns(pl.col("price").reverse()))
    else:
        log, valid = hold_out(LOG, 10_000, config().train.seed)
        valid = replace(valid, targets=valid.targets[::-1].copy())
    with pytest.raises(ArtefactError, match="another configuration or other data"):
        fit(log, catalog, settings, valid=valid, checkpoints=tmp_path, resume=True)
    fit(log, catalog, settings, valid=valid, checkpoints=tmp_path, resume=False, progress=silent)


def test_a_parity_that_is_trained_belongs_to_the_run(tmp_path: Path) -> None:
    """Taken up it ends as undisturbed, λ included; with another ε it is another run, where ε is trained."""
    log = build_log(pl.Series([f"u{u}" for u in range(48) for _ in range(5)]), np.tile(LOG.items, 4))
    shelf = pl.Series([["left"] if i % 2 else ["right"] for i in range(20)])
    catalog = Catalog(CATALOG.table.with_columns(shelf=shelf), (Field("shelf", "categorical"),))
    gender = pl.DataFrame({"user_id": log.user_ids, "gender": ["f", "m"] * 24})
    people = Catalog(gender, (), "user_id")

    def held(epsilon: float, *, training: bool = True) -> Config:
        parity = ParityConfig(attribute="gender", epsilon=epsilon, training=training)
        parts = {"debias": DebiasConfig(parity=parity), "retrieve": RetrieveConfig(enabled=False)}
        return config(attention_epochs=0).model_copy(update=parts)

    def stop(stage: str, done: int, *_: object, **__: float) -> None:
        if stage == "floor" and done == 1:
            raise StopError

    def broken(folder: Path, settings: Config) -> None:
        with pytest.raises(StopError):
            fit(log, catalog, settings, people=people, checkpoints=folder, progress=stop)

    broken(tmp_path / "on", held(0.0))
    with pytest.raises(ArtefactError, match="another configuration or other data"):
        fit(log, catalog, held(0.1), people=people, checkpoints=tmp_path / "on", resume=True)
    resumed = fit(log, catalog, held(0.0), people=people, checkpoints=tmp_path / "on", resume=True)
    whole = fit(log, catalog, held(0.0), people=people)
    told = whole.about["parity_in_training"]
    assert told == resumed.about["parity_in_training"] and told["price"] > 0
    assert any("debias.parity.training" in note for note in whole.about["notes"])
    np.testing.assert_array_equal(resumed.scorer.vectors, whole.scorer.vectors)
    broken(tmp_path / "off", held(0.0, training=False))
    served = fit(
        log, catalog, held(0.1, training=False), people=people, checkpoints=tmp_path / "off", resume=True
    )
    assert served.about["parity_in_training"] is None
    assert not np.array_equal(served.scorer.vectors, whole.scorer.vectors)
