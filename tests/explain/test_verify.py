"""What a text says and its evidence does not: by a parser of its own, and by texts made wrong on purpose."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from tests.explain.test_evidence import CATALOG, FOUND_OUT, catalogue
from tests.explain.test_evidence import told as plain

from llm4rec.data.catalog import Catalog
from llm4rec.explain.evidence import case, evidence
from llm4rec.explain.influence import Influence
from llm4rec.explain.verify import Names, unfounded
from llm4rec.explain.writer import Writer
from llm4rec.retrieve.entries import KINDS
from llm4rec.types import Evidence, Floats

# the plain sentences, names left out: what each claims, and what its names are
SENTENCES = {
    "“” follows from what you chose, from “” most of all.": ("network", "item first"),
    "“” follows from what you chose, from “” and “” most of all.": ("network", "item first second"),
    "“” follows from what you chose, from “”, “” and “” most of all.": ("network", "item first second third"),
    "You chose “”. What people choose together speaks for “”.": ("linear", "first item"),
    "You chose “” and “”. What people choose together speaks for “”.": ("linear", "first second item"),
    "You chose “”, “” and “”. What people choose together speaks for “”.": (
        "linear",
        "first second third item",
    ),
    "“” is described much as “” is, which you chose.": ("item_text", "item first"),
    "“” is much like “”, which you chose.": ("similar_item", "item first"),
    "People say of “” much what they say of “”, which you chose.": ("review", "item first"),
    "People give “” tags that “” has, which you chose.": ("tag", "item first"),
    "You chose “”. Others who did went on to “”.": ("memory", "first item"),
    "“” has “”, and so has “”, which you chose.": ("preference", "item trait first"),
    "“” has “”, and so have “” and “”, which you chose.": ("preference", "item trait first second"),
    "“” has “”, and so have “”, “” and “”, which you chose.": (
        "preference",
        "item trait first second third",
    ),
    "“” was chosen more than most things of late.": ("recent_popularity", "item"),
    "“” was chosen more than most things.": ("recent_popularity", "item"),
    "“” is chosen more than usual at times like this.": ("time_of_asking", "item"),
    "“” is close to what you asked for.": ("wish", "item"),
    "“” fits what you said you want more or less of.": ("correction", "item"),
    "Nothing that you chose speaks for “” in particular.": ("nothing", "item"),
}
COMMON = " They have “” in common."
ENDINGS = {
    " Your choice of “” speaks for this recommendation too.": ["also"],
    " Your choice of “” and “” speaks for this recommendation too.": ["also", "also_2"],
    " Your choice of “” speaks for this recommendation a little, too.": ["little"],
    " Your choice of “” and “” speaks for this recommendation a little, too.": ["little", "little_2"],
    " Your choice of “” speaks for this recommendation too, that of “” a little.": ["also", "little"],
}
WEIRD = (
    *("You", "Nothing", "Many people", "chosen", "of late", "2", "1984", "and so has", "…", "!!!", "{first}"),
    *("%s", "“", "”", "”, which you chose.", "“Ash”", "x" * 200, "a long way " * 20, "", " ", "\u200b"),
    *("Ash", "Ash", "ash", "Ash II", "The Ash: A Tale", "東京物語", "Amélie", "Ame\u0301lie", "עשן"),
    *("\x1b[0m", "They have", "in common.", "Comedy", "drama", "half ½", "C++"),
    *("\U0001f469\u200d\U0001f680 Up", "<b>Bay</b>", "O'Hara & Co."),
    *("“Ash” follows from what you chose, from “Bay” most of all.",),
)  # fmt: skip
SYLLABLES = ("ka", "lo", "mir", "ten", "su", "vor", "el", "dha", "qui", "nos")


def titles(rng: np.random.Generator, n: int) -> list[str]:
    """Names of one to five words, strange ones among them."""
    made = [
        " ".join("".join(rng.choice(SYLLABLES, 3)).capitalize() for _ in range(rng.integers(1, 6)))
        for _ in range(n - len(WEIRD))
    ]
    return [*WEIRD, *made]


def strange_catalogue(rng: np.random.Generator, n: int = 300) -> Catalog:
    genres = np.array(["drama", "comedy", "war", "sci-fi", "You", "film “noir”", "…", "{trait}", "y" * 99])
    moods = np.array(["slow", "fast", "drama"])
    return catalogue(
        titles(rng, n),
        [rng.choice(genres, rng.integers(0, 4), replace=False).tolist() for _ in range(n)],
        [rng.choice(moods, rng.integers(0, 2), replace=False).tolist() for _ in range(n)],
        [f"id{number}" for number in range(n)],
    )


@dataclass(frozen=True)
class Told:
    item: int
    text: str
    evidence: tuple[Evidence, ...]


def random_influence(rng: np.random.Generator, n_items: int, asked: int) -> Influence:
    """What moved the scores of some items, by one way more than by others."""
    u = int(rng.integers(0, 9))

    def drawn(*shape: int) -> Floats:
        return (rng.normal(0, 1, shape) * (rng.random(shape) < 0.4)).astype(np.float32)

    ways = np.exp(rng.normal(0, 1.5, 5))
    return Influence(
        np.sort(rng.choice(n_items, u, replace=False)),
        ways[0] * drawn(asked, u),
        ways[1] * drawn(asked, u),
        ways[2] * drawn(asked, u, len(KINDS)),
        (rng.random(asked) * rng.integers(0, 2, asked)).astype(np.float32),
        ways[3] * drawn(asked),
        ways[4] * drawn(asked),
        ways[4] * drawn(asked),
    )


def explanations(catalog: Catalog, rng: np.random.Generator, n: int) -> Iterator[Told]:
    """n explanations, 40 items to a history."""
    for _ in range(n // 40):
        items = rng.choice(len(catalog), 40, replace=False)
        found = random_influence(rng, len(catalog), 40)
        writer = Writer(catalog, lately=bool(rng.integers(2)))
        for place, item in enumerate(items.tolist()):
            speaks = case(found, place, item, catalog)
            _, text = writer.write(found, speaks)
            yield Told(item, text, evidence(found, speaks, catalog))


STRANGE = strange_catalogue(np.random.default_rng(5))
NAMES = Names.of(STRANGE)
MARKS = "“”„‟❝❞〝〞'"
CITED = ("first", "second", "third")
FURTHER = ("also", "also_2", "little", "little_2")


@pytest.fixture(scope="module")
def sample() -> list[Told]:
    return list(explanations(STRANGE, np.random.default_rng(6), 10_000))


def letters(name: str) -> str:
    """What is seen of a name, apart from blanks and marks of quotation."""
    return "".join(
        c for c in name if c not in "“”„‟❝❞〝〞'" and unicodedata.category(c) not in ("Cc", "Cf", "Zs")
    )


def called(name: str, label: str) -> bool:
    """Whether a name in a text is what something is called, or the first part of it."""
    if name == label:
        return True
    if not name.endswith("…"):
        return letters(name) == letters(label)
    long = len(label) > 80 or not letters(label)
    return (long and letters(label).startswith(letters(name[:-1]))) or letters(name) == letters(label)


def read(text: str) -> tuple[str, dict[str, str]]:
    """What a plain text claims, and its names by their roles, in their order."""
    names, rest = [], ""
    for number, part in enumerate(text.split("“")):
        inside, _, after = part.partition("”") if number else ("", "", part)
        names += [inside] if number else []
        rest += ("“”" if number else "") + after
    ending = next((each for each in ENDINGS if rest.endswith(each)), "")
    reason = rest.removesuffix(ending)
    claim, roles = SENTENCES[reason.removesuffix(COMMON)]
    last = [*(["trait"] if reason.endswith(COMMON) else []), *ENDINGS.get(ending, [])]
    return claim, dict(zip([*roles.split(), *last], names, strict=True))


def holds(told: Told, catalog: Catalog) -> bool:
    """Whether a plain text holds by its evidence and by the catalogue, without the library's own reading."""
    claim, names = read(told.text)
    history = [each for each in told.evidence if each.type == "history_item"]
    circumstances = {each.id: each.contribution for each in told.evidence if each.type == "context"}
    top = max((each.contribution for each in history), default=0)
    if not called(names["item"], catalog.titles[told.item]) or not further_holds(told, names, claim):
        return False
    if claim == "nothing":
        return not history
    if "first" not in names:
        return claim in circumstances and circumstances[claim] == max(circumstances.values())
    cited = [[each for each in history if called(names[role], each.label)] for role in CITED
             if role in names]  # fmt: skip
    amounts = sorted((each.contribution for each in history), reverse=True)
    if claim == "network":  # those that add most, in their order
        cited = [[each for each in some if each.contribution in amounts[place : place + 1]]
                 for place, some in enumerate(cited)]  # fmt: skip
    elif claim != "preference":
        cited[0] = [each for each in cited[0] if each.contribution == top]
    if claim in KINDS:
        found_by = [each.id for each in told.evidence if each.type == "retrieved"]
        cited[0] = [each for each in cited[0] if f"{claim}:{each.id}" in found_by]
    if "trait" in names:
        shared = [each.id.split("=", 1) for each in told.evidence
                  if each.type == "aspect" and called(names["trait"], each.label)]  # fmt: skip
        rows = catalog.table.rows_by_key("item_id", named=True, unique=True)
        own = catalog.ids[told.item]
        cited = [
            [each for each in some if any(value in rows[each.id][field] and value in rows[own][field]
                                          for field, value in shared)]
            for some in cited
        ]  # fmt: skip
    return all(cited)


