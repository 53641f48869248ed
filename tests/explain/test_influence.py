"""What moved a score: worked by hand, against differences of the real score, and against deletion."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.events import EventLog
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import TokenSpace
from llm4rec.explain.influence import Parts, influence
from llm4rec.generate.generator import Generator
from llm4rec.generate.semantic_id import SemanticIds
from llm4rec.model.arrivals import Arrivals
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.events import EventSpace, event_arrays
from llm4rec.model.linear import Linear
from llm4rec.model.network import Network
from llm4rec.model.prior import Prior
from llm4rec.model.scorer import Scorer
from llm4rec.retrieve.entries import KINDS, MEMORY, REVIEW, Entries, entries
from llm4rec.retrieve.relevance import Grounding, Relevance
from llm4rec.retrieve.repository import Repository
from llm4rec.types import Array, Floats, Ints

SIZE, MOST = 8, 6
STRANGER = np.array([-1])
NOON = 1_600_000_000


def network(n_items: int, *, cosine: bool = True, codes: bool = False, seed: int = 0) -> Scorer:
    """A random network over `n_items`, as it would be at hand for answering."""
    torch.manual_seed(seed)
    made = Network(
        TokenSpace({}, {}, {}, {}, {}), None, n_items=n_items, n_ratings=0, n_kinds=0, max_history=MOST,
        backbone=BackboneConfig(embedding_size=SIZE, layers=1, heads=1, cosine=cosine, temperature=0.3),
        fusion=FusionConfig(), code_shape=(3, 3) if codes else None,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for table in made.context.children():
            table.weight[1:].normal_()  # type: ignore[union-attr]
        for name, weights in made.backbone.named_parameters():
            if "norm" not in name:
                weights.mul_(20)  # as it starts, it hardly tells one event from another
    tokens = {BEHAVIOUR: behaviour_tokens(torch.ones(n_items, dtype=torch.bool))}
    return Scorer(made, tokens, None, EventSpace((), 0.0, 1.0, ()))


def even(n_items: int) -> Scorer:
    """A network whose logits are all alike, whatever it reads."""
    made = network(n_items, cosine=False)
    vars(made)["vectors"] = torch.zeros(n_items, SIZE)
    return made


def history(*items: int, asked_at: int | None = None) -> EventLog:
    return EventLog(
        pl.Series(["u"]),
        np.array([0, len(items)]),
        np.array(items, dtype=np.int64),
        times=NOON + 5_000 * np.arange(len(items)),
        asked_at=None if asked_at is None else np.array([asked_at]),
    )


def linear(square: list[list[float]], strength: float = 2.0, exponent: float = 1.0) -> Linear:
    """B [i, i] row by row, of which what is not 0 is kept."""
    whole = np.array(square)
    rows, places = np.nonzero(whole)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(whole)))])
    return Linear(
        np.arange(len(whole)), offsets, places.astype(np.uint16), whole[rows, places],
        (strength,) * 4, (exponent,) * 4,
    )  # fmt: skip


def prior(n_items: int, share: float = 0.0) -> Prior:
    """Item k is k + 1 times as popular as item 0."""
    popularity = np.arange(1, n_items + 1) / np.arange(1, n_items + 1).sum()
    return Prior(np.tile(np.log(popularity).astype(np.float32), (4, 1)), (share,) * 4, (1.0,) * 4)


@dataclass(frozen=True)
class Told:
    """Retrieves the same entries for every history."""

    found: Entries

    def retrieve(self, histories: EventLog, row: int) -> Entries:
        return self.found


def grounding(found: Entries) -> Grounding:
    """Entries that weigh what their semantic factor says."""
    return Grounding(cast(Repository, Told(found)), Relevance(((1.0, 0.0, 0.0, 0.0),) * len(KINDS)))


def found_by(*told: tuple[int, int, int, float]) -> Entries:
    """Entries of (kind, anchor, item, nats)."""
    kinds, anchors, items, nats = (np.array(column) for column in zip(*told, strict=True))
    made = entries(
        0, items, anchors=anchors, sources=items, weights=np.ones(len(items), dtype=np.float32),
        semantic=nats.astype(np.float32),
    )  # fmt: skip
    return replace(made, kinds=kinds)


def parts(scorer: Scorer, **others: object) -> Parts:
    n = len(scorer.vectors)
    plain: dict[str, object] = {"linear": Linear(), "arrivals": Arrivals(), "grounding": Grounding()}
    return Parts(scorer, **(plain | {"prior": prior(n)} | others))  # type: ignore[arg-type]


# --- by hand

SAYS = [[0, 5, 1, 0.5], [0, 0, 0.25, 0], [9, 0, 0, 0], [0, 0, 0, 0]]
"""Item 0 says something of 2 and 3 (and of 1, which is of the history), item 1 of 2."""
Q = np.exp([0, 0, 2.5, 1]) / np.exp([0, 0, 2.5, 1]).sum()
"""Four even items after 0 and 1 at strength 2: 2 is lifted by 2 · 1.25, 3 by 2 · 0.5."""


def test_the_linear_part_by_hand() -> None:
    found = influence(parts(even(4), linear=linear(SAYS)), history(1, 0), STRANGER, np.array([2, 3, 0]))
    assert found.history.tolist() == [0, 1]
    zero, one = 2 * Q[2] + 1 * Q[3], 0.5 * Q[2]  # what each adds on average
    expected = [[2 - zero, 0.5 - one], [1 - zero, -one], [-zero, -one]]
    np.testing.assert_allclose(found.linear, expected, rtol=1e-5)
    np.testing.assert_allclose(found.owed, expected, rtol=1e-5)
    for nothing in (found.network, found.retrieved, found.trend, found.time, found.wish):
        assert not nothing.any()


def test_what_is_recent_popularitys_is_nobody_elses() -> None:
    """A quarter of the mixture is popularity, .3 of item 2 and .4 of item 3."""
    told = parts(even(4), linear=linear(SAYS), prior=prior(4, 0.25))
    found = influence(told, history(0, 1), STRANGER, np.array([2, 3]))
    share = 0.25 * np.array([0.3, 0.4]) / (0.75 * Q[2:] + 0.25 * np.array([0.3, 0.4]))
    np.testing.assert_allclose(found.trend, np.log(0.75 + 0.25 * np.array([0.3, 0.4]) / Q[2:]), rtol=1e-4)
    assert found.trend[0] < 0 < found.trend[1]  # the network holds more of item 2 than popularity does
    alone = influence(parts(even(4), linear=linear(SAYS)), history(0, 1), STRANGER, np.array([2, 3]))
    np.testing.assert_allclose(found.owed, (1 - share[:, None]) * alone.owed, rtol=1e-5)
    all_popular = influence(replace(told, prior=prior(4, 1.0)), history(0, 1), STRANGER, np.array([2]))
    assert all_popular.trend == pytest.approx(np.log(0.3 / Q[2]), rel=1e-4) and not all_popular.owed.any()


def test_what_few_chose_gains_nothing_by_being_popular() -> None:
    """Popularity holds more of item 0 than the network, but it is the one that fewest chose."""
    told = parts(even(4), linear=linear(SAYS), prior=prior(4, 0.25))
    assert Q[0] < 0.1 and influence(told, history(0, 1), STRANGER, np.array([0])).trend.tolist() == [0]


def test_a_score_far_below_all_others_is_nobodys() -> None:
    """Where it is e^-200 of the network's and popularity has no share, that share is 0 and no accident."""
    told = parts(even(4), arrivals=Arrivals(np.array([2]), np.array([-200], dtype=np.float32)))
    found = influence(told, history(0, 1), STRANGER, np.array([2, 3]))
    assert found.trend.tolist() == [0, 0] and np.isfinite(found.owed).all()
    shared = influence(replace(told, prior=prior(4, 0.01)), history(0, 1), STRANGER, np.array([2]))
    assert 100 < shared.trend[0] < 300


