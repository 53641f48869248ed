from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm4rec.bench import spent
from llm4rec.bench.spent import Spent
from llm4rec.store import artefact


class Clock:
    """A clock that is set by hand [s]."""

    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def peak(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found = [100.0]
    monkeypatch.setattr(spent.facts, "peak_mib", lambda: found[0])
    return found


def leave_checkpoint(folder: Path) -> None:
    artefact.write(folder / "floor", kind="checkpoint", meta={})


def test_seconds_and_peak_outlive_a_kill(tmp_path: Path, peak: list[float]) -> None:
    clock = Clock()
    first = Spent(tmp_path / "c", clock)
    clock.now += 30
    peak[0] = 300.0
    first.note()
    leave_checkpoint(tmp_path / "c")
    clock.now += 1000  # it lies dead
    peak[0] = 200.0
    second = Spent(tmp_path / "c", clock)
    clock.now += 7
    second.note()
    assert second.seconds == pytest.approx(37)
    assert second.peak_mib == 300.0
    third = Spent(tmp_path / "c", clock)
    clock.now += 1
    assert third.seconds == pytest.approx(38)


def test_what_left_no_checkpoint_is_done_again_and_not_counted_twice(
    tmp_path: Path, peak: list[float]
) -> None:
    clock = Clock()
    first = Spent(tmp_path / "c", clock)
    clock.now += 30
    first.note()
    assert (tmp_path / "c" / "spent.json").exists()
    assert Spent(tmp_path / "c", clock).seconds == 0


def test_it_is_noted_every_few_seconds_only(tmp_path: Path, peak: list[float]) -> None:
    clock = Clock()
    kept = Spent(tmp_path / "c", clock)
    found = []
    for _ in range(10):
        clock.now += 0.4 * spent.EVERY
        kept.note()
        file = tmp_path / "c" / "spent.json"
        found.append(json.loads(file.read_text())["seconds"] / spent.EVERY if file.exists() else 0)
    assert found == pytest.approx([0, 0, 1.2, 1.2, 1.2, 2.4, 2.4, 2.4, 3.6, 3.6])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": "x", "peak_mib": 1}'])
def test_a_damaged_note_counts_as_none(tmp_path: Path, peak: list[float], text: str) -> None:
    leave_checkpoint(tmp_path / "c")
    (tmp_path / "c" / "spent.json").write_text(text)
    assert Spent(tmp_path / "c", Clock()).seconds == 0
