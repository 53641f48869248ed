"""Reviews and tags: read from tables as they are published, joined to the items, oldest first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import build_log
from llm4rec.data.remarks import build_remarks, read_remarks
from llm4rec.errors import InputError

CATALOG = Catalog(pl.DataFrame({"item_id": ["B1", "B2", "B3"]}))


def write(place: Path, text: str) -> str:
    place.write_text(text, encoding="utf-8")
    return str(place)


def test_amazon_reviews_are_summary_and_text_by_time(tmp_path: Path) -> None:
    source = write(
        tmp_path / "reviews.jsonl",
        '{"reviewerID": "A", "asin": "B2", "overall": 5.0, "unixReviewTime": 200, "summary": "Good", '
        '"review_text": "Red ink."}\n'
        '{"reviewerID": "C", "asin": "B1", "overall": 1.0, "unixReviewTime": 100, "summary": null, '
        '"review_text": "Leaks"}\n',
    )
    found, rejected, _ = read_remarks(source, "review", CATALOG, {})
    assert found.user_ids.to_list() == ["C", "A"] and found.items.tolist() == [0, 1]
    assert found.texts.to_list() == ["Leaks", "Good\nRed ink."]
    assert found.times is not None and found.times.tolist() == [100, 200]
    assert found.ratings.tolist() == [1, 5] and not len(rejected)


def test_yelp_reviews_have_stars_dates_and_businesses(tmp_path: Path) -> None:
    source = write(
        tmp_path / "review.json",
        '{"review_id": "r", "user_id": "u", "business_id": "B3", "stars": 4, "text": "Fresh fish", '
        '"date": "2019-01-02T03:04:05Z"}\n',
    )
    found, _, _ = read_remarks(source, "review", CATALOG, {})
    assert found.items.tolist() == [2] and found.ratings.tolist() == [4]
    assert found.times is not None and found.times.tolist() == [1_546_398_245]


def test_what_cannot_be_used_is_set_aside_with_row_and_reason(tmp_path: Path) -> None:
    source = write(
        tmp_path / "tags.csv",
        "userId,movieId,tag,timestamp\nu,B1,  ,5\nv,B9,dark,6\nw,B1,Dark Comedy,seven\n"
        "x,B1,dark,8\nx,B1,dark,8\n",
    )
    found, rejected, notes = read_remarks(source, "tag", CATALOG, {})
    assert found.texts.to_list() == ["dark"] and found.user_ids.to_list() == ["x"]  # a copy counts once
    told = {row: (column, reason) for _, row, column, reason in rejected.rows()}
    assert told[2] == ("tag", "it has no words")
    assert told[3] == ("movieId", "the item B9 is not in the items file")
    assert told[4][0] == "timestamp"
    assert any("3 of 5 rows" in note for note in notes)


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "tags.csv", "user_id,item_id,word\nu,B1,dark\n")
    with pytest.raises(InputError, match=r"tags\.csv has no column 'tag'.*--map tag=COLUMN"):
        read_remarks(source, "tag", CATALOG, {})
    found, _, _ = read_remarks(source, "tag", CATALOG, {"tag": "word", "rating": "stars"})
    assert found.texts.to_list() == ["dark"] and found.times is None


def test_remarks_come_back_from_their_table_as_they_were() -> None:
    frame = pl.DataFrame({
        "user_id": ["b", "a"], "text": ["later", "first"], "timestamp": [9, 3], "rating": [None, 2.0]
    })  # fmt: skip
    found = build_remarks(frame, np.array([2, 0]))
    again = build_remarks(found.to_frame(CATALOG.ids), CATALOG.numbers(pl.Series(["B1", "B3"])))
    for one in (found, again):
        assert one.user_ids.to_list() == ["a", "b"] and one.texts.to_list() == ["first", "later"]
        assert one.items.tolist() == [0, 2] and one.times is not None and one.times.tolist() == [3, 9]
        assert one.ratings[0] == 2 and np.isnan(one.ratings[1])


def test_what_is_said_of_something_done_is_told_from_the_rest() -> None:
    frame = pl.DataFrame({"user_id": ["a", "b", "a"], "text": ["x", "y", "z"]})
    found = build_remarks(frame, np.array([0, 0, 1]))
    log = build_log(pl.Series(["a", "b"]), np.array([0, 2]))
    assert found.about(log).tolist() == [True, False, False]
