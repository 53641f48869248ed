from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.split import Cases, Split, leave_last_out, next_event_cases
from llm4rec.evaluate import protocol
from llm4rec.evaluate.protocol import case_ndcg, evaluate, mean_ndcg, person_means
from llm4rec.topn import top_n
from llm4rec.types import Rankings

# Four people over eight items; the last of each is the answer.
ROWS = {"a": [0, 1, 2, 3], "b": [1, 2, 3, 4], "c": [2, 3, 4, 5], "d": [0, 2, 4, 6]}


@dataclass(frozen=True)
class NextNumber:
    """Scores an item by how soon its number follows the newest one; notes how many rows it was given."""

    n_items: int
    asked: list[int] = field(default_factory=list)

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        self.asked.append(histories.n_users)
        newest = np.array([histories.history(row)[-1] for row in range(histories.n_users)])
        scores = -((np.arange(self.n_items) - newest[:, None] - 1) % self.n_items).astype(np.float32)
        return top_n(scores, n, None if keep_seen else histories)


@pytest.fixture
def catalog() -> Catalog:
    table = pl.DataFrame({
        "item_id": [str(item) for item in range(8)],
        "kind": [["odd" if item % 2 else "even"] for item in range(8)],
    })
    return Catalog(table, (Field("kind", "categorical"),))


@pytest.fixture
def split() -> Split:
    flat = [(user, item) for user, items in ROWS.items() for item in items]
    return leave_last_out(build_log(pl.Series([u for u, _ in flat]), np.array([i for _, i in flat])))


def test_measures_every_case_and_averages_over_people(split: Split, catalog: Catalog) -> None:
    result = evaluate(NextNumber(8), split.test, train=split.train, catalog=catalog, ks=(1, 2), n=5)
    # a, b, c go on by one; d, after 0 2 4, is offered 5 before its 6
    assert result.per_case["hr@1"].tolist() == [1, 1, 1, 0]
    assert result.per_case["mrr@2"].tolist() == [1, 1, 1, 0.5]
    assert result.summary["hr@1"] == 0.75
    assert result.summary["ndcg@2"] == pytest.approx((3 + 1 / np.log2(3)) / 4)
    assert result.people.tolist() == [0, 1, 2, 3]
    assert result.lists.items.tolist() == [[3, 4, 5, 6, 7], [4, 5, 6, 7, 0], [5, 6, 7, 0, 1], [5, 6, 7, 1, 3]]


def test_figures_beyond_accuracy_by_hand(split: Split, catalog: Catalog) -> None:
    cases = split.test.take(np.array([0, 3]))
    result = evaluate(NextNumber(8), cases, train=split.train, catalog=catalog, ks=(1,), n=2)
    # lists 3 4 and 5 6: four of eight items once each; training holds 01 12 23 02
    assert result.lists.items.tolist() == [[3, 4], [5, 6]]
    assert result.summary["coverage@10"] == result.summary["coverage@2"] == 0.5
    assert result.summary["gini@10"] == pytest.approx(0.5)
    # shares: 3 → 1/4; 4, 5, 6 → none, counted as one of four people: two bits each
    assert result.summary["novelty@10"] == pytest.approx(2)
    # shown: (1/4 + 0)/2 and 0; taken: items 0 1 2 at 1/2 1/2 3/4 → 7/12, items 0 2 4 at 1/2 3/4 0 → 5/12
    assert result.summary["popularity_lift@10"] == pytest.approx((1 / 16) / (1 / 2))
    assert result.summary["ild@10"] == 1  # an odd and an even one in each list


def test_a_person_with_many_cases_counts_once(split: Split, catalog: Catalog) -> None:
    log = split.test.log
    cases = next_event_cases(log, np.array([0, 0, 3]), np.array([1, 2, 3]))
    result = evaluate(NextNumber(8), cases, train=split.train, catalog=catalog, ks=(1,), n=2)
    assert result.per_case["hr@1"].tolist() == [1, 1, 0]
    assert result.summary["hr@1"] == 0.5
    assert result.per_person("hr@1").tolist() == [1, 0]
    assert result.per_person("hr@1", np.array([False, True, False])).tolist() == [1]


def test_cutting_into_chunks_changes_nothing_but_the_memory(
    split: Split, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    whole = evaluate(NextNumber(8), split.test, train=split.train, catalog=catalog, ks=(1,), n=3)
    monkeypatch.setattr(protocol, "SCORES_AT_ONCE", 24)  # three rows of eight
    model = NextNumber(8)
    cut = evaluate(
        model,
        split.test,
        train=split.train,
        catalog=catalog,
        ks=(1,),
        n=3,
        progress=lambda stage, done, total, **_: told.append((stage, done, total)),
    )
    assert model.asked == [3, 1]
    assert told == [("evaluate", 3, 4), ("evaluate", 4, 4)]
    assert cut.summary == whole.summary
    assert cut.lists.items.tolist() == whole.lists.items.tolist()


def test_a_figure_that_cannot_be_had_is_absent(split: Split, catalog: Catalog) -> None:
    bare = replace(catalog, fields=())
    result = evaluate(NextNumber(8), split.test, train=split.train, catalog=bare, ks=(1,), n=3)
    assert "ild@10" not in result.summary
    vectors = np.tile(np.float32([1, 2]), (8, 1))
    given = evaluate(
        NextNumber(8), split.test, train=split.train, catalog=bare, ks=(1,), n=3, similarity=vectors
    )
    assert given.summary["ild@10"] == pytest.approx(0, abs=1e-12)


def test_no_cases_give_no_figures_about_people(split: Split, catalog: Catalog) -> None:
    none: Cases = split.test.take(np.empty(0, dtype=np.int64))
    result = evaluate(NextNumber(8), none, train=split.train, catalog=catalog)
    assert result.per_case == {}
    assert result.summary == {"coverage@10": 0, "gini@10": 0, "coverage@100": 0}


def test_validation_figure_is_the_summarys(split: Split, catalog: Catalog) -> None:
    result = evaluate(NextNumber(8), split.test, train=split.train, catalog=catalog, ks=(2,), n=5)
    assert mean_ndcg(NextNumber(8), split.test, 8, k=2) == pytest.approx(result.summary["ndcg@2"])


def test_validation_counts_each_case_once(split: Split) -> None:
    # a is asked twice and right twice, d once and finds its answer in second place
    cases = next_event_cases(split.test.log, np.array([0, 0, 3]), np.array([2, 3, 3]))
    expected = [1, 1, 1 / np.log2(3)]
    assert case_ndcg(NextNumber(8), cases, 8, k=2) == pytest.approx(expected)
    assert mean_ndcg(NextNumber(8), cases, 8, k=2) == pytest.approx(np.mean(expected))


def test_person_means_leave_out_what_is_not_known() -> None:
    values, people = np.array([1.0, np.nan, 3.0, 5.0]), np.array([7, 2, 4, 7])
    assert person_means(values, people).tolist() == [3, 3]
