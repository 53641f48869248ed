"""Values of any type become text without an error, and raw ids become names or a reason why not."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest

from llm4rec.data.texts import LARGEST, names_of, text_of


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series(["a", "", None]), ["a", "", None]),
        (
            pl.Series([1987.0, 2.5, None, float("nan"), 1e30, -3.0]),
            ["1987", "2.5", None, None, "1e+30", "-3"],
        ),
        (pl.Series([42.0], dtype=pl.Float32), ["42"]),
        (pl.Series([7, None]), ["7", None]),
        (pl.Series([True, None]), ["true", None]),
        (pl.Series([b"caf\xc3\xa9", None]), ["café", None]),
        (pl.Series([b"a", b"\xff", None]), ["a", None, None]),
        (pl.Series(["a", None], dtype=pl.Categorical), ["a", None]),
        (pl.Series([date(2024, 5, 1)]), ["2024-05-01"]),
        (pl.Series([None, None]), [None, None]),
        (pl.Series([["a"], ["b"]]), [None, None]),
        (pl.Series([{"a": 1}]), [None]),
        (pl.Series([timedelta(1)]), [None]),
        (pl.Series([object()], dtype=pl.Object), [None]),
    ],
)
def test_text_of_any_type(values: pl.Series, expected: list[str | None]) -> None:
    found = text_of(values.alias("x"))
    assert found.dtype == pl.String
    assert found.name == "x"
    assert found.to_list() == expected


@pytest.mark.parametrize(
    ("raw", "names", "faults"),
    [
        (pl.Series([" a ", "NaN", None, "b"]), ["a", None, None, "b"], {}),
        (pl.Series([3, None]), ["3", None], {}),
        (pl.Series(["i\x001", "a\tb", "a\n", "\x1f"]), ["i\x001", "a\tb", "a", "\x1f"],
         {"control character": [0, 1, 3]}),
        (pl.Series([b"a\x00", b"\xff", b"c"]), ["a\x00", None, "c"],
         {"not UTF-8": [1], "control character": [0]}),
        (pl.Series([42.0, None, 2.5, 1e30, -1e30, float("inf"), float("nan"), 2 * LARGEST]),
         ["42", None, "2.5", "1e+30", "-1e+30", "inf", None, "1.8446744073709552e+19"],
         {"fraction": [2], "too large": [3, 4, 7], "not a number": [5, 6]}),
    ],
)  # fmt: skip
def test_names_and_what_is_wrong(
    raw: pl.Series, names: list[str | None], faults: dict[str, list[int]]
) -> None:
    found, wrong = names_of(raw)
    assert found.to_list() == names
    assert {next(word for word in faults if word in why): bad.arg_true().to_list() for bad, why in wrong} == (
        faults
    )
