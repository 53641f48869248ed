"""Earlier states of an artefact: whole, cheap, and there or not there wherever a writer dies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm4rec.errors import ArtefactError
from llm4rec.store import artefact, versions

BIG = np.arange(20_000, dtype=np.float32)


def put(path: Path, value: int, keep: int = 3, by: str = "learn", unfinished: bool = False) -> None:
    arrays = {"vectors": {"all": BIG}, "network": {"weight": np.array([value])}}
    artefact.write(
        path, kind="model", meta={"value": value}, tensors=arrays, by=by, keep=keep, unfinished=unfinished
    )


def values(path: Path) -> list[tuple[int, int, int, bool]]:
    """Number, parent, content and whether it is current, of every state; each is whole."""
    found: list[tuple[int, int, int, bool]] = []
    for each in versions.of(path, "model"):
        kept = artefact.read(each.path, "model")
        np.testing.assert_array_equal(kept.tensors("vectors")["all"], BIG)
        assert kept.tensors("network")["weight"].tolist() == [kept.meta["value"]]
        found.append((each.number, each.parent, kept.meta["value"], each.current))
    return found


def test_each_state_names_its_parent_and_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for value in range(10, 16):
        put(path, value)
    assert values(path) == [(3, 2, 12, False), (4, 3, 13, False), (5, 4, 14, False), (6, 5, 15, True)]
    put(path, 16, keep=1)
    assert values(path) == [(6, 5, 15, False), (7, 6, 16, True)]
    put(path, 17, keep=0)
    assert values(path) == [(8, 0, 17, True)] and not (path / "versions").exists()


def test_a_state_on_the_way_is_replaced_by_the_next_of_its_maker(tmp_path: Path) -> None:
    path = tmp_path / "model"
    put(path, 1)
    for value in (2, 3, 4):
        put(path, value, unfinished=True)
        assert values(path) == [(1, 0, 1, False), (2, 1, value, True)]
        assert [each.unfinished for each in versions.of(path, "model")] == [False, True]
    put(path, 5)
    assert values(path) == [(1, 0, 1, False), (2, 1, 5, True)]
    put(path, 6)
    assert values(path) == [(1, 0, 1, False), (2, 1, 5, False), (3, 2, 6, True)]
    put(path, 7, unfinished=True)
    put(path, 8, by="items")  # somebody else's work is not thrown away, nor taken for theirs
    put(path, 9)
    assert values(path)[-3:] == [(4, 3, 7, False), (5, 4, 8, False), (6, 5, 9, True)]
    inodes = {file.stat().st_ino for file in path.rglob("vectors.safetensors")}
    assert len(inodes) == 1


def test_a_state_on_the_way_may_be_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for keep in (0, 0, 3):
        put(path, keep, keep=keep, unfinished=True)
        assert values(path) == [(1, 0, keep, True)]
    put(path, 4)
    assert values(path) == [(1, 0, 4, True)]


def test_what_is_the_same_lies_on_the_disk_once(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for value in range(3):
        put(path, value)
    files = [file for file in path.rglob("vectors.safetensors")]
    assert len(files) == 3 and len({file.stat().st_ino for file in files}) == 1
    assert len({file.stat().st_ino for file in path.rglob("network.safetensors")}) == 3
    sizes = [each.size for each in versions.of(path, "model")]
    assert all(0 < size < BIG.nbytes / 10 for size in sizes)


def test_a_copy_and_a_disk_without_links_hold_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(1, "Operation not permitted")

    path = tmp_path / "model"
    with monkeypatch.context() as without:
        without.setattr(os, "link", refuse)
        for value in range(3):
            put(path, value)
    told = values(path)
    assert told == [(1, 0, 0, False), (2, 1, 1, False), (3, 2, 2, True)]
    shutil.copytree(path, tmp_path / "copy")
    assert values(tmp_path / "copy") == told
    put(tmp_path / "copy", 9)
    assert [each[2] for each in values(tmp_path / "copy")] == [0, 1, 2, 9] and values(path) == told


def test_a_writer_that_dies_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """At every call that changes the disk, one after the other."""
    calls = ("link", "mkdir", "replace", "fsync", "unlink")
    died = 0
    for number in range(200):
        path = tmp_path / str(number) / "model"
        for value in range(2):
            put(path, value)
        with pytest.MonkeyPatch.context() as patch:
            left = [number]

            def counted(name: str, real: Any = None, left: list[int] = left) -> Any:
                def call(*given: Any, **named: Any) -> Any:
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    left[0] -= 1
                    return real(*given, **named)

                return call

            for name in calls:
                patch.setattr(os, name, counted(name, getattr(os, name)))
            try:
                put(path, 2)
            except KeyboardInterrupt:
                died += 1
            else:
                assert values(path)[-1][2] == 2
                break
        found = artefact.read(path, "model").meta["value"]
        assert found in (1, 2)
        put(path, 3)
        assert [each[2] for each in values(path)] == ([0, 1, 3] if found == 1 else [0, 1, 2, 3])
        shutil.rmtree(path.parent)
    assert died > 10


def test_a_version_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    put(path, 1)
    with pytest.raises(ArtefactError, match="has no earlier version"):
        versions.at(path, "model", 1)
    put(path, 2)
    put(path, 3)
    assert versions.at(path, "model", 2).meta["value"] == 2
    with pytest.raises(ArtefactError, match="no earlier version 7: there are 1, 2, and 3 is the current"):
        versions.at(path, "model", 7)


def test_what_was_written_before_there_were_versions_is_the_first(tmp_path: Path) -> None:
    path = tmp_path / "model"
    artefact.write(path, kind="model", meta={"value": 5})
    (only,) = versions.of(path, "model")
    assert (only.number, only.parent, only.by, only.current) == (1, 0, "", True)
    artefact.write(path, kind="model", meta={"value": 6}, by="learn", keep=2)
    assert [(each.number, each.parent) for each in versions.of(path, "model")] == [(1, 0), (2, 1)]
