"""The reason in words: a form of words for what weighs most, filled with evidence and with nothing else.

Names stand between “ and ”, cut where they are long, so that whatever a title says is seen to be a title. The
forms are message ids of gettext: a catalogue of another language has its own words and its own plurals, and
keeps the marks “ and ” around names.
"""

from __future__ import annotations

from dataclasses import dataclass
from gettext import NullTranslations

import numpy as np

from llm4rec.data.catalog import Catalog
from llm4rec.data.printable import printable
from llm4rec.explain.evidence import ASPECTS, Case
from llm4rec.explain.influence import Influence
from llm4rec.retrieve.entries import Kind
from llm4rec.types import Reason

LONGEST = 80
"""Letters of a name that are shown."""
READ = 10_000
"""Letters of a name that are looked at."""
ENGLISH = NullTranslations()


def N_(message: str) -> str:  # the name that tools which collect messages look for
    """A message that is translated where it is used."""
    return message


_FOLLOWS = N_("“{item}” follows from what you chose, from {chosen} most of all.")
NETWORK = (_FOLLOWS, _FOLLOWS)
"""Form for items of the history, where the score owes most to them by the network."""
_TOGETHER = N_("You chose {chosen}. What people choose together speaks for “{item}”.")
LINEAR = (_TOGETHER, _TOGETHER)
"""Form by the linear part, which knows what was taken with what."""
FOUND: dict[Kind, str] = {
    "item_text": N_("“{item}” is described much as “{first}” is, which you chose."),
    "similar_item": N_("“{item}” is much like “{first}”, which you chose."),
    "review": N_("People say of “{item}” much what they say of “{first}”, which you chose."),
    "tag": N_("People give “{item}” tags that “{first}” has, which you chose."),
    "memory": N_("You chose “{first}”. Others who did went on to “{item}”."),
}
"""Forms for one item of the history that something was retrieved by."""
COMMON = N_("They have “{trait}” in common.")
PREFERENCE = (
    N_("“{item}” has “{trait}”, and so has {chosen}, which you chose."),
    N_("“{item}” has “{trait}”, and so have {chosen}, which you chose."),
)
"""Form for a trait, shown by one item of the history or by more."""
_TOO = N_("Your choice of {chosen} speaks for this recommendation too.")
ALSO = (_TOO, _TOO)
"""Form for further items of the history, which add a fair part of what the strongest evidence adds."""
_LITTLE = N_("Your choice of {chosen} speaks for this recommendation a little, too.")
A_LITTLE = (_LITTLE, _LITTLE)
"""Form for further ones that add less."""
ONE_OF_EACH = N_("Your choice of “{also}” speaks for this recommendation too, that of “{little}” a little.")
CHOSEN = (N_("“{first}”"), N_("“{first}” and “{second}”"), N_("“{first}”, “{second}” and “{third}”"))
"""Forms for one, two and three items: apart from the plural, for many languages have no other."""
SLOTS = ("first", "second", "third")
LATELY = N_("“{item}” was chosen more than most things of late.")
EVER = N_("“{item}” was chosen more than most things.")
AT_THIS_TIME = N_("“{item}” is chosen more than usual at times like this.")
ASKED_FOR = N_("“{item}” is close to what you asked for.")
CORRECTED = N_("“{item}” fits what you said you want more or less of.")
NOTHING = N_("Nothing that you chose speaks for “{item}” in particular.")
RATHER = N_("“{first}”, which you chose, speaks more for “{item}” than for “{other}”.")
NEITHER = N_("Nothing that you chose speaks more for “{item}” than for “{other}”.")


def forms(language: NullTranslations = ENGLISH) -> tuple[tuple[str, str], ...]:
    """All forms of a reason in a language, each with what it claims; `COMMON` may follow one of `WAYS`.

    A claim is one of `WAYS`, `preference`, one of `CIRCUMSTANCES`, or `nothing`.
    """
    plain = (
        *FOUND.items(),
        ("recent_popularity", LATELY),
        ("recent_popularity", EVER),
        ("time_of_asking", AT_THIS_TIME),
        ("wish", ASKED_FOR),
        ("correction", CORRECTED),
        ("nothing", NOTHING),
    )
    told = [(claim, language.gettext(form)) for claim, form in plain]
    for n in range(1, len(CHOSEN) + 1):
        for claim, form in (("network", NETWORK), ("linear", LINEAR), ("preference", PREFERENCE)):
            told.append((claim, _of_several(language, form, n)))
    return tuple(told)


def _of_several(language: NullTranslations, form: tuple[str, str], n: int) -> str:
    """A form that names n items of the history, 1 to 3, at `{chosen}`."""
    return language.ngettext(*form, n).replace("{chosen}", language.gettext(CHOSEN[n - 1]))


