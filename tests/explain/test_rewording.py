"""Reasons in a language model's words: what it is shown, what is taken of its answer, and what is kept."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import pytest
from tests.explain.test_evidence import catalogue
from tests.explain.test_injection import HOSTILE

from llm4rec.errors import InputError, LanguageModelError
from llm4rec.explain.language_model import Message
from llm4rec.explain.masking import Masked, letters, mask
from llm4rec.explain.rewording import EXAMPLES, Rewriter, conversation
from llm4rec.explain.verify import Names, _taken_apart
from llm4rec.explain.writer import ENGLISH, NOTHING, forms, shown
from llm4rec.types import Evidence, Explanation

CATALOG = catalogue(["Ash", "Bee", "Cod"], [["Drama"], ["Drama"], ["Drama", "War"]], [[], [], []])
FORM = "“Ash” follows from what you chose, from “Bee” and “Cod” most of all."
COMMON = " They have “Drama” in common."
PLAIN = FORM + COMMON
REASON = Explanation(
    PLAIN,
    "similarity",
    (
        Evidence("history_item", "b", "Bee", 0.5),
        Evidence("history_item", "c", "Cod", 0.3),
        Evidence("aspect", "genre=Drama", "Drama", 0.2),
    ),
    {"preference": 0.2, "similarity": 0.8, "context": 0.0},
)
IN_LETTERS = "“X” follows from what you chose, from “P” and “Q” most of all."


class Scripted:
    """Answers as it is told, in pieces of three letters, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), list[str]()

    def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
        self.asked.append(conversation[-1]["content"])
        answer = self.answers.pop(0)
        for start in range(0, len(answer), 3):
            yield answer[start : start + 3]


def rewriter(*answers: str) -> Rewriter:
    return Rewriter(Scripted(*answers), Names.of(CATALOG))


def test_names_are_letters_and_come_back() -> None:
    found = mask(REASON, "Ash", Names.of(CATALOG))
    bare = {"P": frozenset[str](), "Q": frozenset[str]()}
    assert found == Masked(IN_LETTERS, {"X": "Ash", "P": "Bee", "Q": "Cod"}, bare, COMMON)
    assert found.unmask(IN_LETTERS) == FORM
    assert found.unmask('P, "Q," and “X.”') == "“Bee”, “Cod”, and “Ash”."
    assert found.unmask("Quite an eXample") == "Quite an eXample"


def test_traits_are_letters_too() -> None:
    shared = replace(REASON, text="“Ash” has “Drama”, and so have “Bee” and “Cod”, which you chose.")
    found = mask(shared, "Ash", Names.of(CATALOG))
    assert found is not None and found.text == "“X” has “T”, and so have “P” and “Q”, which you chose."
    assert found.names == {"X": "Ash", "T": "Drama", "P": "Bee", "Q": "Cod"}
    assert found.traits == {"P": frozenset("T"), "Q": frozenset("T")} and found.ending == ""
    war = replace(REASON.evidence[2], id="genre=War", label="War")
    other = replace(shared, text=shared.text.replace("Drama", "War"), evidence=(*REASON.evidence[:2], war))
    found = mask(other, "Ash", Names.of(CATALOG))
    assert found is not None and found.traits == {"P": frozenset(), "Q": frozenset("T")}


def test_a_reason_that_names_what_is_no_evidence_has_no_letters() -> None:
    assert mask(REASON, "Another", Names.of(CATALOG)) is None


def test_another_title_than_the_items_is_refused() -> None:
    for title in ("a", "", "Elm"):
        with pytest.raises(InputError, match="no item called"):
            rewriter("").reword(REASON, title)


def test_one_name_of_two_things_has_no_letters() -> None:
    twice = (*REASON.evidence, Evidence("history_item", "d", "Bee", 0.1))
    assert mask(replace(REASON, evidence=twice), "Ash", Names.of(CATALOG)) is None
    as_trait = (*REASON.evidence, Evidence("aspect", "genre=Bee", "Bee", 0.1))
    assert mask(replace(REASON, evidence=as_trait), "Ash", Names.of(CATALOG)) is None


def test_what_can_be_vouched_for_takes_the_place_of_the_form() -> None:
    told = rewriter("We picked X mostly because you chose P. You chose “Q”.").reword(REASON, "Ash")
    assert told.text == f"We picked “Ash” mostly because you chose “Bee”. You chose “Cod”.{COMMON}"
    assert (told.kind, told.evidence, told.weights) == (REASON.kind, REASON.evidence, REASON.weights)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "You chose “X”.",
        "Sure! Here is the sentence:",
        "“X” is for you.",  # no reason in it
        "You chose “P” and “Q”.",  # nor here is it said for what
        "We picked “X” mostly because you chose “P”",  # cut off
        "“Ash” follows from “Bee”.",
        "Mostly because you chose “Q”, we think of “X”. You chose “P”.",
    ],
)
def test_what_can_not_be_vouched_for_leaves_the_form(answer: str) -> None:
    assert rewriter(answer).reword(REASON, "Ash") == REASON


