from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.files import REJECTED
from llm4rec.data.sources import lines
from llm4rec.data.sources.lines import Field
from llm4rec.data.sources.tables import TableWriter
from llm4rec.errors import InputError

FIELDS = {
    "who": Field(("user",), lines.name, "a whole number"),
    "stars": Field(("rating",), lines.whole(1, 5), "a whole number from 1 to 5"),
    "at": Field(("time",), lines.real, "a finite number from 0 on", may_lack=True),
}
COLUMNS = ("user", "rating", "time")


def read(path: Path, start: int = 1) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """The sound rows with their numbers, and those set aside."""
    folder = path.parent
    with TableWriter(folder, "rejected", REJECTED) as rejected:
        parsed = lines.parse(path, folder / "rows.parquet", COLUMNS, FIELDS, separator=",", start=start)
        sound = lines.rows(parsed, rejected).collect().rows()
    return sound, pl.read_parquet(folder / "rejected.parquet").rows()


def test_each_wrong_row_is_set_aside_with_its_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(
        b"user,rating,time\r\n7,5,1.5\r\n\r\n8,4,\r\nx8,4,2\n8,6,2\n8,4,nan\n8,4\n8,4,2,9\n,4,2\n9,1,0\n"
    )
    sound, rejected = read(path, start=2)
    assert sound == [(2, "7", 5, 1.5), (4, "8", 4, None), (11, "9", 1, 0.0)]
    assert rejected == [
        ("log.csv", 5, "user", "'x8' is not a whole number"),
        ("log.csv", 6, "rating", "'6' is not a whole number from 1 to 5"),
        ("log.csv", 7, "time", "'nan' is not a finite number from 0 on"),
        ("log.csv", 8, None, "it has 2 fields where there should be 3"),
        ("log.csv", 9, None, "it has 4 fields where there should be 3"),
        ("log.csv", 10, "user", "'' is not a whole number"),
    ]


WORDS = st.text(alphabet='0123456789.-e"x ', max_size=4)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=20))
def test_no_row_is_lost_or_moved(tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]) -> None:
    folder = tmp_path_factory.mktemp("lines")
    path = folder / "log.csv"
    path.write_text("1,1,1\n" + "".join(",".join(row) + "\n" for row in table))
    sound, rejected = read(path)
    blank = [number for number, row in enumerate(table, 2) if row == [""]]
    told = [row[0] for row in sound] + [row[1] for row in rejected] + blank
    assert sorted(told, key=int) == list(range(1, len(table) + 2))
    for number, who, stars, _ in sound[1:]:
        user, rating = table[int(str(number)) - 2][:2]
        assert user == who and int(rating) == stars


def test_a_file_without_a_sound_row_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a\tb\n")
    with pytest.raises(InputError, match=r"log\.csv, row 1: it has 1 fields where there should be 3"):
        read(path)
    path.write_text("1,9,1\n")
    with pytest.raises(InputError, match=r"row 1, column 'rating': '9' is not a whole number from 1 to 5"):
        read(path)
    path.write_text("\n")
    with pytest.raises(InputError, match=r"log\.csv is empty"):
        read(path)
    path.write_bytes(b"1,1,\xff\n")
    with pytest.raises(InputError, match=r"log\.csv is not in the publisher's layout"):
        read(path)


def test_a_header_must_name_what_is_needed_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,rating,rating\r\n")
    assert lines.header(path, ",", ["user"]) == ["user", "rating", "rating"]
    for column in ("rating", "time"):
        with pytest.raises(InputError, match=rf"row 1, must name the column '{column}' once"):
            lines.header(path, ",", ["user", column])
