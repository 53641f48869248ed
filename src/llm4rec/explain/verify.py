"""Whether a text about a recommendation says only what its evidence says.

A text in one of the plain forms is taken apart by that form, and each name must be what its place says it is.
Any other text, such as a language model's, may name what is evidence and nothing else: names between “ and ”,
names of the catalogue without them, and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from gettext import NullTranslations
from typing import Any

from llm4rec.data.catalog import Catalog
from llm4rec.explain.writer import COMMON, ENGLISH, forms, shown
from llm4rec.types import Evidence

MOST_WORDS = 8
"""Words of a name that is looked for where it is not between marks."""
QUOTED = re.compile("“([^“”]*)”")
WORD = re.compile(r"[^\W_]+(?:['’&.\-][^\W_]+)*")
SLOTS = {
    "first": ("history_item",),
    "second": ("history_item",),
    "trait": ("aspect",),
}
"""What evidence has to be to stand in a place of a form."""


@dataclass(frozen=True)
class Names:
    """What things of a catalogue are called, in small letters, their words with single blanks between.

    Attributes:
        titles: of items.
        values: of categorical fields.
    """

    titles: frozenset[str]
    values: frozenset[str]

    @classmethod
    def of(cls, catalog: Catalog) -> Names:
        """The names of a catalogue."""
        values: set[str] = set()
        for field in catalog.by_modality("categorical"):
            lists = catalog.table[field.name]
            values.update(lists.explode(keep_nulls=False, empty_as_null=False).unique().to_list())
        titles = catalog.titles.unique().to_list()
        return cls(frozenset(map(_plain, titles)) - {""}, frozenset(map(_plain, values)) - {""})


def unfounded(
    text: str, title: str, evidence: Sequence[Evidence], names: Names, language: NullTranslations = ENGLISH
) -> tuple[str, ...]:
    """What a text says that its evidence does not, in the text's own words; nothing where it holds.

    Args:
        text: about a recommended item.
        title: of that item.
        evidence: that was given.
        names: of the catalogue.
        language: of the text, for its forms.
    """
    filled = _taken_apart(text, language)
    if filled is None:
        return tuple(_free(text, title, evidence, names))
    allowed = {
        slot: {shown(each.label) for each in evidence if each.type in types} for slot, types in SLOTS.items()
    }
    allowed["item"] = {shown(title)}
    return tuple(name for slot, name in filled if name not in allowed[slot])


def _taken_apart(text: str, language: NullTranslations) -> list[tuple[str, str]] | None:
    """The slots of a text and what stands in them; None where it is not in a plain form."""
    common = re.compile(" " + _pattern(language.gettext(COMMON)) + "$")
    tail = common.search(text)
    if tail is not None:
        text = text[: tail.start()]
    for form in forms(language):
        found = re.fullmatch(_pattern(form), text)
        if found is not None:
            return [*found.groupdict().items(), *([] if tail is None else tail.groupdict().items())]
    return None


def _pattern(form: str) -> str:
    return re.sub(r"\\\{(\w+)\\\}", lambda slot: f"(?P<{slot[1]}>[^“”]*)", re.escape(form))


def _free(text: str, title: str, evidence: Sequence[Evidence], names: Names) -> Iterator[str]:
    allowed = {shown(each.label) for each in evidence} | {shown(title)}
    if text.count("“") != text.count("”"):
        yield text
    for name in QUOTED.findall(text):
        if name not in allowed:
            yield name
    rest = QUOTED.sub(" \n ", text)
    for name in sorted(allowed, key=len, reverse=True):
        rest = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " \n ", rest, flags=re.IGNORECASE)
    yield from re.findall(r"\w*\d\w*", rest)
    for piece in re.split(r"[\n.!?:;]", rest):
        yield from _named(piece, names)


def _named(piece: str, names: Names) -> Iterator[str]:
    """Names of the catalogue in a piece of a sentence.

    A value counts in any letters; a title of one word where a capital begins it that no sentence asks for.
    """
    words = WORD.findall(piece)
    for start in range(len(words)):
        for end in range(start + 1, min(start + MOST_WORDS, len(words)) + 1):
            name = " ".join(words[start:end])
            plain = name.casefold()
            if plain in names.values or (
                plain in names.titles and (end - start > 1 or (start > 0 and name[0].isupper()))
            ):
                yield name


def _plain(name: Any) -> str:
    return " ".join(WORD.findall(shown(str(name)))).casefold()
