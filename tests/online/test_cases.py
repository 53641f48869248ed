"""Events are asked for in the histories that hold them, and in no other."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from llm4rec.data.events import build_log
from llm4rec.online.cases import cases, likely
from llm4rec.online.reservoir import SCHEMA

LOG = build_log(
    pl.Series(["a"] * 6 + ["b"] * 2),
    np.array([3, 1, 4, 1, 5, 9, 2, 6]),
    times=np.array([0, 1, 2, 3, 4, 5, 0, 1]),
)


def events(*told: tuple[str, int, int]) -> pl.DataFrame:
    return pl.DataFrame(told, schema=SCHEMA, orient="row")


def test_one_person_has_one_stretch() -> None:
    told = events(("a", 5, 4), ("b", 2, 0), ("a", 1, 3))
    found = cases(LOG, told, np.array([0.5, 1, 2], dtype=np.float32), 10, 3)
    assert found.log.user_ids.to_list() == ["a", "b"]
    assert found.log.items.tolist() == [3, 1, 4, 1, 5, 2]  # nothing after the last that is asked for
    assert found.first.tolist() == [True, True]
    assert found.weights.tolist() == [0, 0, 0, 2, 0.5, 1]
    assert found.index.tolist() == [3, 4, 5] and found.asked.tolist() == [2, 0, 1]
    assert found.log.items[found.index].tolist() == [1, 5, 2]


def test_what_is_learnt_again_has_its_own_stretch() -> None:
    told = events(("a", 9, 5), ("a", 4, 2))
    found = cases(LOG, told, np.ones(2, dtype=np.float32), 2, 1)
    assert found.log.items.tolist() == [1, 5, 9, 3, 1, 4]  # two before each
    assert found.first.tolist() == [False, True]
    assert found.index.tolist() == [2, 5] and found.asked.tolist() == [0, 1]


def test_what_can_not_be_asked_for_is_left_out() -> None:
    told = events(("a", 9, 5), ("a", 9, 4), ("nobody", 9, 5), ("a", 3, 0), ("a", 1, 3))
    found = cases(LOG, told, np.ones(5, dtype=np.float32), 2, 5)
    # there is no 9 at 4, the first event lies before what is read, and 1 at 3 is the first that is read
    assert found.asked.tolist() == [0] and found.log.items.tolist() == [1, 5, 9]
    assert not len(cases(LOG, told[:0], np.ones(0, dtype=np.float32), 2, 0).index)


def test_what_is_hardly_likely_counts_for_little() -> None:
    leads = torch.tensor([-1.0, -0.9, -0.75, -0.5, 0.0, 1.0])
    torch.testing.assert_close(likely(leads, 0.5), torch.tensor([0.01, 0.2, 0.5, 1.0, 1.0, 1.0]))
    assert likely(leads, 0.0).tolist() == [1.0] * 6


def test_the_newest_of_equal_events_is_meant() -> None:
    log = build_log(pl.Series(["a"] * 3), np.array([7, 8, 7]))
    found = cases(log, events(("a", 7, -1)), np.ones(1, dtype=np.float32), 5, 1)
    assert found.log.items.tolist() == [7, 8, 7] and found.index.tolist() == [2]
