from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec.bench import lineup
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.split import leave_last_out
from llm4rec.recommender import Config
from llm4rec.types import Rankings

N_ITEMS = 12


def toy() -> tuple[EventLog, Catalog]:
    """Everybody walks along a ring of items; most walks begin at the first."""
    users = [f"u{u}" for u in range(30) for _ in range(6)]
    items = [(u % 3 + step) % N_ITEMS for u in range(30) for step in range(6)]
    ids = pl.DataFrame({"item_id": [f"i{item}" for item in range(N_ITEMS)]})
    return build_log(pl.Series(users), np.array(items)), Catalog(ids, ())


def test_sasrec_ranks_by_the_network_alone() -> None:
    log, catalog = toy()
    values = {
        "train": {"epochs": 1, "batch_size": 64},
        "model": {"embedding_size": 8, "layers": 1, "heads": 1},
    }
    split = leave_last_out(log)
    model = lineup.LINEUP["sasrec"].fit(lineup.Task(split, catalog, None, Config.model_validate(values)))
    assert isinstance(model, lineup.OrderOnly)
    histories = split.test.histories()
    fitted = model.inner.fitted
    plain = fitted.scorer.log_scores(histories, fitted.person_rows(histories))
    ranked = model.rank(histories, N_ITEMS, keep_seen=True)
    np.testing.assert_array_equal(ranked.items, np.argsort(-plain, axis=1, kind="stable"))
    np.testing.assert_allclose(ranked.scores, -np.sort(-plain, axis=1), atol=1e-5)
    assert set(fitted.prior.shares) == {0.0}


@pytest.mark.parametrize(
    ("name", "items"), [("ours", 15_000), ("ids", 15_000), ("ours-linear", 0), ("tiger", 0), ("sasrec", 0)]
)
def test_who_has_a_linear_part(monkeypatch: pytest.MonkeyPatch, name: str, items: int) -> None:
    asked: list[Config] = []

    def stop(*arguments: Any, **_: Any) -> None:
        asked.append(arguments[2])
        raise InterruptedError

    monkeypatch.setattr("llm4rec.recommender.fitting.fit", stop)
    log, catalog = toy()
    with pytest.raises(InterruptedError):
        lineup.LINEUP[name].fit(lineup.Task(leave_last_out(log), catalog, None, Config()))
    assert asked[0].linear.items == items
    assert asked[0].generate.mode == ("only" if name == "tiger" else "off")


def test_a_model_that_reads_only_order_is_told_no_more() -> None:
    class Spy:
        """Notes what it is asked."""

        def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
            assert histories.times is None and histories.ratings is None and histories.kinds is None
            assert histories.items.tolist() == [2, 1] and (n, keep_seen) == (3, True)
            return Rankings(np.zeros((1, n), dtype=np.int64), np.zeros((1, n), dtype=np.float32))

    log = EventLog(
        pl.Series(["1"]),
        np.array([0, 2]),
        np.array([2, 1]),
        np.array([5, 6]),
        np.ones(2, dtype=np.float32),
        np.array([0, 0]),
        ("view",),
    )
    assert lineup.OrderOnly(Spy()).rank(log, 3, keep_seen=True).items.shape == (1, 3)  # type: ignore[arg-type]
