from pathlib import Path

import polars as pl
import pytest

from llm4rec.data.ingest import ingest
from llm4rec.data.sources import get
from llm4rec.data.split import given
from llm4rec.errors import InputError

PREFIX = "ydata-ymusic-rating-study-v1_0-"


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def lay(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": "1\t14\t5\n1\t35\t1\n3\t14\t2\n", "test": "1\t49\t1\n1\t14\t4\n", **files}
    for name, text in parts.items():
        (folder / f"{PREFIX}{name.replace('_', '-')}.txt").write_text(text)


def test_every_table_of_the_set(tmp_path: Path) -> None:
    lay(tmp_path / "raw" / "Webscope_R3", survey_answers="5\t5\t4\t3\t5\t5\t2\n1\t1\t1\t1\t1\t1\t1\n")
    out = tmp_path / "out"
    notes = get("yahoo-r3", out, source_dir=tmp_path / "raw")
    assert table(out, "interactions").rows() == [
        ("1", "14", 5.0, "train"),
        ("1", "35", 1.0, "train"),
        ("3", "14", 2.0, "train"),
        ("1", "49", 1.0, "test"),
        ("1", "14", 4.0, "test"),
    ]
    assert table(out, "interactions").columns == ["user_id", "item_id", "rating", "split"]
    assert table(out, "users").rows() == [("1", "5", "5", "4", "3", "5", "5", "2"), ("3", *[None] * 7)]
    assert table(out, "users").columns[1:] == [f"survey_{number}" for number in range(1, 8)]
    assert table(out, "items").rows() == [("14",), ("35",), ("49",)]
    assert "agreement" in notes[0] and "pass it on" in notes[0]
    assert sorted(path.name for path in out.iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]


def test_without_the_survey_it_says_so(tmp_path: Path) -> None:
    lay(tmp_path / "raw")
    notes = get("yahoo-r3", tmp_path / "out", source_dir=tmp_path / "raw")
    assert table(tmp_path / "out", "users").rows() == [("1",), ("3",)]
    assert any("no ydata-ymusic-rating-study-v1_0-survey-answers.txt" in note for note in notes)


def test_wrong_rows_are_set_aside(tmp_path: Path) -> None:
    lay(
        tmp_path / "raw",
        train="1\t14\t5\n1\t35\t6\n2\t9\nx\t1\t1\n",
        survey_answers="1\t2\n" + "1\t" * 6 + "1\n",
    )
    notes = get("yahoo-r3", tmp_path / "out", source_dir=tmp_path / "raw")
    assert table(tmp_path / "out", "interactions").height == 3
    assert table(tmp_path / "out", "rejected").select("file", "row", "column").rows() == [
        (f"{PREFIX}train.txt", 2, "rating"),
        (f"{PREFIX}train.txt", 3, None),
        (f"{PREFIX}train.txt", 4, "user id"),
        (f"{PREFIX}survey-answers.txt", 1, None),
    ]
    assert notes[-1].startswith("4 rows could not be read")
    # the answers of line 2 stay with person 2, who rates nothing
    assert table(tmp_path / "out", "users").rows() == [("1", *[None] * 7)]


def test_the_agreement_is_named_as_the_way_to_the_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"agreement.*--from DIR"):
        get("yahoo-r3", tmp_path / "out")
    with pytest.raises(InputError, match=rf"lacks {PREFIX}train\.txt"):
        get("yahoo-r3", tmp_path / "out", source_dir=tmp_path)
    lay(tmp_path, test="1,14,5\n")
    with pytest.raises(
        InputError, match=rf"{PREFIX}test\.txt, row 1: it has 1 fields where there should be 3"
    ):
        get("yahoo-r3", tmp_path / "out", source_dir=tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_comes_out_is_read_with_its_split(tmp_path: Path) -> None:
    lay(tmp_path / "raw")
    out = tmp_path / "out"
    get("yahoo-r3", out, source_dir=tmp_path / "raw")
    found = ingest(*(str(out / f"{name}.parquet") for name in ("interactions", "items", "users")))
    assert found.parts is not None
    split = given(found.log, found.parts)
    assert split.train.n_events == 3 and len(split.test) == 2
