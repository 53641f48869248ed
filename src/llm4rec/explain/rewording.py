"""A reason in a language model's words, where every sentence of them can be vouched for.

The model is shown the plain form with letters in the place of names, see `masking`, and some examples of the
same claim. Its sentences are taken until the first that is not vouched for, see `vouching`; where they do not
name the item and some of the evidence, the plain form takes their place. Sentences after the reason, about a
shared trait and what else speaks for the item, stay as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from threading import Lock

from llm4rec.errors import InputError
from llm4rec.explain.language_model import LanguageModel, Message
from llm4rec.explain.masking import ITEM, Masked, letters, mask
from llm4rec.explain.verify import Names
from llm4rec.explain.vouching import claims, objection, sentences
from llm4rec.explain.writer import shown
from llm4rec.types import Explanation

TOKENS = 64
"""That a rewording may take."""
LETTERS = 2_000
"""After which an answer is left off, whatever it was asked to take."""
MOST = 3
"""Sentences of a rewording."""
SHOWN = 3
"""Examples that the model is given."""
KEPT = 4096
"""Rewordings that are kept, each under the reason in letters."""
TASK = (
    "You reword a shop's reason for a recommendation. X is what is recommended. P, Q, R and S were chosen by "
    "the customer before. T, U and V are traits. Say the same in one or two short, friendly sentences. Keep "
    "every letter between its marks, and add nothing."
)
EXAMPLES = (
    (
        "“X” follows from what you chose, from “P” most of all.",
        "We picked “X” mostly because you chose “P”.",
    ),
    (
        "“X” follows from what you chose, from “P” and “Q” most of all.",
        "We picked “X” mostly because you chose “P” and “Q”.",
    ),
    (
        "“X” follows from what you chose, from “P”, “Q” and “R” most of all.",
        "We picked “X” mostly because you chose “P”, “Q” and “R”.",
    ),
    (
        "You chose “P”. What people choose together speaks for “X”.",
        "People who choose “P”, as you did, often choose “X” too.",
    ),
    (
        "You chose “P” and “Q”. What people choose together speaks for “X”.",
        "You chose “P” and “Q”, and what people choose together speaks for “X”.",
    ),
    (
        "You chose “P”, “Q” and “R”. What people choose together speaks for “X”.",
        "You chose “P”, “Q” and “R”, and what people choose together speaks for “X”.",
    ),
    ("“X” has “T”, and so has “P”, which you chose.", "You chose “P”, which has “T”, and “X” has it too."),
    (
        "“X” has “T”, and so have “P” and “Q”, which you chose.",
        "You chose “P” and “Q”, which have “T”, and “X” has it too.",
    ),
    (
        "“X” has “T”, and so have “P”, “Q” and “R”, which you chose.",
        "You chose “P”, “Q” and “R”, which have “T”, and “X” has it too.",
    ),
    (
        "“X” is described much as “P” is, which you chose.",
        "You chose “P”, and “X” has a similar description.",
    ),
    ("“X” is much like “P”, which you chose.", "You chose “P”, and “X” is much like it."),
    (
        "People say of “X” much what they say of “P”, which you chose.",
        "What people say of “X” is much like what they say of “P”, which you chose.",
    ),
    ("People give “X” tags that “P” has, which you chose.", "You chose “P”, and “X” shares tags with it."),
    ("You chose “P”. Others who did went on to “X”.", "Others who chose “P”, as you did, chose “X” next."),
    ("“X” was chosen more than most things of late.", "“X” has been popular lately."),
    ("“X” was chosen more than most things.", "“X” is popular."),
    (
        "“X” is chosen more than usual at times like this.",
        "At times like this, “X” is chosen more than usual.",
    ),
    (
        "“X” fits what you said you want more or less of.",
        "You asked for more or less of some things, and “X” fits that.",
    ),
    ("“X” is close to what you asked for.", "You asked for it: “X” is close to your wish."),
)
"""Reasons in letters, each with words that say the same."""


class Rewriter:
    """Puts reasons into a language model's words. One reason in letters has one rewording, which is kept.

    Args:
        model: that writes.
        names: of the catalogue whose items are recommended.
    """

    def __init__(self, model: LanguageModel, names: Names) -> None:
        self.model, self._names = model, names
        self._kept: OrderedDict[tuple[object, ...], tuple[str, ...]] = OrderedDict()
        self._lock = Lock()

    def reword(self, explanation: Explanation, title: str) -> Explanation:
        """The explanation in other words; the plain form where none can be vouched for.

        Args:
            explanation: in English, in a plain form.
            title: of the recommended item, as the catalogue has it.

        Raises:
            InputError: where the explanation is of no item of that title.
            LanguageModelError: where the model fails.
        """
        return replace(explanation, text="".join(self.stream(explanation, title)))

    def stream(self, explanation: Explanation, title: str) -> Iterator[str]:
        """As `reword`, sentence by sentence: nothing is given that is not vouched for, or taken back later.

        Raises:
            InputError, LanguageModelError: as `reword`.
        """
        if f"“{shown(title)}”" not in explanation.text:
            raise InputError(
                f"The reason is of no item called {title!r}. Give its title as the catalogue has it "
                "(model.catalog.titles)."
            )
        masked = mask(explanation, title, self._names)
        if masked is not None and not claims(masked.text):
            masked = None  # that nothing speaks for an item has no other words that can be vouched for
        said = ""
        for sentence in () if masked is None else self._sentences(masked):
            yield said + sentence
            said = " "
        rest = explanation.text if masked is None or not said else masked.ending
        if rest:
            yield rest

    def _sentences(self, masked: Masked) -> Iterator[str]:
        """Sentences with their names that together give the reason; none where the model gives none."""
        said, key = list[str](), (masked.text, tuple(masked.traits.items()))
        with self._lock:
            known = self._kept.get(key)
        waiting = list[str]()
        for sentence in _vouched(self.model, masked) if known is None else known:
            waiting.append(sentence)
            if complete([*said, *waiting], masked):
                yield from map(masked.unmask, waiting)
                said, waiting = [*said, *waiting], []
        with self._lock:
            self._kept[key] = tuple(said)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def complete(said: list[str], masked: Masked) -> bool:
    """Whether sentences in letters give a reason: they name the item, and evidence where the form does."""
    named = letters(" ".join(said))
    return ITEM in named and (len(named) > 1 or len(masked.names) == 1)


def conversation(masked: Masked) -> list[Message]:
    """What the model is asked: the task, examples of the same claims, and the reason in letters."""
    wanted = claims(masked.text), "“P”" in masked.text, "“Q”" in masked.text, "“R”" in masked.text

    def unlike(plain: str) -> int:
        have = claims(plain), "“P”" in plain, "“Q”" in plain, "“R”" in plain
        return 2 * len(wanted[0] ^ have[0]) + sum(a != b for a, b in zip(wanted[1:], have[1:], strict=True))

    nearest = sorted(EXAMPLES, key=lambda pair: unlike(pair[0]))[:SHOWN]
    asked: list[Message] = [{"role": "system", "content": TASK}]
    for plain, reworded in reversed(nearest):  # the nearest one last
        asked += [{"role": "user", "content": plain}, {"role": "assistant", "content": reworded}]
    return [*asked, {"role": "user", "content": masked.text}]


def _vouched(model: LanguageModel, masked: Masked) -> Iterator[str]:
    """Sentences of the model, as soon as they are whole, until one can't be vouched for or is said again."""
    said: list[str] = []
    text = ""
    with closing(model.write(conversation(masked), TOKENS)) as pieces:
        for piece in chain(pieces, [None]):
            text += piece or ""
            if len(text) > LETTERS:
                return
            whole = sentences(text, ended=piece is None)
            for sentence in whole[len(said) :]:
                if len(said) == MOST or sentence in said or objection(sentence, masked) is not None:
                    return
                said.append(sentence)
                yield sentence
