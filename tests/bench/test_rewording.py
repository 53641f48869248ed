"""The measurement of a language model's words: what is counted as taken, and when it came."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from types import ModuleType

import pytest
from tests.bench.test_faithfulness import model
from tests.explain.test_rewording import CATALOG, COMMON, IN_LETTERS, PLAIN, REASON

from llm4rec.explain.language_model import Message
from llm4rec.explain.verify import Names
from llm4rec.recommender import Recommender

__all__ = ["model"]


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("rewording")


class Model:
    name = "model"

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
        yield from self.answer.partition(" ")


@pytest.mark.parametrize(
    ("answer", "refused", "text"),
    [
        ("Above “P”, which you chose, leads us to “X”.", "", None),
        ("“X” is a classic.", "the word 'classic'", PLAIN),
        ("“X” is for you.", "no whole reason", PLAIN),
        (IN_LETTERS, "nothing, it is the form again", PLAIN),
        ("You chose “P”. You chose “X”.", "how it is said", PLAIN),
    ],
)
def test_what_is_taken_is_told_from_what_is_refused(
    script: ModuleType, answer: str, refused: str, text: str | None
) -> None:
    answer = answer.replace("Above", "Above all")
    found = script.asked(REASON, "Ash", Names.of(CATALOG), Model(answer))
    assert (found.answer, found.letters, found.plain) == (answer, IN_LETTERS, PLAIN)
    assert (found.taken, found.refused) == (not refused, refused)
    assert found.text == (text or f"Above all “Bee”, which you chose, leads us to “Ash”.{COMMON}")
    assert 0 < found.first <= found.last


def test_shares_count_reasons_and_reasons_in_letters(script: ModuleType) -> None:
    rows = [("a", True, ""), ("a", True, ""), ("b", False, "the word 'x'"), ("c", True, "")]
    found = script.summed([
        script.Asked("", letters, "", "", taken, refused, 1.0, 2.0) for letters, taken, refused in rows
    ])
    assert found["taken"]["mean"] == 0.75 and found["in letters"] == {
        "different": 3,
        "taken": pytest.approx(2 / 3),
    }
    assert found["refused"] == {"the word 'x'": 1}
    assert found["seconds"]["first word"]["p50"] == 1 and found["seconds"]["end"]["p95"] == 2


def test_the_interval_of_a_share_is_wilsons(script: ModuleType) -> None:
    """8 of 10: (.8 + 1.96²/20 ± 1.96 √(.016 + 1.96²/400)) / (1 + 1.96²/10), by hand (.490, .943)."""
    assert script.wilson(8, 10) == (pytest.approx(0.4902, abs=2e-4), pytest.approx(0.9433, abs=2e-4))


def test_one_recommendation_of_each_of_some_people_is_drawn(script: ModuleType, model: Recommender) -> None:
    found = script.drawn(model, 5, 4, 0)
    assert len(found) == 5 and [text for text, _ in found] == [
        text for text, _ in script.drawn(model, 5, 4, 0)
    ]
    assert all(title in explanation.text for explanation, title in found)
