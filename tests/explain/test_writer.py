"""Reasons in words: each form once, names that are missing or long, other languages."""

from __future__ import annotations

import io
import string
import struct
from gettext import GNUTranslations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.explain.test_evidence import CATALOG, ELM, catalogue, influence, told

from llm4rec.explain import writer
from llm4rec.explain.evidence import CIRCUMSTANCES, WAYS, case, evidence
from llm4rec.explain.influence import Influence
from llm4rec.explain.verify import Names, unfounded
from llm4rec.explain.writer import LONGEST, Writer, forms, shown
from llm4rec.retrieve.entries import KINDS

ALONE = "Nothing that you chose speaks for “Elm” in particular."
BY_KIND = {
    "item_text": "“Elm” is described much as “Bay” is, which you chose.",
    "similar_item": "“Elm” is much like “Bay”, which you chose.",
    "review": "People say of “Elm” much what they say of “Bay”, which you chose.",
    "tag": "People give “Elm” tags that “Bay” has, which you chose.",
    "memory": "You chose “Bay”. Others who did went on to “Elm”.",
}
SLOTS = {"item", "first", "second", "third", "trait"}


def test_one_item_by_the_network() -> None:
    _, explanation = told(influence([0, 0.5, 0, 0]))
    assert explanation.text == "“Elm” follows from what you chose, from “Bay” most of all."


def test_one_item_by_the_linear_part_and_what_it_has_in_common() -> None:
    _, explanation = told(influence([0.3, 0, 0, 0], linear=[0, 0.5, 0, 0]))
    # .5 and .3 above two means of .2 is .4; beside Bay, Ash has .3 above .1
    assert explanation.text == (
        "You chose “Bay”. What people choose together speaks for “Elm”. They have “drama” in common. "
        "Your choice of “Ash” speaks for this recommendation too."
    )


def test_several_items_that_add_a_fair_part_of_the_first() -> None:
    _, two = told(influence([0.3, 0.5, 0, 0]))
    assert two.text == (
        "“Elm” follows from what you chose, from “Bay” and “Ash” most of all. They have “drama” in common."
    )
    _, three = told(influence([0, 0, 0.1, 0], linear=[0.3, 0.5, 0.1, -1]))
    # Cob adds .1 by each way, together two fifths of what Bay adds; Dew speaks against it
    assert three.text == "You chose “Bay”, “Ash” and “Cob”. What people choose together speaks for “Elm”."
    # Cob adds the most after Bay, though by the linear part: what follows from all says so
    _, other = told(influence([0, 0.5, 0, 0], linear=[0, 0, 0.4, 0]))
    assert other.text == "“Elm” follows from what you chose, from “Bay” and “Cob” most of all."


CHOICE = "“Elm” follows from what you chose, from “Bay” most of all. They have “drama” in common. "


@pytest.mark.parametrize(
    ("found", "text"),
    [
        # .11 is less than a quarter of .5, .02 more than a hundredth of a nat, .01 is not
        (
            influence([0.11, 0.5, 0.02, 0]),
            CHOICE + "Your choice of “Ash” and “Cob” speaks for this recommendation a little, too.",
        ),
        (
            influence([0.11, 0.5, 0.0099, 0]),
            CHOICE + "Your choice of “Ash” speaks for this recommendation a little, too.",
        ),
        # .02 is less than a hundredth of 3
        (
            influence([0.1, 3, 0.02, 0.04]),
            CHOICE + "Your choice of “Ash” and “Dew” speaks for this recommendation a little, too.",
        ),
    ],
)
def test_what_adds_less_than_a_fair_part_adds_a_little(found: Influence, text: str) -> None:
    assert told(found)[1].text == text


