"""Reasons in other languages: every form has its translation, with the same places for names."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from llm4rec.errors import InputError
from llm4rec.explain import writer
from llm4rec.explain.languages import known, language
from llm4rec.explain.writer import endings, forms

MESSAGES = [
    *writer.FOUND.values(), writer.COMMON, *writer.CHOSEN, writer.LATELY, writer.EVER, writer.AT_THIS_TIME,
    writer.ASKED_FOR, writer.NOTHING, writer.RATHER, writer.NEITHER,
    writer.ONE_OF_EACH,
]  # fmt: skip
PLURALS = [writer.NETWORK, writer.LINEAR, writer.PREFERENCE, writer.ALSO, writer.A_LITTLE]
OTHERS = [name for name in known() if name != "en"]


def places(form: str) -> list[str]:
    return sorted(name for _, name, _, _ in Formatter().parse(form) if name is not None)


def test_english_needs_no_catalogue_and_german_has_one() -> None:
    assert known()[0] == "en" and "de" in known()
    assert language("en").gettext(writer.NOTHING) == writer.NOTHING


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_translated_with_the_same_names(name: str, message: str) -> None:
    said = language(name).gettext(message)
    assert places(said) == places(message)
    assert said != message or not re.sub(r"\{\w+\}|[“”]", "", message).strip()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("form", PLURALS)
def test_every_plural_is_translated_with_the_same_names(name: str, form: tuple[str, str]) -> None:
    for n in (1, 2, 3):
        said = language(name).ngettext(*form, n)
        assert said not in form and places(said) == places(form[0])


@pytest.mark.parametrize("name", OTHERS)
def test_no_two_claims_have_one_form(name: str) -> None:
    told = forms(language(name))
    assert len({form for _, form in told}) == len(told)
    assert len({*endings(language(name))}) == len(endings(language(name)))


def test_a_language_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match=r"can't be given in '\.\./de'\. The languages are en, de"):
        language("../de")
