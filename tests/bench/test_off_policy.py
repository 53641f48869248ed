"""The script that values two logged policies from each other's log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest


def write(folder: Path, n: int = 8000) -> None:
    """A random policy and one that shows the better items of four twice as often, two places each."""
    draw = np.random.default_rng(0)
    rates, liked = np.array([0.1, 0.1, 0.4, 0.4]), np.array([1, 1, 2, 2]) / 6
    parts: list[pl.DataFrame] = []
    for policy, odds in (("random", np.full(4, 0.25)), ("liked", liked)):
        items = draw.choice(4, size=n, p=odds)
        parts.append(
            pl.DataFrame({
                "policy": policy,
                "campaign": "all",
                "item_id": [f"all:{item}" for item in items],
                "position": draw.integers(1, 3, size=n),
                "click": (draw.random(n) < rates[items]).astype(np.int64),
                "propensity_score": odds[items],
            })
        )
    pl.concat(parts).write_parquet(folder / "interactions.parquet")


def test_each_policy_is_valued_from_the_other_s_log(
    benchmark_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["off_policy.py", "--data", str(tmp_path), "--out", str(out)])
    benchmark_script("off_policy").main()
    there, back = json.loads(out.read_text())
    assert (there["log"], there["valued"]) == ("random", "liked") == (back["valued"], back["log"])
    for line, truth in ((there, 0.3), (back, 0.25)):
        found = line["estimates"]
        assert not found["naive"]["agrees"] and not line["weighing"]["rejected"]
        for name in ("ips", "snips", "dr"):
            assert found[name]["agrees"] and found[name]["low"] < truth < found[name]["high"]
    assert back["planted"] == {"all alike": True, "shuffled": True, "doubled": True}
    assert there["planted"] == {"doubled": True}  # all alike is what the random policy is


def test_what_the_reader_of_the_whole_data_set_writes_is_read(
    benchmark_script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    write(tmp_path, n=20)
    script = benchmark_script("off_policy")
    there = script.impressions(tmp_path)
    written = there.rename({"propensity_score": "propensity"}).with_columns(timestamp=pl.lit(0))
    written.write_parquet(tmp_path / "impressions.parquet")
    (tmp_path / "interactions.parquet").unlink()
    assert script.impressions(tmp_path).equals(there)
