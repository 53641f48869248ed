"""One run of the bench in a process of its own, so that seconds and memory are that model's alone.

`python -m llm4rec.bench.worker job.json` fits one model with one seed, asks it every test question, and
writes `<out>.json` and `<out>.parquet`. Progress goes to stdout, one JSON object a line.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from llm4rec.bench import facts, job
from llm4rec.bench.lineup import LINEUP, Task
from llm4rec.bench.spent import Spent
from llm4rec.data.split import Cases
from llm4rec.errors import LLM4RecError
from llm4rec.evaluate.protocol import Evaluation, evaluate
from llm4rec.store import files
from llm4rec.train.checkpoint import STAGES
from llm4rec.types import Ints, Recommends

TIMED = 200  # single requests whose time is taken
WARM_UP = 10  # requests before that, which fill caches


def run(task: job.Job) -> dict[str, Any]:
    """Fit, measure and write; returns what was written as JSON."""
    from llm4rec.recommender import Config

    config = Config.model_validate(task.config)
    study = job.read(task.source, task.protocol, config.data)
    checkpoints = Path(f"{task.out}.{task.key[:12]}.checkpoint")
    for old in checkpoints.parent.glob(f"{Path(task.out).name}.*.checkpoint"):
        if old != checkpoints:  # of other data, configuration or code
            _remove(old)
    spent = Spent(checkpoints)

    def report(stage: str, done: int, total: int, **figures: float) -> None:
        spent.note()
        _say(stage, done, total, **figures)

    model = LINEUP[task.model].fit(
        Task(
            split=study.split,
            catalog=study.catalog,
            people=study.data.people,
            remarks=study.data.remarks,
            config=config,
            seed=task.seed,
            checkpoints=checkpoints,
            progress=report,
        )
    )
    seconds = spent.seconds
    result = evaluate(model, study.split.test, train=study.split.train, catalog=study.catalog, progress=_say)
    files.write_parquet(_cases(study, result), Path(f"{task.out}.parquet"))
    document = {
        "key": task.key,
        "model": task.model,
        "seed": task.seed,
        "protocol": study.split.protocol,
        "fit_seconds": seconds,
        "milliseconds": _milliseconds(model, study.split.test),
        "peak_mib": spent.peak_mib,
        "size_mib": _size(model, Path(f"{task.out}.model"), task.keep) / (1 << 20),
        "summary": {name: float(value) for name, value in result.summary.items()},
        "curve": _curve(model),
        "training": getattr(model, "meta", {}).get("training"),
        "chosen": getattr(model, "chosen", {}),
        "notes": list(getattr(model, "meta", {}).get("notes", [])),
        "kept": None if task.keep is None else job.stamp(Path(task.keep)),
        "machine": facts.machine(),
        "commit": facts.commit(),
    }
    files.write_json(document, Path(f"{task.out}.json"))
    _remove(checkpoints)
    return document


def _cases(study: job.Study, result: Evaluation) -> pl.DataFrame:
    """One row per question: who, how well known person and target are, and every metric."""
    cases, log = study.split.test, study.split.test.log
    item_counts, person_counts = job.train_counts(study.split, study.catalog)
    first = cases.targets[cases.target_offsets[:-1]]
    columns: dict[str, Any] = {
        "user_id": log.user_ids[cases.rows],
        "person_events": person_counts[cases.rows],
        "target_events": item_counts[first],
        "tied": _tied(cases),
    }
    return pl.DataFrame(columns | {name: values for name, values in result.per_case.items()})


def _tied(cases: Cases) -> pl.Series:
    """Whether the answer bears the same time as the last event before it; null where nobody knows."""
    log = cases.log
    if log.times is None:
        return pl.Series([None] * len(cases), dtype=pl.Boolean)
    at = log.offsets[cases.rows] + cases.ends
    return pl.Series((log.times[at] == log.times[np.maximum(at - 1, 0)]) & (cases.ends > 0))


def _milliseconds(model: Recommends, cases: Cases) -> dict[str, float]:
    """Time of single requests, drawn evenly over the questions: median, 95th and 99th percentile [ms]."""
    drawn: Ints = np.linspace(0, len(cases) - 1, TIMED + WARM_UP).astype(np.int64)
    taken: list[float] = []
    for case in np.random.default_rng(0).permutation(drawn):
        history = cases.histories(int(case), int(case) + 1)
        began = time.perf_counter()
        model.rank(history, 10)
        taken.append(1000 * (time.perf_counter() - began))
    p50, p95, p99 = np.percentile(taken[WARM_UP:], [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


def _size(model: Recommends, scratch: Path, keep: str | None) -> int:
    """Bytes of the saved model, or of the arrays of one that has no file of its own."""
    save: Callable[[Path], None] | None = getattr(model, "save", None)
    if save is None:
        return array_bytes(model)
    place = Path(keep) if keep is not None else scratch
    save(place)
    found = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    if keep is None:
        _remove(place)
    return found


def array_bytes(value: object) -> int:
    """Bytes of all arrays a dataclass holds, sparse matrices and nested dataclasses included."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if hasattr(value, "indptr"):
        sparse = cast(Any, value)
        return int(sparse.data.nbytes + sparse.indices.nbytes + sparse.indptr.nbytes)
    if is_dataclass(value) and not isinstance(value, type):
        return sum(array_bytes(getattr(value, part.name)) for part in fields(value))
    return 0


def _curve(model: Recommends) -> list[float]:
    """Validation NDCG@10 after each epoch of a trained model, its stages one after another."""
    stages: dict[str, Any] = getattr(model, "meta", {}).get("training", {})
    return [float(value) for stage in STAGES for value in stages.get(stage, {}).get("metrics", ())]


def _say(stage: str, done: int, total: int, **figures: float) -> None:
    line = {
        "stage": stage,
        "done": done,
        "total": total,
        "figures": {k: float(v) for k, v in figures.items()},
    }
    print(json.dumps(line), flush=True)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run the job whose file the command line names."""
    try:
        run(job.Job.from_json(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except LLM4RecError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Exception as error:
        # The traceback stays in the log; its last line is what the bench repeats.
        traceback.print_exc()
        print(f"Unexpected {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