def endings(language: NullTranslations = ENGLISH) -> tuple[str, ...]:
    """Forms of a last sentence, which may follow all but `NOTHING`; their slots tell what they claim.

    `{also}` and `{also_2}` add a fair part of what the strongest evidence adds, `{little}` and `{little_2}`
    less.
    """
    return tuple(_ending(language, *counts) for counts in ((1, 0), (2, 0), (0, 1), (0, 2), (1, 1)))


def _ending(language: NullTranslations, also: int, little: int) -> str:
    """The last sentence for so many further items of each sort, two at most."""
    if also and little:
        return language.gettext(ONE_OF_EACH)
    form, slot = (ALSO, "also") if also else (A_LITTLE, "little")
    told = _of_several(language, form, also + little)
    return told.replace("{first}", f"{{{slot}}}").replace("{second}", f"{{{slot}_2}}")


MARKS = dict.fromkeys(map(ord, "“”„‟❝❞〝〞"), "'")
"""The marks that names stand between, and what looks like them."""


def shown(name: str) -> str:
    """A name as it stands in a text: on one line, at most 80 letters, without the marks it stands between.

    A name of which nothing is seen is shown as an ellipsis.
    """
    name = " ".join(printable(name[:READ]).translate(MARKS).split())
    if not name:
        return "…"
    if len(name) <= LONGEST:
        return name
    cut = name[: LONGEST - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut[LONGEST // 2 :] else cut).rstrip() + "…"


@dataclass(frozen=True)
class Writer:
    """Writes reasons in one language.

    Attributes:
        catalog: what things are called.
        lately: whether popularity is counted in the newest events alone.
        language: translations of the forms.
    """

    catalog: Catalog
    lately: bool
    language: NullTranslations = ENGLISH

    def write(self, found: Influence, case: Case) -> tuple[Reason, str]:
        """The reason that weighs most, equation (25), and the text that gives it."""
        if case.kind == "similarity":
            text = self._similarity(found, case)
        elif case.kind == "preference":
            text = self._preference(found, case)
        else:
            text = self._context(case)
        return case.kind, text + self._further(found, case)

    def contrast(self, item: int, other: int, first: int | None) -> str:
        """Why one item rather than another: the item of the history that tells most, None where none does."""
        form, names = NEITHER, {"item": self._called(item), "other": self._called(other)}
        if first is not None:
            form, names = RATHER, {**names, "first": self._called(first)}
        return self._say(form, **names)

    def _similarity(self, found: Influence, case: Case) -> str:
        if case.way == "network":
            text = self._several(NETWORK, found, case)
        elif case.way == "linear":
            text = self._several(LINEAR, found, case)
        else:
            (first,) = self._cited(found, case)
            text = self._say(FOUND[case.way], item=self._called(case.item), first=first)
        cited = case.cited.tolist()
        shared = [trait for trait in case.traits[:ASPECTS] if set(cited) <= set(trait.items.tolist())]
        return text if not shared else f"{text} {self._say(COMMON, trait=shared[0].value)}"

    def _preference(self, found: Influence, case: Case) -> str:
        return self._several(PREFERENCE, found, case, trait=case.traits[0].value)

    def _several(self, form: tuple[str, str], found: Influence, case: Case, **names: str) -> str:
        cited = self._cited(found, case)
        names |= {"item": self._called(case.item), **dict(zip(SLOTS, cited, strict=False))}
        return self._fill(_of_several(self.language, form, len(cited)), **names)

    def _further(self, found: Influence, case: Case) -> str:
        """What follows the reason: the other items of the history that speak for the item."""
        also, little = case.further
        if not len(also) + len(little):
            return ""
        slots = (*("also", "also_2")[: len(also)], *("little", "little_2")[: len(little)])
        called = map(self._called, found.history[np.concatenate([also, little])].tolist())
        ending = _ending(self.language, len(also), len(little))
        return " " + self._fill(ending, **dict(zip(slots, called, strict=True)))

    def _cited(self, found: Influence, case: Case) -> list[str]:
        return [self._called(item) for item in found.history[case.cited].tolist()]

    def _context(self, case: Case) -> str:
        most = max(case.circumstances, key=lambda name: case.circumstances[name])
        form = {
            "wish": ASKED_FOR,
            "recent_popularity": LATELY if self.lately else EVER,
            "time_of_asking": AT_THIS_TIME,
            "correction": CORRECTED,
        }[most]
        if case.circumstances[most] <= 0:
            form = NOTHING
        return self._say(form, item=self._called(case.item))

    def _called(self, item: int) -> str:
        return self.catalog.titles[item]

    def _say(self, form: str, **names: str) -> str:
        return self._fill(self.language.gettext(form), **names)

    def _fill(self, form: str, **names: str) -> str:
        return form.format_map({name: shown(value) for name, value in names.items()})
