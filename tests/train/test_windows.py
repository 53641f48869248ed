"""Windows: every event is asked for once an epoch, with as much of its past as fits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.train.windows import Windows, batches, cut_windows

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=12)


def cut(lengths: list[int], most: int, seed: int) -> tuple[Windows, np.ndarray]:
    offsets = np.cumsum([0, *lengths])
    return cut_windows(offsets, most, np.random.default_rng(seed)), offsets


@settings(max_examples=150)
@given(LENGTHS, st.integers(1, 12), st.integers(0, 1000))
def test_every_event_is_a_target_once(lengths: list[int], most: int, seed: int) -> None:
    windows, offsets = cut(lengths, most, seed)
    n = int(offsets[-1])
    with_past, alone = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    for row, start, length, first in zip(
        windows.rows, windows.starts, windows.lengths, windows.first, strict=True
    ):
        assert offsets[row] <= start and start + length <= offsets[row + 1]
        assert 1 <= length <= most + 1
        assert first == (start == offsets[row])
        with_past[start + 1 : start + length] += 1
        alone[start] += first
    firsts = offsets[:-1][np.diff(offsets) > 0]
    is_first = np.isin(np.arange(n), firsts)
    assert (with_past == ~is_first).all()
    assert (alone == is_first).all()


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 12), st.integers(0, 1000))
def test_a_history_that_fits_is_one_window(lengths: list[int], most: int, seed: int) -> None:
    windows, _ = cut(lengths, most, seed)
    per_row = np.bincount(windows.rows, minlength=len(lengths))
    for count, length in zip(per_row, lengths, strict=True):
        assert (count == 0) == (length == 0)
        if 0 < length <= most + 1:
            assert count == 1
        assert count <= 2 + max(0, length - 1) // most


def test_a_long_history_is_cut_elsewhere_in_every_epoch() -> None:
    starts = {tuple(cut([30], 10, seed)[0].starts.tolist()) for seed in range(50)}
    assert len(starts) == 10  # the first window takes 1 … 10 steps


def test_windows_by_hand() -> None:
    windows, _ = cut([3, 0, 1], 5, 0)
    assert windows.rows.tolist() == [0, 2]
    assert windows.starts.tolist() == [0, 3]
    assert windows.lengths.tolist() == [3, 1]
    assert windows.first.tolist() == [True, True]


@settings(max_examples=80)
@given(LENGTHS.filter(any), st.integers(1, 12), st.integers(1, 60), st.integers(0, 1000))
def test_batches_partition_the_windows(lengths: list[int], most: int, size: int, seed: int) -> None:
    windows, _ = cut(lengths, most, seed)
    plan = list(batches(windows, size, np.random.default_rng(seed)))
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(windows.rows)))
    assert all(len(group) for group in plan)
    assert all(windows.lengths[group].sum() <= size + most + 1 for group in plan)
    again = list(batches(windows, size, np.random.default_rng(seed)))
    assert [group.tolist() for group in plan] == [group.tolist() for group in again]


def test_company_changes_from_epoch_to_epoch_and_lengths_stay_alike() -> None:
    lengths = np.random.default_rng(0).integers(2, 100, 400)
    windows, _ = cut(lengths.tolist(), 200, 0)
    plans = [list(batches(windows, 500, np.random.default_rng(epoch))) for epoch in range(2)]
    company = [{frozenset(group.tolist()) for group in plan} for plan in plans]
    assert not company[0] & company[1]
    padded = sum(len(group) * windows.lengths[group].max() for group in plans[0])
    assert padded < 1.5 * lengths.sum()  # packed at random it is twice the sum
