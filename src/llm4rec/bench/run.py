"""All runs of a table, one process each, reusing what an earlier command has finished."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from llm4rec.bench import facts, job, lineup
from llm4rec.errors import LLM4RecError
from llm4rec.store import files
from llm4rec.types import Progress, silent

if TYPE_CHECKING:
    from llm4rec.recommender import Config


RUNS = "runs"
"""Folder of the finished runs; where it is, the report beside it is the bench's to write again."""


@dataclass(frozen=True)
class Result:
    """A finished run: its figures, and one row per question in `cases`."""

    figures: dict[str, Any]
    cases: pl.DataFrame

    @property
    def model(self) -> str:
        return str(self.figures["model"])

    @property
    def seed(self) -> int:
        return int(self.figures["seed"])


@dataclass(frozen=True)
class Failure:
    """A run that ended without figures, and what it said last."""

    model: str
    seed: int
    reason: str
    log: Path


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and where its results lie.

    `keep` names a directory for the first fitted model of ours.
    """

    source: job.Source
    protocol: str
    models: Sequence[str]
    n_seeds: int
    config: Config
    out: Path
    keep: Path | None = None

    def jobs(self) -> list[job.Job]:
        """One job per model and seed; seed by seed, so that a whole table is there early."""
        content, code = self.source.content(), facts.source_hash()
        wanted = [
            (m, s) for s in range(self.n_seeds) for m in self.models if s in lineup.seeds(m, self.n_seeds)
        ]
        return [self._job(model, seed, content, code) for model, seed in wanted]

    def _job(self, model: str, seed: int, content: str, code: str) -> job.Job:
        values = self.config.model_dump(mode="json")
        # What a baseline does not read must not make its figures stale.
        used = values if lineup.LINEUP[model].seeded else {"data": values["data"]}
        kept = str(self.keep) if self.keep is not None and (model, seed) == (lineup.OURS, 0) else None
        return job.Job(
            source=self.source,
            protocol=self.protocol,
            model=model,
            seed=seed,
            config=values,
            key=job.key(content, self.protocol, model, seed, used, code),
            out=str(self.out / RUNS / job.name(model, seed)),
            keep=kept,
        )


def run(
    plan: Plan, *, say: Callable[[str], None], progress: Progress = silent
) -> tuple[list[Result], list[Failure]]:
    """Run what has no result yet; a model that fails leaves the others running.

    Args:
        plan: what is to be measured.
        say: told in a sentence what is reused, what is run and what failed.
        progress: told of every epoch of every run.

    Raises:
        LLM4RecError: where a person interrupts it.
    """
    (plan.out / RUNS).mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    failures: list[Failure] = []
    jobs = plan.jobs()
    for number, task in enumerate(jobs, start=1):
        label = f"{task.model}, seed {task.seed} ({number} of {len(jobs)})"
        found, why = _finished(task)
        if found is not None:
            say(f"{label}: reused.")
            results.append(found)
            continue
        say(f"{label}: {why}.")
        try:
            ended = _start(task, progress)
        except KeyboardInterrupt:
            raise LLM4RecError(
                f"Interrupted in {label}. What is finished is kept, and the same command goes on from here."
            ) from None
        if isinstance(ended, Failure):
            say(f"{label}: failed. {ended.reason}")
            failures.append(ended)
        else:
            results.append(ended)
    return results, failures


def _finished(task: job.Job) -> tuple[Result | None, str]:
    """The run's earlier result, or None and why it can't be used."""
    place = Path(f"{task.out}.json")
    if not place.exists():
        return None, "running"
    try:
        result = load(Path(task.out))
    except (ValueError, OSError, pl.exceptions.PolarsError):
        return None, "its earlier result can't be read, running again"
    if result.figures.get("key") != task.key:
        return None, "data, configuration or code have changed since its earlier result, running again"
    stamp = None if task.keep is None else job.stamp(Path(task.keep))
    if task.keep is not None and (stamp is None or stamp != result.figures.get("kept")):
        return None, f"its model is not in {task.keep}, running again"
    return result, ""


def load(out: Path) -> Result:
    """A finished run from its two files."""
    figures = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
    if not isinstance(figures, dict):
        raise ValueError(f"{out}.json is not a run.")
    return Result(figures, pl.read_parquet(f"{out}.parquet"))


def _start(task: job.Job, progress: Progress) -> Result | Failure:
    """Run one job in a process of its own; its output stays in `<out>.log`."""
    out = Path(task.out)
    described, log = Path(f"{out}.job.json"), Path(f"{out}.log")
    files.write_text(task.to_json(), described)
    command = [sys.executable, "-m", "llm4rec.bench.worker", str(described)]
    log.write_text("", encoding="utf-8")
    with (
        # the worker and `_follow` both add to it: neither may write over what the other has said
        log.open("a", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            _follow(process, task, progress, log)
        except BaseException:
            process.terminate()
            raise
        code = process.wait()
    if code != 0:
        return Failure(task.model, task.seed, _reason(log, code), log)
    described.unlink()
    return load(out)


def _follow(process: subprocess.Popen[str], task: job.Job, progress: Progress, log: Path) -> None:
    assert process.stdout is not None
    with log.open("a", encoding="utf-8") as copy:
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                copy.write(line)
                continue
            if "part" not in said["figures"]:
                copy.write(line)
                copy.flush()
            stage = f"{task.model}-{task.seed} {said['stage']}"
            progress(stage, said["done"], said["total"], **said["figures"])


def _reason(log: Path, code: int) -> str:
    if code < 0:
        return f"Its process was ended by signal {-code}; the same command takes the run up again."
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line and line[0] not in ' {"']
    return f"{lines[-1] if lines else 'It said nothing.'} (see {log})"