def further_holds(told: Told, names: dict[str, str], claim: str) -> bool:
    """Whether what the last sentence names adds as much as it says, and was not named before."""
    strong = [each.contribution for each in told.evidence if each.type == "history_item" or each.id == claim]
    strongest = max(strong, default=0)
    labels = [each.label for each in told.evidence if each.type == "history_item"]
    for role, name in names.items():
        if role not in FURTHER:
            continue
        amounts = [each.contribution for each in told.evidence
                   if each.type == "history_item" and called(name, each.label)]  # fmt: skip
        if role.startswith("also"):
            amounts = [each for each in amounts if each > strongest / 4]
        fits = [each for each in amounts if max(strongest, 1) / 100 < each]
        if role.startswith("little"):
            fits = [each for each in fits if each <= strongest / 4]
        uses = sum(names[each] == name for each in (*CITED, *FURTHER) if each in names)
        if not fits or uses > sum(called(name, label) for label in labels):
            return False
    return True


def said_of(told: Told) -> tuple[str, ...]:
    return unfounded(told.text, STRANGE.titles[told.item], told.evidence, NAMES)


def test_ten_thousand_explanations_hold_by_another_reading(sample: list[Told]) -> None:
    claims = Counter(read(told.text)[0] for told in sample)
    assert {*claims} == {claim for claim, _ in SENTENCES.values()} and min(claims.values()) >= 20
    assert len(sample) == 10_000 and [told for told in sample if not holds(told, STRANGE)] == []


