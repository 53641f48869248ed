from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm4rec.bench.peers import beside, hits, read_ranks
from llm4rec.bench.run import Result
from llm4rec.errors import InputError

OURS = Result(
    {"model": "ours", "seed": 0},
    pl.DataFrame({"user_id": ["3", "1", "2"], "hr@10": [1.0, 0.0, 1.0], "ndcg@10": [0.5, 0.0, 1.0]}),
)


def test_hits_by_hand() -> None:
    hit, gain = hits(np.array([1, 2, 10, 11]))
    assert hit.tolist() == [1, 1, 1, 0]
    assert gain == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(11), 0])


def test_peers_are_matched_by_person_not_by_row(tmp_path: Path) -> None:
    file = tmp_path / "ranks.parquet"
    # Person 4 is not asked here; 1 is missed by the peer, 2 stands first, 3 third.
    pl.DataFrame({"user_id": [4, 1, 2, 3], "sasrec": [1, 50, 1, 3], "worse": [99, 99, 99, 99]}).write_parquet(
        file
    )
    first, last = beside([OURS], read_ranks(file))
    assert (first.name, first.people) == ("sasrec", 3)
    assert first.hr.mean == pytest.approx(2 / 3)
    assert first.ndcg.mean == pytest.approx(0.5)
    assert first.ndcg_difference.difference.mean == pytest.approx(0.0)
    assert last.name == "worse"
    assert last.hr_difference.difference.mean == pytest.approx(2 / 3)


def test_our_seeds_are_averaged(tmp_path: Path) -> None:
    file = tmp_path / "ranks.parquet"
    pl.DataFrame({"user_id": ["1", "2", "3"], "peer": [50, 50, 50]}).write_parquet(file)
    again = OURS.cases.with_columns(pl.lit(0.0).alias("ndcg@10"))
    (peer,) = beside([OURS, Result({"model": "ours", "seed": 1}, again)], read_ranks(file))
    assert peer.ndcg_difference.difference.mean == pytest.approx(0.25)


def test_a_person_without_a_rank_is_left_out_of_that_peer(tmp_path: Path) -> None:
    file = tmp_path / "ranks.parquet"
    pl.DataFrame({"user_id": ["1", "2", "3"], "peer": [None, 1, 1]}).write_parquet(file)
    (peer,) = beside([OURS], read_ranks(file))
    assert peer.people == 2 and peer.hr.mean == 1.0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"person": ["1"], "a": [1]}, "no column user_id"),
        ({"user_id": ["1"], "a": ["x"]}, "no column of whole-number ranks"),
        ({"user_id": ["1", "1"], "a": [1, 2]}, "more than once"),
        ({"user_id": ["1"], "a": [0]}, "below 1"),
    ],
)
def test_broken_rank_files_are_named(tmp_path: Path, table: dict[str, list[object]], says: str) -> None:
    file = tmp_path / "ranks.parquet"
    pl.DataFrame(table).write_parquet(file)
    with pytest.raises(InputError, match=says):
        read_ranks(file)


def test_missing_and_unreadable_rank_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_ranks(tmp_path / "nowhere.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InputError, match="no readable Parquet"):
        read_ranks(tmp_path / "text.parquet")


def test_nobody_in_common(tmp_path: Path) -> None:
    file = tmp_path / "ranks.parquet"
    pl.DataFrame({"user_id": ["9"], "a": [1]}).write_parquet(file)
    with pytest.raises(InputError, match="no person"):
        beside([OURS], read_ranks(file))
