import datetime
import json
from pathlib import Path

import polars as pl
import pytest

from llm4rec.data.ingest import ingest
from llm4rec.data.sources import get, yelp
from llm4rec.errors import InputError


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def lay(folder: Path, kind: str, *rows: object) -> None:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (folder / f"yelp_academic_dataset_{kind}.json").write_text(text, encoding="utf-8")


BUSINESS = {
    "business_id": "b1",
    "name": 'Café "Ünique"',
    "address": "1 Main",
    "city": "Tampa",
    "state": "FL",
    "postal_code": "33602",
    "latitude": 27.95,
    "longitude": -82.46,
    "stars": 4.5,
    "review_count": 99,
    "is_open": 1,
    "attributes": {
        "RestaurantsTakeOut": "True",
        "WiFi": "u'free'",
        "Alcohol": "'none'",
        "RestaurantsPriceRange2": "2",
        "BusinessParking": "{'garage': False, 'street': True}",
        "BikeParking": "False",
        "Ambience": "None",
        "Odd": "{'a",
    },
    "categories": "Coffee & Tea, Restaurants,  ",
    "hours": None,
}


def lay_all(folder: Path) -> None:
    lay(
        folder,
        "business",
        BUSINESS,
        {"business_id": "b2", "name": "Bare", "attributes": None, "categories": None},
    )
    lay(
        folder,
        "user",
        {
            "user_id": "u1",
            "name": "Ann",
            "yelping_since": "2007-01-25 16:47:26",
            "elite": "2018,2019,20,20,2021",
            "average_stars": 3.9,
        },
        {"user_id": "u2", "name": "Bo", "yelping_since": "2009-05-01", "elite": ""},
    )
    lay(
        folder,
        "review",
        {
            "review_id": "r1",
            "user_id": "u2",
            "business_id": "b1",
            "stars": 3.0,
            "date": "2018-07-07 22:09:11",
            "text": 'Slow,\nbut "fine".',
            "useful": 1,
        },
        {
            "review_id": "r2",
            "user_id": "u1",
            "business_id": "b3",
            "stars": 5,
            "date": "2012-01-03",
            "text": "",
        },
        {"review_id": "r3", "user_id": "u1", "business_id": "b1", "stars": 5, "date": "someday"},
        "{broken",
    )
    lay(
        folder,
        "checkin",
        {"business_id": "b1", "date": "1970-01-01 00:00:10, 1970-01-02 00:00:00"},
        {"business_id": "b2", "date": "never"},
    )


def test_every_table_of_the_set(tmp_path: Path) -> None:
    lay_all(tmp_path)
    out = tmp_path / "out"
    notes = get("yelp", out, source_dir=tmp_path)
    assert table(out, "interactions").rows() == [("u2", "b1", 3.0, 1531001351), ("u1", "b3", 5.0, 1325548800)]
    assert table(out, "reviews").rows() == [
        ("r1", "u2", "b1", 3.0, 1531001351, 'Slow,\nbut "fine".'),
        ("r2", "u1", "b3", 5.0, 1325548800, None),
    ]
    attributes = [
        "RestaurantsTakeOut",
        "WiFi: free",
        "RestaurantsPriceRange2: 2",
        "BusinessParking.street",
        "Odd: {'a",
    ]
    assert table(out, "items").rows() == [
        ("b1", 'Café "Ünique"', ["Coffee & Tea", "Restaurants"], attributes, "Tampa", "FL", 27.95, -82.46),
        ("b2", "Bare", [], [], None, None, None, None),
        ("b3", None, None, None, None, None, None, None),
    ]
    assert table(out, "users").rows() == [
        ("u1", datetime.date(2007, 1, 25), ["2018", "2019", "2020", "2021"]),
        ("u2", datetime.date(2009, 5, 1), []),
    ]
    assert table(out, "checkins").rows() == [("b1", [10, 86400])]
    assert table(out, "rejected").select("file", "row", "column").rows() == [
        ("yelp_academic_dataset_review.json", 3, "date"),
        ("yelp_academic_dataset_review.json", 4, None),
        ("yelp_academic_dataset_checkin.json", 2, "date"),
    ]
    assert any(note.startswith("3 rows could not be read") for note in notes)


def test_without_check_ins_it_says_so(tmp_path: Path) -> None:
    lay_all(tmp_path)
    (tmp_path / "yelp_academic_dataset_checkin.json").unlink()
    notes = get("yelp", tmp_path / "out", source_dir=tmp_path)
    assert not (tmp_path / "out" / "checkins.parquet").exists()
    assert any("no check-ins" in note for note in notes)


def test_the_form_is_named_as_the_way_to_the_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"form.*--from DIR"):
        get("yelp", tmp_path / "out")
    with pytest.raises(InputError, match=r"lacks yelp_academic_dataset_business\.json"):
        get("yelp", tmp_path / "out", source_dir=tmp_path)


@pytest.mark.parametrize("moment", [None, 5, "", "2018-13-01", "07/07/2018"])
def test_what_is_no_time(moment: object) -> None:
    assert yelp.seconds(moment) is None


def test_reviews_join_the_histories(tmp_path: Path) -> None:
    lay_all(tmp_path)
    out = tmp_path / "out"
    get("yelp", out, source_dir=tmp_path)
    files = {name: str(out / f"{name}.parquet") for name in ("interactions", "items", "reviews")}
    found = ingest(files["interactions"], files["items"], remarks={"review": files["reviews"]})
    said = found.remarks["review"]
    assert said.user_ids.to_list() == ["u2"] and said.texts.to_list() == ['Slow,\nbut "fine".']
    assert found.catalog.ids[said.items].to_list() == ["b1"] and said.ratings.tolist() == [3]
    assert said.times is not None and said.times.tolist() == [1531001351]
    assert said.about(found.log).tolist() == [True]
    without_words = found.report.rejected.filter(pl.col("file") == files["reviews"])
    assert without_words["row"].to_list() == [2]
