"""Reasons that are kept: given again for the same, made anew for anything else, the oldest gone first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm4rec.data.events import EventLog
from llm4rec.explain.kept import Kept, digest
from llm4rec.types import Explanation, Ints

TOLD = EventLog(
    pl.Series(["u"]),
    np.array([0, 2]),
    np.array([3, 5]),
    times=np.array([10, 20]),
    ratings=np.array([1, np.nan], dtype=np.float32),
    kinds=np.array([0, 1]),
    kind_names=("view", "buy"),
    asked_at=np.array([30]),
)


@dataclass
class Maker:
    """Explains, and counts what for."""

    asked: list[list[int]] = field(default_factory=list[list[int]])

    def __call__(self, items: Ints) -> list[Explanation]:
        self.asked.append(items.tolist())
        return [
            Explanation(f"{item} by {len(self.asked)}", "context", (), {"context": 1.0})
            for item in items.tolist()
        ]


def texts(kept: Kept, asked: bytes, items: list[int], made: Maker) -> list[str]:
    return [each.text for each in kept.of(asked, np.array(items, dtype=np.int64), made)]


def test_only_what_is_lacking_is_made() -> None:
    kept, made = Kept(10), Maker()
    assert texts(kept, b"a", [1, 2, 1], made) == ["1 by 1", "2 by 1", "1 by 1"]
    assert texts(kept, b"a", [2, 3, 1], made) == ["2 by 1", "3 by 2", "1 by 1"]
    assert texts(kept, b"b", [1], made) == ["1 by 3"]
    assert texts(kept, b"a", [], made) == []
    assert [sorted(items) for items in made.asked] == [[1, 2], [3], [1]] and len(kept) == 4


def test_the_least_recently_used_go_first() -> None:
    kept, made = Kept(2), Maker()
    for items in ([1], [2], [1], [3], [1]):
        texts(kept, b"a", items, made)
    assert made.asked == [[1], [2], [3]]
    assert texts(kept, b"a", [2], made) == ["2 by 4"] and len(kept) == 2
    assert texts(kept, b"a", [7, 8, 9], made) == ["7 by 5", "8 by 5", "9 by 5"] and len(kept) == 2


def test_none_are_kept_where_none_are_wanted() -> None:
    kept, made = Kept(0), Maker()
    assert texts(kept, b"a", [1, 1], made) == ["1 by 1", "1 by 1"]
    assert texts(kept, b"a", [1], made) == ["1 by 2"] and len(kept) == 0


def test_what_somebody_does_to_weights_stays_with_them() -> None:
    kept, made = Kept(5), Maker()
    for _ in range(2):
        (got,) = kept.of(b"a", np.array([1]), made)
        assert got.weights == {"context": 1.0}
        got.weights["context"] = 0.0  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    "other",
    [
        replace(TOLD, items=np.array([5, 3])),
        replace(TOLD, times=np.array([10, 21])),
        replace(TOLD, times=None),
        replace(TOLD, ratings=np.array([1, 2], dtype=np.float32)),
        replace(TOLD, ratings=None),
        replace(TOLD, kinds=np.array([1, 0])),
        replace(TOLD, kind_names=("buy", "view")),
        replace(TOLD, asked_at=np.array([31])),
        replace(TOLD, asked_at=None),
        replace(TOLD, user_ids=pl.Series(["v"])),
        replace(TOLD, times=TOLD.items, items=np.array([10, 20])),
    ],
)
def test_another_history_has_another_digest(other: EventLog) -> None:
    assert digest(TOLD, None, "en") == digest(replace(TOLD), None, "en") != digest(other, None, "en")


def test_a_wish_that_is_no_unicode_has_a_digest() -> None:
    """As a shell gives bytes that are no UTF-8."""
    assert digest(TOLD, "\udcff", "en") != digest(TOLD, "\udcfe", "en")


WORDS = st.one_of(st.none(), st.text("-0:1ua", max_size=3))
HISTORIES = st.lists(st.integers(0, 3), max_size=3)


@given(HISTORIES, HISTORIES, *[st.tuples(st.text("ua1:", max_size=2), WORDS, WORDS)] * 2)
def test_no_two_share_one(
    one: list[int],
    two: list[int],
    a: tuple[str, str | None, str | None],
    b: tuple[str, str | None, str | None],
) -> None:
    assume((one, a) != (two, b))
    found = [
        digest(EventLog(pl.Series([name]), np.array([0, len(items)]), np.array(items, dtype=np.int64)), *said)
        for items, (name, *said) in ((one, a), (two, b))
    ]
    assert found[0] != found[1] and {len(each) for each in found} == {16}
