"""The kind of each column is told from its type, values and name, and its values get that kind's type."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest

from llm4rec.data.features import Declared, infer, read_features
from llm4rec.errors import InputError

WORDS = [
    f"{a} {b}" for a in ("red", "blue", "green", "grey", "pink") for b in ("chair", "table", "lamp", "sofa")
]


@pytest.mark.parametrize(
    ("column", "typed", "expected"),
    [
        (pl.Series("title", ["Casablanca", "Alien", "Heat"]), True, "text"),
        (pl.Series("story", ["A long tale of a man who went to sea and never came back."] * 3 + ["x"]), True,
         "categorical"),
        (pl.Series("story", [f"Tale {n} of a man gone to sea for good" for n in range(9)]), True,
         "text"),
        (pl.Series("label", WORDS), True, "text"),
        (pl.Series("kind", WORDS * 3), True, "categorical"),
        (pl.Series("brand", ["HP", "Sealed Unit Parts Co., Inc.", "3M"]), True, "categorical"),
        (pl.Series("x", ["a|b", "b", "c|a", "b"]), False, "categorical"),
        (pl.Series("x", [["a"], ["b", "c"], []], dtype=pl.List(pl.String)), True, "categorical"),
        (pl.Series("x", [True, False, None]), True, "categorical"),
        (pl.Series("year", [1995, 1996, None]), True, "numerical"),
        (pl.Series("price", ["1.50", "2", "30"]), False, "numerical"),
        (pl.Series("price", ["1.50", "2", "30"]), True, "ignore"),
        (pl.Series("zip_code", ["85711", "94043", "32067"]), False, "ignore"),
        (pl.Series("imdb_id", [114709, 113497, 113228]), True, "ignore"),
        (pl.Series("shop_id", [1, 1, 2, 2, 2]), True, "categorical"),
        (pl.Series("url", ["http://a.b/c", "http://a.b/d"]), True, "ignore"),
        (pl.Series("vector", [[0.1, 0.2], [0.3, 0.4]]), True, "image"),
        (pl.Series("vector", [[0.1, 0.2], [0.3]]), True, "ignore"),
        (pl.Series("vector", [[0.1, 0.2], [0.3, 0.4]], dtype=pl.Array(pl.Float32, 2)), True, "image"),
        (pl.Series("vector", ["[0.1, 0.2]", "[0.3, 4e-1]"]), False, "image"),
        (pl.Series("image_path", ["a/1.jpg", "a/2.PNG"]), True, "image"),
        (pl.Series("image_url", ["http://a/1.jpg", "http://a/2.jpg"]), True, "ignore"),
        (pl.Series("released", [date(2020, 1, 1), None]), True, "time"),
        (pl.Series("release_date", ["01-Jan-1995", "22-Dec-1996"]), True, "time"),
        (pl.Series("created_at", [1700000000, 1700000001]), True, "time"),
        (pl.Series("code", [f"x{n}" for n in range(30)]), True, "ignore"),
        (pl.Series("constant", [1, 1, 1]), True, "ignore"),
        (pl.Series("nothing", [None, None], dtype=pl.String), True, "ignore"),
        (pl.Series("record", [{"a": 1}]), True, "ignore"),
    ],
)  # fmt: skip
def test_modality(column: pl.Series, typed: bool, expected: Declared) -> None:
    assert infer(column, typed=typed) == expected


def read(column: pl.Series, kind: Declared, *, typed: bool = False) -> pl.Series:
    return read_features(column.to_frame(), "f", typed=typed, declared={column.name: kind}).table[column.name]


def test_values_take_the_type_of_their_kind() -> None:
    categories = read(pl.Series("x", ["a| b", "", None, "c"]), "categorical")
    assert categories.dtype == pl.List(pl.String)
    assert categories.to_list() == [["a", "b"], [], [], ["c"]]
    assert read(pl.Series("x", ["['a', \"b\"]", "[]"]), "categorical").to_list() == [["a", "b"], []]
    assert read(pl.Series("x", [1, None]), "categorical").to_list() == [["1"], []]
    assert read(pl.Series("x", [1.0, 2.0]), "categorical").to_list() == [["1"], ["2"]]
    assert read(pl.Series("x", [True, False]), "categorical").to_list() == [["true"], ["false"]]
    assert read(pl.Series("x", [[1, 2], None]), "categorical").to_list() == [["1", "2"], []]
    numbers = read(pl.Series("x", ["1.5", "many", None, "inf"]), "numerical")
    assert numbers.dtype == pl.Float64
    assert numbers.to_list() == [1.5, None, None, None]
    assert read(pl.Series("x", [["Toy", None, "Story"], []]), "text").to_list() == ["Toy Story", None]
    assert read(pl.Series("x", [" a ", "NaN"]), "text").to_list() == ["a", None]
    vectors = read(pl.Series("x", ["[1, 2]", "[3]", "[4,5]", None]), "image")
    assert vectors.dtype == pl.List(pl.Float32)
    assert vectors.to_list() == [[1, 2], None, [4, 5], None]
    assert read(pl.Series("x", ["a.jpg", None]), "image").to_list() == ["a.jpg", None]
    times = read(pl.Series("x", ["01-Jan-1970", "1970-01-02", "soon"]), "time")
    assert times.dtype == pl.Int64
    assert times.to_list() == [0, 86400, None]
    short = pl.Series("x", ["1-3-24", "01-Mar-24", None, "2024-03-01"])
    assert read(short, "time").to_list() == [None, None, None, 1_709_251_200]  # no year has two digits
    assert read(pl.Series("x", [datetime(1970, 1, 1, 0, 1)]), "time").to_list() == [60]


@pytest.mark.parametrize(
    ("written", "values"),
    [
        (r"""["Children's", 'Action, Adventure']""", ["Children's", "Action, Adventure"]),
        (r"""['Children\'s', 'Action, Adventure']""", ["Children's", "Action, Adventure"]),
        ('["Children\'s", "Action, Adventure", null]', ["Children's", "Action, Adventure"]),
        ('["Caf\\u00e9 \\"Noir\\""]', ['Café "Noir"']),
        ("['a', None, 3, ['b', ('c',)]]", ["a", "3", "b", "c"]),
        ("[12345678901234567890123, 1e5, 1.50, true]", ["12345678901234567890123", "1e5", "1.50", "true"]),
        ('[{"id": 28, "name": "Action, fast"}]', ['{"id": "28", "name": "Action, fast"}']),
        ("[Action, 'Drama', 007]", ["Action", "Drama", "007"]),
        ("[open('x'), b]", ["open(x)", "b"]),
        ("[]", []),
    ],
)
def test_lists_written_as_text_are_parsed(written: str, values: list[str]) -> None:
    found = read(pl.Series("x", [written, "['a']", written, None]), "categorical").to_list()
    assert found == [values, ["a"], values, []]


def test_one_value_among_lists_is_a_value() -> None:
    column = pl.Series("x", ["['a, b']"] * 39 + ["Comedy"])
    assert read(column, "categorical").to_list() == [["a, b"]] * 39 + [["Comedy"]]


def test_what_is_lost_is_said_and_nothing_left_is_an_error() -> None:
    found = read_features(
        pl.DataFrame({"x": ["1", "2", "?"]}), "f.csv", typed=False, declared={"x": "numerical"}
    )
    assert "1 values in column 'x' of f.csv are not numerical and count as missing." in found.notes
    with pytest.raises(InputError, match=r"column 'x' of f\.csv can't be read as numerical"):
        read_features(pl.DataFrame({"x": ["a", "b"]}), "f.csv", typed=False, declared={"x": "numerical"})


UNSUITED = {
    "records": (pl.Series("x", [{"a": 1}, {"a": 2}]), ("text", "categorical", "numerical", "image", "time")),
    "bytes": (pl.Series("x", [b"a", b"\xff"]), ("text", "categorical", "numerical", "image", "time")),
    "lists of bytes": (pl.Series("x", [[b"a"], [b"\xff"]]), ("text", "categorical", "numerical", "time")),
    "lists of records": (pl.Series("x", [[{"a": 1}], []]), ("text", "categorical", "numerical", "image")),
    "lists of lists": (pl.Series("x", [[["a"]], []]), ("text", "categorical", "numerical", "time")),
    "durations": (pl.Series("x", [timedelta(1), None]), ("text", "categorical", "image")),
    "categories": (pl.Series("x", ["a", "b"], dtype=pl.Categorical), ("numerical", "time")),
}  # fmt: skip


@pytest.mark.parametrize(("case", "kind"), [(case, kind) for case in UNSUITED for kind in UNSUITED[case][1]])
def test_a_kind_declared_for_an_unsuitable_type_is_refused(case: str, kind: Declared) -> None:
    with pytest.raises(InputError, match=f"The column 'x' of f can't be read as {kind}"):
        read(UNSUITED[case][0], kind, typed=True)


def test_numbers_declared_as_words_lose_their_point() -> None:
    years = pl.Series("x", [1987.0, None, 2.5, 1e30])
    assert read(years, "text").to_list() == ["1987", None, "2.5", "1e+30"]
    assert read(years, "categorical").to_list() == [["1987"], [], ["2.5"], ["1e+30"]]


def test_columns_left_alone_stay_as_they_are() -> None:
    table = pl.DataFrame({"key": ["a", "b"], "gender": ["F", "M"], "note": ["http://x/y", "http://x/z"]})
    found = read_features(table, "f", typed=True, leave=("key", "gender"))
    assert found.table.equals(table)
    assert found.fields == ()
    assert found.notes == ("Columns of f not used as features: note (links).",)


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pl.Series("nothing", [None, None], dtype=pl.String), "empty"),
        (pl.Series("constant", [1, 1, 1]), "one value throughout"),
        (pl.Series("constant", ["x", "x"]), "one value throughout"),
        (pl.Series("price", [f"{n},99" for n in range(30)]), "numbers with a decimal comma: write 3.50"),
        (
            pl.Series("price", [f"{n},000" for n in range(1, 30)]),
            "numbers with commas between thousands: write 1000",
        ),
        (pl.Series("article", [f"{n}ABC" for n in range(4711, 4740)]), "mostly distinct, like ids"),
        (pl.Series("version", [f"1.7.{n}" for n in range(20, 50)]), "mostly distinct, like ids"),
        (
            pl.Series("price", [f"${n}.50" for n in range(30)]),
            "numbers with a currency or a unit: write the number alone",
        ),
        (
            pl.Series("price", [f"1.{n:03},50€" for n in range(30)]),
            "numbers with a currency or a unit: write the number alone",
        ),
        (
            pl.Series("since", [f"{n}.03.2024" for n in range(1, 29)]),
            "dates whose day and month may be mistaken: write 2024-03-01",
        ),
        (
            pl.Series("since", [f"3/{n}/24" for n in range(1, 29)]),
            "dates whose day and month may be mistaken: write 2024-03-01",
        ),
        (
            pl.Series("price", [f"{n},5" if n % 2 else f"{n}" for n in range(30)]),  # some are whole
            "numbers with a decimal comma: write 3.50",
        ),
        (
            pl.Series("price", ["n/a"] * 5 + [f"{n},99" for n in range(20)]),
            "numbers with a decimal comma: write 3.50",
        ),
        (pl.Series("weight", [f"0,{n:03}" for n in range(30)]), "numbers with a decimal comma: write 3.50"),
        (
            pl.Series("since", [f"2024.03.{n:02}" for n in range(1, 29)]),
            "dates with points: write 2024-03-01",
        ),
        (pl.Series("article", ["4,50", *map(str, range(40))]), "mostly distinct, like ids"),  # one is a slip
        (pl.Series("url", ["http://a.b/c", "http://a.b/d"]), "links"),
        (pl.Series("code", [f"x{n}" for n in range(30)]), "mostly distinct, like ids"),
        (pl.Series("imdb_id", [114709, 113497, 113228]), "mostly distinct, like ids"),
        (
            pl.Series("vector", [[0.1, 0.2], [0.3]]),
            "lists, but not of words, of whole numbers, or of enough numbers and as many in each",
        ),
        (
            pl.Series("deep", [[["a"]], [["b"]]]),
            "lists, but not of words, of whole numbers, or of enough numbers and as many in each",
        ),
        (pl.Series("record", [{"a": 1}]), "of the type Struct"),
        (pl.Series("raw", [b"a", b"b"]), "of the type Binary"),
        (pl.Series("told", ["a", "a", "b", "b"]), "as declared"),
    ],
)
def test_a_column_that_is_no_feature_is_told_why(column: pl.Series, why: str) -> None:
    found = read_features(column.to_frame(), "f", typed=True, declared={"told": "ignore"})
    assert found.notes == (f"Columns of f not used as features: {column.name} ({why}).",)


def test_a_number_that_is_always_the_same_is_one_value_though_some_are_missing() -> None:
    column = pl.Series("discount", ["0"] * 15 + ["0.0"] * 15 + ["n/a"])
    found = read_features(column.to_frame(), "f", typed=False)
    assert found.notes == ("Columns of f not used as features: discount (one value throughout).",)
