"""Whether a text about a recommendation says only what its evidence says.

A text in one of the plain forms is taken apart by that form: each name must be what its place says it is,
and what the form claims must be evidence. Any other text, such as a language model's, may name what is
evidence and nothing else: names between “ and ” or straight quotes, names of the catalogue without them, and
numbers. What such a text says of those names is not understood, nor is a name that the catalogue has not.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from gettext import NullTranslations
from typing import Any

import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.explain.evidence import CIRCUMSTANCES, PART, WAYS, little
from llm4rec.explain.writer import COMMON, ENGLISH, SLOTS, endings, forms, shown
from llm4rec.retrieve.entries import KINDS
from llm4rec.types import Evidence

QUOTED = re.compile("“([^“”]*)”")
STRAIGHT = re.compile('"([^"\n]*)"')
WORD = re.compile(r"[^\W_]+")
END = re.compile(r"[.!?:;…]")
OPENERS = frozenset(
    "a also an and as at because both but by for fans from given he here his her how i if in is it its like "
    "many my of on one or our people perhaps she since so some that the their them then there these they "
    "this those to we what when where which while who why with yet you your".split()
)
"""Words that begin an English sentence without being a title, beside those of the forms."""


@dataclass(frozen=True)
class Names:
    """What things of a catalogue are called: their words in small letters, with single blanks between.

    Attributes:
        catalog: that has them.
        titles: of items.
        values: of categorical fields.
    """

    catalog: Catalog
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
        return cls(catalog, frozenset(map(_plain, titles)) - {""}, frozenset(map(_plain, values)) - {""})

    @cached_property
    def words(self) -> int:
        """Words of the longest name."""
        return max((name.count(" ") + 1 for name in self.titles | self.values), default=0)

    def has(self, item_id: str, aspect: Evidence) -> bool:
        """Whether an item has a trait; taken to be so for a trait of no categorical field."""
        field = aspect.id.removesuffix(f"={aspect.label}")
        if field not in [each.name for each in self.catalog.by_modality("categorical")]:
            return True
        number = self.catalog.numbers(pl.Series([item_id], dtype=pl.String))[0]
        return bool((self.catalog.having(field, [aspect.label]) == number).any())


def unfounded(
    text: str, title: str, evidence: Sequence[Evidence], names: Names, language: NullTranslations = ENGLISH
) -> tuple[str, ...]:
    """What a text says that its evidence does not, in the text's own words; nothing where it holds.

    Of a text in a plain form this is a name, or all of it where what the form claims does not hold.

    Args:
        text: about a recommended item.
        title: of that item.
        evidence: that was given.
        names: of the catalogue.
        language: of the text, for its forms.
    """
    told = [_wrong(*read, title, evidence, names) for read in _taken_apart(text, language)]
    if not told:
        return tuple(_free(text, title, evidence, names, language))
    least = min(told, key=len)  # a translation may have one form for two claims
    return tuple(name or text for name in least)


def _taken_apart(text: str, language: NullTranslations) -> Iterator[tuple[str, dict[str, str]]]:
    """What a text claims and what stands in its slots, by each plain form that it is in."""
    for told, further in _without_last(text, endings(language)):
        for reason, common in _without_last(told, (language.gettext(COMMON),)):
            for claim, form in forms(language):
                found = re.fullmatch(_pattern(form), reason)
                if found is not None and (not common or claim in WAYS):
                    yield claim, found.groupdict() | common | further


def _without_last(text: str, sentences: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """A text as it is, and without a last sentence of each form, with what stands in the slots of that."""
    yield text, {}
    for sentence in sentences:
        found = re.search(" " + _pattern(sentence) + r"\Z", text)
        if found is not None:
            yield text[: found.start()], found.groupdict()


def parted(text: str, language: NullTranslations = ENGLISH) -> tuple[str, str]:
    """A text in a plain form without what follows its reason, and that: a shared trait, further items."""
    *_, (reason, _) = _without_last(text, endings(language))
    *_, (reason, _) = _without_last(reason, (language.gettext(COMMON),))
    return reason, text[len(reason) :]


@cache
def _pattern(form: str) -> str:
    return re.sub(r"\\\{(\w+)\\\}", lambda slot: f"(?P<{slot[1]}>[^“”]*)", re.escape(form))


def _wrong(
    claim: str, filled: dict[str, str], title: str, evidence: Sequence[Evidence], names: Names
) -> list[str]:
    """Names that are not what their places say, an empty one for the claim as a whole."""
    chosen = [each for each in evidence if each.type == "history_item"]
    aspects = [
        each for each in evidence if each.type == "aspect" and shown(each.label) == filled.get("trait")
    ]
    wrong = [] if filled["item"] == shown(title) else [filled["item"]]
    if "trait" in filled and not aspects:
        wrong.append(filled["trait"])
    amounts = sorted((each.contribution for each in chosen), reverse=True)
    for place, slot in enumerate(SLOTS):
        named = [each for each in chosen if shown(each.label) == filled.get(slot)]
        if claim == "network" or (claim in WAYS and place == 0):  # it is said to add most, or next to most
            named = [each for each in named if each.contribution in amounts[place : place + 1]]
        if claim in KINDS:
            found_by = {each.id for each in evidence if each.type == "retrieved"}
            named = [each for each in named if f"{claim}:{each.id}" in found_by]
        if aspects:
            named = [each for each in named if any(names.has(each.id, aspect) for aspect in aspects)]
        if slot in filled and not named:
            wrong.append(filled[slot])
    circumstances = [each for each in evidence if each.type == "context"]
    most = max((each.contribution for each in circumstances), default=0.0)
    wrong += _not_further(filled, chosen, max([*amounts[:1], most if claim in CIRCUMSTANCES else 0.0]))
    said = {each.id for each in circumstances if each.contribution == most}
    if (claim in CIRCUMSTANCES and claim not in said) or (claim == "nothing" and chosen):
        wrong.append("")
    return wrong


def _not_further(filled: dict[str, str], chosen: Sequence[Evidence], strongest: float) -> Iterator[str]:
    """Names in a last sentence that add less or more than it says, or that are named before."""
    left = Counter(shown(each.label) for each in chosen)
    left.subtract(filled[slot] for slot in SLOTS if slot in filled)
    for slot, name in filled.items():
        if not slot.startswith(("also", "little")):
            continue
        least, most = little(strongest), PART * strongest
        if slot.startswith("also"):
            least, most = max(least, most), strongest
        left[name] -= 1
        fits = (shown(each.label) == name and least < each.contribution <= most for each in chosen)
        if left[name] < 0 or not any(fits):
            yield name


def _free(
    text: str, title: str, evidence: Sequence[Evidence], names: Names, language: NullTranslations
) -> Iterator[str]:
    allowed = {shown(each.label) for each in evidence} | {shown(title)}
    if text.count("“") != text.count("”"):
        yield text
    for name in QUOTED.findall(text):
        if name not in allowed:
            yield name
    plain = frozenset(map(_plain, allowed)) - {""}
    rest = QUOTED.sub(" \n ", text)
    for name in map(str.strip, STRAIGHT.findall(rest)):
        if name and name not in allowed and _plain(name) not in plain:
            yield name
    said = (language.gettext(COMMON), *endings(language), *(form for _, form in forms(language)))
    glue = OPENERS | {word for form in said for word in _plain(form).split()}
    for piece in rest.split("\n"):
        yield from _named(unicodedata.normalize("NFKC", piece), plain, names, glue)


def _named(piece: str, allowed: frozenset[str], names: Names, glue: frozenset[str]) -> Iterator[str]:
    """Names of the catalogue and numbers in a piece of a text that are not allowed, the longest that fit.

    A value counts in any letters, also as an English plural; a title of one word, and a value that is a word
    of `glue`, where a capital begins it that no sentence asks for; so does a title that begins a sentence and
    is no such word.
    """
    found = list(WORD.finditer(piece))
    words = [each[0].casefold() for each in found]
    longest = max([names.words, *(name.count(" ") + 1 for name in allowed)])
    start = 0
    while start < len(words):
        gap = piece[found[start - 1].end() : found[start].start()] if start else "."
        opens = END.search(gap) is not None
        for length in range(min(longest, len(words) - start), 0, -1):
            name = " ".join(words[start : start + length])
            if name in allowed:
                break
            stands_out = not found[start][0][0].islower() and not (opens and name in glue)
            titled = name in names.titles and (length > 1 or stands_out)
            valued = not names.values.isdisjoint(_singulars(name)) and (name not in glue or stands_out)
            if valued and not allowed.isdisjoint(_singulars(name)):
                break
            if titled or valued:
                yield piece[found[start].start() : found[start + length - 1].end()]
                break
        else:
            length = 1
            if any(map(str.isnumeric, words[start])):
                yield found[start][0]
        start += length


def _singulars(name: str) -> set[str]:
    """A name, and what it may be the English plural of."""
    return {name, name.removesuffix("s"), name.removesuffix("ies") + "y" if name.endswith("ies") else name}


def _plain(name: Any) -> str:
    return " ".join(WORD.findall(unicodedata.normalize("NFKC", shown(str(name))))).casefold()
