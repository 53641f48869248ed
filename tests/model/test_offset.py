"""Popularity that logits carry: counted in stretches of time, the newest of them when served."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec.data.events import EventLog
from llm4rec.debias.popularity import Popularity, PopularityConfig
from llm4rec.errors import InputError
from llm4rec.model import offset
from llm4rec.model.heads import DenseHead
from llm4rec.model.offset import STRETCHES, Carried, Offsets


def log(items: list[int], times: list[int] | None) -> EventLog:
    return EventLog(
        pl.Series("user_id", ["a", "b"]),
        np.array([0, 2, len(items)]),
        np.array(items),
        None if times is None else np.array(times),
    )


def test_stretches_hold_equally_many_events_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset, "STRETCHES", 2)
    # by time: 0, 0, 1 | 1, 1, 0
    found = Offsets.of(log([0, 1, 0, 1, 1, 0], [10, 50, 20, 30, 40, 60]), 3, 0.5)
    assert found is not None
    assert found.rows.tolist() == [0, 1, 0, 0, 1, 1]
    # halves of events beside: (2.5, 1.5, .5) / 4.5 and (1.5, 2.5, .5) / 4.5, to the power ½
    expected = np.sqrt(np.array([[5, 3, 1], [3, 5, 1]]) / 9)
    np.testing.assert_allclose(found.table.exp(), expected, rtol=1e-6)
    of_two = found.of_events(torch.tensor([1, 2]))
    np.testing.assert_allclose(of_two.own(torch.tensor([1, 0])).exp(), np.sqrt([5 / 9, 5 / 9]), rtol=1e-6)
    at = of_two.at(torch.tensor([2, 0, 2]))
    np.testing.assert_allclose(at.exp(), np.sqrt(np.array([[1, 3, 1], [1, 5, 1]]) / 9), rtol=1e-6)


def test_without_a_clock_all_is_one_stretch() -> None:
    found = Offsets.of(log([0, 1, 0], None), 2, 1.0)
    assert found is not None
    assert found.rows.tolist() == [0, 0, 0]
    np.testing.assert_allclose(found.table.exp(), [[2.5 / 4, 1.5 / 4]], rtol=1e-6)


def test_at_power_0_there_is_none() -> None:
    assert Offsets.of(log([0, 1, 0], None), 2, 0.0) is None
    assert Carried.of(log([0, 1, 0], None), 2, 0.0) is None


@pytest.mark.parametrize("alike", [1, 7, 1000], ids=["times differ", "ties", "one time"])
def test_what_is_served_is_the_newest_stretch_as_the_adjustment_counts_it(alike: int) -> None:
    draw = np.random.default_rng(0)
    made = log(draw.integers(5, size=63).tolist(), (draw.permutation(63) // alike).tolist())
    carried, found = Carried.of(made, 5, 0.3), Offsets.of(made, 5, 0.3)
    assert carried is not None and found is not None
    torch.testing.assert_close(carried.logits, found.newest - found.newest.mean())
    adjusting = Popularity.of(made, 5, PopularityConfig(window=1 / STRETCHES))
    np.testing.assert_array_equal(carried.counts, adjusting.counts)
    # what carries it loses it at the same strength
    log_p = (torch.randn(2, 5) + carried.logits).log_softmax(dim=1)
    taken = adjusting.at(0.3).adjust(log_p.numpy())
    np.testing.assert_allclose(taken, (log_p - carried.logits).log_softmax(dim=1), atol=1e-5)


def test_new_items_count_half_an_event_until_training_has_seen_them() -> None:
    grown = Carried(0.5, np.array([2.5, 1.5])).extended(1)
    np.testing.assert_array_equal(grown.counts, [2.5, 1.5, 0.5])
    assert grown.logits.argmin() == 2
    later = grown.renewed(log([2, 2, 2, 1], None), np.array([True, True, False]))
    np.testing.assert_array_equal(later.counts, [0.5, 1.5, 0.5])


def test_what_was_kept_is_checked() -> None:
    made = Carried(0.25, np.array([1.5, 0.5]))
    np.testing.assert_array_equal(Carried.from_tensors(made.tensors(), 0.25, 2).counts, made.counts)
    with pytest.raises(ValueError, match="not 3 positive counts"):
        Carried.from_tensors(made.tensors(), 0.25, 3)
    with pytest.raises(ValueError, match="not 2 positive counts"):
        Carried.from_tensors({"counts": np.array([1.5, 0.0])}, 0.25, 2)


def test_biases_of_items_carry_it_and_plain_dot_products_have_none() -> None:
    draw = torch.Generator().manual_seed(0)
    states, vectors = torch.randn(4, 6, generator=draw), torch.randn(3, 6, generator=draw)
    logits = torch.tensor([0.0, -1.0, -2.5])
    head = DenseHead(cosine=True, temperature=0.1)
    told, prepared = head.prepared(states, vectors)
    torch.testing.assert_close(told @ head.carrying(prepared, logits).T, head(states, vectors) + logits)
    with pytest.raises(InputError, match=r"set model\.cosine=true, or debias\.popularity\.training=0"):
        DenseHead(cosine=False, temperature=0.1).carrying(vectors, logits)
