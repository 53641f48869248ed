"""What people say they want more or less of: looked up in the model's words, kept, and joined into scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.data.queries import check, check_pairs
from llm4rec.errors import InputError
from llm4rec.explain.aspects import Aspects
from llm4rec.explain.corrections import Said, corrected, log_factors
from llm4rec.fitted import Fitted, beside
from llm4rec.types import Floats, Query

Pairs = Sequence[tuple[str, str]]
SHOWN = 5
"""Aspects that an error names at most."""


def correct(fitted: Fitted, user: str, more: Pairs = (), less: Pairs = (), undo: Pairs = ()) -> Fitted:
    """The model that keeps what a person said; see `Recommender.correct`.

    Raises:
        InputError: where the name is no text or empty, the model has no such aspect, or two different things
            are said of one.
    """
    given: Any = user  # whatever its type promises
    if not isinstance(given, str) or not given:
        raise InputError(f"What a person wants is kept by their user_id, a text, not by {given!r}.")
    for name, pairs in (("more", more), ("less", less), ("undo", undo)):
        check_pairs(pairs, name)
    told = _told(known_aspects(fitted), more, less, undo)
    return beside(fitted, corrections=fitted.corrections.saying(user, told)) if told else fitted


def for_query(fitted: Fitted, query: Query) -> Fitted:
    """The model that a query is asked of: it keeps what is said in the query, which the original does not.

    Raises:
        InputError: where the query's values are not what `Query` names, or as `correct`.
    """
    check(query)
    if not query.more and not query.less:
        return fitted
    told = _told(known_aspects(fitted), query.more, query.less, ())
    _ = fitted.vocabulary, fitted.attend  # made once, for all queries
    return beside(fitted, corrections=fitted.corrections.saying(query.user or "", told))


def known_aspects(fitted: Fitted) -> Aspects:
    """The aspects of a model.

    Raises:
        InputError: where it has none.
    """
    if fitted.aspects is None:
        raise InputError(
            "This model has no words for preferences: its items have no categorical fields whose values "
            "enough of them share, or explain.aspects was 0 when it was fitted."
        )
    return fitted.aspects


def spoken(fitted: Fitted, histories: EventLog) -> dict[int, Said]:
    """Row → what its owner said; only of those whose scores it changes."""
    if fitted.aspects is None or not fitted.config.explain.correction:
        return {}
    return fitted.corrections.rows(histories.user_ids)


def unwanted(fitted: Fitted, history: EventLog) -> frozenset[tuple[str, str]]:
    """Fields and values that the owner of a history of one row wants less of."""
    said = spoken(fitted, history).get(0, {})
    if fitted.aspects is None:
        return frozenset()
    named = {place: pair for pair, place in fitted.aspects.places.items()}
    return frozenset(named[aspect] for aspect, more in said.items() if not more)


def factors(fitted: Fitted, histories: EventLog) -> Floats | None:
    """By how much what people said changes the log-score of each item [b, i] (nats).

    p_u is that of a profile: by the history of a row, asked at no time. None where no one said anything.
    """
    said = spoken(fitted, histories)
    if fitted.aspects is None or not said:
        return None
    rows = np.fromiter(said, dtype=np.int64, count=len(said))
    asked = replace(histories.histories(rows, histories.lengths[rows]), asked_at=None)
    states = fitted.scorer.states(asked, fitted.person_rows(asked))
    found = np.zeros((histories.n_users, len(fitted.catalog)), dtype=np.float32)
    weight = fitted.config.explain.correction
    for row, p in zip(rows.tolist(), fitted.aspects.preferences(states), strict=True):
        found[row] = log_factors(p, corrected(p, said[row], weight), fitted.vocabulary)
    return found


def _told(aspects: Aspects, more: Pairs, less: Pairs, undo: Pairs) -> dict[int, bool | None]:
    """Aspect → what is said of it: more, less, or None where something is taken back."""
    told: dict[int, bool | None] = {}
    for pairs, said in ((more, True), (less, False), (undo, None)):
        for name, value in pairs:
            if told.setdefault(_number(aspects, name, value), said) is not said:
                raise InputError(
                    f"Two different things are said of {name} = {value}: name it once, as wanted more, "
                    "wanted less or to be undone."
                )
    return told


def _number(aspects: Aspects, name: str, value: str) -> int:
    if (name, value) in aspects.places:
        return aspects.places[name, value]
    usable = tuple(dict.fromkeys(aspects.fields))
    if name not in usable:
        raise InputError(
            f"Nothing is known of preferences among values of {name!r}. Fields for that: {', '.join(usable)}."
        )
    known = {each.casefold(): each for field, each in aspects.places if field == name}
    close = [known[each] for each in get_close_matches(value.casefold(), known, SHOWN)]
    others = close or list(known.values())[:SHOWN]
    left = "" if close or len(known) <= SHOWN else f" and {len(known) - SHOWN} others"
    raise InputError(
        f"Nothing is known of a preference for {name} = {value}: no item has it, or too few. "
        f"{'Close to it' if close else 'Known'}: {', '.join(others)}{left}."
    )