def test_the_verifier_says_nothing_of_them(sample: list[Told]) -> None:
    assert [(told, said) for told in sample if (said := said_of(told))] == []


def foreign_title(told: Told, rng: np.random.Generator) -> str:
    """What an item is called that neither is recommended nor is evidence, and is not called like one."""
    own = [STRANGE.titles[told.item], *(each.label for each in told.evidence)]
    while True:
        name = STRANGE.titles[int(rng.integers(len(STRANGE)))]
        if not any(letters(name).casefold() in letters(each).casefold() for each in own):
            return name


def clean(name: str) -> str:
    """A name as a careful liar would write it, without marks."""
    return " ".join("".join(c for c in name if c not in "“”" and c.isprintable()).split())[:60].strip()


def refilled(told: Told, role: str, name: str) -> Told | None:
    """A text with another name in one of its places."""
    _, names = read(told.text)
    if role not in names or names[role] == name:
        return None
    place, parts = [*names].index(role), told.text.split("“")
    parts[place + 1] = name + "”" + parts[place + 1].partition("”")[2]
    return replace(told, text="“".join(parts))


def another_title(told: Told, rng: np.random.Generator) -> Told | None:
    role = str(rng.choice([*read(told.text)[1]]))
    return None if role == "trait" else refilled(told, role, clean(foreign_title(told, rng)))


