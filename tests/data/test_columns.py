"""Names of columns: their words, and which of them speak of something protected."""

from __future__ import annotations

import pytest

from llm4rec.data.columns import is_protected, unused, words_of
from llm4rec.data.ingest import DataConfig

PROTECTED = DataConfig().protected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("user_gender", ["user", "gender"]),
        ("ageGroup", ["age", "group"]),
        ("AGE", ["age"]),
        ("USERAge", ["user", "age"]),
        ("UserAGE", ["user", "age"]),
        ("Zip-code 5", ["zip", "code", "5"]),
        ("imdbID2", ["imdb", "id", "2"]),
        ("größeÄnderung", ["größe", "änderung"]),
        ("", []),
        ("__", []),
    ],
)
def test_words(name: str, words: list[str]) -> None:
    assert words_of(name) == words


@pytest.mark.parametrize(
    "column",
    ["gender", "Gender", "user_gender", "age_group", "ageGroup", "AGE", "USER-AGE", "age2",
     "Race / Ethnicity", "is.religion", "sex", "userSex"],
)  # fmt: skip
def test_a_protected_word_is_found_within_a_name(column: str) -> None:
    assert is_protected(column, PROTECTED)


@pytest.mark.parametrize(
    "column",
    [
        "page",
        "message",
        "average",
        "language",
        "usage_days",
        "Stage",
        "trace",
        "essex",
        "image",
        "agenda",
        "",
    ],
)
def test_part_of_a_word_is_none(column: str) -> None:
    assert not is_protected(column, PROTECTED)


def test_names_of_several_words_are_found_however_they_are_joined() -> None:
    for column in ("zip_code", "ZipCode", "home zip-code", "zipcode"):
        assert is_protected(column, ["zip code"])
        assert is_protected(column, ["zipCode"])
    for column in ("code_zip", "zip", "zip_of_code"):
        assert not is_protected(column, ["zip code"])
    assert not is_protected("age", [])


def test_an_unused_name_is_the_first_that_is_free() -> None:
    assert unused("row", ["a"]) == "row"
    assert unused("row", ["row", "row_2"]) == "row_3"