def test_what_adds_a_fair_part_in_another_way_speaks_for_it_too() -> None:
    by_memory = {(1, "memory"): 0.5}
    first = "You chose “Bay”. Others who did went on to “Elm”. "
    _, one = told(influence([0, 0, 0.2, 0], found=by_memory))
    assert one.text == first + "Your choice of “Cob” speaks for this recommendation too."
    _, two = told(influence([0, 0, 0.2, 0.3], found=by_memory))
    assert two.text == first + "Your choice of “Dew” and “Cob” speaks for this recommendation too."
    _, each = told(influence([0, 0, 0.2, 0.1], found=by_memory))
    assert (
        each.text
        == first + "Your choice of “Cob” speaks for this recommendation too, that of “Dew” a little."
    )
    # comedy is shared by Cob alone, drama by Bay and Ash; what is in common stands before
    _, common = told(influence([0.3, 0, 0.2, 0], linear=[0, 0.5, 0, 0]))
    assert common.text == (
        "You chose “Bay”. What people choose together speaks for “Elm”. They have “drama” in common. "
        "Your choice of “Ash” and “Cob” speaks for this recommendation too."
    )


def test_a_circumstance_is_what_a_fair_part_is_of_where_it_is_the_reason() -> None:
    popular = "“Elm” was chosen more than most things of late. "
    _, little = told(influence([0, 0.2, 0, 0], trend=1))
    assert little.text == popular + "Your choice of “Bay” speaks for this recommendation a little, too."
    _, fair = told(influence([0, 0.3, 0, 0], trend=1))
    assert fair.text == popular + "Your choice of “Bay” speaks for this recommendation too."
    _, none = told(influence([0, 0.01, 0, 0], trend=1))
    assert none.text == popular.strip()