def another_of_the_history(told: Told, rng: np.random.Generator) -> Told | None:
    others = [each.label for each in told.evidence if each.type == "history_item"]
    return refilled(told, "first", clean(str(rng.choice(others)))) if others else None


def another_further(told: Told, rng: np.random.Generator) -> Told | None:
    others = [each.label for each in told.evidence if each.type == "history_item"]
    return refilled(told, str(rng.choice(FURTHER)), clean(str(rng.choice(others)))) if others else None


def another_strength(told: Told, rng: np.random.Generator) -> Told | None:
    """What adds a fair part adds a little, and the other way round."""
    text = told.text
    if text.endswith(" speaks for this recommendation a little, too."):
        return replace(told, text=text.removesuffix(" a little, too.") + " too.")
    return (
        replace(told, text=text.removesuffix(" too.") + " a little, too.")
        if text.endswith("it too.")
        else None
    )


def another_trait(told: Told, rng: np.random.Generator) -> Told | None:
    values = [*("drama", "comedy", "war", "sci-fi", "slow", "fast")]
    return refilled(told, "trait", str(rng.choice(values)))


def exchanged(told: Told, rng: np.random.Generator) -> Told | None:
    _, names = read(told.text)
    if len(names) < 2:
        return None
    one, two = rng.choice([*names], 2, replace=False).tolist()
    first = refilled(told, one, names[two])
    return None if first is None or {one, two} <= {*CITED} else refilled(first, two, names[one])


def a_number(told: Told, rng: np.random.Generator) -> Told | None:
    words = told.text.split(" ")
    words.insert(int(rng.integers(1, len(words))), str(rng.integers(2, 999)))
    return replace(told, text=" ".join(words))


def added_quoted(told: Told, rng: np.random.Generator) -> Told | None:
    name = clean(foreign_title(told, rng))
    form = rng.choice(["So is “{}”.", "“{}” is one more.", 'You may like "{}" too.'])
    return replace(told, text=f"{told.text} {form.format(name)}")


def added(told: Told, rng: np.random.Generator) -> Told | None:
    """Names that are told from other words: with letters, and not small ones alone."""
    name = clean(foreign_title(told, rng))
    if not any(c.isalpha() for c in name) or name.islower():
        return None
    form = rng.choice(["You may like {} too.", "{} is one more.", "It is as good as {}, or better."])
    if form.startswith("{") and name.casefold() in ("you", "nothing", "many people"):
        return None
    return replace(told, text=f"{told.text} {form.format(name)}")


def removed(told: Told, rng: np.random.Generator) -> Told | None:
    """Without what a text names or claims, and what else is called so."""
    claim, names = read(told.text)
    targets = {("history_item", name) for role, name in names.items() if role in (*CITED, *FURTHER)}
    targets |= {("aspect", name) for role, name in names.items() if role == "trait"}
    targets = sorted(targets)
    if not targets:
        kept = [each for each in told.evidence if each.id != claim]
    else:
        kind, name = targets[int(rng.integers(len(targets)))]
        kept = [each for each in told.evidence if each.type != kind or not called(name, each.label)]
    return replace(told, evidence=tuple(kept)) if len(kept) < len(told.evidence) else None


def no_mark(told: Told, rng: np.random.Generator) -> Told | None:
    places = [place for place, c in enumerate(told.text) if c in "“”"]
    gone = int(rng.choice(places))
    return replace(told, text=told.text[:gone] + told.text[gone + 1 :])


def another_claim(told: Told, rng: np.random.Generator) -> Told | None:
    """The same names in the sentence of another kind of reason that evidence can deny."""
    _, names = read(told.text)
    claims = {claim: (text, roles.split()) for text, (claim, roles) in SENTENCES.items()}
    text, roles = claims[str(rng.choice([each for each in claims if each not in ("network", "linear")]))]
    if not {*roles} <= {*names} or " They have “" in told.text or {*FURTHER} & {*names}:
        return None
    first, *rest = text.split("“")
    named = [f"{names[role]}{part}" for role, part in zip(roles, rest, strict=True)]
    return replace(told, text="“".join([first, *named]))