def test_what_is_retrieved_by_hand() -> None:
    """Two memories of item 2 found by 0, a review of 3 by 0, a memory of 3 by 1."""
    told = found_by((MEMORY, 0, 2, 0.5), (REVIEW, 0, 3, 0.75), (MEMORY, 1, 3, 0.25), (MEMORY, 0, 2, 1.5))
    found = influence(parts(even(4), grounding=grounding(told)), history(0, 1), STRANGER, np.array([3, 2, 1]))
    q = np.exp([0, 0, 2, 1]) / np.exp([0, 0, 2, 1]).sum()
    expected = np.zeros((3, 2, len(KINDS)))
    expected[:, 0, MEMORY] = np.array([0, 2, 0]) - 2 * q[2]
    expected[:, 0, REVIEW] = np.array([0.75, 0, 0]) - 0.75 * q[3]
    expected[:, 1, MEMORY] = np.array([0.25, 0, 0]) - 0.25 * q[3]
    np.testing.assert_allclose(found.retrieved, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.owed, expected.sum(axis=2), rtol=1e-5, atol=1e-7)


def test_nothing_retrieved_adds_nothing() -> None:
    nothing = found_by((MEMORY, 0, 2, 0.5)).only(np.zeros(0, dtype=np.int64))
    found = influence(parts(even(4), grounding=grounding(nothing)), history(0), STRANGER, np.array([2]))
    assert found.retrieved.shape == (1, 1, len(KINDS)) and not found.owed.any()