def test_a_text_names_three_items_at_most() -> None:
    _, three = told(influence([0.4, 0.5, 0.3, 0.2]))
    assert three.text == "“Elm” follows from what you chose, from “Bay”, “Ash” and “Cob” most of all."
    _, two = told(influence([0.4, 0.5, 0.12, 0.12]))
    assert two.text == (
        "“Elm” follows from what you chose, from “Bay” and “Ash” most of all. They have “drama” in common. "
        "Your choice of “Cob” speaks for this recommendation a little, too."
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_item_by_what_it_found(kind: str) -> None:
    _, explanation = told(influence([0, 0, 0, 0], found={(1, kind): 0.5}))
    assert explanation.text == BY_KIND[kind]


def test_a_trait_is_shown_by_one_item_or_by_two() -> None:
    _, two = told(influence([0.4, 0.45, -0.5, 0.4]))
    slow = "“Elm” has “slow”, and so have “Ash” and “Dew”, which you chose. "
    assert (
        two.text == slow + "Your choice of “Bay” speaks for this recommendation too."
    )  # without the trait, and adds more
    # slow is shared by Ash and Dew, of which Dew speaks against Elm: .5 - .1 above two means of -.2
    speaks, one = told(influence([0.5, 0.55, -1.0, -0.1]))
    assert speaks.traits[0].items.tolist() == [0, 3]
    assert one.text == (
        "“Elm” has “slow”, and so has “Ash”, which you chose. "
        "Your choice of “Bay” speaks for this recommendation too."
    )


def test_circumstances() -> None:
    nobody = [-1.0, -1, -1, -1]
    found = influence(nobody, trend=0.5)
    speaks = case(found, 0, ELM, CATALOG)
    assert (
        Writer(CATALOG, lately=True).write(found, speaks)[1]
        == "“Elm” was chosen more than most things of late."
    )
    assert Writer(CATALOG, lately=False).write(found, speaks)[1] == "“Elm” was chosen more than most things."
    assert told(influence(nobody, time=1))[1].text == "“Elm” is chosen more than usual at times like this."
    assert told(influence(nobody, wish=1, time=0.5))[1].text == "“Elm” is close to what you asked for."
    assert told(influence(nobody))[1].text == ALONE
    assert told(influence(nobody, wish=-1))[1].text == ALONE


def test_one_item_rather_than_another() -> None:
    wrote = Writer(CATALOG, lately=True).contrast
    assert wrote(4, 5, 1) == "“Bay”, which you chose, speaks more for “Elm” than for “Fog”."
    assert wrote(4, 5, None) == "Nothing that you chose speaks more for “Elm” than for “Fog”."


@pytest.mark.parametrize("title", ["", "  ", "\u00a0\t"])
def test_an_id_stands_for_a_title_that_is_missing(title: str) -> None:
    catalog = catalogue([title, "Bay"], [[]] * 2, [[]] * 2, ids=["id-7", "b"])
    _, explanation = told(influence([0.5]), 1, catalog)
    assert explanation.text == "“Bay” follows from what you chose, from “id-7” most of all."
    assert explanation.evidence[0].label == "id-7"


def test_a_long_name_is_cut_at_a_word() -> None:
    eighty = "seven77 " * 9 + "eight888"
    assert shown(eighty) == eighty
    assert shown(eighty + " nine") == "seven77 " * 8 + "seven77…"
    assert shown("x" * 81) == "x" * 79 + "…"
    assert shown("ab " + "x" * 100) == "ab " + "x" * 76 + "…"  # a cut that early would leave too little


@given(st.text(max_size=300))
def test_what_is_shown_is_short_on_one_line_and_has_no_marks(name: str) -> None:
    told = shown(name)
    assert 1 <= len(told) <= LONGEST and not {*told} & {*"“”\n\r\t\x00\x1b\x9b\u2028\u202e\u200b"}
    assert told == " ".join(told.split()) and shown(told) == told


def test_marks_within_a_name_are_others() -> None:
    catalog = catalogue(["The “Bay” of ‘A’", "Elm"], [[]] * 2, [[]] * 2)
    _, explanation = told(influence([0.5]), 1, catalog)
    assert explanation.text == "“Elm” follows from what you chose, from “The 'Bay' of ‘A’” most of all."


def test_braces_in_a_name_are_letters() -> None:
    catalog = catalogue(["{item} {0} {", "%s {first!r:>9}"], [[]] * 2, [[]] * 2)
    _, explanation = told(influence([0.5]), 1, catalog)
    assert explanation.text == (
        "“%s {first!r:>9}” follows from what you chose, from “{item} {0} {” most of all."
    )


def placeholders(form: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(form) if name is not None]


def test_every_placeholder_of_a_form_is_known_and_stands_between_marks() -> None:
    for claim, form in forms():
        names = placeholders(form)
        assert "item" in names and {*names} <= SLOTS and len(names) == len({*names})
        assert all(f"“{{{name}}}”" in form for name in names)
        assert form.count("“") == form.count("”") == len(names)
        assert claim in {*WAYS, *CIRCUMSTANCES, "preference", "nothing"}
        assert ("first" in names) is (claim in WAYS or claim == "preference")
    assert {*WAYS, *CIRCUMSTANCES, "preference", "nothing"} == {claim for claim, _ in forms()}
    assert placeholders(writer.COMMON) == ["trait"]


def translations(plurals: str, messages: dict[str, str | list[str]]) -> GNUTranslations:
    """A catalogue of messages as the binary format of gettext has it: a header, two tables, the texts."""
    header = f"Content-Type: text/plain; charset=UTF-8\nPlural-Forms: {plurals}\n"
    pairs = {"": header} | {
        key: said if isinstance(said, str) else "\0".join(said) for key, said in messages.items()
    }
    texts = [(key.encode(), pairs[key].encode()) for key in sorted(pairs)]
    place, body = 28 + 16 * len(texts), b""
    tables: tuple[list[int], list[int]] = ([], [])
    for pair in texts:
        for table, part in zip(tables, pair, strict=True):
            table.extend((len(part), place + len(body)))
            body += part + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(texts), 28, 28 + 8 * len(texts), 0, 0)
    return GNUTranslations(
        io.BytesIO(head + struct.pack(f"<{4 * len(texts)}I", *tables[0], *tables[1]) + body)
    )


