from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from llm4rec.bench.run import Result
from llm4rec.bench.tables import Estimate, compare, summarise
from llm4rec.errors import InputError


def run(model: str, seed: int, ndcg: list[float], people: list[str], **figures: Any) -> Result:
    hit = [float(value > 0) for value in ndcg]
    cases = pl.DataFrame({
        "user_id": people,
        "person_events": [0, 5, 5, 20][: len(people)],
        "target_events": [0, 9, 10, 11][: len(people)],
        "tied": pl.Series([True, False, False, False][: len(people)]),
        "hr@10": hit,
        "ndcg@10": ndcg,
        "mrr@10": hit,
    })
    known = {
        "model": model,
        "seed": seed,
        "fit_seconds": 2.0,
        "peak_mib": 100.0,
        "size_mib": 1.0,
        "milliseconds": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
        "summary": {"ndcg@10": 0.0, "coverage@10": 0.5, "coverage@100": 0.75},
        "curve": [],
        "chosen": {},
    }
    return Result(known | figures, cases)


PEOPLE = ["b", "b", "a", "c"]


def test_a_person_with_many_questions_counts_once() -> None:
    # b scores (1 + 0) / 2, a scores 1/2, c scores 0: the mean over people is 1/3, over cases 3/8.
    table = summarise([run("ease", 0, [1.0, 0.0, 0.5, 0.0], PEOPLE)], {})
    assert table.rows[0].accuracy["ndcg@10"].mean == pytest.approx(1 / 3)


def test_seeds_are_averaged_before_anything_else() -> None:
    runs = [
        run("ours", 0, [1.0, 0.0, 0.5, 0.0], PEOPLE, fit_seconds=2.0, peak_mib=100.0),
        run("ours", 1, [0.0, 0.0, 0.5, 0.5], PEOPLE, fit_seconds=4.0, peak_mib=300.0),
        run("ease", 0, [0.0, 0.0, 0.5, 0.0], PEOPLE),
    ]
    ours, ease = summarise(runs, {}).rows
    # Per case .5 0 .5 .25; per person a .5, b .25, c .25.
    assert ours.accuracy["ndcg@10"].mean == pytest.approx(1 / 3)
    assert ours.seeds == 2 and ease.seeds == 1
    assert ours.fit_seconds == 3.0  # the mean
    assert ours.peak_mib == 300.0  # the most


def test_difference_is_paired_and_relative_to_the_other() -> None:
    runs = [run("ours", 0, [1.0, 1.0, 0.5, 0.0], PEOPLE), run("ease", 0, [0.0, 1.0, 0.5, 0.0], PEOPLE)]
    (found,) = summarise(runs, {}).comparisons
    # Ours: a .5, b 1, c 0; EASE: a .5, b .5, c 0. The difference is (0 + .5 + 0) / 3.
    assert found.other == "ease"
    assert found.difference.mean == pytest.approx(1 / 6)
    assert found.difference.low == 0.0  # a draw without b
    assert found.difference.high == pytest.approx(0.5)  # a draw of b alone
    assert found.relative is not None
    assert found.relative.mean == pytest.approx((1 / 6) / (1 / 3))
    assert found.relative.high == pytest.approx(0.5 / (1 / 3))


def test_relative_difference_from_nothing_is_not_given() -> None:
    runs = [run("ours", 0, [1.0, 1.0, 0.5, 0.0], PEOPLE), run("ease", 0, [0.0] * 4, PEOPLE)]
    assert summarise(runs, {}).comparisons[0].relative is None


def test_p_values_are_corrected_over_the_models() -> None:
    runs = [
        run("ours", 0, [0.5, 0.5, 0.5, 0.5], PEOPLE),
        run("ids", 0, [0.25, 0.25, 0.25, 0.25], PEOPLE),
        run("ease", 0, [0.0, 0.0, 0.0, 0.0], PEOPLE),
    ]
    for found in summarise(runs, {}).comparisons:
        assert found.p_holm == pytest.approx(2 * found.p)  # two models, the same p


def test_groups_part_warm_from_cold() -> None:
    table = summarise([run("ease", 0, [1.0, 0.5, 0.25, 0.0], PEOPLE)], {})
    groups = {group.name: (group.cases, group.means["ease"]) for group in table.groups}
    assert groups["target with 0 training events"] == (1, 1.0)
    assert groups["target with 1–9 training events"] == (1, 0.5)
    assert groups["target with 10 and more training events"] == (2, 0.125)
    assert groups["person with 1–9 training events"] == (2, 0.375)
    assert groups["target at the same time as the event before"] == (1, 1.0)
    # b .5, a .25, c 0
    assert groups["target at a later time"] == (3, 0.25)


def test_without_a_clock_no_times_are_tied() -> None:
    result = run("ease", 0, [1.0], ["a"])
    cases = result.cases.with_columns(tied=pl.lit(None, dtype=pl.Boolean))
    names = [group.name for group in summarise([Result(result.figures, cases)], {}).groups]
    assert not [name for name in names if "time" in name]


def test_runs_on_other_questions_are_refused() -> None:
    with pytest.raises(InputError, match="ease-0"):
        summarise([run("ours", 0, [1.0], ["a"]), run("ease", 0, [1.0], ["b"])], {})


def test_no_run_makes_no_table() -> None:
    with pytest.raises(InputError, match="no finished run"):
        summarise([], {})


def test_comparison_of_a_model_with_itself_is_zero() -> None:
    values = pl.Series([0.0, 0.5, 1.0]).to_numpy()
    found = compare(values, values, "same")
    assert found.difference == Estimate(0.0, 0.0, 0.0)
    assert found.p == 1.0
