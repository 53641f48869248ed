"""Sums of log-scores: as NumPy's slower ones have them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.model.lifts import log_add, log_sum

LOGS = st.lists(st.floats(-300, 300, width=32) | st.just(-np.inf), min_size=1, max_size=9)


@given(LOGS, st.integers(0, 8))
def test_log_add_is_logaddexp(values: list[float], turn: int) -> None:
    a = np.array(values, dtype=np.float32)
    b = np.roll(a, turn)[::-1].copy()
    np.testing.assert_allclose(log_add(a, b), np.logaddexp(a, b), rtol=1e-6, atol=1e-6)
    nothing = np.full_like(a, -np.inf)
    np.testing.assert_array_equal(log_add(a, nothing), a)  # to the last bit


@given(LOGS)
def test_log_sum_is_the_sum_in_logs(values: list[float]) -> None:
    a = np.array(values, dtype=np.float32)
    np.testing.assert_allclose(log_sum(a), np.logaddexp.reduce(a), rtol=1e-5, atol=1e-5)
