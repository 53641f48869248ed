from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from llm4rec.bench import job, lineup
from llm4rec.bench import run as runs
from llm4rec.errors import InputError
from llm4rec.store import files


class FakeConfig:
    """As much of a configuration as planning reads."""

    def __init__(self, **values: Any):
        self.values = {"data": {"k_core": 0}, "train": {"epochs": 1}} | values

    def model_dump(self, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return self.values


def plan(
    folder: Path, models: tuple[str, ...] = ("ours", "ease"), seeds: int = 2, **config: Any
) -> runs.Plan:
    events = folder / "events.csv"
    if not events.exists():
        events.write_text("user_id,item_id\n1,a\n")
    source = job.Source(str(events))
    return runs.Plan(source, "leave-last-out", models, seeds, cast(Any, FakeConfig(**config)), folder / "out")


class Recorder:
    """Stands in for the worker: writes a result, notes that it ran."""

    def __init__(self, fails: tuple[str, ...] = ()):
        self.ran: list[str] = []
        self.fails = fails

    def __call__(self, task: job.Job, progress: object) -> runs.Result | runs.Failure:
        self.ran.append(job.name(task.model, task.seed))
        if task.model in self.fails:
            return runs.Failure(task.model, task.seed, "It broke.", Path("log"))
        files.write_parquet(pl.DataFrame({"user_id": ["1"]}), Path(f"{task.out}.parquet"))
        files.write_json({"model": task.model, "seed": task.seed, "key": task.key}, Path(f"{task.out}.json"))
        return runs.load(Path(task.out))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(runs, "_start", found)
    return found


def said(wanted: runs.Plan) -> list[str]:
    sentences: list[str] = []
    runs.run(wanted, say=sentences.append)
    return sentences


def test_what_is_not_random_runs_once(tmp_path: Path, recorder: Recorder) -> None:
    said(plan(tmp_path, ("ours", "ease", "ours-text"), seeds=2))
    assert recorder.ran == ["ours-0", "ease-0", "ours-text-0", "ours-1"]


def test_finished_runs_are_reused(tmp_path: Path, recorder: Recorder) -> None:
    said(plan(tmp_path, seeds=1))
    recorder.ran.clear()
    again = said(plan(tmp_path, seeds=2))
    assert recorder.ran == ["ours-1"]
    assert again[0] == "ours, seed 0 (1 of 3): reused."


def test_other_data_makes_all_results_stale_and_says_so(tmp_path: Path, recorder: Recorder) -> None:
    said(plan(tmp_path, seeds=1))
    (tmp_path / "events.csv").write_text("user_id,item_id\n1,b\n")
    recorder.ran.clear()
    sentences = said(plan(tmp_path, seeds=1))
    assert recorder.ran == ["ours-0", "ease-0"]
    assert "have changed" in sentences[0]


def test_a_setting_of_ours_leaves_baselines_fresh(tmp_path: Path, recorder: Recorder) -> None:
    said(plan(tmp_path, seeds=1))
    recorder.ran.clear()
    said(plan(tmp_path, seeds=1, train={"epochs": 2}))
    assert recorder.ran == ["ours-0"]


def test_a_data_setting_makes_baselines_stale(tmp_path: Path, recorder: Recorder) -> None:
    said(plan(tmp_path, seeds=1))
    recorder.ran.clear()
    said(plan(tmp_path, seeds=1, data={"k_core": 5}))
    assert recorder.ran == ["ours-0", "ease-0"]


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_damaged_result_is_run_again(tmp_path: Path, recorder: Recorder, damage: str) -> None:
    said(plan(tmp_path, ("ease",)))
    (tmp_path / "out/runs/ease-0.json").write_text(damage)
    recorder.ran.clear()
    said(plan(tmp_path, ("ease",)))
    assert recorder.ran == ["ease-0"]


def test_a_result_without_its_cases_is_run_again(tmp_path: Path, recorder: Recorder) -> None:
    said(plan(tmp_path, ("ease",)))
    (tmp_path / "out/runs/ease-0.parquet").unlink()
    recorder.ran.clear()
    said(plan(tmp_path, ("ease",)))
    assert recorder.ran == ["ease-0"]


def test_a_kept_model_that_is_gone_is_fitted_again(tmp_path: Path, recorder: Recorder) -> None:
    from dataclasses import replace

    wanted = replace(plan(tmp_path, ("ours",), seeds=1), keep=tmp_path / "model")
    said(wanted)
    recorder.ran.clear()
    assert "its model is not in" in said(wanted)[0]
    assert recorder.ran == ["ours-0"]


def test_one_failure_leaves_the_others(tmp_path: Path, recorder: Recorder) -> None:
    recorder.fails = ("ours",)
    results, failures = runs.run(plan(tmp_path, seeds=1), say=lambda _: None)
    assert [result.model for result in results] == ["ease"]
    assert [failure.model for failure in failures] == ["ours"]


def test_a_worker_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    # The model is unknown to the worker, as after a damaged job file: a real process, a real log.
    bad = plan(tmp_path, ("ease",)).jobs()[0]
    (tmp_path / "out/runs").mkdir(parents=True)
    Path(f"{bad.out}.job.json").write_text("{}")
    ended = runs._start(
        job.Job.from_json(bad.to_json().replace("events.csv", "nowhere.csv")), lambda *a, **k: None
    )
    assert isinstance(ended, runs.Failure)
    assert "ease-0.log" in ended.reason
    assert "Traceback" not in ended.reason


def test_job_survives_json(tmp_path: Path) -> None:
    task = plan(tmp_path).jobs()[0]
    assert job.Job.from_json(task.to_json()) == task


@pytest.mark.parametrize("change", range(6))
def test_key_depends_on_every_part(change: int) -> None:
    parts: list[Any] = ["content", "protocol", "model", 0, {"a": 1}, "code"]
    other = list(parts)
    other[change] = ["x", "x", "x", 1, {"a": 2}, "x"][change]
    assert job.key(*parts) != job.key(*other)
    assert job.key(*parts) == job.key(*parts)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        job.Source(str(tmp_path / "nowhere.csv")).content()
    with pytest.raises(InputError, match=r"holds no interactions\.parquet"):
        job.Source.folder(tmp_path)


def chosen(
    wanted: list[str], modalities: tuple[str, ...], *, clock: bool = True, behaviour: bool = True
) -> list[str]:
    catalog = SimpleNamespace(fields=[SimpleNamespace(modality=m) for m in modalities])
    config = SimpleNamespace(encode=SimpleNamespace(behaviour=behaviour))
    return lineup.choose(wanted, cast(Any, catalog), clock, cast(Any, config))


def test_default_line_up_follows_the_data() -> None:
    base = ["ours", "ids", "sasrec", "ease", "itemknn", "popularity"]
    assert chosen([], ("text", "numerical"), clock=False) == [
        *base, "ours-text", "ours-numerical", "ours-behaviour",
    ]  # fmt: skip
    assert chosen([], ("image",)) == [*base, "recent-popularity", "ours-image", "ours-behaviour"]
    assert chosen([], ()) == ["ours", "sasrec", "ease", "itemknn", "popularity", "recent-popularity"]


def test_wanted_models_keep_the_order_of_the_line_up() -> None:
    assert chosen(["ease", "ours"], ("text",)) == ["ours", "ease"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("magic", "'magic' is unknown"),
        ("recent-popularity", "needs event times"),
        ("ours-image", "needs image fields"),
    ],
)
def test_models_the_data_does_not_allow(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        chosen([name], ("text",), clock=False)


def test_the_reason_of_a_failure_survives_the_progress_that_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = (
        "import json, sys, time\n"
        "line = {'stage': 'floor', 'done': 1, 'total': 9, 'figures': {'loss': 6.0}}\n"
        "print(json.dumps(line), flush=True)\n"
        "while 'floor' not in open(sys.argv[-1][:-8] + 'log').read(): time.sleep(0.01)\n"
        "sys.exit('It broke.')\n"
    )
    (tmp_path / "worker.sh").write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path}/worker.py $3\n")
    (tmp_path / "worker.sh").chmod(0o755)
    (tmp_path / "worker.py").write_text(worker)
    monkeypatch.setattr(runs.sys, "executable", str(tmp_path / "worker.sh"))
    (results, failures) = runs.run(plan(tmp_path, ("ease",)), say=lambda _: None)
    assert not results
    assert failures[0].reason.startswith("It broke. (see ")
    before, last = failures[0].log.read_text().splitlines()
    assert json.loads(before)["stage"] == "floor" and last == "It broke."
