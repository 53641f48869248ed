import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.errors import InputError
from llm4rec.evaluate.metrics import auc, per_case
from llm4rec.types import Rankings


def cases_of(*targets: list[int]) -> Cases:
    n = len(targets)
    names = pl.Series([f"u{row}" for row in range(n)], dtype=pl.String)
    log = EventLog(names, np.zeros(n + 1, dtype=np.int64), np.empty(0, dtype=np.int64))
    return Cases(
        log,
        rows=np.arange(n),
        ends=np.zeros(n, dtype=np.int64),
        targets=np.array([item for each in targets for item in each], dtype=np.int64),
        target_offsets=np.cumsum([0, *(len(each) for each in targets)]),
    )


def rankings_of(items: list[list[int]], scores: list[list[float]]) -> Rankings:
    return Rankings(np.array(items, dtype=np.int64), np.array(scores, dtype=np.float32))


def measured(
    items: list[int], scores: list[float], targets: list[int], ks: tuple[int, ...]
) -> dict[str, float]:
    found = per_case(rankings_of([items], [scores]), cases_of(targets), ks)
    return {name: float(value[0]) for name, value in found.items()}


def test_one_answer_in_third_place() -> None:
    found = measured([7, 3, 5, 1], [4, 3, 2, 1], [5], (2, 3))
    assert [found[f"{name}@2"] for name in ("hr", "ndcg", "mrr", "recall")] == [0, 0, 0, 0]
    # 1 / log2(3 + 1) = 1/2
    assert [found[f"{name}@3"] for name in ("hr", "ndcg", "mrr", "recall")] == pytest.approx([
        1,
        0.5,
        1 / 3,
        1,
    ])


def test_several_answers_one_of_them_not_in_the_list() -> None:
    # places 1 and 3 of 4; three answers: ideal gain at 4 is 1 + 1/log2(3) + 1/2 = 2.130930
    found = measured([8, 2, 6, 4], [4, 3, 2, 1], [6, 8, 9], (1, 4))
    assert found["ndcg@1"] == 1
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["ndcg@4"] == pytest.approx(1.5 / 2.1309298)
    assert found["recall@4"] == pytest.approx(2 / 3)
    assert found["mrr@4"] == found["hr@4"] == 1


@pytest.mark.parametrize(
    ("scores", "place"),
    [([3, 2, 1, 0], 1), ([3, 3, 1, 0], 2), ([3, 3, 3, 0], 3), ([3, 3, 3, 3], 4)],
)
def test_ties_count_against_the_model(scores: list[float], place: int) -> None:
    found = measured([5, 6, 7, 8], scores, [5], (4,))
    assert found["mrr@4"] == pytest.approx(1 / place)
    assert found["ndcg@4"] == pytest.approx(1 / np.log2(place + 1))


def test_answers_that_tie_with_each_other_do_not_push_each_other_out() -> None:
    # 5 and 6 tie with the wrong 7: in the worst order they stand in places 2 and 3
    found = measured([5, 6, 7, 8], [3, 3, 3, 1], [5, 6], (2, 3))
    assert found["recall@2"] == 0.5
    assert found["recall@3"] == 1
    assert found["mrr@3"] == 0.5


def test_an_answer_level_with_items_beyond_the_list_is_no_hit_below_its_end() -> None:
    found = measured([0, 1, 2, 3], [1, 1, 1, 1], [0], (1, 2, 3))
    assert all(value == 0 for value in found.values())


def test_the_empty_end_of_a_short_list_is_no_item() -> None:
    lists = rankings_of([[3, -1, -1], [-1, -1, -1]], [[1, -np.inf, -np.inf], [-np.inf] * 3])
    found = per_case(lists, cases_of([3, 9], [0, 4]), (2,))
    assert found["recall@2"].tolist() == [0.5, 0]
    assert all(np.isfinite(value).all() for value in found.values())


def test_a_case_without_answers_scores_nothing() -> None:
    found = per_case(rankings_of([[1, 2]], [[2, 1]]), cases_of([]), (1, 2))
    assert all(value.tolist() == [0] for value in found.values())


def test_lists_that_do_not_fit_are_refused() -> None:
    lists = rankings_of([[1, 2]], [[2, 1]])
    with pytest.raises(InputError, match="rank at least 5"):
        per_case(lists, cases_of([1]), (5,))
    with pytest.raises(InputError, match="1 lists for 2 cases"):
        per_case(lists, cases_of([1], [2]), (1,))


@pytest.mark.filterwarnings("ignore:unsafe cast")
@pytest.mark.parametrize("n_answers", [1, 7])
def test_agrees_with_ranx(n_answers: int) -> None:
    import ranx

    rng = np.random.default_rng(n_answers)
    n_cases, n_items = 40, 60
    scores = rng.permuted(np.tile(np.linspace(-1, 1, n_items), (n_cases, 1)), axis=1)
    items = np.argsort(-scores, axis=1)[:, :30]
    targets = [rng.choice(n_items, rng.integers(1, n_answers + 1), replace=False) for _ in range(n_cases)]
    found = per_case(
        Rankings(items, np.take_along_axis(scores, items, axis=1).astype(np.float32)),
        cases_of(*(each.tolist() for each in targets)),
        (1, 5, 20),
    )
    names = [f"q{case:03}" for case in range(n_cases)]
    right = ranx.Qrels({name: {str(i): 1 for i in each} for name, each in zip(names, targets, strict=True)})
    run = ranx.Run({
        names[c]: {str(item): float(scores[c, item]) for item in items[c]} for c in range(n_cases)
    })
    for ours, theirs in (("hr", "hit_rate"), ("ndcg", "ndcg"), ("mrr", "mrr"), ("recall", "recall")):
        for k in (1, 5, 20):
            expected = ranx.evaluate(right, run, f"{theirs}@{k}", return_mean=False)
            np.testing.assert_allclose(found[f"{ours}@{k}"], expected, atol=1e-6, err_msg=f"{ours}@{k}")


@given(data=st.data())
def test_laws(data: st.DataObject) -> None:
    items = data.draw(st.permutations(range(12)))
    scores = sorted(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=12, max_size=12)))[::-1]
    targets = data.draw(st.lists(st.integers(0, 15), min_size=1, max_size=5, unique=True))
    tied = measured(list(items), scores, targets, (3, 6, 11))
    strict = measured(list(items), [float(-place) for place in range(12)], targets, (3, 6, 11))
    for name, value in tied.items():
        assert 0 <= value <= 1
        assert value <= strict[name] + 1e-6, "ties may never help"
    for name in ("hr", "mrr", "recall"):
        assert tied[f"{name}@3"] <= tied[f"{name}@6"] <= tied[f"{name}@11"]
    assert tied["recall@6"] <= tied["hr@6"]
    assert tied["mrr@6"] <= tied["hr@6"]


def test_auc_by_hand() -> None:
    """Of four pairs three are in order and one ties; the first positive then counts three times."""
    liked, scores = np.array([True, True, False, False]), np.array([0.9, 0.5, 0.5, 0.4])
    assert auc(liked, scores) == pytest.approx(3.5 / 4)
    assert auc(liked, scores, np.array([3.0, 1.0, 1.0, 1.0])) == pytest.approx((3 + 3 + 0.5 + 1) / 8)
