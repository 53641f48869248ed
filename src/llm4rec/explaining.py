"""Why a fitted model recommends what it does: reasons from one reading, and what deletion says of them."""

from __future__ import annotations

from dataclasses import dataclass
from gettext import NullTranslations

import numpy as np

from llm4rec import answering, correcting
from llm4rec.data.events import EventLog
from llm4rec.data.legal import Listed
from llm4rec.explain.evidence import CIRCUMSTANCES, case, chosen, evidence, held
from llm4rec.explain.influence import Parts, influence
from llm4rec.explain.profile import preferences
from llm4rec.explain.writer import ENGLISH, Writer
from llm4rec.fitted import Fitted
from llm4rec.model.prior import classes
from llm4rec.types import Evidence, Explanation, Floats, Ints, Preference

CONTRASTS = 6
"""Pieces of evidence that tell one item from another, at most."""
CODED = 10_000
"""Items of a catalogue up to which a code head is asked of all of them: of 50,000 it takes a second."""


@dataclass(frozen=True)
class Standing:
    """Where an item stands for one history.

    Attributes:
        score: log-probability (nats).
        rank: among the items that may come back, 1 the best; None where it may not.
    """

    score: float
    rank: int | None


def explain(
    fitted: Fitted,
    history: EventLog,
    items: Ints,
    wish: Floats | None = None,
    language: NullTranslations = ENGLISH,
) -> list[Explanation]:
    """Why each of some items would be recommended, by one reading of the history.

    Args:
        fitted: the model.
        history: one row.
        items: dense numbers [n].
        wish: log p(i | wish) [1, i] of the wish that was made; None for none.
        language: of the texts.
    """
    if not len(items):
        return []
    people = fitted.person_rows(history)
    said = correcting.factors(fitted, history)
    found = influence(parts(fitted, people), history, people, items, wish, said)
    words, unwanted = writer(fitted, history, language), correcting.unwanted(fitted, history)
    traits = {
        trait: places
        for trait, places in held(found.history, fitted.catalog).items()
        if trait not in unwanted
    }  # they moved the score all the same, but are no reason to give to who wants less of them
    told: list[Explanation] = []
    for place, item in enumerate(items.tolist()):
        speaks = case(found, place, item, fitted.catalog, traits)
        kind, text = words.write(found, speaks)
        told.append(Explanation(text, kind, evidence(found, speaks, fitted.catalog), speaks.weights))
    return told


def contrast(
    fitted: Fitted,
    history: EventLog,
    item: int,
    other: int,
    wish: Floats | None = None,
    language: NullTranslations = ENGLISH,
) -> tuple[str, tuple[Evidence, ...]]:
    """Why one item rather than another: a sentence, and what speaks more for the one than for the other.

    Contributions are differences (nats), above 0 where they speak for `item`, and the largest come first.
    """
    items, people = np.array([item, other]), fitted.person_rows(history)
    said = correcting.factors(fitted, history)
    found = influence(parts(fitted, people), history, people, items, wish, said)
    cases = [case(found, place, number, fitted.catalog) for place, number in enumerate(items.tolist())]
    more = found.owed[0] - found.owed[1]
    more[np.isin(found.history, items)] = 0
    pieces = [
        chosen(fitted.catalog, number, float(difference))
        for number, difference in zip(found.history.tolist(), more, strict=True)
    ]
    pieces += [
        Evidence("context", name, CIRCUMSTANCES[name], added - cases[1].circumstances[name])
        for name, added in cases[0].circumstances.items()
    ]
    first = int(found.history[np.argmax(more)]) if len(more) and more.max() > 0 else None
    pieces = sorted((each for each in pieces if each.contribution), key=lambda each: -abs(each.contribution))
    kept = pieces[:CONTRASTS]
    if first is not None:  # what the sentence names is there, however much speaks against the item
        told = next(
            each for each in pieces if (each.type, each.id) == ("history_item", fitted.catalog.ids[first])
        )
        kept = kept if told in kept else [*kept[:-1], told]
    return writer(fitted, history, language).contrast(item, other, first), tuple(kept)


def profile(fitted: Fitted, history: EventLog, n: int) -> tuple[Preference, ...]:
    """The n aspects that tell most of what a person will choose, and those they spoke of.

    See `explain.profile`.

    Raises:
        InputError: where the model has none.
    """
    aspects, said = correcting.known_aspects(fitted), fitted.corrections.of(history.user_ids[0])
    people, weight = fitted.person_rows(history), fitted.config.explain.correction
    return preferences(fitted.scorer, aspects, fitted.catalog, history, people, n, said, weight)


def standings(
    fitted: Fitted, histories: EventLog, listed: Listed, item: int, wish: Floats | None = None
) -> list[Standing]:
    """Where an item stands for each of b histories, every one read whole.

    Args:
        fitted: the model.
        histories: b rows.
        listed: what may come back to each of them.
        item: its dense number.
        wish: as for `explain`.
    """
    found = [Standing(float("nan"), None)] * histories.n_users
    may = listed.among(np.arange(len(fitted.catalog)))
    before = may & (np.arange(len(may)) < item)  # of equal scores the first is recommended first
    for rows, some in fitted.scorer.chunks(histories):
        scores = answering.scores(fitted, some, wish)
        own = scores[:, item, None]
        ranks = (scores[:, may] > own).sum(axis=1) + (scores[:, before] == own).sum(axis=1) + 1
        for row, score, rank in zip(rows.tolist(), scores[:, item].tolist(), ranks.tolist(), strict=True):
            found[row] = Standing(score, rank if may[item] else None)
    return found


def without(history: EventLog, items: Ints) -> EventLog:
    """The history of one row without each of `items` [n]: n rows."""
    n = len(items)
    copies = history.histories(np.zeros(n, dtype=np.int64), np.full(n, history.n_events))
    return copies.select(copies.items != items[copies.rows])


def writer(fitted: Fitted, history: EventLog, language: NullTranslations = ENGLISH) -> Writer:
    """What writes reasons for a history of one row."""
    window = fitted.prior.windows[int(classes(history.lengths)[0])]
    return Writer(fitted.catalog, lately=window < 1, language=language)


def parts(fitted: Fitted, people: Ints) -> Parts:
    """What the scores of a model are made of, for the person of a row of the people's table [1]."""
    scorer, n_items = fitted.scorer, len(fitted.catalog)
    return Parts(
        scorer,
        fitted.linear,
        fitted.arrivals,
        fitted.grounding,
        fitted.prior,
        fitted.attend,
        None if scorer.join is None else fitted.generator,
        fitted.adjust(np.zeros((1, n_items), dtype=np.float32), people)[0].astype(np.float32),
        n_items <= CODED,
    )
