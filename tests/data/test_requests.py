from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog
from llm4rec.data.ingest import read_requests
from llm4rec.errors import InputError

CATALOG = Catalog(pl.DataFrame({"item_id": ["a", "b", "c"]}))


def write(path: Path, **columns: Any) -> str:
    pl.DataFrame(columns, strict=False).write_parquet(path)
    return str(path)


def test_requests_become_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.parquet",
        request_id=["r1", "r2", "r3"],
        history=[["a", "zz", "c"], [], ["b", "b"]],
        timestamps=[[1, 2, 3], [], [5, 6]],
        ratings=[[1.0, 2.0, 3.0], None, None],
        user_id=["u", None, "v"],
        exclude=[["b", "yy"], None, []],
        more=[1, 2, 3],
    )
    said: list[str] = []
    names, histories, exclude = read_requests(path, CATALOG, said.append)
    assert names.to_list() == ["r1", "r2", "r3"]
    assert histories.offsets.tolist() == [0, 2, 2, 4]
    assert histories.items.tolist() == [0, 2, 1, 1]
    assert histories.user_ids.to_list() == ["u", None, "v"]
    assert histories.times is not None
    assert histories.times.tolist() == [1, 3, 5, 6]
    assert histories.ratings is not None
    np.testing.assert_array_equal(histories.ratings, np.array([1, 3, np.nan, np.nan], dtype=np.float32))
    assert exclude.offsets.tolist() == [0, 1, 1, 1]
    assert exclude.items.tolist() == [1]
    assert said == [
        f"Columns of {path} not read: more.",
        "1 of 5 history items are not in the catalogue and are passed over.",
    ]


def test_bare_histories_in_json(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        '{"request_id": 1, "history": ["a"]}\n{"request_id": 2, "history": []}\n'
    )
    names, histories, exclude = read_requests(str(tmp_path / "r.jsonl"), CATALOG)
    assert names.to_list() == ["1", "2"]
    assert histories.items.tolist() == [0]
    assert histories.times is None
    assert histories.ratings is None
    assert exclude.n_events == 0
    assert exclude.n_users == 2


def test_nothing_but_empty_histories(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", request_id=["r"], history=[[]])
    _, histories, _ = read_requests(path, CATALOG)
    assert histories.lengths.tolist() == [0]


def test_times_of_some_requests_only_are_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", request_id=["r", "s"], history=[["a"], ["b"]], timestamps=[[1], []])
    said: list[str] = []
    assert read_requests(path, CATALOG, said.append)[1].times is None
    assert said == ["1 requests have no timestamps: those of the others are not used either."]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"request_id": ["r"]}, "no column 'history'"),
        ({"history": [["a"]]}, "no column 'request_id'"),
        ({"request_id": ["r", None], "history": [["a"], ["b"]]}, "row 2, column 'request_id': .* no id"),
        ({"request_id": ["r", "r"], "history": [["a"], ["b"]]}, "row 2, column 'request_id': .* earlier"),
        ({"request_id": ["r"], "history": ["a,b"]}, "column 'history' holds String, not lists"),
        ({"request_id": ["r"], "history": [["a", None]]}, "row 1, column 'history': .*missing"),
        (
            {"request_id": ["r"], "history": [["a"]], "timestamps": [[1, 2]]},
            "row 1, column 'timestamps': .*as long",
        ),
        ({"request_id": ["r"], "history": [["a"]], "timestamps": [[1700000000000]]}, "row 1, .* UTC seconds"),
        ({"request_id": ["r"], "history": [["a"]], "timestamps": [["noon"]]}, "row 1, column 'timestamps'"),
        ({"request_id": ["r"], "history": [["a", "b"]], "ratings": [[1.0]]}, "row 1, column 'ratings'"),
    ],
)
def test_malformed_requests_are_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_requests(write(tmp_path / "r.parquet", **columns), CATALOG)