def test_sentences_are_taken_up_to_the_first_that_is_refused_or_said_again() -> None:
    good = "Mostly because you chose “P”, we think of “X”."
    for more in (" You chose “X”.", f" {good}", " You chose “Q”. You chose “Q”. You chose “P”."):
        told = rewriter(good + more).reword(REASON, "Ash").text
        assert told.startswith("Mostly because you chose “Bee”, we think of “Ash”.")
        assert told.count("“Ash”") == 1
        assert told.count("You chose “Cod”.") == more.count("“Q”", 0, 14)


def test_words_come_as_soon_as_they_give_the_reason() -> None:
    """Nothing is given before the item and some evidence are named, and nothing is taken back."""
    first, second = "You chose “P”.", "We picked “X” for you."
    given = list(rewriter(f"{first} {second} You chose “Q”. And more").stream(REASON, "Ash"))
    assert given == ["You chose “Bee”.", " We picked “Ash” for you.", " You chose “Cod”.", COMMON]


def test_one_reason_in_letters_is_asked_once() -> None:
    model = Scripted("We picked “X” mostly because you chose “P”.", "No.")
    writes = Rewriter(model, Names.of(CATALOG))
    first = writes.reword(REASON, "Ash")
    assert writes.reword(REASON, "Ash") == first
    assert model.asked == [IN_LETTERS]
    other = Explanation("“Ash” was chosen more than most things.", "context", (), REASON.weights)
    assert writes.reword(other, "Ash") == other  # and what is refused is not asked again either
    assert writes.reword(other, "Ash") == other
    assert model.asked == [IN_LETTERS, "“X” was chosen more than most things."]


def test_what_else_speaks_for_the_item_stays_as_it_is() -> None:
    ending = " Your choice of “Dab” speaks for this recommendation a little, too."
    model = Scripted("We picked “X” mostly because you chose “P”.")
    writes = Rewriter(model, Names.of(CATALOG))
    more = replace(REASON, text=PLAIN + ending)
    ending = COMMON + ending
    assert [*writes.stream(more, "Ash")] == ["We picked “Ash” mostly because you chose “Bee”.", ending]
    assert model.asked == [IN_LETTERS]


@pytest.mark.parametrize("answer", ["X matches what you chose.", "We picked X for you."])
def test_that_nothing_speaks_for_an_item_is_not_reworded(answer: str) -> None:
    nothing = Explanation(NOTHING.format(item="Ash"), "context", (), REASON.weights)
    model = Scripted(answer)
    assert Rewriter(model, Names.of(CATALOG)).reword(nothing, "Ash") == nothing
    assert model.asked == []


def test_an_answer_without_an_end_is_left_off() -> None:
    class Endless(Scripted):
        def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
            while True:
                yield "you chose and "

    assert Rewriter(Endless(), Names.of(CATALOG)).reword(REASON, "Ash") == REASON


def test_a_model_that_fails_is_not_passed_over() -> None:
    class Failing(Scripted):
        def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
            yield "We picked"
            raise LanguageModelError("It is down.")

    with pytest.raises(LanguageModelError, match="down"):
        Rewriter(Failing(), Names.of(CATALOG)).reword(REASON, "Ash")


@pytest.mark.parametrize("title", HOSTILE.values(), ids=HOSTILE)
def test_no_title_reaches_the_model_and_none_escapes_its_marks(title: str) -> None:
    """Whatever it says, the model sees letters, and the text is one that was there before the title."""
    evidence = (Evidence("history_item", "b", title, 0.5), *REASON.evidence[1:])
    text = PLAIN.replace("Bee", shown(title))
    model = Scripted("We picked “X” mostly because you chose “P”.")
    told = Rewriter(model, Names.of(CATALOG)).reword(Explanation(text, "similarity", evidence, {}), "Ash")
    if shown(title) == "Ash":  # there is no telling it from what is recommended
        assert told.text == text
        return
    assert told.text == f"We picked “Ash” mostly because you chose “{shown(title)}”.{COMMON}"
    assert model.asked == [IN_LETTERS]


def test_the_model_is_shown_examples_of_the_same_claim() -> None:
    asked = conversation(Masked(IN_LETTERS, {}, {}))
    assert [each["role"] for each in asked] == ["system", *["user", "assistant"] * 3, "user"]
    assert asked[-1]["content"] == IN_LETTERS
    shown_last = asked[-3]["content"]
    assert (shown_last, asked[-2]["content"]) in EXAMPLES
    assert "follows from" in shown_last


def test_examples_are_of_the_forms() -> None:
    """Each plain side is a form with letters in it, and every form is among them."""
    of = [[claim for claim, _ in _taken_apart(plain, ENGLISH)] for plain, _ in EXAMPLES]
    assert all(of)
    told = {claim for found in of for claim in found}
    assert told == {claim for claim, _ in forms()} - {"nothing"}
    assert all(letters(plain) for plain, _ in EXAMPLES)