def test_an_item_is_one_however_often_it_was_taken() -> None:
    told = parts(network(4), linear=linear(SAYS), grounding=grounding(found_by((MEMORY, 1, 3, 0.5))))
    items = np.array([2, 3])
    once, often = (influence(told, history(*taken), STRANGER, items) for taken in ((0, 1), (0, 1, 0, 0, 1)))
    assert often.history.tolist() == once.history.tolist() == [0, 1]
    assert often.network.shape == (2, 2)
    # what it does by being read is the sum over its events
    each = influence(told, history(0, 1, 0, 2, 1), STRANGER, items)
    assert each.history.tolist() == [0, 1, 2]


def test_an_item_asked_for_twice_is_told_twice() -> None:
    told = parts(network(4), linear=linear(SAYS), grounding=grounding(found_by((MEMORY, 1, 3, 0.5))))
    found = influence(told, history(0, 1), STRANGER, np.array([3, 2, 3]))
    alone = influence(told, history(0, 1), STRANGER, np.array([3]))
    for row in (0, 2):
        for name in ("network", "linear", "retrieved"):
            np.testing.assert_allclose(getattr(found, name)[row], getattr(alone, name)[0], atol=1e-6)


def test_an_empty_history_owes_nothing() -> None:
    told = parts(network(4), linear=linear(SAYS), grounding=grounding(found_by((MEMORY, 0, 3, 0.5)).only([])))
    found = influence(told, history(asked_at=NOON), STRANGER, np.array([2, 3]))
    assert found.owed.shape == (2, 0) and found.retrieved.shape == (2, 0, len(KINDS))
    assert found.time.all()


# --- against the real score


@dataclass(frozen=True)
class Real:
    """The score of every item as it is really worked out, the more or less being an argument."""

    parts: Parts
    history: EventLog

    def scores(self, keys: Floats | None = None, wish: Floats | None = None) -> Array:
        """Log-probabilities [i], the events read counting `keys` [t] as keys."""
        found = self.mixed(self.state(keys))
        for added in (self.parts.added, None if wish is None else wish[0]):
            if added is not None:
                found = found + added
                found = found - np.logaddexp.reduce(found)
        return found

    def state(self, keys: Floats | None = None) -> torch.Tensor:
        scorer, told = self.parts.scorer, self.history
        with torch.inference_mode():
            if keys is None:
                return scorer.states(told, STRANGER)
            lengths = np.minimum(told.lengths, MOST)
            asked = None if told.asked_at is None else torch.from_numpy(told.asked_at).unsqueeze(1)
            batch = event_arrays(told, scorer.events, STRANGER).batch(
                np.arange(1), told.offsets[1:] - lengths, lengths, asked
            )
            read = scorer.network.told(batch, scorer.vectors, None)
            weights = torch.from_numpy(np.concatenate([[0], keys])[None]).float()
            state = scorer.network.backbone(read, keys=weights)[:, -1]
            return state if batch.asked is None else state + scorer.network.context(batch.asked)[:, -1]

    def mixed(self, state: torch.Tensor) -> Array:
        parts = self.parts
        with torch.inference_mode():
            if parts.attend is not None:  # held still
                now = parts.scorer.states(self.history, STRANGER)
                state = state + (parts.attend(now, self.history) - now)
            log_p = parts.scorer.dense(state)
            if parts.generator is not None:
                log_p = parts.generator.joined(state, log_p, log_p.shape[1], added=True)
        found = parts.arrivals.add(parts.linear.add(log_p.numpy(), self.history))
        found = parts.grounding.add(found, self.history)
        return parts.prior.mix(found, self.history.lengths)[0].astype(np.float64)

    def by_keys(self, events: list[int], step: float = 0.05, wish: Floats | None = None) -> Array:
        """What each score [i] gains per unit of the keys of some events."""
        up, down = (np.zeros(min(self.history.n_events, MOST)) for _ in range(2))
        up[events], down[events] = step, -step
        return (self.scores(up, wish) - self.scores(down, wish)) / (2 * step)


