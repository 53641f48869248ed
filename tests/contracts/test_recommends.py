"""What every model behind `Recommends` must do, whoever wrote it. Add a model by adding a line to MODELS."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from llm4rec.bench.baselines import fit_ease, fit_item_knn, fit_popularity, fit_recent_popularity
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.split import Split, leave_last_out
from llm4rec.recommender import Config, Recommender
from llm4rec.types import Recommends


def fit_recommender(split: Split, catalog: Catalog) -> Recommends:
    """The model itself, as small as it goes."""
    config = Config.model_validate({
        "data": {"max_history": 6},
        "encode": {"text": {"encoder": "hash"}},
        "model": {"embedding_size": 8, "layers": 1, "heads": 1},
        "train": {"epochs": 2, "attention_epochs": 1, "batch_size": 128},
    })
    return Recommender.fit(split.train, catalog, config, valid=split.valid)


MODELS: dict[str, Callable[[Split, Catalog], Recommends]] = {
    "popularity": fit_popularity,
    "recent_popularity": fit_recent_popularity,
    "item_knn": fit_item_knn,
    "ease": fit_ease,
    "recommender": fit_recommender,
}
N_ITEMS = 30
UNSEEN = 29  # in the catalogue, and in nobody's events


def _small_shop() -> tuple[Split, Catalog]:
    """Sixty people who walk round a ring of items in steps of one or two, over a hundred days."""
    rng = np.random.default_rng(11)
    steps = rng.integers(1, 3, size=(60, 8))
    items = (rng.integers(0, UNSEEN, size=(60, 1)) + steps.cumsum(axis=1)) % UNSEEN
    days = np.sort(rng.integers(0, 100 * 86_400, size=(60, 8)), axis=1)
    names = pl.Series([f"u{row}" for row in range(60) for _ in range(8)])
    log = build_log(names, items.ravel(), times=1_600_000_000 + days.ravel())
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "title": [f"thing number {item}" for item in range(N_ITEMS)],
        "colour": [["red", "green", "blue"][item % 3 : item % 3 + 1] for item in range(N_ITEMS)],
        "price": [float(item) for item in range(N_ITEMS)],
    })
    fields = (Field("title", "text"), Field("colour", "categorical"), Field("price", "numerical"))
    return leave_last_out(log), Catalog(table, fields)


@pytest.fixture(scope="module")
def shop() -> tuple[Split, Catalog]:
    return _small_shop()


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest, shop: tuple[Split, Catalog]) -> Recommends:
    return MODELS[request.param](*shop)


def asking(*histories: list[int]) -> EventLog:
    """One request for each history, a day between its events."""
    lengths = [len(history) for history in histories]
    days = [day for length in lengths for day in range(length)]
    return EventLog(
        user_ids=pl.Series([f"stranger {row}" for row in range(len(histories))], dtype=pl.String),
        offsets=np.cumsum([0, *lengths]).astype(np.int64),
        items=np.array([item for history in histories for item in history], dtype=np.int64),
        times=1_610_000_000 + 86_400 * np.array(days, dtype=np.int64),
    )


# None, one, one that nobody had, several with a repeat, and a long one.
REQUESTS: tuple[list[int], ...] = ([], [4], [UNSEEN], [3, 4, 6, 4], [*range(0, 24), 2])


def test_answers_each_request_with_a_list_of_the_length_asked_for(model: Recommends) -> None:
    for n in (1, 5):
        ranked = model.rank(asking(*REQUESTS), n)
        assert ranked.items.shape == ranked.scores.shape == (len(REQUESTS), n)
        assert ranked.items.dtype == np.int64
        assert ((ranked.items >= 0) & (ranked.items < N_ITEMS)).all()


def test_names_no_item_twice_and_none_that_was_seen(model: Recommends) -> None:
    ranked = model.rank(asking(*REQUESTS), 5)
    for history, items in zip(REQUESTS, ranked.items.tolist(), strict=True):
        assert len(set(items)) == 5
        assert not set(items) & set(history)


def test_keeps_the_seen_when_told_to(model: Recommends) -> None:
    ranked = model.rank(asking(*REQUESTS), N_ITEMS, keep_seen=True)
    assert (np.sort(ranked.items, axis=1) == np.arange(N_ITEMS)).all()


def test_the_list_is_shorter_where_few_items_are_legal(model: Recommends) -> None:
    histories = ([*range(N_ITEMS - 2)], [*range(N_ITEMS)], [])
    ranked = model.rank(asking(*histories), N_ITEMS + 3)
    for row, legal in enumerate((2, 0, N_ITEMS)):
        assert sorted(ranked.items[row, :legal]) == sorted(set(range(N_ITEMS)) - set(histories[row]))
        assert (ranked.items[row, legal:] == -1).all()
        assert (ranked.scores[row, legal:] == -np.inf).all()


def test_scores_are_finite_and_fall(model: Recommends) -> None:
    ranked = model.rank(asking(*REQUESTS), 5)
    assert np.isfinite(ranked.scores).all()
    assert (np.diff(ranked.scores, axis=1) <= 0).all()


def test_the_same_request_gets_the_same_answer(model: Recommends) -> None:
    first, again = (model.rank(asking(*REQUESTS), 6) for _ in range(2))
    assert first.items.tolist() == again.items.tolist()
    assert first.scores.tolist() == again.scores.tolist()


def test_who_else_is_asking_changes_nothing(model: Recommends) -> None:
    order = [3, 0, 4, 2, 1]
    together = model.rank(asking(*REQUESTS), 6)
    shuffled = model.rank(asking(*(REQUESTS[row] for row in order)), 6)
    assert shuffled.items.tolist() == together.items[order].tolist()
    np.testing.assert_allclose(shuffled.scores, together.scores[order], rtol=1e-4, atol=1e-5)
    for row, history in enumerate(REQUESTS):
        alone = model.rank(asking(history), 6)
        assert alone.items[0].tolist() == together.items[row].tolist()
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-4, atol=1e-5)


def test_a_longer_list_begins_with_the_shorter_one(model: Recommends) -> None:
    short, long = model.rank(asking(*REQUESTS), 3), model.rank(asking(*REQUESTS), 6)
    assert long.items[:, :3].tolist() == short.items.tolist()


def test_no_request_no_answer(model: Recommends) -> None:
    assert model.rank(asking(), 4).items.shape == (0, 4)


def test_asking_does_not_alter_the_question(model: Recommends) -> None:
    question = asking(*REQUESTS)
    before = question.items.copy(), question.offsets.copy()
    model.rank(question, 5)
    assert question.items.tolist() == before[0].tolist()
    assert question.offsets.tolist() == before[1].tolist()


@pytest.mark.parametrize("name", list(MODELS))
def test_fitting_twice_gives_the_same_model(name: str, shop: tuple[Split, Catalog]) -> None:
    one, two = (MODELS[name](*shop).rank(asking(*REQUESTS), 6) for _ in range(2))
    assert one.items.tolist() == two.items.tolist()
    assert one.scores.tolist() == two.scores.tolist()
