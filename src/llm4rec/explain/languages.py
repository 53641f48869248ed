"""Languages that reasons are given in: English, and one for each catalogue of messages beside this module."""

from __future__ import annotations

from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from io import BytesIO

from llm4rec.errors import InputError
from llm4rec.explain.writer import ENGLISH


def known() -> tuple[str, ...]:
    """Names of the languages, such as `de`."""
    there = (files("llm4rec.explain") / "locale").iterdir()
    return ("en", *sorted(file.name.removesuffix(".po") for file in there if file.name.endswith(".po")))


@cache
def language(name: str) -> NullTranslations:
    """The forms of a language.

    Raises:
        InputError: where it is none of those that are known.
    """
    if name == "en":
        return ENGLISH
    if name not in known():
        raise InputError(f"Reasons can't be given in {name!r}. The languages are {', '.join(known())}.")
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = BytesIO()
    with (files("llm4rec.explain") / "locale" / f"{name}.po").open("rb") as source:
        write_mo(compiled, read_po(source, locale=name, abort_invalid=True))
    compiled.seek(0)
    return GNUTranslations(compiled)