def coded(scorer: Scorer, share: float) -> Generator:
    assert scorer.network.codes is not None
    n = len(scorer.vectors)
    codes = np.stack([np.arange(n) % 3, np.arange(n) // 3 % 3, np.zeros(n, dtype=np.int64)], axis=1)
    return Generator(scorer.network.codes, SemanticIds(codes, np.zeros((2, 3, SIZE), np.float32)), n, share)


N_ITEMS = 8
SQUARE = np.where(np.eye(N_ITEMS), 0, np.random.default_rng(5).normal(size=(N_ITEMS, N_ITEMS))).tolist()
RETRIEVED = found_by((MEMORY, 0, 5, 0.5), (REVIEW, 3, 6, 0.75), (MEMORY, 1, 7, 0.25), (MEMORY, 0, 6, 1.5))
NEWCOMER = Arrivals(np.array([4, 7]), np.array([0.5, -0.4], dtype=np.float32))
ITEMS = np.array([5, 7, 4, 0])


UNPOPULAR = np.linspace(0.5, -1.5, N_ITEMS).astype(np.float32)
"""What is added at the end, so that popular items are not so."""


def everything(cosine: bool = True, exponent: float = 0.5, share: float = 0.3) -> Parts:
    return parts(
        network(N_ITEMS, cosine=cosine), linear=linear(SQUARE, 0.7, exponent), arrivals=NEWCOMER,
        grounding=grounding(RETRIEVED), prior=prior(N_ITEMS, share), added=UNPOPULAR,
    )  # fmt: skip


@pytest.mark.parametrize("cosine", [True, False])
def test_the_networks_part_is_the_slope_of_the_real_score(cosine: bool) -> None:
    """Of each event but the last, whose own part is the difference to what was read before it."""
    told, asked = everything(cosine), history(0, 1, 3, 1, 2, asked_at=NOON + 99_999)
    found, real = influence(told, asked, STRANGER, ITEMS), Real(told, asked)
    expected = np.stack([real.by_keys(events)[ITEMS] for events in ([0], [1, 3], [2])], axis=1)
    np.testing.assert_allclose(found.network[:, [0, 1, 3]], expected, rtol=5e-3, atol=2e-4)
    assert np.abs(expected).max() > 0.02


def test_only_what_was_read_owes_something_to_the_network() -> None:
    told, asked = everything(), history(5, 0, 1, 3, 1, 0, 2)  # one more than it reads
    found, real = influence(told, asked, STRANGER, ITEMS), Real(told, asked)
    assert not found.network[:, found.history == 5].any()
    expected = np.stack([real.by_keys(events)[ITEMS] for events in ([0, 4], [1, 3], [2])], axis=1)
    np.testing.assert_allclose(found.network[:, [0, 1, 3]], expected, rtol=5e-3, atol=2e-4)


def test_what_is_added_is_the_slope_of_the_real_score() -> None:
    """What an item says in the linear part and in what was retrieved, made more and less."""
    told, asked = everything(), history(0, 1, 3)
    found = influence(told, asked, STRANGER, ITEMS)
    for place, item in enumerate(found.history.tolist()):

        def scores(factor: float, item: int = item) -> tuple[Array, Array]:
            rows = np.repeat(np.arange(N_ITEMS), np.diff(told.linear.offsets))
            said = replace(told.linear, weights=np.where(rows == item, factor, 1) * told.linear.weights)
            weights = np.where(RETRIEVED.anchors == item, factor, 1).astype(np.float32)
            other = grounding(replace(RETRIEVED, weights=weights))
            return tuple(
                Real(each, asked).scores()[ITEMS]
                for each in (replace(told, linear=said), replace(told, grounding=other))
            )  # type: ignore[return-value]

        (up, up_found), (down, down_found) = scores(1.05), scores(0.95)
        np.testing.assert_allclose(found.linear[:, place], (up - down) / 0.1, rtol=5e-3, atol=1e-4)
        np.testing.assert_allclose(
            found.retrieved[:, place].sum(axis=1), (up_found - down_found) / 0.1, rtol=5e-3, atol=1e-4
        )


def test_the_last_events_part_is_what_the_score_loses_without_it() -> None:
    told, asked = parts(network(N_ITEMS)), history(0, 1, 3, 2, asked_at=NOON + 99_999)
    found = influence(told, asked, STRANGER, ITEMS)
    shorter = Real(told, asked.heads(np.array([3]))).scores()
    lost = (Real(told, asked).scores() - shorter)[ITEMS]
    np.testing.assert_allclose(found.owed[:, found.history == 2][:, 0], lost, atol=1e-5)
    assert np.abs(lost).max() > 0.05


def test_the_only_event_is_the_last_one() -> None:
    told = parts(network(N_ITEMS))
    found = influence(told, history(3), STRANGER, ITEMS)
    lost = (Real(told, history(3)).scores() - Real(told, history()).scores())[ITEMS]
    np.testing.assert_allclose(found.owed[:, 0], lost, atol=1e-5)


def test_time_is_what_the_score_gains_by_being_asked_then() -> None:
    told, asked = parts(network(N_ITEMS)), history(0, 1, 3, asked_at=NOON + 99_999)
    found = influence(told, asked, STRANGER, ITEMS)
    gained = (Real(told, asked).scores() - Real(told, replace(asked, asked_at=None)).scores())[ITEMS]
    np.testing.assert_allclose(found.time, gained, atol=1e-5)
    assert np.abs(gained).max() > 0.05
    assert not influence(told, history(0, 1), STRANGER, ITEMS).time.any()


def wished() -> Floats:
    logits = np.random.default_rng(8).normal(size=(1, N_ITEMS)).astype(np.float32)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_wish_adds_what_the_score_gains_by_it(share: float) -> None:
    told, asked = everything(share=share), history(0, 1, 3)
    found, real = influence(told, asked, STRANGER, ITEMS, wished()), Real(told, asked)
    np.testing.assert_allclose(
        found.wish, (real.scores(wish=wished()) - real.scores())[ITEMS], rtol=1e-4, atol=1e-5
    )
    assert np.abs(found.wish).max() > 0.1
    bare = Real(replace(told, prior=prior(N_ITEMS)), asked).scores(wish=wished())
    common = ITEMS + 1 > (N_ITEMS + 1) / 2
    added = (real.scores(wish=wished()) - bare)[ITEMS]
    np.testing.assert_allclose(
        found.trend, np.where(common, added, np.minimum(added, 0)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_with_a_wish_the_parts_are_slopes_of_the_score_with_it(share: float) -> None:
    told, asked = everything(share=share), history(0, 1, 3, 2)
    found, real = influence(told, asked, STRANGER, ITEMS, wished()), Real(told, asked)
    expected = np.stack([real.by_keys([event], wish=wished())[ITEMS] for event in (0, 1, 2)], axis=1)
    np.testing.assert_allclose(found.network[:, [0, 1, 3]], expected, rtol=5e-3, atol=2e-4)


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_with_a_code_head_the_parts_are_slopes_of_the_joined_score(share: float) -> None:
    scorer = network(N_ITEMS, codes=True)
    told, asked = replace(everything(), scorer=scorer, generator=coded(scorer, share)), history(0, 1, 3, 2)
    found, real = influence(told, asked, STRANGER, ITEMS), Real(told, asked)
    expected = np.stack([real.by_keys([event])[ITEMS] for event in (0, 1, 2)], axis=1)
    np.testing.assert_allclose(found.network[:, [0, 1, 3]], expected, rtol=5e-3, atol=2e-4)
    dense = influence(replace(told, generator=None), asked, STRANGER, ITEMS)
    assert np.abs(found.network - dense.network).max() > 0.01


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_of_a_large_catalogue_only_the_items_themselves_are_asked_of_the_code_head(share: float) -> None:
    """Where those are all items, it is the same; else the dense head stands for the others."""
    scorer = network(N_ITEMS, codes=True)
    whole, asked = replace(everything(), scorer=scorer, generator=coded(scorer, share)), history(0, 1, 3, 2)
    large = replace(whole, whole=False)
    every = np.arange(N_ITEMS)
    one, other = (influence(told, asked, STRANGER, every) for told in (whole, large))
    np.testing.assert_allclose(one.owed, other.owed, rtol=1e-3, atol=1e-5)
    few = influence(large, asked, STRANGER, ITEMS[:1])
    dense = influence(replace(whole, generator=None), asked, STRANGER, ITEMS[:1])
    for found in (one.of(ITEMS[:1]), dense):
        assert np.abs(few.network - found.network).max() > 1e-3


def test_attention_to_what_is_retrieved_is_held_still() -> None:
    scorer = network(N_ITEMS)
    shift = torch.linspace(-1, 1, SIZE)[None]
    calls: list[int] = []

    def attend(states: torch.Tensor, histories: EventLog) -> torch.Tensor:
        calls.append(len(states))
        with torch.inference_mode():
            return states + shift * (1 + states.mean())

    told, asked = parts(scorer, attend=attend), history(0, 1, 3, 2)
    found = influence(told, asked, STRANGER, ITEMS)
    assert calls == [1]
    real = Real(told, asked)
    expected = np.stack([real.by_keys([event])[ITEMS] for event in (0, 1, 2)], axis=1)
    np.testing.assert_allclose(found.network[:, [0, 1, 3]], expected, rtol=5e-3, atol=2e-4)
    plain = influence(replace(told, attend=None), asked, STRANGER, ITEMS)
    assert np.abs(found.network - plain.network).max() > 1e-3


# --- laws


@settings(max_examples=40)
@given(
    items=st.lists(st.integers(0, N_ITEMS - 1), max_size=9),
    share=st.sampled_from([0.0, 0.2, 1.0]),
    exponent=st.sampled_from([1.0, 0.25]),
    cosine=st.booleans(),
)
def test_what_all_items_owe_is_what_is_taken_from_others(
    items: list[int], share: float, exponent: float, cosine: bool
) -> None:
    """Probabilities sum to 1, so what an item of the history adds to them sums to 0."""
    told, asked = everything(cosine, exponent, share), history(*items)
    known = np.isin([0, 1, 3], items).all()
    told = told if known else replace(told, grounding=Grounding())
    found = influence(told, asked, STRANGER, np.arange(N_ITEMS))
    p = np.exp(Real(told, asked).scores())
    assert p.sum() == pytest.approx(1, abs=1e-4)
    assert found.history.tolist() == sorted(set(items))
    last = np.isin(found.history, items[-1:])
    np.testing.assert_allclose(p @ found.linear, 0, atol=1e-5)
    np.testing.assert_allclose(p @ found.retrieved.sum(axis=2), 0, atol=1e-5)
    np.testing.assert_allclose((p @ found.network)[~last], 0, atol=1e-5)
    assert np.isfinite(found.trend).all() and (found.trend[: N_ITEMS // 2] <= 0).all()


def test_the_order_of_what_is_asked_for_changes_nothing() -> None:
    told, asked = everything(), history(0, 1, 3, 2)
    whole = influence(told, asked, STRANGER, np.arange(N_ITEMS))
    order: Ints = np.array([6, 1, 7])
    some = influence(told, asked, STRANGER, order)
    for name in ("network", "linear", "retrieved", "trend", "time", "wish", "correction"):
        np.testing.assert_allclose(getattr(some, name), getattr(whole, name)[order], rtol=1e-4, atol=1e-6)
    assert math.isfinite(float(some.owed.sum()))
