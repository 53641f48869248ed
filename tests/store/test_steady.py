"""Who reads while others write gets a whole state, or an error; never a mix, and never an endless wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm4rec.errors import ArtefactError
from llm4rec.store import artefact, parts
from llm4rec.store.steady import ATTEMPTS, steady


def put(path: Path, value: int) -> None:
    arrays = {name: {"value": np.array([value])} for name in ("first", "second")}
    artefact.write(path, kind="model", meta={"value": value}, tensors=arrays)


def taken(path: Path) -> list[int]:
    """The same number, three times."""
    kept = artefact.read(path, "model")
    found = [int(kept.tensors(name)["value"][0]) for name in ("first", "second")]
    return [kept.meta["value"], *found]


def replacing(path: Path, times: int, patch: pytest.MonkeyPatch) -> list[int]:
    """Have the artefact replaced whenever its second set of arrays is asked for; the numbers written."""
    whole, written = parts.load, list[int]()

    def load(directory: Path, manifest: Any, file: str, parse: Any) -> Any:
        if file == "second.safetensors" and len(written) < times:
            written.append(len(written) + 1)
            put(path, written[-1])
        return whole(directory, manifest, file, parse)

    patch.setattr(parts, "load", load)
    return written


@pytest.mark.parametrize("times", [1, 2, ATTEMPTS - 1])
def test_what_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    put(tmp_path / "m", 0)
    written = replacing(tmp_path / "m", times, monkeypatch)
    assert steady(tmp_path / "m", lambda: taken(tmp_path / "m")) == [times] * 3
    assert len(written) == times


def test_what_is_replaced_without_end_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "m", 0)
    written = replacing(tmp_path / "m", 1_000, monkeypatch)
    with pytest.raises(ArtefactError, match="was replaced while it was being read; load it again"):
        steady(tmp_path / "m", lambda: taken(tmp_path / "m"))
    assert len(written) == ATTEMPTS


def test_who_looks_between_the_two_renames_finds_one(tmp_path: Path) -> None:
    """The older one waits beside its place, and is gone when its files are asked for."""
    place, aside = tmp_path / "m", tmp_path / ".m.previous"
    put(place, 1)
    put(tmp_path / "newer", 2)
    place.rename(aside)
    attempts = list[int]()

    def read() -> list[int]:
        attempts.append(1)
        kept = artefact.read(place, "model")
        if len(attempts) == 1:
            assert kept.path == aside
            (tmp_path / "newer").rename(place)
            for file in aside.iterdir():
                file.unlink()
        return [int(kept.tensors("first")["value"][0])]

    assert steady(place, read) == [2] and len(attempts) == 2


def test_what_is_damaged_or_missing_is_said_at_once(tmp_path: Path) -> None:
    put(tmp_path / "m", 0)
    file = tmp_path / "m" / "second.safetensors"
    file.write_bytes(bytes(len(file.read_bytes())))
    attempts = list[int]()

    def read(path: Path) -> list[int]:
        attempts.append(1)
        return taken(path)

    with pytest.raises(ArtefactError, match=r"second\.safetensors .* was altered"):
        steady(tmp_path / "m", lambda: read(tmp_path / "m"))
    with pytest.raises(ArtefactError, match="There is no model at"):
        steady(tmp_path / "none", lambda: read(tmp_path / "none"))
    assert len(attempts) == 2


WRITER = """
import sys
from pathlib import Path
from tests.store.test_steady import put, taken
place = Path(sys.argv[1])
for number in range(1, 31):
    assert taken(place) == [number - 1] * 3  # as a command does: read, change, write
    put(place, number)
"""


def test_a_process_writes_while_another_reads(tmp_path: Path) -> None:
    put(tmp_path / "m", 0)
    seen, command = [0], [sys.executable, "-c", WRITER, str(tmp_path / "m")]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as writer:
        while writer.poll() is None:
            first, *others = steady(tmp_path / "m", lambda: taken(tmp_path / "m"))
            assert others == [first, first] and first >= seen[-1]
            seen.append(first)
    assert writer.returncode == 0
    assert taken(tmp_path / "m") == [30] * 3 and len(set(seen)) > 1
