"""A model that is read answers at once as it will ever answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import build_log
from llm4rec.errors import ArtefactError
from llm4rec.keeping import KIND, stored_linear
from llm4rec.model.linear import Linear
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.store import artefact
from llm4rec.types import Array

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
    fitted.fitted.scorer.network.fusion.attend = True  # so that there are weights to read
    fitted.save(tmp_path / "model")
    items = np.arange(20)
    read = Recommender.load(tmp_path / "model").modality_weights(items)  # before anything else is asked
    assert read is not None
    np.testing.assert_array_equal(read, fitted.modality_weights(items))
    assert (read[:, fitted.modalities.index("behaviour")] > 0).sum() > 10


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"train": {"novelty": 1}}, r"does not know its setting train\.novelty.*\(\d+\.\d+.*\), or fit"),
        ({"train": {"epochs": 0}}, r"does not take its value for train\.epochs"),
        ({"model": {"embedding_size": 16}}, "weights of the model .* do not fit"),
    ],
    ids=["a setting of a later version", "a value beyond its limits", "weights of another shape"],
)
def test_a_model_of_another_version_is_refused_in_a_sentence(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    log = build_log(pl.Series([f"u{u}" for u in range(12) for _ in range(5)]), np.arange(60) * 7 % 20)
    fitted = Recommender.fit(log, Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(20)]})), TINY)
    fitted.save(tmp_path / "model")
    kept = artefact.read(tmp_path / "model", KIND)
    meta = dict(kept.meta)
    for section, values in config.items():
        meta["config"][section] |= values
    groups = {name: kept.tensors(name) for name in ("network", "vectors", "items")}
    tables = {"items": kept.table("items")}
    artefact.write(tmp_path / "model", kind=KIND, meta=meta, tensors=groups, tables=tables)
    with pytest.raises(ArtefactError, match=said):
        Recommender.load(tmp_path / "model")


def test_a_prior_with_one_window_for_all_lengths_is_read_too(tmp_path: Path) -> None:
    log = build_log(pl.Series([f"u{u}" for u in range(12) for _ in range(5)]), np.arange(60) * 7 % 20)
    fitted = Recommender.fit(log, Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(20)]})), TINY)
    fitted.save(tmp_path / "model")
    kept = artefact.read(tmp_path / "model", KIND)
    groups = {name: dict(kept.tensors(name)) for name in ("network", "vectors", "items")}
    popularity = groups["items"]["log_popularity"][1]
    groups["items"]["log_popularity"] = popularity
    prior = {"shares": [0.5, 0.2, 0.1, 0.0], "window": 0.3, "floor": float(popularity.min())}
    meta = dict(kept.meta) | {"prior": prior}
    artefact.write(
        tmp_path / "old", kind=KIND, meta=meta, tensors=groups, tables={"items": kept.table("items")}
    )
    read = Recommender.load(tmp_path / "old").fitted.prior
    assert (read.shares, read.windows) == ((0.5, 0.2, 0.1, 0.0), (0.3,) * 4)
    np.testing.assert_array_equal(read.log_popularity, np.stack([popularity] * 4))
    assert read.floors == (float(popularity.min()),) * 4
    assert not any(
        Recommender.load(tmp_path / "old").fitted.linear.strengths
    )  # a model of that time had none


def test_the_linear_part_is_kept(tmp_path: Path) -> None:
    fives = [5 * (u % 4) + np.random.default_rng(u).permutation(5) for u in range(30)]
    log = build_log(pl.Series([f"u{u}" for u in range(30) for _ in range(5)]), np.concatenate(fives))
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(20)]}))
    fitted = Recommender.fit(log, catalog, TINY)
    assert any(fitted.fitted.linear.strengths)
    fitted.save(tmp_path / "model")
    read = Recommender.load(tmp_path / "model")
    assert read.fitted.linear.strengths == fitted.fitted.linear.strengths
    assert read.fitted.linear.exponents == fitted.fitted.linear.exponents
    for name, array in fitted.fitted.linear.tensors().items():
        np.testing.assert_array_equal(read.fitted.linear.tensors()[name], array)
        assert read.fitted.linear.tensors()[name].dtype == array.dtype
    asked = log.heads(np.full(30, 2))
    before, after = fitted.rank(asked, 5), read.rank(asked, 5)
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_array_equal(before.scores, after.scores)
    without = replace(fitted.fitted, linear=Linear())
    assert (Recommender(without).rank(asked, 5).scores != before.scores).any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"places": np.array([0, 1, 3], np.uint16)}, "places lie beyond the 3 known items"),
        ({"places": np.array([0, 1, 2], np.int64)}, r"places is int64 \[3\], not uint16 \[n\]"),
        ({"known": np.array([[4, 2, 9]])}, r"known is int64 \[1, 3\], not int64 \[n\]"),
        ({"known": np.array([4, 2, 9])}, "known does not name different ones of the 20 items, ascending"),
        ({"known": np.array([-1, 2, 9])}, "known does not name"),
        ({"known": np.array([2, 2, 9])}, "known does not name"),
        ({"known": np.array([2, 4, 20])}, "known does not name"),
        ({"offsets": np.array([0, 1, 3])}, "offsets do not cut places"),
        ({"offsets": np.array([1, 1, 2, 3])}, "offsets do not cut places"),
        ({"offsets": np.array([0, 2, 1, 3])}, "offsets do not cut places"),
        ({"offsets": np.array([0, 1, 2, 9])}, "offsets do not cut places"),
        ({"offsets": np.zeros(0, np.int64)}, "offsets do not cut places"),
        ({"weights": np.zeros(2, np.float16)}, "weights are not finite, or not as many as places"),
        ({"weights": np.full(3, np.inf, np.float16)}, "weights are not finite"),
        ({"nonsense": np.zeros(2)}, "unexpected keyword argument 'nonsense'"),
    ],
)
def test_a_linear_part_that_makes_no_sense_is_refused_when_it_is_read(
    tmp_path: Path, changes: dict[str, Array], said: str
) -> None:
    """Checksums hold: somebody wrote it so."""
    arrays = {
        "known": np.array([2, 4, 9]),
        "offsets": np.arange(4),
        "places": np.array([0, 1, 2], np.uint16),
        "weights": np.zeros(3, np.float16),
    }
    for name, tensors in (("sound", arrays), ("broken", arrays | changes)):
        meta = {"linear": {"strengths": [0.0, 1.0, 1.0, 1.0]}}
        artefact.write(tmp_path / name, kind=KIND, meta=meta, tensors={"linear": tensors})
    assert stored_linear(artefact.read(tmp_path / "sound", KIND), 20).known.tolist() == [2, 4, 9]
    with pytest.raises(ArtefactError, match=rf"linear\.safetensors of the model .*broken .*{said}"):
        stored_linear(artefact.read(tmp_path / "broken", KIND), 20)


@pytest.mark.parametrize("told", [[1.0], ["x", 1, 1, 1], [None] * 4, [-5.0, 1, 1, 1], [1e308] * 4, None])
@pytest.mark.parametrize("name", ["strengths", "exponents"])
def test_strengths_that_make_no_sense_are_refused(
    tmp_path: Path, name: str, told: list[float] | None
) -> None:
    meta = {"linear": {"strengths": [1.0] * 4, "exponents": [0.5] * 4, name: told}}
    artefact.write(tmp_path / "m", kind=KIND, meta=meta, tensors={"linear": Linear().tensors()})
    with pytest.raises(ArtefactError, match=r"linear\.safetensors of the model"):
        stored_linear(artefact.read(tmp_path / "m", KIND), 20)


def test_a_model_with_such_a_linear_part_is_not_loaded(tmp_path: Path) -> None:
    log = build_log(pl.Series([f"u{u}" for u in range(12) for _ in range(5)]), np.arange(60) * 7 % 20)
    fitted = Recommender.fit(log, Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(20)]})), TINY)
    beyond = Linear(known=np.array([25]), offsets=np.zeros(2, np.int64))
    Recommender(replace(fitted.fitted, linear=beyond)).save(tmp_path / "model")
    with pytest.raises(ArtefactError, match=r"of the 20 items.* Copy the directory again"):
        Recommender.load(tmp_path / "model")
