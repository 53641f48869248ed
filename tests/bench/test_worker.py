from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from llm4rec.bench import facts, job, lineup, spent, worker
from llm4rec.bench.baselines import Popularity
from llm4rec.data.world import WorldConfig, make_world
from llm4rec.recommender import Config
from llm4rec.store import artefact
from llm4rec.train.checkpoint import STAGES

# Three people; the last event of each is asked. a and b are popular; d is never trained on.
EVENTS = [("1", "a"), ("1", "b"), ("1", "c"), ("1", "d"),
          ("2", "a"), ("2", "b"), ("2", "c"), ("2", "a"),
          ("3", "b"), ("3", "a"), ("3", "c"), ("3", "e")]  # fmt: skip


def make_job(folder: Path, model: str = "popularity", protocol: str = "leave-last-out") -> job.Job:
    rows = [(user, item, 100 * row) for row, (user, item) in enumerate(EVENTS)]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    table.with_columns(
        timestamp=pl.when(pl.col("item_id") == "d").then(200).otherwise("timestamp")
    ).write_csv(folder / "events.csv")
    config = Config().model_dump(mode="json")
    (folder / "runs").mkdir(exist_ok=True)
    out = str(folder / "runs" / f"{model}-0")
    return job.Job(job.Source(str(folder / "events.csv")), protocol, model, 0, config, "key", out)


def test_a_run_by_hand(tmp_path: Path) -> None:
    figures = worker.run(make_job(tmp_path))
    cases = pl.read_parquet(tmp_path / "runs" / "popularity-0.parquet")
    assert cases["user_id"].to_list() == ["1", "2", "3"]
    assert cases["person_events"].to_list() == [2, 2, 2]
    assert cases["target_events"].to_list() == [0, 3, 0]
    assert cases["tied"].to_list() == [True, False, False]
    # Person 2's answer, a, has been seen, so no list holds it; d and e are level after all that is
    # unseen: a tie counts against the model, so each stands second of two.
    assert cases["hr@5"].to_list() == [1, 0, 1]
    assert cases["ndcg@5"].to_list() == pytest.approx([1 / np.log2(3), 0, 1 / np.log2(3)])
    assert figures["size_mib"] == pytest.approx(5 * 4 / 2**20)  # one float32 per item
    written = json.loads((tmp_path / "runs" / "popularity-0.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(figures))
    assert set(figures["milliseconds"]) == {"p50", "p95", "p99"}


def test_without_times_nothing_is_tied(tmp_path: Path) -> None:
    task = make_job(tmp_path)
    pl.read_csv(tmp_path / "events.csv").drop("timestamp").write_csv(tmp_path / "events.csv")
    worker.run(task)
    cases = pl.read_parquet(tmp_path / "runs" / "popularity-0.parquet")
    assert cases["tied"].null_count() == len(cases)


def test_checkpoints_of_other_keys_are_removed(tmp_path: Path) -> None:
    task = make_job(tmp_path)
    stale = tmp_path / "runs" / "popularity-0.0123456789ab.checkpoint"
    other = tmp_path / "runs" / "popularity-1.0123456789ab.checkpoint"
    for folder in (stale, other):
        folder.mkdir()
    worker.run(task)
    assert not stale.exists() and other.exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    made = make_world(WorldConfig(n_users=40, n_items=60, n_events=800))
    made.log.to_frame(made.catalog.ids).write_parquet(folder / "interactions.parquet")
    made.catalog.table.write_parquet(folder / "items.parquet")
    return folder


@pytest.mark.parametrize("model", ["ours", "dense", "codes", "both", "tiger"])
def test_every_way_of_ours_is_run_to_its_figures(world: Path, tmp_path: Path, model: str) -> None:
    config = {
        "encode": {"text": {"encoder": "hash"}},
        "train": {"epochs": 2, "attention_epochs": 1, "steps_per_epoch": 4},
        "model": {"embedding_size": 16, "layers": 1, "heads": 1},
        "generate": {"codebook_size": 8, "epochs": 2, "joint_epochs": 1},
    }
    source = job.Source.folder(world)
    figures = worker.run(job.Job(source, "leave-last-out", model, 0, config, "key", str(tmp_path / model)))
    stages = {"codes", "joint"} & set(figures["training"])
    assert stages == ({"codes", "joint"} if model in ("codes", "both") else set())
    logs = [figures["training"][stage]["metrics"] for stage in STAGES if stage in figures["training"]]
    assert figures["curve"] == [metric for log in logs for metric in log] and len(figures["curve"]) >= 2
    cases = pl.read_parquet(tmp_path / f"{model}.parquet")
    assert len(cases) == 40 and cases["ndcg@10"].is_between(0, 1).all()


def test_a_killed_process_leaves_no_result_and_runs_again(tmp_path: Path) -> None:
    task = make_job(tmp_path, "ours")
    slow = {"train": {"epochs": 100_000, "patience": 100_000}, "encode": {"text": {"encoder": "hash"}}}
    described = tmp_path / "job.json"
    described.write_text(job.Job(**{**vars(task), "config": slow}).to_json(), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "llm4rec.bench.worker", str(described)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["stage"] == "floor":
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not list((tmp_path / "runs").glob("ours-0.json*"))
    assert not list((tmp_path / "runs").glob("ours-0.parquet*"))


def test_a_run_that_was_killed_counts_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spent, "EVERY", 0.0)
    monkeypatch.setattr(spent.facts, "peak_mib", lambda: 100.0)
    first = {"seconds": 1000.0, "peak_mib": 70_000.0}  # of the process that was killed

    def fit(task: lineup.Task) -> Popularity:
        assert task.checkpoints is not None
        task.progress("floor", 1, 2, loss=1.0)
        return Popularity(np.arange(5, dtype=np.float32))

    monkeypatch.setitem(lineup.LINEUP, "popularity", lineup.Entry(fit, ""))
    task = make_job(tmp_path)
    checkpoints = Path(f"{task.out}.key.checkpoint")
    artefact.write(checkpoints / "floor", kind="checkpoint", meta={})
    (checkpoints / "spent.json").write_text(json.dumps(first))
    figures = worker.run(task)
    assert 1000 < figures["fit_seconds"] < 1060
    assert figures["peak_mib"] == 70_000
    assert not checkpoints.exists()


def test_array_bytes_reads_nested_and_sparse() -> None:
    @dataclass(frozen=True)
    class Inner:
        weights: sparse.csr_array

    @dataclass(frozen=True)
    class Outer:
        scores: np.ndarray
        inner: Inner
        name: str = "x"

    csr = sparse.csr_array(np.eye(3, dtype=np.float32))
    expected = 8 * 5 + csr.data.nbytes + csr.indices.nbytes + csr.indptr.nbytes
    assert worker.array_bytes(Outer(np.zeros(5), Inner(csr))) == expected


def test_peak_memory_is_this_process_own() -> None:
    # A child of a large parent must not report its parent's size.
    held = np.ones(40 << 20, dtype=np.uint8)
    code = "from llm4rec.bench.facts import peak_mib; print(peak_mib())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert held.sum() == 40 << 20
    assert 5 < float(done.stdout) < facts.peak_mib()


def test_source_hash_is_stable() -> None:
    assert facts.source_hash() == facts.source_hash()
    assert len(facts.source_hash()) == 64
