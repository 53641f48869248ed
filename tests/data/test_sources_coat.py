import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm4rec.data.ingest import ingest
from llm4rec.data.sources import NAMES, get, origin
from llm4rec.data.split import given
from llm4rec.errors import InputError

FILES = {
    "train.ascii": "0 2 0 \r\n5 0 1 \r\n",  # the publisher's lines end in a blank
    "test.ascii": "4 3 0\n0 0 1\n",
    "propensities.ascii": "1e-1 2.5e-1 3e-1\n4e-1 5e-1 1e0\n",
    "user_item_features/user_features.ascii": "0 1 1 0 0\r\n1 0 0 0 0\r\n",
    "user_item_features/user_features_map.txt": (
        "gender:men\ngender:women\nage:20-30\nage:over 60\nage:under 20"
    ),
    "user_item_features/item_features.ascii": "1 0 1\n0 1 0\n0 1 1\n",
    "user_item_features/item_features_map.txt": "color:red\ncolor:navy\nonfrontpage:yes",
}


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def lay(folder: Path, changed: dict[str, str] | None = None) -> None:
    for name, text in {**FILES, **(changed or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def check(out: Path) -> None:
    assert table(out, "interactions").rows() == [
        ("0", "1", 2.0, "train", 0.25),
        ("1", "0", 5.0, "train", 0.4),
        ("1", "2", 1.0, "train", 1.0),
        ("0", "0", 4.0, "test", None),
        ("0", "1", 3.0, "test", None),
        ("1", "2", 1.0, "test", None),
    ]
    users = table(out, "users")
    assert users.columns == ["user_id", "gender", "age"]
    assert users.rows() == [("0", "women", "20-30"), ("1", "men", None)]
    assert table(out, "items").rows() == [("0", "red", "yes"), ("1", "navy", None), ("2", "navy", "yes")]
    assert sorted(path.name for path in out.iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]


def test_every_table_of_the_set(tmp_path: Path) -> None:
    lay(tmp_path / "raw" / "coat")
    notes = get("coat", tmp_path / "out", source_dir=tmp_path / "raw")
    check(tmp_path / "out")
    assert "Schnabel" in notes[0] and "licence" in notes[0] and "coat" in NAMES
    assert any("learnt, not logged" in note for note in notes)
    assert any(note.startswith("2 pairs") for note in notes)  # (0, 1) and (1, 2)


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, text in FILES.items():
            bundle.writestr(f"coat/{name}", text)
    return path


def test_from_its_archive_at_hand_or_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    archive = zipped(tmp_path / "raw" / "coat.zip")
    notes = get("coat", tmp_path / "out", source_dir=tmp_path / "raw")
    check(tmp_path / "out")
    assert not any("checksum" in note for note in notes)

    def fetch(remote: origin.Remote, folder: Path, **_: object) -> Path:
        assert remote.url == "https://www.cs.cornell.edu/~schnabts/mnar/coat.zip"
        return archive

    monkeypatch.setattr(origin, "fetch", fetch)
    notes = get("coat", tmp_path / "again")
    check(tmp_path / "again")
    assert any("SHA-256 of the first download" in note for note in notes)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("train.ascii", "0 2 0\n5 0\n", r"train\.ascii, row 2 has 2 values and the first row 3"),
        ("train.ascii", "0 2 0\n5 x 1\n", r"train\.ascii, row 2, column 2: 'x' is not a number"),
        (
            "train.ascii",
            "0 2 6\n5 0 1\n",
            r"train\.ascii, row 1, column 3: 6 is not a whole number from 0 to",
        ),
        ("train.ascii", "0 2.5 0\n5 0 1\n", r"row 1, column 2: 2\.5 is not a whole number"),
        ("train.ascii", "\n", r"train\.ascii holds no row"),
        ("test.ascii", "4 3 0\n", r"test\.ascii has 1 rows of 3 values and train\.ascii 2 of 3"),
        ("propensities.ascii", "1 1 1\n1 0 1\n", r"propensities\.ascii, row 2, column 2: 0 is not a prob"),
        ("propensities.ascii", "1 1 nan\n1 1 1\n", r"row 1, column 3: nan is not a finite number"),
        (
            "user_item_features/user_features.ascii",
            "1 1 1 0 0\n1 0 1 0 0\n",
            r"row 1 has several values of 'gender'",
        ),
        (
            "user_item_features/user_features.ascii",
            "0 1 1 0\n0 1 1 0\n",
            r"has 2 rows of 4 values where 2 of 5",
        ),
        (
            "user_item_features/item_features.ascii",
            "1 0 2\n0 1 0\n0 1 1\n",
            r"row 1, column 3: 2 is not 0 or 1",
        ),
        (
            "user_item_features/item_features_map.txt",
            "color:red\nnavy\nfront:yes",
            r"row 2: not feature:value",
        ),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, file: str, text: str, said: str) -> None:
    lay(tmp_path / "raw", {file: text})
    with pytest.raises(InputError, match=said):
        get("coat", tmp_path / "out", source_dir=tmp_path / "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither train\.ascii nor coat\.zip.*--from DIR"):
        get("coat", tmp_path / "out", source_dir=tmp_path)
    for name in list(FILES)[1:]:
        lay(tmp_path / "raw")
        (tmp_path / "raw" / name).unlink()
        with pytest.raises(InputError, match=rf"lacks {Path(name).name}, which belongs to Coat"):
            get("coat", tmp_path / "out", source_dir=tmp_path / "raw")


def test_what_comes_out_is_read_with_its_split(tmp_path: Path) -> None:
    lay(tmp_path / "raw")
    out = tmp_path / "out"
    get("coat", out, source_dir=tmp_path / "raw")
    found = ingest(*(str(out / f"{name}.parquet") for name in ("interactions", "items", "users")))
    assert found.parts is not None and len(found.report.rejected) == 0
    split = given(found.log, found.parts)
    assert split.train.n_events == 3 and len(split.test) == 3
    assert split.train.propensities is not None and (split.train.propensities > 0).all()
    assert found.log.propensities is not None and np.isnan(found.log.propensities).sum() == 3  # of the test
