"""Why one item rather than another: what the sentence names is among the evidence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.explain.test_evidence import catalogue

from llm4rec import explaining
from llm4rec.explain.influence import Influence
from llm4rec.explain.writer import Writer
from llm4rec.retrieve.entries import KINDS

N = 8
CATALOG = catalogue([*"ABCDEFGHIJ"], [[]] * 10, [[]] * 10)


def contrasted(
    monkeypatch: pytest.MonkeyPatch, more: list[float], item: int = 8, other: int = 9
) -> tuple[str, Any]:
    """Two items, of which the first owes `more` to items of the history than the second."""
    owed = np.array([more, [0.0] * N], dtype=np.float32)
    nothing = np.zeros(2, dtype=np.float32)
    found = Influence(np.arange(N), owed, 0 * owed, np.zeros((2, N, len(KINDS)), np.float32), *[nothing] * 4)
    monkeypatch.setattr(explaining, "influence", lambda *_: found)
    monkeypatch.setattr(explaining, "parts", lambda *_: None)
    monkeypatch.setattr(explaining, "writer", lambda *_: Writer(CATALOG, lately=True))
    fitted: Any = SimpleNamespace(catalog=CATALOG, aspects=None, person_rows=lambda *_: None)
    history: Any = None
    return explaining.contrast(fitted, history, item, other)


def test_what_tells_most_comes_first_and_the_least_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text, pieces = contrasted(monkeypatch, [0.1, -0.7, 0.6, 0.2, -0.3, 0.4, 0, 0.5])
    assert text == "“C”, which you chose, speaks more for “I” than for “J”."
    assert [(each.id, round(each.contribution, 4)) for each in pieces] == [
        ("b", -0.7), ("c", 0.6), ("h", 0.5), ("f", 0.4), ("e", -0.3), ("d", 0.2),
    ]  # fmt: skip


def test_the_item_that_is_named_is_evidence_however_much_speaks_against(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, pieces = contrasted(monkeypatch, [0.1, -0.7, -0.6, -0.2, -0.3, -0.4, -0.5, 0])
    assert text == "“A”, which you chose, speaks more for “I” than for “J”."
    assert [each.id for each in pieces] == [*"bcgfe", "a"]


def test_where_nothing_speaks_for_it_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    text, pieces = contrasted(monkeypatch, [0, -0.7, 0, 0, 0, 0, 0, 0])
    assert text == "Nothing that you chose speaks more for “I” than for “J”."
    assert [each.id for each in pieces] == ["b"]


def test_neither_of_the_two_speaks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    text, pieces = contrasted(monkeypatch, [0.9, 0.8, 0.1, 0, 0, 0, 0, 0], item=0, other=1)
    assert text == "“C”, which you chose, speaks more for “A” than for “B”."
    assert [each.id for each in pieces] == ["c"]
