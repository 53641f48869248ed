"""Whether a rewording says only what the reason says: known words, none in a place known as false.

A sentence passes where all of its words are known, each claim is one that the reason makes, and every letter
stands where a reason can have it: what is recommended was not chosen, what was chosen is not recommended, a
trait is said of what has it, and most is said of what adds most. Sentences are not understood: known words in
a false place that nobody thought of pass, and much that is true is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llm4rec.explain.masking import CHOSEN, ITEM, NAME, TRAITS, Masked

SENTENCE = re.compile(r".*?[.!?](?=\s|$)", re.DOTALL)
"""One sentence with its end; a stop with no blank after it, as in 3.5, ends none."""
PLAIN = frozenset(
    "a all also an and another any are as at be because been before both by can choice choices choose "
    "chose chosen could did do does each earlier enjoy fit fits for from further give given go goes good "
    "had has have having here here's hope how i i'm i've if in interest interested interesting into is it "
    "it's its itself just lead leads led let like made make makes match matches may maybe might of on one "
    "or our out pair pairs past perhaps pick picked picks possibly previous previously probably reason "
    "reasons recommend recommendation recommended recommending see seem seems show shown shows since so "
    "some suggest suggested suggestion suggestions suit suits taste tastes that that's the them then "
    "there these they think this those thought to too try us want was way we we're we've well were what "
    "when which while why will with worth would you you'd you'll you're you've your yours already appeal "
    "appeals case next".split()
)
"""Words that by themselves claim nothing but that something was chosen, has a trait, or is recommended."""
CLAIMS: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = tuple(
    (re.compile(said), frozenset(words.split()))
    for said, words in (
        (
            r"[Pp]eople|Others",
            "people others other customers shoppers users many often usually together who tend",
        ),
        (
            r"most of all",
            "most mostly mainly above especially particularly particular chiefly main first all",
        ),
        (r"more than most", "popular popularity more most than things"),
        (r"of late", "lately recently recent trending now late"),
        (r"at times like", "time times now usual usually moment hour more than"),
        (r"more or less of", "asked said more less things"),
        (r"asked for", "asked ask request requested close looking search searched wish wanted"),
        (r"described", "described description descriptions describe similar similarly alike much reads"),
        (r"say of", "say says said people reviews review similar much about"),
        (r"tags", "tag tags tagged people share shares same give"),
        (r"much like", "similar alike resembles resemble much close similarity"),
        (
            r"in common|has “[TUV]”",
            "common share shares shared sharing same similar alike connects trait traits",
        ),
    )
)
"""What a reason has to say before a rewording may use the words that say it."""
CHOOSING = frozenset("choose chose chosen choosing pick picked picks choice choices did".split())
HAVING = frozenset("has have had share shares shared sharing".split())
BEING = frozenset("is are was were".split())
VERBS = (
    BEING | HAVING | frozenset("may might could would will can does do suits fits matches appeals".split())
)
POINTING = frozenset("it it's this that its itself".split())
GROUP = frozenset("they them these those all both each their".split())
RELATIVE = frozenset("which that as".split())
MODAL = frozenset("may might could would will can you'll you'd maybe perhaps possibly probably".split())
LIKING = frozenset("like enjoy want taste tastes interest interested".split())
SUITING = frozenset("suit suits appeal appeals fit fits match matches may might could would will".split())
OFFERING = frozenset(
    "we we've we're i i've i'm us recommend recommended recommending recommendation suggest suggested "
    "suggestion suggestions think thought lead leads led hope let try worth".split()
)
MOST = frozenset("most mostly mainly above especially particularly particular chiefly main".split())
PASSED = frozenset("have also already had previously just seem to".split())
"""Words between `you` and what you did."""
_CHOSE, _CHOICE = "(?:choose|chose|chosen|choosing|pick|picked|picks|did)", "(?:choices?|picks?)"
_BE, _HAVE = "(?:is|was|were|are|been|be)", "(?:has|have|had|share|shares|shared)"
_OTHERS = "(?:people|others|customers|users|shoppers|many|reviews)"
_ASKED = "(?:ask|asked|wanted|requested?|search|searched|looking|wish|said)"
_NEXT = rf"(?:{'|'.join(sorted(map(re.escape, OFFERING | VERBS)))}|{_OTHERS}|traits?)"
SHAPES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?<!\S)(?:{shape})(?!\S)"), why)
    for shape, why in (
        (rf"your (?:\S+ )?{_CHOICE}(?! of C)", "a choice that is not named"),
        (rf"yours|you (?:are|were|had|made|gave|give|given|see|go|show|try|{_HAVE} [XT])", "what you are"),
        (rf"you {_CHOSE} (?:both )?C(?: (?!{_NEXT} )\S+)* X(?! {_NEXT})", "that you chose X with it"),
        (rf"you (?:\S+ )?(?:have )?{_CHOSE} X|you'll {_CHOSE}", "that you chose X"),
        (rf"you {_CHOSE} (?:both )?C (?:because|for|to)(?! {_NEXT}| of what)", "why you chose it"),
        (r"(?:maybe|perhaps|probably|possibly) (?:you|C)|you (?:possibly|probably)", "that it may be so"),
        (r"you (?:usually|often|recently|mostly|especially|first|tend)", "how often you chose it"),
        (rf"{_BE} (?:what|yours?|one|another|requested|searched|wanted)", "that it is what you chose"),
        (rf"what you \S+ {_BE}|(?<!here )(?<!next )\S+ {_BE} [XCT]", "that one is the other"),
        (rf"[CT] (?:{_HAVE} )?{_BE} (?:for|next|here|good|given|made|from|because|why|as)", "what it is for"),
        (rf"[CXT] {_BE} (?:\S+ )?(?:first|above|mostly|the main|made|more$)", "that something comes first"),
        (r"(?:here|here's|next|for you ,)(?: is)? [CT]", "that C is recommended"),
        (r"^(?:choose|pick|enjoy|see|want|how|why|is|was)(?: is| was| not)? [CT]", "that C is recommended"),
        (rf"X (?:go|goes|pairs) (?:well )?with C|C {_BE} (?:because|from)", "that they go together"),
        (rf"who (?:did )?(?:{_CHOSE}|have|had|like) [XT]|{_OTHERS} {_CHOSE} T|with T", "who chose what"),
        (rf"{_OTHERS} (?:\S+ )?(?:like|enjoy|want|think|recommend|suggest)", "what people like"),
        (rf"{_ASKED} (?:\S+ )?X", "that you asked for X"),
        (r"(?:just|all|one) (?:because|reason)|(?:in|share|shares|the) all|same as|same traits|same$", "all"),
        (r"all (?:traits|tags|others?|people|who|things)", "that it is so of all"),
    )
)
"""What no reason says, in the shape that `_shape` gives a sentence, though each of its words is known."""
_TOKEN = re.compile(
    rf"({NAME.pattern})|([^\W\d_]+(?:['’][a-z]+)?)|([,;:()–—])|(\s+|[.!?]+(?=\s*$))|(.)", re.DOTALL
)
Token = tuple[str, str]
"""`name` with a letter, `word` in small letters, `comma`, or `other`, which nothing vouches for."""


def sentences(text: str, ended: bool) -> list[str]:
    """The whole sentences that a text begins with; the last one only where the text has ended.

    Nothing between them is passed over, and each is on one line, with single blanks.
    """
    found = list(SENTENCE.finditer(text))
    if found and not ended and found[-1].end() == len(text):
        found.pop()  # what comes may belong to it
    return [" ".join(each[0].split()) for each in found]


def claims(text: str) -> frozenset[int]:
    """Which of `CLAIMS` a reason makes, by their places."""
    return frozenset(place for place, (said, _) in enumerate(CLAIMS) if said.search(text))


def objection(sentence: str, masked: Masked) -> str | None:
    """What can't be vouched for in a sentence, in a few words; None where all of it can."""
    tokens = list(_tokens(sentence))
    return next((found for check in _CHECKS if (found := check(tokens, masked)) is not None), None)