# as Czech has it: one, two to four, more
THREE = "nplurals=3; plural=(n==1) ? 0 : (n>=2 && n<=4) ? 1 : 2;"
PLURAL = "\0".join(writer.PREFERENCE)
CZECH_PLURALS = [
    "Film “{item}” má “{trait}”, má to i {chosen} (1).",
    "Film “{item}” má “{trait}”, mají to i {chosen} (2–4).",
    "Film “{item}” má “{trait}”, má to i {chosen} (5).",
]
CZECH: dict[str, str | list[str]] = {
    PLURAL: CZECH_PLURALS,
    writer.CHOSEN[0]: "jen “{first}”",
    writer.CHOSEN[1]: "“{first}” a “{second}”",
    "\0".join(writer.NETWORK): ["Kvůli {chosen}: “{item}”."] * 3,
    "\0".join(writer.ALSO): ["K tomu {chosen}."] * 3,
    writer.COMMON: "Obojí je “{trait}”.",
    writer.NOTHING: "“{item}” jen tak.",
    writer.LATELY: "“{item}” teď mnozí.",
}


@pytest.mark.parametrize(
    ("plurals", "said", "expected"),
    [
        (THREE, CZECH_PLURALS, ("“Elm” má “slow”, má to i jen “Ash” (1).", "mají to i “Ash” a “Dew” (2–4).")),
        (
            "nplurals=1; plural=0;",
            ["“{trait}”: {chosen} → “{item}”"],
            ("“slow”: jen “Ash” → “Elm”", "“slow”: “Ash” a “Dew” → “Elm”"),
        ),
    ],
    ids=["three plural forms", "one for all numbers"],
)
def test_other_languages_have_other_plurals(plurals: str, said: list[str], expected: tuple[str, str]) -> None:
    language, names = translations(plurals, CZECH | {PLURAL: said}), Names.of(CATALOG)
    for owed, ending in zip(([0.5, 0.55, -1.0, -0.1], [0.4, 0.45, -0.5, 0.4]), expected, strict=True):
        found = influence(owed)
        speaks = case(found, 0, ELM, CATALOG)
        kind, text = Writer(CATALOG, lately=True, language=language).write(found, speaks)
        assert kind == "preference" and text.endswith(f"{ending} K tomu jen “Bay”.")
        facts = evidence(found, speaks, CATALOG)
        assert unfounded(text, "Elm", facts, names, language) == ()
        assert {*unfounded(text.replace("Ash", "Bay"), "Elm", facts, names, language)} == {"Bay"}
        assert unfounded(text.replace("slow", "war"), "Elm", facts, names, language)[0] == "war"


def test_another_language_is_taken_apart_by_its_own_forms() -> None:
    language, names = translations(THREE, CZECH), Names.of(CATALOG)
    found = influence([0.1, 0.9, 0, 0], linear=[0.3, 0, 0, 0])
    speaks = case(found, 0, ELM, CATALOG)
    _, text = Writer(CATALOG, lately=True, language=language).write(found, speaks)
    facts = evidence(found, speaks, CATALOG)
    assert text == "Kvůli “Bay” a “Ash”: “Elm”. Obojí je “drama”."
    assert unfounded(text, "Elm", facts, names, language) == ()
    assert unfounded(text.replace("drama", "slow"), "Elm", facts, names, language) != ()
    assert unfounded("“Elm” jen tak.", "Elm", facts, names, language) == ("“Elm” jen tak.",)
    assert unfounded("“Elm” teď mnozí.", "Elm", facts, names, language) == ("“Elm” teď mnozí.",)
    untranslated = "You chose “Bay”. Others who did went on to “Elm”."  # falls back to English in gettext
    assert unfounded(untranslated, "Elm", facts, names, language) == ("Bay",)
