"""What was said: found by what was said of an anchor by now, never later, never one's own."""

from __future__ import annotations

from functools import partial

import numpy as np
import polars as pl
import pytest

from llm4rec.data.remarks import Remarks, build_remarks
from llm4rec.retrieve.entries import DAY, KINDS, REVIEW, TAG, Asked, Entries
from llm4rec.retrieve.index import VectorIndex
from llm4rec.retrieve.sayings import Sayings
from llm4rec.types import Floats


def remarks(*said: tuple[str, int, str, int, float]) -> Remarks:
    users, items, texts, days, ratings = zip(*said, strict=True)
    frame = pl.DataFrame({
        "user_id": users, "text": texts, "timestamp": np.array(days) * DAY, "rating": ratings
    })  # fmt: skip
    return build_remarks(frame, np.array(items))


TAGS = remarks(
    ("ann", 0, "Dark comedy", 1, np.nan),
    ("bob", 1, "dark  COMEDY!", 2, np.nan),
    ("cyd", 1, "dark comedy", 3, np.nan),
    ("bob", 2, "comedy", 4, np.nan),
    ("dan", 3, "dark comedy", 9, np.nan),
)


def asked(
    said: Remarks, item: int, day: int | None, owner: str = "", kind: int = TAG, vectors: Floats | None = None
) -> Entries:
    now = None if day is None else day * DAY
    query = Asked(np.array([item]), np.array([1.0], dtype=np.float32), owner=owner, now=now)
    return Sayings(kind, said, vectors, neighbours=9).entries(query)


def test_a_tag_is_one_term_and_what_many_say_of_an_item_counts_once() -> None:
    found = asked(TAGS, 0, 10)
    assert found.items.tolist() == [1, 1, 3] and found.sources.tolist() == [1, 2, 4]
    assert found.weights.tolist() == [0.5, 0.5, 1]
    assert found.ages.tolist() == [8, 7, 1] and (found.kinds == KINDS.index("tag")).all()
    np.testing.assert_allclose(found.overlap, 1, rtol=1e-6)  # as much as in the anchor's own
    assert not found.semantic.any()


@pytest.mark.parametrize(("day", "items"), [(0, []), (1, []), (2, [1]), (8, [1, 1]), (9, [1, 1, 3])])
def test_nothing_said_later_than_now_is_found(day: int, items: list[int]) -> None:
    assert asked(TAGS, 0, day).items.tolist() == items


def test_a_leak_that_is_planted_is_not_found() -> None:
    """The answer is tagged as the anchor is, after the question; and the anchor itself, after another."""
    leak = remarks(*[("spy", 3, "dark comedy", day, 5.0) for day in (20, 21)], ("eve", 2, "rare", 2, 5.0),
                   ("spy", 0, "rare", 22, 5.0), ("ann", 0, "dark comedy", 1, 5.0))  # fmt: skip
    assert not len(asked(leak, 0, 10))
    assert set(asked(leak, 0, 30).items.tolist()) == {2, 3}


def test_nothing_of_ones_own_is_told_to_oneself() -> None:
    assert asked(TAGS, 0, 10, "bob").items.tolist() == [1, 3]
    assert asked(TAGS, 0, 10, "bob").sources.tolist() == [2, 4]


def test_reviews_are_compared_by_meaning_and_words_and_carry_their_rating() -> None:
    said = remarks(("ann", 0, "red ink", 1, 1.0), ("bob", 1, "red", 2, 5.0), ("cyd", 2, "cat", 3, 3.0))
    vectors = np.array([[1, 0], [0, 2], [3, 3]], dtype=np.float32)
    found = asked(said, 0, None, kind=REVIEW, vectors=vectors)
    assert found.items.tolist() == [1, 2] and np.isnan(found.ages).all()
    np.testing.assert_allclose(found.semantic, [0, np.sqrt(0.5)], rtol=1e-5)
    assert found.overlap[0] > 0 and found.overlap[1] == 0
    np.testing.assert_allclose(found.quality, [1, 0.5])


def test_an_item_nothing_is_said_of_finds_nothing() -> None:
    assert not len(asked(TAGS, 3, 5)) and not len(asked(TAGS, 2, 10))


def test_a_tag_that_more_items_carry_than_are_looked_for_says_nothing() -> None:
    said = remarks(*[(f"u{i}", i, "common", i + 1, 1.0) for i in range(4)], ("z", 0, "rare", 6, 1.0),
                   ("y", 3, "rare", 7, 1.0))  # fmt: skip
    few = Sayings(TAG, said, None, neighbours=2).entries(
        Asked(np.array([0]), np.ones(1, dtype=np.float32), now=10 * DAY)
    )
    assert few.items.tolist() == [3] and said.texts[int(few.sources[0])] == "rare"


def test_of_many_remarks_on_an_item_an_index_finds_what_comparing_all_does() -> None:
    """Also where those nearest first are all about fewer items than are looked for."""
    draw = np.random.default_rng(0)
    n_items, each, wanted = 120, 30, 20
    centres = draw.normal(size=(n_items, 16))
    about = np.repeat(np.arange(n_items), each)
    vectors = (centres[about] + 0.4 * draw.normal(size=(len(about), 16))).astype(np.float32)
    order = draw.permutation(len(about))
    said = remarks(*[(f"u{r}", int(about[o]), "word", r + 1, 5.0) for r, o in enumerate(order)])
    query = Asked(np.array([0, 7]), np.ones(2, dtype=np.float32))
    whole, searched = (
        Sayings(REVIEW, said, vectors[order], wanted, partial(VectorIndex.of, exact=exact)).entries(query)
        for exact in (10_000, 10)
    )
    few = [np.unique(found.items[found.anchors == 0]) for found in (whole, searched)]
    assert len(few[0]) == wanted and few[0].tolist() == few[1].tolist()
    assert whole.sources.tolist() == searched.sources.tolist()
    np.testing.assert_allclose(whole.semantic, searched.semantic, rtol=1e-4, atol=1e-6)


def test_tags_without_letters_are_different_tags() -> None:
    said = remarks(("ann", 0, ":)", 1, 1.0), ("bob", 1, "???", 2, 1.0), ("cyd", 2, " :) ", 3, 1.0))
    assert asked(said, 0, 10).items.tolist() == [2]
