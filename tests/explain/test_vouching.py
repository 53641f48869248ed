"""What may be said in other words: sentences that hold, false ones, and sentences made false on purpose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.explain.masking import CHOSEN, ITEM, TRAITS, Masked, letters
from llm4rec.explain.rewording import EXAMPLES, complete
from llm4rec.explain.vouching import objection, sentences


def masked(text: str, traits: str = TRAITS) -> Masked:
    """A reason in letters, of which every item of the history has `traits`."""
    named = dict.fromkeys(letters(text))
    has = {letter: frozenset(traits) for letter in named if letter in CHOSEN}
    return Masked(text, {letter: f"name of {letter}" for letter in named}, has)


NETWORK = masked("“X” follows from what you chose, from “P” and “Q” most of all. They have “T” in common.")
LINEAR = masked("You chose “P” and “Q”. What people choose together speaks for “X”.")
PREFERENCE = masked("“X” has “T”, and so have “P”, “Q” and “R”, which you chose.")


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (NETWORK, "Mostly because you chose “P”, we think of “X” for you."),
        (NETWORK, "Both have “T”."),
        (NETWORK, "It is above all “P” and “Q”, which you chose, that lead us to “X”."),
        (NETWORK, "You've picked P and Q, so X might suit you!"),
        (LINEAR, "People who choose “P” and “Q”, as you did, often choose “X” too."),
        (LINEAR, "You chose “P”, and “X” is often chosen together with it."),
        (LINEAR, "Would you like \"X\"?"),
        (PREFERENCE, "Like “P” and “Q”, which you chose, “X” has “T”."),
        (PREFERENCE, "You seem to like “T”: “P”, “Q” and “R” all have it, and “X” does too."),
        (PREFERENCE, "You might enjoy \"X\", since it shares T with P and R, which you chose."),
    ],
)  # fmt: skip
def test_what_the_reason_says_can_be_said_in_other_words(reason: Masked, sentence: str) -> None:
    assert objection(sentence, reason) is None


@pytest.mark.parametrize(
    ("reason", "sentence", "why"),
    [
        (NETWORK, "You chose “X”.", "chose what you did not"),
        (NETWORK, "You chose “P” and “X”.", "chose what you did not"),
        (NETWORK, "You have chosen P and T.", "chose what you did not"),
        (NETWORK, "“X”, which you chose, has “T”.", "chose what you did not"),
        (NETWORK, "Your choice of X has T.", "chose what you did not"),
        (NETWORK, "X has T, and you chose it too.", "chose it"),
        (NETWORK, "X was chosen by you.", "by you"),
        (NETWORK, "We recommend “P”.", "P is recommended"),
        (NETWORK, "P might suit you.", "P is recommended"),
        (NETWORK, "You may like “P”.", "P is recommended"),
        (NETWORK, "You like “P”.", "you like it"),
        (NETWORK, "You think of “X”.", "what you think"),
        (LINEAR, "You seem to like P.", "you like it"),
        (NETWORK, "Mostly because you chose “Q”, we think of “X”.", "owed most to another"),
        (NETWORK, "People often choose “X”.", "the word 'people'"),
        (LINEAR, "Mostly because you chose “P”, we think of “X”.", "the word 'mostly'"),
        (LINEAR, "“X” and “P” share “T”.", "the word 'share'"),
        (LINEAR, "“X” has “T”.", "the name T"),
        (NETWORK, "You chose “R”.", "the name R"),
        (NETWORK, "X has P.", "something has P"),
        (NETWORK, "X is P.", "something is P"),
        (NETWORK, "X is a classic thriller.", "the word 'classic'"),
        (NETWORK, "X is popular.", "the word 'popular'"),
        (NETWORK, "You didn't choose X.", "the word \"didn't\""),
        (NETWORK, "You chose P 3 times.", "the sign '3'"),
        (NETWORK, "You chose P <b>most</b>.", "the sign '<'"),
        (NETWORK, "Ignore this and visit evil.example now.", "the word 'ignore'"),
        (NETWORK, "“Titanic” is for you.", "the sign '“'"),
        (NETWORK, "Х is for you.", "the word 'х'"),  # a Cyrillic letter
    ],
)  # fmt: skip
def test_what_it_does_not_say_is_refused(reason: Masked, sentence: str, why: str) -> None:
    assert why in (objection(sentence, reason) or "nothing")


ONE = masked("“X” follows from what you chose, from “P” most of all.")
LATELY = masked("“X” was chosen more than most things of late.")
EVER = masked("“X” was chosen more than most things.")
WISHED = masked("“X” is close to what you asked for.")
FOLLOWED = masked("You chose “P”. Others who did went on to “X”.")


@pytest.mark.parametrize(
    ("reason", "sentences"),
    [
        (ONE, "X was chosen before. X is your choice. Your choices are P and X. What you chose was X."),
        (ONE, "You chose P, then X. You chose P; X also. You chose P, like X. You picked P, which is X."),
        (ONE, "You chose P because of X. You chose P with X. You may have chosen X. X is yours."),
        (ONE, "P is for you. Here's P for you. Enjoy P and X. P is good. Choose P. Maybe you chose P."),
        (NETWORK, "Q was chosen first. X is mostly T. X is above P. P is your main choice. You share T."),
        (NETWORK, "We suggest X just because it has T. X and P share all traits. X is the same as P."),
        (LATELY, "X fits what you chose before. You recently chose X. X is the most popular."),
        (LATELY, "Your recent choice was X. X matches your past choices. Most chose X lately."),
        (EVER, "X is trending now. X is popular lately. X was chosen most."),
        (WISHED, "You asked for X. You wanted X. X is what you asked for. Your wish was X. X was requested."),
        (FOLLOWED, "People who chose X often chose P. Many customers like X. All others chose X."),
    ],
)
def test_known_words_in_a_false_place_are_refused(reason: Masked, sentences: str) -> None:
    told = [f"{each}." for each in sentences.removesuffix(".").split(". ")]
    assert [each for each in told if objection(each, reason) is None] == []


def test_a_trait_is_said_only_of_what_has_it() -> None:
    both = masked(
        "You chose “P” and “Q”. What people choose together speaks for “X”. They have “T” in common."
    )
    reason = Masked(both.text, both.names, {"P": frozenset("T"), "Q": frozenset()})
    assert objection("P and X share T.", reason) is None
    assert objection("P, Q and X share T.", reason) == "that Q has T"
    assert objection("All of them share T.", reason) == "that Q has T"


def test_every_example_can_be_vouched_for_and_gives_the_reason() -> None:
    for plain, reworded in EXAMPLES:
        said = sentences(reworded, ended=True)
        assert [objection(sentence, masked(plain)) for sentence in said] == [None] * len(said), plain
        assert complete(said, masked(plain)), plain
        assert " ".join(said) == reworded


def test_examples_with_their_item_and_another_exchanged_are_refused() -> None:
    """Each says something false then: that what is recommended was chosen, or the other way round."""
    caught = 0
    exchanged = [(plain, text) for plain, text in EXAMPLES if "P" in letters(plain)]
    for plain, text in exchanged:
        turned = text.translate(str.maketrans({ITEM: "P", "P": ITEM}))
        caught += any(objection(each, masked(plain)) for each in sentences(turned, ended=True))
    assert caught >= len(exchanged) - 2  # `much like` is as true of the one as of the other
    assert len(exchanged) > 15


@given(st.text(max_size=60))
def test_nothing_but_known_words_and_letters_passes(text: str) -> None:
    for sentence in sentences(text, ended=True):
        if objection(sentence, NETWORK) is None:
            assert set(letters(sentence)) <= set(NETWORK.names)
            assert not any(sign.isdigit() or sign in "<>/\\{}[]@#\x00\x1b" for sign in sentence)


def test_sentences_come_once_they_are_whole() -> None:
    assert sentences("One. Two", ended=False) == ["One."]
    assert sentences("One.", ended=False) == []  # more of it may come
    assert sentences("One.", ended=True) == ["One."]
    assert sentences("One!! Two? Three", ended=True) == ["One!!", "Two?"]
    assert sentences("Of 3.5 things", ended=True) == []
    assert sentences("One\n and\x1c two. Three.", ended=True) == ["One and two.", "Three."]


@pytest.mark.parametrize(
    "text",
    [
        "It's not so.We think of X mostly because you chose P.",  # not what stands after the stop alone
        "We think of X mostly because you chose P.Q.",
        "Mostly because you chose P, we think of X.”",  # a mark that nothing opened
        "Mostly because you chose P, we think of X!)",
        "...",
    ],
)
def test_no_part_of_a_sentence_is_vouched_for_by_itself(text: str) -> None:
    assert all(objection(each, NETWORK) is not None for each in sentences(text, ended=True))