MUTATIONS: list[Callable[[Told, np.random.Generator], Told | None]] = [
    another_title, another_of_the_history, another_further, another_strength, another_trait, exchanged,
    a_number, added_quoted, added, removed,
    no_mark, another_claim,
]  # fmt: skip
ENOUGH = 600
PARSED = (
    another_title, another_of_the_history, another_further, another_strength, another_trait, exchanged,
    removed, another_claim,
)  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_texts_made_wrong_are_rejected(
    mutate: Callable[[Told, np.random.Generator], Told | None], sample: list[Told]
) -> None:
    rng = np.random.default_rng(7)
    wrong: list[Told] = []
    for place in rng.permutation(len(sample)).tolist():
        told = sample[place]
        changed = mutate(told, rng)
        if changed is None or changed == told or (mutate in PARSED and holds(changed, STRANGE)):
            continue  # it is still true
        wrong.append(changed)
        if len(wrong) == ENOUGH:
            break
    missed = [told for told in wrong if not said_of(told)]
    print(f"{mutate.__name__}: {len(wrong) - len(missed)} of {len(wrong)} rejected")
    assert len(wrong) >= ENOUGH / 2
    assert len(missed) <= len(wrong) / 100, missed[:3]


FACTS = plain(FOUND_OUT)[1].evidence  # Bay, Ash and Dew; drama and slow; a memory by Bay
BY_NAME = Names.of(CATALOG)


@pytest.mark.parametrize(
    "text",
    [
        "“Elm” is a slow drama, and you liked “Bay”.",
        "Since you chose Bay and Ash, Elm may well be yours: it is a drama, too.",
        "Slow dramas are what you often choose. Elm is one!",
        "“Bay” led many people to “Elm” - it has recent popularity.",
        'You chose "Bay". That is why.',
        "",
    ],
)
def test_free_texts_may_name_what_is_evidence(text: str) -> None:
    assert unfounded(text, "Elm", FACTS, BY_NAME) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("“Elm” is like “Fog”.", ("Fog",)),
        ("“Elm” is like “a film that is nowhere”.", ("a film that is nowhere",)),
        ('Elm is like "a film that is nowhere".', ("a film that is nowhere",)),
        ("Elm is like Fog.", ("Fog",)),
        ("Elm is like Bay. Fog is another.", ("Fog",)),
        ("Fog is another.", ("Fog",)),
        ("Elm is a comedy, as Bay is.", ("comedy",)),
        ("Elm is one of the comedies.", ("comedies",)),
        ("WAR and drama", ("WAR",)),
        ("You chose 3 slow dramas.", ("3",)),
        ("A drama of 1995, no. 2nd", ("1995", "2nd")),
        ("half of it, ½ indeed", ("1", "2")),
        ("“Elm is a drama.", ("“Elm is a drama.",)),
    ],
)
def test_free_texts_may_name_nothing_else(text: str, said: tuple[str, ...]) -> None:
    assert unfounded(text, "Elm", FACTS, BY_NAME) == said


def test_the_longest_name_that_fits_is_the_one_that_is_meant() -> None:
    """No evidence hides in the title of another item, and no other title in one that is evidence."""
    catalog = catalogue(["Alien", "Alien: Resurrection", "Elm", "The Alien, from Elm"], [[]] * 4, [[]] * 4)
    names, facts = Names.of(catalog), (Evidence("history_item", "a", "Alien", 0.5),)
    assert unfounded("You chose Alien, so Elm.", "Elm", facts, names) == ()
    assert unfounded("You chose Alien: Resurrection, so Elm.", "Elm", facts, names) == (
        "Alien: Resurrection",
    )
    assert unfounded("You chose the alien from elm.", "Elm", facts, names) == ("the alien from elm",)
    other = (Evidence("history_item", "d", "The Alien, from Elm", 0.5),)
    assert unfounded("You chose The Alien, from Elm.", "Elm", other, names) == ()


