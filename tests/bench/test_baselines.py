from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from llm4rec.bench import baselines
from llm4rec.bench.baselines import fit_ease, fit_item_knn, fit_popularity, fit_recent_popularity
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.split import Cases, Split, leave_last_out
from llm4rec.errors import ClockError
from llm4rec.evaluate.protocol import mean_ndcg
from llm4rec.model.linear import ease_weights
from llm4rec.types import Floats

DAY = 86_400


def log_of(rows: dict[str, list[int]], times: list[int] | None = None) -> EventLog:
    flat = [(user, item) for user, items in rows.items() for item in items]
    return build_log(
        pl.Series([user for user, _ in flat]),
        np.array([item for _, item in flat]),
        times=None if times is None else np.array(times),
    )


def shop(n_items: int) -> Catalog:
    return Catalog(pl.DataFrame({"item_id": [str(item) for item in range(n_items)]}))


def all_train(log: EventLog) -> Split:
    """Everything is training and nothing is asked, so the first of each grid is taken."""
    empty = np.empty(0, dtype=np.int64)
    none = Cases(log, empty, empty, empty, np.zeros(1, dtype=np.int64))
    return Split(log, none, none, "given")


def ask(*histories: list[int]) -> EventLog:
    return EventLog(
        pl.Series([str(row) for row in range(len(histories))], dtype=pl.String),
        np.cumsum([0, *(len(history) for history in histories)]),
        np.array([item for history in histories for item in history], dtype=np.int64),
    )


def communities(seed: int = 3, people: int = 150) -> Split:
    """Two groups of people who keep to the lower or the upper ten of twenty items."""
    rng = np.random.default_rng(seed)
    rows = {f"u{u}": (rng.permutation(10)[:7] + 10 * (u % 2)).tolist() for u in range(people)}
    return leave_last_out(log_of(rows))


def test_popularity_counts_people_not_events() -> None:
    log = log_of({"a": [0, 0, 0, 1], "b": [1, 2], "c": [1]})
    ranked = fit_popularity(all_train(log), shop(4)).rank(ask([], [1]), 4)
    assert ranked.items.tolist() == [[1, 0, 2, 3], [0, 2, 3, -1]]
    np.testing.assert_allclose(ranked.scores[0], [1, 1 / 3, 1 / 3, 0], rtol=1e-6)


def test_recent_popularity_forgets_what_lies_before_its_window() -> None:
    rows = {"a": [0, 1], "b": [0, 2], "c": [0], "d": [2]}
    times = [0, 40 * DAY, DAY, 41 * DAY, 2 * DAY, 42 * DAY]
    model = fit_recent_popularity(all_train(log_of(rows, times)), shop(4))
    assert model.chosen == {"window_days": 30.0}
    # 2 twice and 1 once in the last thirty days; 0, once the favourite, ahead only of what nobody took
    assert model.rank(ask([]), 4).items.tolist() == [[2, 1, 0, 3]]


def test_recent_popularity_chooses_the_window_that_validation_likes() -> None:
    # Tastes turn every day: on day t everybody takes item t, then items t + 1 and t + 2 as valid and test.
    rows = {f"u{day}-{copy}": [day, day + 1, day + 2] for day in range(40) for copy in range(2)}
    times = [DAY * (day + step) for day in range(40) for _ in range(2) for step in range(3)]
    fitted = leave_last_out(log_of(rows, times))
    late = replace(fitted, valid=fitted.valid.take(np.flatnonzero(fitted.valid.targets >= 38)))
    assert fit_recent_popularity(late, shop(42)).chosen["window_days"] <= 3


def test_recent_popularity_needs_a_clock() -> None:
    with pytest.raises(ClockError, match="time of every event"):
        fit_recent_popularity(all_train(log_of({"a": [0, 1]})), shop(2))


def test_item_knn_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SHRINKAGE", (1.0,))
    monkeypatch.setattr(baselines, "NEIGHBOURS", (5,))
    # n = 2, 3, 2, 1; together: 0-1 two, 1-2 one, 2-3 one
    log = log_of({"a": [0, 1, 0], "b": [0, 1], "c": [1, 2], "d": [2, 3]})
    model = fit_item_knn(all_train(log), shop(5))
    sim01, sim12, sim23 = 2 / (np.sqrt(6) + 1), 1 / (np.sqrt(6) + 1), 1 / (np.sqrt(2) + 1)
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = sim01
    expected[1, 2] = expected[2, 1] = sim12
    expected[2, 3] = expected[3, 2] = sim23
    np.testing.assert_allclose(model.weights.toarray(), expected, rtol=1e-6)
    ranked = model.rank(ask([1, 3]), 3)
    # item 2 is near both (.29 + .41), item 0 near one (.58), item 4 near none
    assert ranked.items.tolist() == [[2, 0, 4]]
    assert ranked.scores[0] == pytest.approx([sim12 + sim23, sim01, -1])


def test_item_knn_keeps_the_nearest_k_of_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SHRINKAGE", (0.0,))
    monkeypatch.setattr(baselines, "NEIGHBOURS", (1,))
    log = log_of({"a": [0, 1], "b": [0, 1], "c": [1, 2], "d": [2, 3]})
    weights = fit_item_knn(all_train(log), shop(4)).weights.toarray()
    # Item 2: 1 at 1/√6, 3 at 1/√2, so 3 is its one neighbour. Item 1 keeps 0, item 3 keeps 2.
    np.testing.assert_allclose(weights[:, 2], [0, 0, 0, np.sqrt(0.5)], rtol=1e-6)
    assert (weights > 0).sum(axis=0).tolist() == [1, 1, 1, 1]
    assert (np.argmax(weights, axis=0) == [1, 0, 3, 2]).all()


