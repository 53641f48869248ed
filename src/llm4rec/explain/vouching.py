"""Whether a rewording says only what the reason says: a small grammar, whose sentences are true by form.

A sentence is reduced to its shape: letters of items that were chosen become C, one for a whole list, those of
traits T, and signs go. It passes where the shape is in the grammar of what the reason claims, and where what
the shape says of C holds: that it adds most, or has the trait. All else is refused, also where it is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from llm4rec.explain.masking import CHOSEN, NAME, TRAITS, Masked

SENTENCE = re.compile(r".*?[.!?][”\"]?(?=\s|$)", re.DOTALL)
"""One sentence with its end; a stop with no blank after it, as in 3.5, ends none."""
CLAIMS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(said)
    for name, said in {
        "most": "follows from what you chose",
        "together": "choose together",
        "next": "Others who did",
        "trait": "[TUV]",
        "preference": "so (has|have) “",
        "described": "is described much",
        "alike": "is much like",
        "said": "People say of",
        "tagged": "People give",
        "lately": "of late",
        "ever": r"than most things\.",
        "time": "times like this",
        "wish": "close to what you asked for",
        "correction": "more or less of",
    }.items()
}
"""What a reason can claim, and how its plain form says so."""
FULL = {"'ve": " have", "'d": " would", "'ll": " will", "'re": " are", "'s": " is"}
_TOKEN = re.compile(rf"(?:{NAME.pattern})|([^\W\d_]+(?:['’][a-z]+)?)|([,;:–—])|(\s+|[.!?]\Z)|(.)")


def _any(*options: str) -> str:
    return f"(?:{'|'.join(options)})"


ADVERB = _any("mostly", "mainly", "chiefly", "especially", "particularly", "above all", "most of all")
CHOSE = "you(?: have)?(?: already| also)? (?:chose|chosen|picked)(?: both| all of)? C(?: before| earlier)?"
WHICH = "C which you(?: already| also)? (?:chose|picked)(?: before| earlier)?"
CHOICE = "your (?:earlier |past |previous )?(?:choices?|picks?)(?: of)? C"
NAMED = _any(WHICH, CHOICE, "C")
WE = "(?:we|i)(?: also)? (?:picked|chose|suggest(?:ed)?|recommend(?:ed)?|think of|thought of|picked out)"
MAY = "(?:may|might|could|would|will)(?: well| also)?"
GOOD = "a good (?:fit|match|choice|pick)(?: for you)?"
MORE = "(?: too| next| as well| for you| to you)*"
OFFER = _any(
    f"{WE} X{MORE}",
    f"X {MAY} (?:suit you|fit you|appeal to you|interest you){MORE}",
    f"X {MAY} be (?:for you|worth a (?:try|look)|{GOOD}){MORE}",
    f"X is (?:for you|worth a (?:try|look)|recommended|suggested|our (?:pick|suggestion)|{GOOD}){MORE}",
    f"(?:(?:we|i) (?:think|hope) )?you {MAY} (?:like|enjoy|want)(?: to try)? X{MORE}",
    f"(?:would you like|why not try|try|how about|here is) X{MORE}",
)
IT = _any(OFFER, f"it {MAY} (?:suit you|be for you|interest you){MORE}")
"""An offer where the item has been named before."""
WHY = "(?:because|since|as|given that)"
OF = "(?:because of|based on|given)"
BECAUSE = _any(f"(?:{ADVERB} )?{WHY} {CHOSE}", f"(?:{ADVERB} )?{OF} {NAMED}")
"""Causes that hold for whatever items of the history a reason names."""
PEOPLE = "(?:people|others|customers|those)"
CHOOSE = "(?:choose|chose|pick|picked)"
WITH = f"(?:together )?with {_any(WHICH, 'C', 'it', 'them')}"
LIKE = _any(WHICH, CHOICE, "C", "it", "them")
HAVE = "(?:has|have|share|shares)"
ALL = "(?: both| all| also)?"
END = "(?: in common| too| as well)*"
LATELY = "(?:lately|of late|recently|these days|now)"
THINGS = "more than most things"

GRAMMAR: Mapping[str, tuple[str, ...]] = {
    "": (
        f"(?:so )?{OFFER}",
        CHOSE,
        f"{OFFER} {BECAUSE}",
        f"{OFFER} because of what you chose(?: before)? {ADVERB} C",
        f"{BECAUSE} (?:so )?{OFFER}",
        f"{CHOSE} (?:and so|so|and|which is why|and that is why)(?: {ADVERB})? {OFFER}",
        f"it is {ADVERB} {NAMED} that (?:lead|leads|led) us to X",
        f"(?:{ADVERB} )?{NAMED} (?:lead|leads|led) us(?: {ADVERB})? to X",
        f"X (?:follows|comes)(?: {ADVERB})? from {CHOICE}",
    ),
    "most": ("X follows from what you chose from C most of all",),
    "together": (
        f"{PEOPLE} who {CHOOSE}(?: both)? C(?: as you did)?(?: often| also| tend to)* {CHOOSE} X{MORE}",
        f"{CHOSE} and {PEOPLE} (?:often |also )*{CHOOSE} X {WITH}{END}",
        f"{CHOSE} and {PEOPLE} who {CHOOSE} (?:it|them|C)(?: often| also)* {CHOOSE} X{MORE}",
        f"(?:{CHOSE} and )?X is often chosen {WITH}",
        f"{PEOPLE} often choose X {WITH}",
        f"{WHY} {CHOSE} which {PEOPLE} often choose (?:together )?with X {IT}",
        f"(?:{CHOSE} and )?what people choose together speaks for X",
        f"{OFFER} {WHY} {PEOPLE} who {CHOOSE} C(?: as you did)?(?: often| also)* {CHOOSE} (?:it|X){MORE}",
    ),
    "next": (
        f"{PEOPLE} who {CHOOSE} C(?: as you did| like you)?(?: also| then| went on to)* {CHOOSE} X{MORE}",
        f"{PEOPLE} who {CHOOSE} C(?: as you did| like you)? went on to X",
        "others who did went on to X",
        f"{CHOSE} and {PEOPLE} who {CHOOSE} it (?:also |then |went on to )*{CHOOSE} X{MORE}",
        f"{CHOSE} and {PEOPLE} who did (?:also |then |went on to )*{CHOOSE} X{MORE}",
    ),
    "trait": (
        f"(?:X and C|C and X|X C|C|X|both|all|they)(?: of them)?{ALL} {HAVE} T{END}",
        f"X {HAVE} T (?:just )?(?:like|as) {NAMED}(?: do| does)?",
        f"(?:just )?like {NAMED} X {HAVE} T{END}",
        f"X shares T with {LIKE}",
        f"{CHOSE} which{ALL} {HAVE} T and (?:so does X|X {HAVE} (?:it|T){END}|X does{END})",
        f"{CHOSE} and (?:X {HAVE} T{END}|(?:both|all)(?: of them)? {HAVE} T{END})",
        f"X has T and so {HAVE} {NAMED}",
    ),
    "preference": (
        f"you seem to like T(?: C{ALL} have it and X does{END})?",
        f"{OFFER} {WHY} (?:it|X)(?: also)? {HAVE} T{END}",
        f"{OFFER} {WHY} (?:it|X)(?: also)? shares T with {NAMED}",
        f"{CHOSE} which{ALL} {HAVE} T so {OFFER}",
    ),
    "described": (
        "X is described much (?:as|like) C(?: is)?(?: which you chose)?",
        f"X and {NAMED} have similar descriptions",
        f"(?:{CHOSE} and )?X has a similar description(?: to {LIKE})?",
        f"{CHOSE} and X is described much (?:like it|alike)",
    ),
    "alike": (
        f"X is much (?:like|similar to) {NAMED}",
        f"X is (?:very )?similar to {NAMED}",
        f"{CHOSE} and X is (?:much like|very similar to|similar to) it",
        f"X and {NAMED} are much alike",
    ),
    "said": (
        f"people say of X much what they say of {NAMED}",
        f"what people say (?:of|about) X is much (?:like )?what they say (?:of|about) {NAMED}",
        f"people say similar things (?:of|about) X and {NAMED}",
        f"{CHOSE} and people say similar things (?:of|about) X",
    ),
    "tagged": (
        "people give X tags that C has(?: which you chose)?",
        f"X (?:and {NAMED} share|shares) tags(?: with {LIKE})?",
        f"{CHOSE} and X shares tags with it",
    ),
    "lately": (
        f"X (?:is|was|has been) (?:chosen {THINGS}|popular) {LATELY}",
        f"X has {LATELY} been popular",
        f"{OFFER} {WHY} (?:it|X) (?:is|has been) popular {LATELY}",
    ),
    "ever": (
        f"X (?:is|was|has been) (?:chosen {THINGS}|popular)",
        "X is a popular choice",
        f"{OFFER} {WHY} (?:it|X) (?:is|has been) popular",
    ),
    "time": (
        "X is chosen more than usual at times like this",
        "at times like this X is chosen more than usual",
    ),
    "wish": (
        "X (?:is close to|fits|matches) (?:what you asked for|your wish|your request)",
        f"{OFFER} {WHY} (?:it|X) is close to (?:what you asked for|your wish|your request)",
        "you asked for it X is close to your wish",
    ),
    "correction": (
        "X fits what you (?:said you want|asked for) more or less of",
        "you asked for more or less of some things and X fits that",
    ),
}  # fmt: skip
"""Shapes by what the reason has to claim, nothing for those that any reason with such letters allows."""


class Shape(NamedTuple):
    """A sentence without what does not matter to its form.

    Attributes:
        text: its words in small letters, with C, T and X in the place of letters.
        chosen: letters behind C.
        traits: letters behind T.
    """

    text: str
    chosen: tuple[str, ...]
    traits: tuple[str, ...]


def sentences(text: str, ended: bool) -> list[str]:
    """The whole sentences that a text begins with; the last one only where the text has ended.

    Nothing between them is passed over, and each is on one line, with single blanks.
    """
    found = list(SENTENCE.finditer(text))
    if found and not ended and found[-1].end() == len(text):
        found.pop()  # what comes may belong to it
    return [" ".join(each[0].split()) for each in found]


def claims(text: str) -> frozenset[str]:
    """Which of `CLAIMS` a reason makes."""
    return frozenset(name for name, said in CLAIMS.items() if said.search(text))


def objection(sentence: str, masked: Masked) -> str | None:
    """What can't be vouched for in a sentence, in a few words; None where all of it can."""
    tokens = list(_tokens(sentence))
    for kind, value in tokens:
        if kind == "sign":
            return f"the sign {value!r}"
        if kind == "name" and value not in masked.names:
            return f"the name {value}, which the reason has not"
    shape = _shape(tokens)
    made = claims(masked.text)
    unknown = next((word for word in shape.text.split() if word not in _words(made)), None)
    if unknown is not None:
        return f"the word {unknown!r}"
    if not _grammar(made).fullmatch(shape.text):
        return "how it is said"
    if re.search(ADVERB, shape.text):
        first = masked.chosen[: len(shape.chosen)]
        if "most" not in made or not shape.chosen or shape.chosen != first:
            return "that it is owed most to that"
    if re.search(f"{PEOPLE} who {CHOOSE}(?: both)? C", shape.text) and len(shape.chosen) > 1:
        return "that some chose all of them"  # each goes with the item, but maybe nobody has them all
    group = re.search("both|all|they", shape.text) is not None
    lacking = (
        f"that {item} has {trait}"
        for trait in shape.traits
        for item in (masked.chosen if group else shape.chosen)
        if trait not in masked.traits[item]
    )
    return next(lacking, None)


