import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.ingest import ingest
from llm4rec.data.sources import amazon, get, tables
from llm4rec.errors import InputError


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def lay(path: Path, *lines: object) -> None:
    """One line per value: objects as JSON, strings as they are."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


REVIEW_14 = {
    "reviewerID": "A1",
    "asin": "0205616461",
    "reviewerName": "Ann",
    "helpful": [3, 4],
    "overall": 5.0,
    "reviewText": 'Smells "great" &amp;\nlasts',
    "summary": "Nice",
    "unixReviewTime": 1369699200,
    "reviewTime": "05 28, 2013",
}


def test_2014_five_core_with_python_literals(tmp_path: Path) -> None:
    later = {**REVIEW_14, "reviewerID": "A0", "overall": 2.0, "unixReviewTime": 1369700000, "helpful": [0, 0]}
    lay(tmp_path / "reviews_Beauty_5.json.gz", later, "", REVIEW_14)
    lay(
        tmp_path / "meta_Beauty.json.gz",
        "{'asin': '0205616461', 'title': \"Bio-Active Cr\\u00e8me's \\d\", 'price': 13.99, 'brand': 'Ann',"
        " 'categories': [['Beauty', 'Skin Care'], ['Beauty', 'Body']], 'salesRank': {'Beauty': 461765},"
        " 'imUrl': 'http://ecx.example/51.jpg', 'description': 'Rich<br />cream &amp; more',"
        " 'related': {'also_bought': ['B1']}}",
        "{'asin': 'B2', 'categories': [[]]}",
    )
    notes = get("amazon-2014/Beauty_5", tmp_path / "out", source_dir=tmp_path)
    out = tmp_path / "out"
    assert table(out, "interactions").rows() == [
        ("A0", "0205616461", 2.0, 1369700000),
        ("A1", "0205616461", 5.0, 1369699200),
    ]
    assert table(out, "items").rows() == [
        (
            "0205616461",
            "Bio-Active Crème's \\d",
            "Rich cream & more",
            None,
            "Ann",
            ["Beauty", "Skin Care", "Body"],
            13.99,
            "http://ecx.example/51.jpg",
        ),
        ("B2", None, None, None, None, [], None, None),
    ]
    assert table(out, "reviews").row(1, named=True) == {
        "user_id": "A1",
        "item_id": "0205616461",
        "rating": 5.0,
        "timestamp": 1369699200,
        "summary": "Nice",
        "text": 'Smells "great" & lasts',
        "helpful_votes": 3,
        "verified": None,
    }
    assert table(out, "users").rows() == [("A0",), ("A1",)]
    assert "McAuley" in notes[0] and not (out / "rejected.parquet").exists()


def test_2018_prices_junk_titles_twins_and_products_without_metadata(tmp_path: Path) -> None:
    review = {
        "overall": 4.0,
        "vote": "1,234",
        "verified": True,
        "reviewTime": "01 1, 2018",
        "reviewerID": "A1",
        "asin": "B1",
        "style": {"Size:": " L"},
        "reviewText": "half a pair: \ud83d",
        "unixReviewTime": 1514764800,
    }
    lay(tmp_path / "Video_Games.json", review, {**review, "asin": "B9"})
    lay(
        tmp_path / "meta_Video_Games.json",
        {
            "category": ["Video Games", "PC", "Video Games"],
            "description": ["One.", "<b>Two</b>"],
            "title": "Game &amp; Watch",
            "image": ["https://img.example/1.jpg"],
            "brand": "N",
            "feature": ["fast", "loud"],
            "price": "$1,012.99",
            "asin": "B1",
        },
        {"asin": "B1", "title": "its twin"},
        {
            "asin": "B2",
            "title": "var aPageStart = (new Date()).getTime();",
            "price": "$5.00 - $9.00",
            "image": [],
        },
        {"asin": "B3", "price": ".a-box-inner{background-color:#fff}", "title": "I <3 this > that"},
        {"asin": "B4", "price": "", "imageURLHighRes": ["no address", "https://img.example/4.jpg"]},
    )
    notes = get("amazon-2018/Video_Games", tmp_path / "out", source_dir=tmp_path)
    items = table(tmp_path / "out", "items")
    assert items["item_id"].to_list() == ["B1", "B2", "B3", "B4", "B9"]
    assert items.row(0) == (
        "B1",
        "Game & Watch",
        "One. Two",
        "fast loud",
        "N",
        ["Video Games", "PC"],
        1012.99,
        "https://img.example/1.jpg",
    )
    assert items["title"].to_list()[1:] == [None, "I <3 this > that", None, None]
    assert items["price"].to_list()[1:] == [None] * 4
    assert items["image_url"][3] == "https://img.example/4.jpg"
    review_row = table(tmp_path / "out", "reviews").row(0, named=True)
    assert review_row["helpful_votes"] == 1234 and review_row["verified"] is True
    assert review_row["text"] == "half a pair: ?" and review_row["summary"] is None
    assert any(note.startswith("1 products came more than once") for note in notes)
    assert any(note.startswith("1 reviewed products have no metadata") for note in notes)


def test_2023_milliseconds_parents_stores_and_images(tmp_path: Path) -> None:
    lay(
        tmp_path / "sub" / "All_Beauty.jsonl.gz",
        {
            "rating": 5.0,
            "title": "Such a lovely scent",
            "text": "Good.<br /><br />Very.",
            "images": [],
            "asin": "B00Y",
            "parent_asin": "B00P",
            "user_id": "AGK",
            "timestamp": 1588687728923,
            "helpful_vote": 2,
            "verified_purchase": False,
        },
    )
    lay(
        tmp_path / "sub" / "meta_All_Beauty.jsonl.gz",
        {
            "main_category": "All Beauty",
            "title": "Set",
            "average_rating": 4.8,
            "rating_number": 10,
            "features": [],
            "description": [],
            "price": None,
            "store": "Howard",
            "categories": [],
            "parent_asin": "B00P",
            "images": [
                {"thumb": "https://i.example/t.jpg", "large": "https://i.example/l.jpg", "hi_res": None}
            ],
        },
        {
            "main_category": "Books",
            "categories": ["Books", "Maps"],
            "price": "from 12.99",
            "parent_asin": "B00Q",
            "images": [],
        },
        {"price": "—", "parent_asin": "B00R", "images": {"hi_res": [None, "https://i.example/h.jpg"]}},
    )
    get("amazon-2023/All_Beauty", tmp_path / "out", source_dir=tmp_path)
    assert table(tmp_path / "out", "interactions").rows() == [("AGK", "B00P", 5.0, 1588687728)]
    review = table(tmp_path / "out", "reviews").row(0, named=True)
    assert (review["summary"], review["text"]) == ("Such a lovely scent", "Good. Very.")
    assert (review["helpful_votes"], review["verified"]) == (2, False)
    items = table(tmp_path / "out", "items")
    assert items.columns == list(amazon.ITEMS)  # no ratings averaged over the future
    assert items["brand"].to_list() == ["Howard", None, None]
    assert items["categories"].to_list() == [["All Beauty"], ["Books", "Maps"], []]
    assert items["price"].to_list() == [None, None, None]
    assert items["image_url"].to_list() == ["https://i.example/l.jpg", None, "https://i.example/h.jpg"]


def test_bad_rows_are_set_aside_beside_the_good(tmp_path: Path) -> None:
    lay(
        tmp_path / "reviews_Baby.json.gz",
        REVIEW_14,
        "__import__('os').getcwd()",
        "[1, 2]",
        {**REVIEW_14, "reviewerID": None},
        {**REVIEW_14, "unixReviewTime": "soon"},
        {key: value for key, value in REVIEW_14.items() if key != "asin"},
        {**REVIEW_14, "overall": None},
    )
    lay(tmp_path / "meta_Baby.json.gz", {"asin": "0205616461"}, {"title": "nobody"})
    notes = get("amazon-2014/Baby", tmp_path / "out", source_dir=tmp_path)
    assert table(tmp_path / "out", "rejected").select("file", "row", "column").rows() == [
        ("reviews_Baby.json.gz", 2, None),
        ("reviews_Baby.json.gz", 3, None),
        ("reviews_Baby.json.gz", 4, "reviewerID"),
        ("reviews_Baby.json.gz", 5, "unixReviewTime"),
        ("reviews_Baby.json.gz", 6, "asin"),
        ("meta_Baby.json.gz", 2, "asin"),
    ]
    assert table(tmp_path / "out", "interactions")["rating"].to_list() == [5.0, None]
    assert any(note.startswith("6 rows could not be read") for note in notes)


def test_chunks_join_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK", 3)
    lay(tmp_path / "reviews_Baby.json", *({**REVIEW_14, "unixReviewTime": time} for time in range(11)))
    lay(tmp_path / "meta_Baby.json", {"asin": "0205616461"})
    told: list[tuple[str, bool]] = []

    def progress(stage: str, done: int, total: int, **figures: float) -> None:
        told.append((stage, done == total))

    get("amazon-2014/Baby", tmp_path / "out", source_dir=tmp_path, progress=progress)
    assert table(tmp_path / "out", "interactions")["timestamp"].to_list() == list(range(11))
    assert told[-1] == ("reading meta_Baby.json", True)
    assert all(not path.name.startswith(".") for path in (tmp_path / "out").iterdir())


def test_what_can_not_be_read_at_all_is_named(tmp_path: Path) -> None:
    lay(tmp_path / "meta_Baby.json.gz", {"asin": "0205616461"})
    reviews = tmp_path / "reviews_Baby.json.gz"
    lay(reviews, *[{**REVIEW_14, "unixReviewTime": time} for time in range(100)])
    reviews.write_bytes(reviews.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"reviews_Baby\.json\.gz breaks off"):
        get("amazon-2014/Baby", tmp_path / "out", source_dir=tmp_path)
    reviews.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"reviews_Baby\.json\.gz breaks off or is no gzip file"):
        get("amazon-2014/Baby", tmp_path / "out", source_dir=tmp_path)
    reviews.write_bytes(gzip.compress(b"<html>not found</html>"))
    with pytest.raises(InputError, match="no JSON object at all"):
        get("amazon-2014/Baby", tmp_path / "out", source_dir=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("amazon-2014/Books", r"lacks reviews_Books\.json\.gz"),
        ("amazon-2018/Books_5", r"lacks Books_5\.json\.gz"),
        ("amazon-2023/Books", r"lacks Books\.jsonl\.gz"),
        ("amazon-2023/Books_5", r"get amazon-2023/Books and set data\.k_core=5"),
        ("amazon-2023/../Books", "no Amazon category"),
        ("amazon-2023/A B", "no Amazon category"),
    ],
)
def test_missing_files_and_odd_categories(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        get(name, tmp_path / "out", source_dir=tmp_path)


def test_downloads_come_from_the_publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(remote: amazon.Remote, folder: Path, **_: object) -> Path:
        asked.append(remote.url)
        path = folder / remote.filename
        lay(path, {"asin": "0205616461"} if "meta" in remote.url else REVIEW_14)
        return path

    monkeypatch.setattr(amazon, "fetch", fetch)
    monkeypatch.setenv("LLM4REC_CACHE", str(tmp_path / "cache"))
    notes = get("amazon-2018/Children's_Music_5", tmp_path / "out")
    assert [url.split("amazon_v2/")[1] for url in asked] == [
        "categoryFilesSmall/Children%27s_Music_5.json.gz",
        "metaFiles2/meta_Children%27s_Music.json.gz",
    ]
    assert (tmp_path / "cache" / "amazon-2018" / "meta_Children's_Music.json.gz").exists()
    assert any("SHA-256" in note for note in notes)


@given(st.floats(0, 1e6, allow_nan=False).map(lambda amount: round(amount, 2)))
def test_a_price_reads_back_as_it_was_written(amount: float) -> None:
    assert amazon.price(f"${amount:,.2f}") == amazon.price(f"{amount:.2f}") == amazon.price(amount) == amount


@pytest.mark.parametrize(
    "junk", ["", "$", "free", "—", "from 3.99", "-4", -4.0, None, True, [3], float("nan"), "1.2.3"]
)
def test_junk_is_no_price(junk: object) -> None:
    assert amazon.price(junk) is None


@pytest.mark.parametrize("edition", ["amazon-2014/Beauty", "amazon-2023/Beauty"])
def test_reviews_join_the_histories(tmp_path: Path, edition: str) -> None:
    if edition.startswith("amazon-2014"):
        lay(tmp_path / "reviews_Beauty.json", {**REVIEW_14, "unixReviewTime": 1369700000}, REVIEW_14)
        lay(tmp_path / "meta_Beauty.json", "{'asin': '0205616461', 'title': 'Cream'}")
    else:
        new = {"user_id": "A1", "parent_asin": "0205616461", "rating": 5.0, "timestamp": 1369699200000,
               "title": "Nice", "text": 'Smells "great" &amp;\nlasts'}  # fmt: skip
        lay(tmp_path / "Beauty.jsonl", {**new, "timestamp": 1369700000000}, new)
        lay(tmp_path / "meta_Beauty.jsonl", {"parent_asin": "0205616461", "title": "Cream"})
    out = tmp_path / "out"
    get(edition, out, source_dir=tmp_path)
    files = {name: str(out / f"{name}.parquet") for name in ("interactions", "items", "reviews")}
    found = ingest(files["interactions"], files["items"], remarks={"review": files["reviews"]})
    said = found.remarks["review"]
    assert said.times is not None and said.times.tolist() == [1369699200, 1369700000]
    assert said.texts[0].startswith('Nice\nSmells "great" &') and said.texts[0].endswith("lasts")
    assert said.ratings.tolist() == [5, 5] and said.user_ids.to_list() == ["A1", "A1"]
    assert said.about(found.log).all() and not found.report.counts["rejected"]
