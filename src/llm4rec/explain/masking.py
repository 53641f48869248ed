"""A reason with letters in the place of names, which is all that a language model sees of it.

No title reaches the model: none can tell it what to do, none leaves the machine with what an endpoint is
asked, and what the model knows of a title can't get into its words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from llm4rec.explain.verify import QUOTED, Names, parted
from llm4rec.explain.writer import shown
from llm4rec.types import Explanation

ITEM, CHOSEN, TRAITS = "X", "PQRS", "TUV"
"""Letters for the recommended item, for items of the history and for traits: none is an English word."""
_LETTER = f"[{ITEM}{CHOSEN}{TRAITS}]"
NAME = re.compile(rf"[“\"]\s*({_LETTER})\s*([,.!?]?)[”\"]|(?<![\w'’])({_LETTER})(?![\w’'-])")
"""A letter as a name: between marks, with a sign before the last one as some write it, or by itself."""


@dataclass(frozen=True)
class Masked:
    """A reason in letters, without what follows it: a shared trait, and what else speaks for the item.

    Attributes:
        text: the reason, its names replaced.
        ending: that after a blank, with its names; nothing where there is none.
        names: what each letter stands for, as texts show it, in the order of the text.
        traits: which of the traits each item of the history has.
    """

    text: str
    names: Mapping[str, str]
    traits: Mapping[str, frozenset[str]]
    ending: str = ""

    @property
    def chosen(self) -> tuple[str, ...]:
        """Letters of the items of the history, in the order of the text."""
        return tuple(letter for letter in self.names if letter in CHOSEN)

    def unmask(self, text: str) -> str:
        """The text with names in the place of letters, between “ and ”."""
        return NAME.sub(lambda found: f"“{self.names[found[1] or found[3]]}”{found[2] or ''}", text)


def letters(text: str) -> list[str]:
    """The letters that a text names, in its order."""
    return [found[1] or found[3] for found in NAME.finditer(text)]


def mask(explanation: Explanation, title: str, names: Names) -> Masked | None:
    """A reason in letters; None where a name of it is no evidence, or is shown for two things.

    Args:
        explanation: in a plain form.
        title: of the recommended item.
        names: of the catalogue.
    """
    evidence = {each.id: each for each in explanation.evidence if each.type in {"history_item", "aspect"}}
    called = Counter(shown(each.label) for each in evidence.values())
    of = {shown(each.label): each for each in evidence.values()}
    free = {"history_item": iter(CHOSEN), "aspect": iter(TRAITS)}
    reason, ending = parted(explanation.text)
    named = {shown(title): ITEM}
    for name in QUOTED.findall(reason):
        if called[name] + (name == shown(title)) != 1:
            return None
        if name not in named:
            letter = next(free[of[name].type], None)
            if letter is None:
                return None
            named[name] = letter
    traits = {
        letter: frozenset(
            other for trait, other in named.items() if other in TRAITS and names.has(of[name].id, of[trait])
        )
        for name, letter in named.items()
        if letter in CHOSEN
    }
    text = QUOTED.sub(lambda found: f"“{named[found[1]]}”", reason)
    return Masked(text, {letter: name for name, letter in named.items()}, traits, ending)
