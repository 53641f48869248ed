"""What judges what was learnt, by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from llm4rec.online.guard import FEWEST, Guard
from llm4rec.online.options import OnlineConfig
from llm4rec.online.reservoir import SCHEMA

N_OLD, N_NEW = 10, 12


def events(n: int, user: str) -> pl.DataFrame:
    rows = [(user, item, item) for item in range(n)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def guard() -> Guard:
    options = OnlineConfig(judges=N_NEW, tolerance=0.1)
    found = Guard.begin(events(N_OLD, "old"), np.full(N_OLD, 4.0), {"w": torch.ones(2)}, options)
    found.took(events(N_NEW, "new"))
    return found


def losses(old: float, new: float, spread: float = 0.0) -> np.ndarray:
    noise = np.where(np.arange(N_NEW) % 2, spread, -spread)
    return np.concatenate([np.full(N_OLD, old), new + noise])


def test_new_events_judge_by_twice_the_standard_error() -> None:
    # the differences are .5 ± 1: their mean's standard error is 1.044 / √12 = .30
    assert not guard().worse(losses(4, 3.5, 1.0), losses(4, 3.0))
    assert guard().worse(losses(4, 3.7, 1.0), losses(4, 3.0))
    assert not guard().worse(losses(4, 2.0), losses(4, 3.0))


def test_events_of_who_is_not_trusted_judge_little() -> None:
    before, now = losses(4, 3), losses(4, 3, 0.1)
    now[-1] = 30  # one event of somebody who gives nonsense
    trust = np.ones(N_NEW)
    # differences: ±.1 and 27; mean 2.24, standard error 2.25: nothing to tell
    assert not guard().worse(now, before, trust)
    now[-4:] = 30
    assert guard().worse(now, before, trust)  # mean 9, standard error 3.8
    trust[-4:] = 0.001
    assert not guard().worse(now, before, trust)  # shares of 8.004: mean .0135, standard error .038


def test_old_events_judge_by_what_they_were_when_learning_began() -> None:
    assert not guard().worse(losses(4.39, 3), losses(4, 3))  # 10% more is 4.4
    assert guard().worse(losses(4.41, 3), losses(4, 3))
    assert not guard().worse(losses(4.41, 3), losses(4.5, 3))  # on the way back


def test_what_can_not_be_foreseen_any_more_is_undone() -> None:
    broken = losses(4, 3)
    broken[3] = np.nan
    assert guard().worse(broken, losses(4, 3))
    broken[3] = np.inf
    assert guard().worse(broken, losses(4, 3))
    assert not guard().worse(broken * np.nan, losses(4, 3) * np.nan)  # nothing was there to ask


def test_few_events_judge_nothing() -> None:
    found = guard()
    found.new = found.new[: FEWEST - 1]
    n = N_OLD + FEWEST - 1
    assert not found.worse(losses(4, 9)[:n], losses(4, 3)[:n])


def test_it_counts_forgets_and_keeps_the_newest() -> None:
    found = guard()
    found.worse(losses(4, 9), losses(4, 3))
    found.worse(losses(4, 3), losses(4, 3))
    assert found.judged == 2
    found.took(events(5, "later"))
    assert found.new["user_id"].to_list() == ["new"] * 7 + ["later"] * 5
    found.without("old")
    found.without("later")
    assert found.old.height == 0 and len(found.reference) == 0 and found.new.height == 7
    assert found.cases.height == 7
