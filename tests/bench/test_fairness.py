"""The measurement of fairness: who gets which offsets, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from llm4rec.data.events import EventLog
from llm4rec.data.split import leave_last_out
from llm4rec.errors import InputError
from llm4rec.evaluate.groups import Groups, by_popularity

N_PEOPLE = 200
TINY = (
    "train.epochs=1",
    "train.fewest_steps=1",
    "model.embedding_size=8",
    "model.layers=1",
    "model.heads=1",
    "retrieve.enabled=false",
    "generate.mode=off",
    "encode.attention=false",
    "encode.text.encoder=hashed",
    "train.context_epochs=0",
)


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("fairness")


def write(folder: Path) -> None:
    """Women take the first half of 120 items, men the other; the genre says which half."""
    draw = np.random.default_rng(0)
    items = np.array([draw.permutation(60)[:12] + 60 * (person % 2) for person in range(N_PEOPLE)])
    pl.DataFrame({
        "user_id": np.repeat([f"u{person}" for person in range(N_PEOPLE)], 12),
        "item_id": [f"i{item}" for item in items.ravel()],
        "timestamp": np.arange(items.size) + 1_500_000_000,
    }).write_parquet(folder / "interactions.parquet")
    pl.DataFrame({
        "item_id": [f"i{item}" for item in range(120)],
        "genres": [["first" if item < 60 else "second"] for item in range(120)],
    }).write_parquet(folder / "items.parquet")
    pl.DataFrame({
        "user_id": [f"u{person}" for person in range(N_PEOPLE)],
        "gender": ["F", "M"] * (N_PEOPLE // 2),
        "age": draw.integers(18, 70, N_PEOPLE),
    }).write_parquet(folder / "users.parquet")


def test_all_is_told_and_a_model_that_knows_the_answers_is_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    out, model = tmp_path / "out.json", tmp_path / "model"
    given = ["fairness.py", "--data", str(tmp_path), "--model", str(model), "--out", str(out)]
    chosen = [word for setting in TINY for word in ("--set", setting)]
    monkeypatch.setattr("sys.argv", [*given, "--fit", *chosen, "--epsilon", "1", "0.1", "--shuffles", "1"])
    script.main()
    found = json.loads(out.read_text())
    assert set(found) == {"gender", "age"}
    told = found["gender"]
    assert set(told["parity"]) == {"genres", "popularity"}
    assert told["parity"]["genres"]["people"] == {"F": 100, "M": 100}
    assert set(told["gaps"]) == {"ndcg@10", "hr@10", "miscalibration"}
    assert found["age"]["attacker"]["straight"]["guessing"] == 0.5
    assert set(found["age"]["parity"]["genres"]["people"].values()) <= set(range(40, 61))
    free, bound = told["reranked"][:2]
    assert (free["items"], free["epsilon"], bound["epsilon"]) == ("genres", 1, 0.1)
    assert free["difference"] == [0, 0, 0] and free["kept"] == 1
    assert free["parity"]["largest"] == told["parity"]["genres"]["largest"]
    assert bound["parity"]["largest"]["value"] < free["parity"]["largest"]["value"]
    assert max(bound["gap on validation"]) <= 0.1 + 1e-9
    printed = capsys.readouterr().out
    assert "parity by genres" in printed and "attacker, curved" in printed

    log = EventLog(pl.Series(["u"]), np.array([0, 4]), np.arange(4))
    with pytest.raises(InputError, match=r"was fitted on \d+ events, and the training part has 2"):
        script.fitted(model, leave_last_out(log), None, None, None, fit=False)


def test_offsets_come_from_the_validation_cases_of_others(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case's lists are moved by what was learnt without its person."""
    from llm4rec.debias import parity
    from llm4rec.types import Rankings

    log = EventLog(pl.Series([f"u{row}" for row in range(80)]), 3 * np.arange(81), np.tile(np.arange(3), 80))
    split = leave_last_out(log)
    draw = np.random.default_rng(0)
    items = np.argsort(draw.random((80, 20)), axis=1)
    scores = -np.sort(draw.random((80, 20)), axis=1).astype(np.float32)
    asked = {name: script.Asked(cases, Rankings(items, scores)) for name, cases in
             (("valid", split.valid), ("test", split.test))}  # fmt: skip
    groups = Groups("row", tuple(map(str, range(80))), np.arange(80))  # each a group of their own
    learnt: list[set[int]] = []
    moved: list[set[int]] = []
    real = parity.fit_parity

    def fit(items: object, scores: object, known: Groups, *rest: object) -> object:
        learnt.append(set(known.members.tolist()))
        return real(items, scores, known, *rest)  # type: ignore[arg-type]

    def adjust(self: object, scores: np.ndarray, whose: np.ndarray, lists: object) -> np.ndarray:
        moved.append(set(whose.tolist()))
        return scores

    monkeypatch.setattr(parity, "fit_parity", fit)
    monkeypatch.setattr(parity.Parity, "adjust", adjust)
    script.reranked(asked["valid"], asked["test"], groups, by_popularity(np.arange(20)), 0.1, 0)
    assert len(learnt) == len(moved) == 2
    for those, these in zip(learnt, moved, strict=True):
        assert len(those) == 40 and not those & these
    assert moved[0] | moved[1] == set(range(80))


def test_a_world_stands_in_for_a_folder(script: ModuleType) -> None:
    log, catalog, people = script.world(100)
    assert (log.n_users, log.n_events, len(catalog)) == (100, 1_000, script.WORLD_ITEMS)
    assert {"gender", "region", "age"} <= set(people.table.columns)
