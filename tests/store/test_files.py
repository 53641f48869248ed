"""A file is there whole or not at all, and nothing but a file is replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from llm4rec.errors import InputError
from llm4rec.store import files


def test_written_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json({"a": float("nan")}, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []
    files.write_json({"a": "é"}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": "é"}


def test_the_newer_replaces_the_older_and_leaves_nothing_beside(tmp_path: Path) -> None:
    for number in (1, 2):
        files.write_parquet(pl.DataFrame({"a": [number]}), tmp_path / "store=3[*].parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["store=3[*].parquet"]
    with (tmp_path / "store=3[*].parquet").open("rb") as stream:
        assert pl.read_parquet(stream)["a"].to_list() == [2]


def test_a_writer_that_fails_leaves_the_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_text("old", tmp_path / "a")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_text("new", tmp_path / "a")
    assert caught.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_link_keeps_its_aim(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/a")
    files.write_text("one", tmp_path / "link")
    files.write_text("two", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "a").read_text() == "two"


def test_nothing_but_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(InputError, match=f"{name} is no plain file"):
            files.write_text("", tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "pipe"]
    assert (tmp_path / "folder").is_dir() and not (tmp_path / "pipe").is_file()