def _tokens(sentence: str) -> Iterator[tuple[str, str]]:
    """`name` with a letter, `word` in small letters, `comma`, and `sign`, which nothing vouches for."""
    for found in _TOKEN.finditer(sentence):
        quoted, _, bare, word, comma, _, sign = found.groups()
        if quoted or bare:
            yield "name", quoted or bare
        elif word:
            yield "word", word.lower().replace("’", "'")
        elif comma:
            yield "comma", ","
        elif sign:
            yield "sign", sign


def _shape(tokens: list[tuple[str, str]]) -> Shape:
    words: list[str] = []
    chosen: list[str] = []
    traits: list[str] = []
    for kind, value in tokens:
        if kind == "word":
            whole = value
            for short, full in FULL.items():
                whole = whole.removesuffix(short) + full if whole.endswith(short) else whole
            words += whole.split()
            continue
        word = "C" if value in CHOSEN else "T" if value in TRAITS else value  # a comma is its own word
        words.append(word)
        (chosen if word == "C" else traits if word == "T" else []).append(value)
    text = re.sub(r"\bC(?: (?:,|and|, and) C)+\b", "C", " ".join(words)).replace(" ,", "")
    return Shape(text, tuple(dict.fromkeys(chosen)), tuple(dict.fromkeys(traits)))


@cache
def _grammar(made: frozenset[str]) -> re.Pattern[str]:
    return re.compile(_any(*(shape for claim in ("", *sorted(made)) for shape in GRAMMAR[claim])))


@cache
def _words(made: frozenset[str]) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z]+", re.sub(r"\(\?:", " ", _grammar(made).pattern)))
