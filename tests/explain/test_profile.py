"""What a person is taken to like: the largest preferences above what is usual, and what they come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.explain.test_aspects import KINDS, TINY, WORLD, taste

from llm4rec import explaining
from llm4rec.data.events import EventLog
from llm4rec.errors import InputError
from llm4rec.recommender import Recommender
from llm4rec.types import Array, Query


@pytest.fixture(scope="module")
def model() -> Recommender:
    return Recommender.fit(taste(), WORLD, TINY)


def of(person: int, length: int = 6) -> EventLog:
    log = taste()
    return log.histories(np.array([person]), np.array([length]))


def told(model: Recommender, history: EventLog) -> Array:
    """p_u of a history [k]."""
    fitted = model.fitted
    assert fitted.aspects is not None
    return fitted.aspects.preferences(fitted.scorer.states(history, fitted.person_rows(history)))[0]


@pytest.mark.parametrize("person", range(6))
def test_who_stays_with_a_kind_is_taken_to_like_it(model: Recommender, person: int) -> None:
    aspects, history = model.fitted.aspects, of(person)
    assert aspects is not None
    first, *others = explaining.profile(model.fitted, history, 3)
    p = told(model, history)
    assert (first.field, first.value) == ("genre", KINDS[person % 3])
    place = aspects.values.index(first.value)
    assert first.share == pytest.approx(p[place], rel=1e-4) and first.share > first.usual
    assert first.usual == pytest.approx(aspects.rates[place])
    own = {WORLD.ids[int(item)] for item in history.items}
    assert first.evidence and {each.id for each in first.evidence} <= own
    amounts = [each.contribution for each in first.evidence]
    assert amounts == sorted(amounts, reverse=True) and min(amounts) > 0
    terms = [each.share * np.log(each.share / each.usual) for each in (first, *others)]
    assert terms == sorted(terms, reverse=True) and min(terms) > 0


def test_what_the_last_event_adds_is_what_is_lost_without_it(model: Recommender) -> None:
    seen = 0
    for person in range(12):
        history = of(person, 3)
        last = int(history.items[-1])
        if (history.items == last).sum() > 1:
            continue
        p, before = told(model, history), told(model, of(person, 2))
        for each in explaining.profile(model.fitted, history, 3):
            aspects = model.fitted.aspects
            assert aspects is not None
            place = aspects.values.index(each.value)
            found = [piece.contribution for piece in each.evidence if piece.id == WORLD.ids[last]]
            if found:
                seen += 1
                assert found[0] == pytest.approx(np.log(p[place] / before[place]), abs=1e-4)
    assert seen > 3


def test_the_time_of_asking_changes_nothing(model: Recommender) -> None:
    asked = replace(of(1), asked_at=np.array([1_600_000_000]))
    assert explaining.profile(model.fitted, asked, 3) == explaining.profile(model.fitted, of(1), 3)


def test_no_more_are_told_than_are_asked_for(model: Recommender) -> None:
    everything = model.profile(Query(user="u1"), 9)
    assert model.profile(Query(user="u1"), 1) == everything[:1]
    for n in (0, -1):
        with pytest.raises(InputError, match="ask for 1 or more"):
            model.profile(Query(user="u1"), n)


def test_an_empty_history_has_no_evidence(model: Recommender) -> None:
    assert all(each.evidence == () for each in model.profile(Query()))


@pytest.mark.parametrize("seed", range(5))
def test_where_states_tell_nothing_nobody_likes_anything(model: Recommender, seed: int) -> None:
    """Base rates come back from their logarithms but for the last digit, which is no preference."""
    aspects = model.fitted.aspects
    assert aspects is not None
    rates = np.random.default_rng(seed).dirichlet(np.ones(len(aspects))).astype(np.float32)
    same = replace(aspects, weights=0 * aspects.weights, bias=np.log(rates), rates=rates)
    assert explaining.profile(replace(model.fitted, aspects=same), of(1), 9) == ()


def test_a_model_without_aspects_says_so(model: Recommender) -> None:
    bare = Recommender(replace(model.fitted, aspects=None))
    with pytest.raises(InputError, match="no words for preferences"):
        bare.profile(Query(user="u1"))
