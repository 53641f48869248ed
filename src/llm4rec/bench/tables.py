"""What a table says: means over seeds, intervals over people, paired differences from ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from llm4rec.bench.lineup import OURS
from llm4rec.bench.run import Result
from llm4rec.errors import InputError
from llm4rec.evaluate.protocol import person_means
from llm4rec.evaluate.significance import holm, interval, paired
from llm4rec.types import Array, Bools

ACCURACY = ("hr@10", "ndcg@10", "mrr@10")
COMPARED = "ndcg@10"
INTERVALS = (
    "95% percentile bootstrap over people, each person's figure averaged over cases and seeds first; "
    "differences paired by person, p from the same bootstrap, Holm-corrected over the models of the table"
)
COUNTS = {"0": (0, 0), "1–9": (1, 9), "10 and more": (10, None)}


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One model: accuracy with intervals, what lies beyond accuracy, and what it costs."""

    model: str
    seeds: int
    accuracy: dict[str, Estimate]
    beyond: dict[str, float]
    fit_seconds: float
    peak_mib: float
    size_mib: float
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """Ours minus another model on one metric; `relative` is the difference over the other's mean."""

    other: str
    metric: str
    difference: Estimate
    relative: Estimate | None
    p: float
    p_holm: float


@dataclass(frozen=True)
class Group:
    """Mean NDCG@10 of each model on some of the cases."""

    name: str
    cases: int
    means: dict[str, float]


@dataclass(frozen=True)
class Table:
    """A measured line-up, with what a reader needs to judge and repeat it.

    `curves` holds validation NDCG@10 by epoch (first seed), `chosen` the settings of baselines that
    validation chose, both by model.
    """

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    groups: tuple[Group, ...]
    curves: dict[str, list[float]]
    chosen: dict[str, dict[str, float]]
    facts: dict[str, str]


def summarise(results: Sequence[Result], facts: Mapping[str, str]) -> Table:
    """Put all runs of one set of questions into a table.

    Raises:
        InputError: if there is no run, or the runs were asked different questions.
    """
    if not results:
        raise InputError("There is no finished run to make a table of.")
    by_model: dict[str, list[Result]] = {}
    for result in results:
        by_model.setdefault(result.model, []).append(result)
    people = results[0].cases["user_id"].to_numpy()
    for result in results:
        if not np.array_equal(result.cases["user_id"].to_numpy(), people):
            raise InputError(f"The run {result.model}-{result.seed} was asked other questions; remove it.")
    means = {model: mean_over_seeds(runs) for model, runs in by_model.items()}
    return Table(
        rows=tuple(_row(model, runs, means[model], people) for model, runs in by_model.items()),
        comparisons=tuple(_compare(means, people)),
        groups=tuple(_groups(results[0].cases, means)),
        curves={
            model: runs[0].figures["curve"] for model, runs in by_model.items() if runs[0].figures["curve"]
        },
        chosen={
            model: runs[0].figures["chosen"] for model, runs in by_model.items() if runs[0].figures["chosen"]
        },
        facts=dict(facts),
    )


def mean_over_seeds(runs: Sequence[Result]) -> dict[str, Array]:
    """Every metric of one model per case [c], averaged over its seeds."""
    metrics = [name for name in runs[0].cases.columns if "@" in name]
    return {
        name: np.mean([run.cases[name].to_numpy().astype(np.float64) for run in runs], axis=0)
        for name in metrics
    }


def compare(
    ours: Array, other: Array, name: str, metric: str = COMPARED, *, p_holm: float | None = None
) -> Comparison:
    """Ours minus another model, both per person [u] in the same order."""
    found = paired(ours, other)
    mean = float(other.mean())
    difference = Estimate(float(found.difference), float(found.low), float(found.high))
    relative = None
    if mean > 0:
        relative = Estimate(difference.mean / mean, difference.low / mean, difference.high / mean)
    p = float(found.p)
    return Comparison(name, metric, difference, relative, p, p if p_holm is None else p_holm)


def _row(model: str, runs: Sequence[Result], means: Mapping[str, Array], people: np.ndarray) -> Row:
    accuracy: dict[str, Estimate] = {}
    for metric, values in means.items():
        persons = person_means(values, people)
        low, high = interval(persons)
        accuracy[metric] = Estimate(float(persons.mean()), float(low), float(high))
    summaries = [run.figures["summary"] for run in runs]
    beyond = [name for name in summaries[0] if name not in accuracy]
    return Row(
        model=model,
        seeds=len(runs),
        accuracy=accuracy,
        beyond={name: float(np.mean([summary[name] for summary in summaries])) for name in beyond},
        fit_seconds=float(np.mean([run.figures["fit_seconds"] for run in runs])),
        peak_mib=float(np.max([run.figures["peak_mib"] for run in runs])),
        size_mib=float(np.mean([run.figures["size_mib"] for run in runs])),
        milliseconds={
            name: float(np.mean([run.figures["milliseconds"][name] for run in runs]))
            for name in runs[0].figures["milliseconds"]
        },
    )


def _compare(means: Mapping[str, Mapping[str, Array]], people: np.ndarray) -> Iterator[Comparison]:
    if OURS not in means:
        return
    ours = person_means(means[OURS][COMPARED], people)
    others = {name: person_means(found[COMPARED], people) for name, found in means.items() if name != OURS}
    first = {name: compare(ours, values, name) for name, values in others.items()}
    corrected = holm([found.p for found in first.values()])
    for (name, values), p in zip(others.items(), corrected, strict=True):
        yield compare(ours, values, name, p_holm=float(p))


def _groups(cases: pl.DataFrame, means: Mapping[str, Mapping[str, Array]]) -> Iterator[Group]:
    """Warm and cold items and people by their events in training, and tied times apart."""
    masks: dict[str, Bools] = {}
    for title, column in (("target", "target_events"), ("person", "person_events")):
        events = cases[column].to_numpy()
        for label, (least, most) in COUNTS.items():
            masks[f"{title} with {label} training events"] = (events >= least) & (
                np.full(len(events), True) if most is None else events <= most
            )
    if cases["tied"].null_count() == 0:
        tied = cases["tied"].to_numpy()
        masks["target at the same time as the event before"] = tied
        masks["target at a later time"] = ~tied
    people = cases["user_id"].to_numpy()
    for name, mask in masks.items():
        if mask.any():
            yield Group(
                name,
                int(mask.sum()),
                {
                    model: float(person_means(found[COMPARED][mask], people[mask]).mean())
                    for model, found in means.items()
                },
            )