def _tokens(sentence: str) -> Iterator[Token]:
    for found in _TOKEN.finditer(sentence):
        quoted, bare, word, comma, blank, other = found.group(2, 3, 4, 5, 6, 7)
        if quoted or bare:
            yield "name", quoted or bare
        elif word:
            yield "word", word.lower().replace("’", "'")
        elif comma:
            yield "comma", comma
        elif not blank:
            yield "other", other


def _known(tokens: Sequence[Token], masked: Masked) -> str | None:
    """Every word and every letter is one that the reason has, or that claims nothing."""
    if not tokens:
        return "nothing that it says"
    lexicon = _lexicon(masked)
    for kind, value in tokens:
        if kind == "other":
            return f"the sign {value!r}"
        if kind == "name" and value not in masked.names:
            return f"the name {value}, which the reason has not"
        if kind == "word" and value not in lexicon:
            return f"the word {value!r}"
    return None


def _run(tokens: Sequence[Token], start: int, step: int) -> list[str]:
    """Letters of a list that begins at a place: `P`, `P and Q`, `both P, Q and R`.

    Where a verb follows the last of several, that is what the next clause is about.
    """
    found: list[str] = []
    place = start
    while 0 <= place < len(tokens):
        kind, value = tokens[place]
        if kind == "name":
            found.append(value)
        elif not (value in {"and", "or", "both", "also", "too"} or (value == "," and (found or step < 0))):
            break
        place += step
    if step > 0 and len(found) > 1 and place < len(tokens) and tokens[place][1] in VERBS:
        found.pop()
    return found


def _roles(tokens: Sequence[Token], masked: Masked) -> str | None:
    """You chose what you chose; the item is recommended, and nothing else is."""
    for place, (kind, value) in enumerate(tokens):
        if kind != "word":
            continue
        wrong = _yours(tokens, place) if value in {"you", "you've", "your"} else None
        if wrong is None and value in OFFERING:
            wrong = _offered(next((letter for kind, letter in tokens[place:] if kind == "name"), ITEM))
        if wrong is None and value in SUITING:
            left = (each for kind, each in reversed(tokens[:place]) if kind == "name" or each in POINTING)
            subject = next(left, ITEM)
            wrong = None if subject in POINTING else _offered(subject)
        if wrong is None and place + 1 < len(tokens) and tokens[place + 1][0] == "name":
            after, named = tokens[place + 1][1], place > 0 and tokens[place - 1][0] == "name"
            if value in HAVING and after not in TRAITS and tokens[place - 1][1] != "you":
                wrong = f"that something has {after}"
            elif value in BEING and named:
                wrong = f"that something is {after}"
        if wrong is not None:
            return wrong
    return None