def test_item_knn_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    split = communities()
    whole = fit_item_knn(split, shop(20))
    monkeypatch.setattr("llm4rec.evaluate.protocol.SCORES_AT_ONCE", 60)
    blocks = fit_item_knn(split, shop(20))
    assert blocks.chosen == whole.chosen
    np.testing.assert_array_equal(blocks.weights.toarray(), whole.weights.toarray())


def test_ease_is_the_closed_form_with_a_zero_diagonal() -> None:
    rng = np.random.default_rng(0)
    taken = rng.random((30, 7)) < 0.4
    taken[:, 5] = False  # an item nobody took
    log = log_of({f"u{row}": np.flatnonzero(each).tolist() for row, each in enumerate(taken)})
    model = fit_ease(all_train(log), shop(7))
    known = np.array([0, 1, 2, 3, 4, 6])
    assert model.known.tolist() == known.tolist()
    assert model.chosen == {"ridge": 100.0}
    x = taken[:, known].astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 100 * np.eye(6))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(model.weights, expected, rtol=1e-4, atol=1e-7)
    assert (np.diag(model.weights) == 0).all()
    ranked = model.rank(ask([0, 4]), 7, keep_seen=True)
    scores = np.zeros(7)
    scores[known] = expected[0] + expected[4]
    np.testing.assert_allclose(ranked.scores[0], np.sort(scores)[::-1], rtol=1e-4, atol=1e-7)


def test_ease_solves_the_regression_of_each_item_on_the_others() -> None:
    # One item at a time, by ordinary ridge regression, which knows nothing of the closed form.
    rng = np.random.default_rng(4)
    x = (rng.random((40, 6)) < 0.5).astype(np.float64)
    log = log_of({f"u{row}": np.flatnonzero(each).tolist() for row, each in enumerate(x) if each.any()})
    weights = fit_ease(all_train(log), shop(6)).weights
    for item in range(6):
        others = np.delete(np.arange(6), item)
        left = x[:, others].T @ x[:, others] + 100 * np.eye(5)
        solved = np.linalg.solve(left, x[:, others].T @ x[:, item])
        np.testing.assert_allclose(weights[others, item], solved, rtol=1e-4, atol=1e-7)


def test_ease_mirrors_the_inverse_across_blocks() -> None:
    rng = np.random.default_rng(6)
    x = (rng.random((60, 1100)) < 0.05).astype(np.float32)
    weights = ease_weights(x.T @ x, 10.0)
    inverse = np.linalg.inv((x.T @ x).astype(np.float64) + 10 * np.eye(1100))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(weights, expected, atol=1e-4)


def test_ease_maps_the_most_popular_items_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_ITEMS", 2)
    log = log_of({"a": [0, 1, 3], "b": [1, 3], "c": [3, 2, 1]})
    model = fit_ease(all_train(log), shop(5))
    assert model.known.tolist() == [1, 3]
    assert model.weights.shape == (2, 2)
    assert sorted(model.rank(ask([1]), 5).items[0]) == [-1, 0, 2, 3, 4]


@pytest.mark.parametrize("fit", [fit_item_knn, fit_ease])
def test_a_history_that_says_nothing_gets_what_is_popular(fit: type) -> None:
    log = log_of({"a": [2, 1], "b": [2, 1], "c": [2, 0]})
    model = fit(all_train(log), shop(5))
    # none at all, and item 4, which nobody took
    assert model.rank(ask([], [4]), 3).items.tolist() == [[2, 1, 0], [2, 1, 0]]


@pytest.mark.parametrize("fit", [fit_item_knn, fit_ease])
def test_tastes_are_found_and_popularity_is_beaten(fit: type) -> None:
    split = communities()
    model, popular = fit(split, shop(20)), fit_popularity(split, shop(20))
    assert mean_ndcg(model, split.test, 20) > mean_ndcg(popular, split.test, 20) + 0.2
    # three of the seven of a group are left to choose from, and no item of the other group comes first
    ranked = model.rank(split.test.histories(), 3).items
    upper = (split.test.targets >= 10)[:, None]
    assert ((ranked >= 10) == upper).all()


def test_what_validation_likes_best_is_kept() -> None:
    split = communities(seed=8)
    told: list[tuple[str, int, int]] = []
    model = fit_ease(
        split, shop(20), progress=lambda stage, done, total, **_: told.append((stage, done, total))
    )
    assert told == [("ease", step, len(baselines.RIDGES)) for step in range(1, len(baselines.RIDGES) + 1)]
    chosen = mean_ndcg(model, split.valid, 20)
    for ridge in baselines.RIDGES:
        weights = ease_weights(_gram(split.train, 20), ridge)
        assert chosen >= mean_ndcg(replace(model, weights=weights), split.valid, 20)


def test_choices_are_made_on_a_sample_of_people_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    split = communities()
    asked: list[int] = []

    def counting(model: object, cases: Cases, n_items: int) -> float:
        asked.append(len(cases))
        return 0.0

    monkeypatch.setattr(baselines, "mean_ndcg", counting)
    monkeypatch.setattr(baselines, "VALID_PEOPLE", 40)
    model = fit_item_knn(split, shop(20))
    assert set(asked) == {40}
    first = {"k": float(baselines.NEIGHBOURS[0]), "shrink": baselines.SHRINKAGE[0]}
    assert model.chosen == first, "all level: the first of the grid"


def _gram(log: EventLog, n_items: int) -> Floats:
    x = np.zeros((log.n_users, n_items), dtype=np.float32)
    x[log.rows, log.items] = 1
    return x.T @ x