def test_words_between_names_are_not_taken_for_titles() -> None:
    titles = ["You", "Nothing", "Many", "It", "They", "chosen", "People", "The", "So", "Elm", "Bay"]
    catalog = catalogue(titles, [["others", "time"]] * 11, [["common"]] * 11)
    names, facts = Names.of(catalog), (Evidence("history_item", "k", "Bay", 0.5),)
    text = "You chose Bay, as many did. People who chose it, and others, have it in common. They like it."
    assert unfounded(text, "Elm", facts, names) == ()
    assert unfounded("Elm is as good as Nothing, or as They.", "Elm", facts, names) == ("Nothing", "They")


def test_a_title_is_the_same_however_its_letters_are_composed() -> None:
    catalog = catalogue(["Amélie", "Elm"], [[]] * 2, [[]] * 2)
    names = Names.of(catalog)
    assert unfounded("Elm is as Ame\u0301lie is.", "Elm", (), names) == ("Amélie",)
    assert unfounded("Elm is as AME\u0301LIE is.", "Elm", (), names) == ("AMÉLIE",)


def test_no_claim_without_its_evidence() -> None:
    popular = "“Elm” was chosen more than most things of late."
    assert unfounded(popular, "Elm", FACTS, BY_NAME) == ()
    assert unfounded(popular, "Elm", FACTS[:-1], BY_NAME) == (popular,)
    for other in (
        "“Elm” is close to what you asked for.",
        "Nothing that you chose speaks for “Elm” in particular.",
    ):
        assert unfounded(other, "Elm", FACTS, BY_NAME) == (other,)
    assert unfounded("You chose “Bay”. Others who did went on to “Elm”.", "Elm", FACTS, BY_NAME) == ()
    assert unfounded("“Elm” is much like “Bay”, which you chose.", "Elm", FACTS, BY_NAME) == ("Bay",)
    assert unfounded("“Elm” has “slow”, and so has “Ash”, which you chose.", "Elm", FACTS, BY_NAME) == ()
    assert unfounded("“Elm” has “slow”, and so has “Bay”, which you chose.", "Elm", FACTS, BY_NAME) == (
        "Bay",
    )


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("“Bay” speaks for this recommendation too.", ()),  # .6, the strongest of all
        ("“Bay” speaks for this recommendation a little, too.", ("Bay",)),
        ("“Dew” and “Bay” speaks for this recommendation too.", ()),
        ("“Dew” speaks for this recommendation too, that of “Cob” a little.", ("Cob",)),
        ("“Ash” speaks for this recommendation too.", ("Ash",)),  # is named before
        ("“Bay” and “Bay” speaks for this recommendation too.", ("Bay",)),
        ("“Fog” speaks for this recommendation a little, too.", ("Fog",)),
    ],
)
def test_what_is_named_further_adds_what_is_said(ending: str, said: tuple[str, ...]) -> None:
    text = f"“Elm” has “slow”, and so has “Ash”, which you chose. Your choice of {ending}"
    assert unfounded(text, "Elm", FACTS, BY_NAME) == said
    nothing = f"Nothing that you chose speaks for “Elm” in particular. Your choice of {ending}"
    assert unfounded(nothing, "Elm", FACTS, BY_NAME)
    # a fifteenth of .6, a hundredth of a nat and less
    weak = (*FACTS, Evidence("history_item", "c", "Cob", 0.04), Evidence("history_item", "f", "Fog", 0.01))
    little = text.removesuffix(ending) + "“Cob” speaks for this recommendation a little, too."
    assert unfounded(little, "Elm", weak, BY_NAME) == ()
    assert unfounded(little.replace("Cob", "Fog"), "Elm", weak, BY_NAME) == ("Fog",)


def test_a_trait_that_is_no_category_is_believed() -> None:
    facts = (Evidence("history_item", "b", "Bay", 0.5), Evidence("aspect", "term=sea", "sea", 0.5))
    assert unfounded("“Elm” has “sea”, and so has “Bay”, which you chose.", "Elm", facts, BY_NAME) == ()