def _offered(letter: str) -> str | None:
    return None if letter == ITEM else f"that {letter} is recommended"


def _yours(tokens: Sequence[Token], place: int) -> str | None:
    """What is wrong with what is said that you did, like or may like."""
    if place and tokens[place - 1][1] == "by":
        return "what was done by you"
    after = place + 1
    while after < len(tokens) and tokens[after][1] in PASSED:
        after += 1
    kind, verb = tokens[after] if after < len(tokens) else ("", "")
    asked = place > 0 and tokens[place - 1][1] in MODAL
    if verb in LIKING and not asked:
        liked = _run(tokens, after + 1, 1)
        seeming = ("word", "seem") in tokens[place:after] and liked and set(liked) <= set(TRAITS)
        return None if seeming else "that you like it"
    if verb in MODAL or asked:
        likings = (at for at in range(after, len(tokens)) if tokens[at][1] in LIKING)
        liked = next((_run(tokens, at + 1, 1) for at in likings), [])
        return next(filter(None, map(_offered, liked)), None)
    if verb in OFFERING:
        return "what you think or recommend"
    if kind == "name":
        return _chose(tokens, place, after)
    return _chose(tokens, place, after + 1) if verb in CHOOSING else None


def _chose(tokens: Sequence[Token], place: int, start: int) -> str | None:
    """What is wrong with what is said that you chose, by `you` at a place and what follows its verb."""
    while start < len(tokens) and tokens[start][1] in {"of", "like"}:
        start += 1
    chosen, before = _run(tokens, start, 1), tokens[place - 1][1] if place else ""
    following = tokens[start][1] if start < len(tokens) else ""
    if not chosen and following in POINTING:
        return "that you chose it"
    if not chosen and before in RELATIVE:  # it is of what stands before
        chosen = _run(tokens, place - 2, -1)
    elif not chosen:
        vague = before in {"what", "from"} or following in {"before", "earlier"}
        return None if vague or tokens[place][1] == "your" else "that you chose what is not clear"
    known = chosen and set(chosen) <= set(CHOSEN)
    return None if known else "that you chose what you did not"


def _had(tokens: Sequence[Token], masked: Masked) -> str | None:
    """A sentence that names a trait names, or points at, no item of the history without it."""
    letters = [value for kind, value in tokens if kind == "name"]
    pointed = any(kind == "word" and value in GROUP for kind, value in tokens)
    items = masked.chosen if pointed else [letter for letter in letters if letter in CHOSEN]
    for trait in (letter for letter in letters if letter in TRAITS):
        for item in items:
            if trait not in masked.traits[item]:
                return f"that {item} has {trait}"
    return None


def _most(tokens: Sequence[Token], masked: Masked) -> str | None:
    """A sentence that says most names what adds most, before anything that adds less."""
    if not any(kind == "word" and value in MOST for kind, value in tokens):
        return None
    letters = list(dict.fromkeys(value for kind, value in tokens if kind == "name" and value in CHOSEN))
    return None if letters == list(masked.chosen[: len(letters)]) else "that it is owed most to another"


def _shape(tokens: Sequence[Token]) -> str:
    """A sentence with C for a list of what was chosen and T for one of traits, its words between blanks."""
    letter = {**dict.fromkeys(CHOSEN, "C"), **dict.fromkeys(TRAITS, "T")}
    said = " ".join(letter.get(value, value) if kind == "name" else value for kind, value in tokens)
    return re.sub(r"\b([CT])(?:(?: ,)?(?: and| or)? \1\b)+", r"\1", said)


def _shapes(tokens: Sequence[Token], masked: Masked) -> str | None:
    """No part of a sentence has a shape that no reason has, or that this one has not."""
    said, lexicon = _shape(tokens), _lexicon(masked)
    for shape, why in SHAPES:
        if shape.search(said):
            return why
    if not masked.chosen and re.search(rf"you(?:'ve)? (?:\S+ )?{_CHOSE}", said):
        return "what you chose"
    others = lexicon & {"people", "popular", "usual", "lately"}
    if not others and re.search(rf"X (?:has |have )?{_BE} {_CHOSE}(?! for you)", said):
        return "that X was chosen"
    if "mostly" not in lexicon and re.search(r"(?<!than )\bmost\b", said):
        return "that it is most"
    return None


def _lexicon(masked: Masked) -> frozenset[str]:
    """The words that a rewording of a reason may have."""
    return PLAIN.union(*(CLAIMS[place][1] for place in claims(masked.text)))


_CHECKS = (_known, _roles, _shapes, _had, _most)
