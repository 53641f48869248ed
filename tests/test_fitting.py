"""What is kept from training to choose the epoch by."""

from __future__ import annotations

import numpy as np
import polars as pl

from llm4rec.data.events import EventLog
from llm4rec.fitting import hold_out


def test_the_last_events_of_some_are_kept_for_validation() -> None:
    lengths = np.arange(90) % 5
    log = EventLog(
        pl.Series([f"u{row}" for row in range(90)]), np.cumsum([0, *lengths]), np.arange(lengths.sum()) % 7
    )
    train, valid = hold_out(log, 20, seed=0)
    assert len(valid) == 20
    assert (log.lengths[valid.rows] >= 3).all()
    assert train.n_events == log.n_events - 20
    np.testing.assert_array_equal(valid.targets, log.items[log.offsets[valid.rows + 1] - 1])
