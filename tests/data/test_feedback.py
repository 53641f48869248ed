"""Events out of files for the event log: recognised, checked, each with an id."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest

from llm4rec.data.feedback import SCHEMA, digest, read_feedback
from llm4rec.errors import InputError


def written(folder: Path, text: str) -> str:
    (folder / "events.csv").write_text(text)
    return str(folder / "events.csv")


def test_a_digest_says_what_the_event_says() -> None:
    said = '["u", "ä", "click", null, 5]'.encode()
    assert digest("u", "ä", "click", None, 5) == f"row-{hashlib.sha256(said).hexdigest()[:32]}"
    given = [("u", "i", "click", None, 5), ("v", "i", "click", None, 5), ("u", "j", "click", None, 5),
             ("u", "i", "view", None, 5), ("u", "i", "click", 1.0, 5), ("u", "i", "click", None, 6),
             ("u", "i", "click", None, 5, 0.5)]  # fmt: skip
    assert len({digest(*each) for each in given}) == len(given)


def test_ids_kinds_and_values_are_those_of_the_file_where_it_has_them(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        "event_id,uid,sku,action,value,stars,ts\n"
        "a,u,x,dwell,30,,5\nb,u,x,,,4,6\nc,u,x, ,,,7\nd,u,y,Like,,,8\nd,u,y,Like,,,8\n",
    )
    frame, rejected, _ = read_feedback(source, {"rating": "stars"})
    assert frame.columns == [*SCHEMA]
    assert frame.rows() == [
        ("a", "u", "x", "dwell", 30.0, 5),
        ("b", "u", "x", "rating", 4.0, 6),
        ("c", "u", "x", "click", None, 7),
        ("d", "u", "y", "Like", None, 8),
    ]
    assert not rejected.height


def test_rows_get_the_same_ids_whenever_they_are_read(tmp_path: Path) -> None:
    lines = ["u,i,5", "u,j,5", "v,i,2024-05-01T12:00:00Z", "u,i,5", "u,i,5.25"]
    head = "user,item,time\n"
    frame, _, _ = read_feedback(written(tmp_path, head + "\n".join(lines)), {})
    assert frame.height == frame["event_id"].n_unique() == 4  # an exact copy is the same event
    assert frame["timestamp"].to_list() == [5, 5, 1_714_564_800, 5]
    backwards, _, _ = read_feedback(written(tmp_path, head + "\n".join(reversed(lines))), {})
    assert sorted(backwards.rows()) == sorted(frame.rows())


def test_what_the_log_does_not_take_is_set_aside(tmp_path: Path) -> None:
    long, kind = "u" * 513, "k" * 65
    rows = ["u,i,click,1,5", ",i,click,1,5", f"{long},i,click,1,5", f"u,i,{kind},1,5", "u,i,click,much,5",
            "u,i,click,1,-5", "u,i,click,1,99999999999"]  # fmt: skip
    source = written(tmp_path, "user_id,item_id,event_type,value,timestamp\n" + "\n".join(rows))
    frame, rejected, notes = read_feedback(source, {})
    assert frame.height == 1
    assert rejected.select("row", "column").rows() == [
        (3, "user_id"), (4, "user_id"), (5, "event_type"), (6, "value"), (7, "timestamp"), (8, "timestamp")
    ]  # fmt: skip
    assert any("6 of 7 rows" in sentence for sentence in notes)


def test_a_file_without_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'timestamp'"):
        read_feedback(written(tmp_path, "user_id,item_id\nu,i\n"), {})
    with pytest.raises(InputError, match=r"Most rows of .* have no time"):
        read_feedback(written(tmp_path, "user_id,item_id,timestamp\nu,i,\nu,j,\nu,k,5\n"), {})


def test_a_table_of_the_log_is_read_back_as_it_was(tmp_path: Path) -> None:
    table = pl.DataFrame(
        [("a", "u", "x", "dwell", 30.5, 5), ("b", "v", "x", "click", None, 6)],
        schema=dict(SCHEMA),
        orient="row",
    )
    table.write_parquet(tmp_path / "log.parquet")
    assert read_feedback(str(tmp_path / "log.parquet"), {})[0].equals(table)
