"""How much the linear part and the network count: by likelihood, and by rank where likelihood misleads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.model.test_linear import N_ITEMS, drawn, even, fitted, log

from llm4rec.data.events import EventLog
from llm4rec.model.linear import EXPONENTS, STRENGTHS, Linear, LinearConfig, fit_linear
from llm4rec.model.prior import FEWEST
from llm4rec.model.weighing import RATIOS, Trial
from llm4rec.types import Array, Floats, Ints


def trial(part: Linear, targets: list[int], asked: EventLog, network: Floats) -> Trial:
    found = Trial(part, np.array(targets), asked.lengths, np.arange(len(targets)))
    for rows in np.array_split(np.arange(len(targets)), 3):
        found.ask(rows, network[rows], asked.histories(rows, asked.lengths[rows]))
    return found


def every(part: Linear, strength: float, exponent: float) -> Linear:
    return replace(part, strengths=(strength,) * 4, exponents=(exponent,) * 4)


def test_likelihoods_and_ranks_are_those_of_what_comes_out() -> None:
    """Whatever is known of the target. One out of the network's reach tells nothing."""
    rng = np.random.default_rng(1)
    asked, targets = drawn(3, 60), np.array([*rng.integers(N_ITEMS, size=59), 8])
    network = np.log(rng.dirichlet(np.ones(N_ITEMS), 60)).astype(np.float32)
    network[0, targets[0]] = -np.inf  # as items are that no beam reached
    part = fitted()
    found = trial(part, targets.tolist(), asked, network)
    assert found.told.tolist() == [False] + [True] * 59
    kinds = np.searchsorted([1, 3, 10], asked.lengths, side="right")
    repeated = np.array([target in asked.history(row) for row, target in enumerate(targets)])
    assert found.told[repeated].any() and repeated.any() and not repeated.all()
    for place, strength in enumerate(STRENGTHS):
        for number, exponent in enumerate(EXPONENTS):
            log_p = every(part, strength or 1e-9, exponent).add(network, asked).astype(np.float64)
            own = log_p[np.arange(60), targets]
            outside = log_p.copy()
            outside[asked.rows, asked.items] = -np.inf
            left = own - np.log(np.exp(outside).sum(axis=1))
            ratio = np.flatnonzero(np.isclose(RATIOS, strength / exponent))[0]
            levels = (outside >= own[:, None]).sum(axis=1)
            for row in np.flatnonzero(found.told & ~repeated):
                assert found.ndcg[row, ratio] == pytest.approx(1 / np.log2(levels[row] + 1))
            for kind in range(4):
                of_kind = found.told & (kinds == kind)
                told = left[of_kind & ~repeated].sum()
                assert found.likely_outside[kind, number, place] == pytest.approx(told, abs=1e-3)
                if exponent == 1:
                    assert found.likely[kind, place] == pytest.approx(own[of_kind].sum(), abs=1e-3)
    assert not found.ndcg[repeated].any()


def test_a_search_that_reached_nothing_but_the_history_tells_of_the_history() -> None:
    network = np.full((1, N_ITEMS), -np.inf, dtype=np.float32)
    network[0, 2] = np.log(0.5)
    found = trial(fitted(), [2], log([2, 3]), network)
    assert found.told.all() and not found.likely_outside.any()
    np.testing.assert_allclose(found.likely[1], 0, atol=1e-6)  # of what was reached it is all


def test_what_no_search_reached_is_no_measure_of_what_was_reached() -> None:
    """Item 3 has by far the largest score and is out of reach; the others are far from certain."""
    part = Linear(
        np.arange(9),
        np.array([0, *[3] * 9]),
        np.array([1, 2, 3], np.uint16),
        np.array([0.5, 0.1, 7.0], np.float16),
    )
    network = np.full((1, N_ITEMS), -120.0, dtype=np.float32)  # such as plain dot products give
    network[0, 3], network[0, 0] = -np.inf, 0.0
    found = trial(part, [1], log([0]), network)
    scores = np.zeros((len(STRENGTHS), 7))  # all but the history and what is out of reach
    scores[:, 0], scores[:, 1] = STRENGTHS * 0.5, STRENGTHS * float(np.float16(0.1))
    expected = scores[:, 0] - np.logaddexp.reduce(scores, axis=1)
    for likely in found.likely_outside[1]:
        np.testing.assert_allclose(likely, expected, atol=1e-3)


def test_a_rank_beyond_ten_is_worth_nothing() -> None:
    part = Linear(np.arange(30), np.array([0, *[1] * 30]), np.array([29], np.uint16), np.ones(1, np.float16))
    network = np.log(np.arange(30, 0, -1, dtype=np.float32) / 465)[None]
    found = Trial(part, np.array([29]), np.array([1]), np.array([0]))
    found.ask(np.arange(1), network, log([0]))
    # lifted by w, item 29 passes item k where w > log(30 − k): eighteen others at w = log 12, ten at log 20
    worth = dict(zip(RATIOS.tolist(), found.ndcg[0].tolist(), strict=True))
    assert worth[0.0] == 0 and worth[2.0] == 0 and worth[128.0] == 1
    above = [ratio for ratio in RATIOS if np.log(21) < ratio < np.log(22)]  # nine are above it: 1 to 9
    assert [worth[ratio] for ratio in above] == pytest.approx([1 / np.log2(11)] * len(above))


def test_a_network_that_is_too_sure_counts_less() -> None:
    """The linear part knows; the network is certain of chance, and no strength at τ = 1 makes up for it."""
    rng = np.random.default_rng(0)
    pairs = log(*([0, 1], [2, 3], [4, 5]) * 40)
    part = fit_linear(pairs, N_ITEMS, LinearConfig(ridge=1.0))
    firsts = rng.choice([0, 2, 4], size=300)
    targets = np.where(rng.random(300) < 0.6, firsts + 1, rng.integers(6, 9, size=300))
    network = (rng.normal(size=(300, N_ITEMS)) * 8).astype(np.float32)
    network -= np.logaddexp.reduce(network, axis=1, keepdims=True)
    found = trial(part, targets.tolist(), log(*firsts[:, None].tolist()), network)
    chosen = found.chosen()
    assert max(chosen.exponents[1:]) < 0.2 and min(chosen.strengths) > 0
    assert chosen.exponents[0] == 1  # of an empty history no case told
    places = np.unravel_index(int(found.likely_outside.sum(axis=0).argmax()), found.likely_outside.shape[1:])
    assert (
        chosen.exponents[1:] == (EXPONENTS[places[0]],) * 3
        and chosen.strengths == (STRENGTHS[places[1]],) * 4
    )


def told(ndcg: Array, people: Ints | None = None) -> Trial:
    """Likelihood asks for τ = .5 and w = 1 (ratio 2), at τ = 1 for w = 4; ranks by each are given [c, 2]."""
    owners = np.arange(len(ndcg)) if people is None else people
    found = Trial(fitted(), np.zeros(len(ndcg), dtype=np.int64), np.full(len(ndcg), 2), owners)
    found.told[:] = True
    found.likely[1, STRENGTHS == 4] = found.likely_outside[1, 0, STRENGTHS == 4] = 1
    found.likely_outside[1, EXPONENTS == 0.5, np.flatnonzero(STRENGTHS == 1)] = 2
    found.ndcg[:, RATIOS == 2], found.ndcg[:, RATIOS == 4] = ndcg[:, :1], ndcg[:, 1:]
    return found


def test_the_likelier_exponent_is_taken_where_it_ranks_higher_by_a_standard_error() -> None:
    worse, better = np.zeros((100, 2)), np.zeros((100, 2))
    better[:8, 0] = worse[:8, 0] = 1
    better[8:12, 1] = worse[8:14, 1] = 1  # four in a hundred more, of a standard error of .034; two, of .037
    assert (
        told(better).chosen().exponents == (1.0, 0.5, 0.5, 0.5)
        and told(better).chosen().strengths == (1.0,) * 4
    )
    assert told(worse).chosen().exponents == (1.0,) * 4 and told(worse).chosen().strengths == (4.0,) * 4
    # what three people say in many cases is what three people say: .04, .04 and -.04, standard error .022
    few = np.zeros((150, 2))
    few[:2, 0] = few[50:52, 0] = few[100:102, 1] = 1
    assert told(np.tile(few, (40, 1))).chosen().exponents[1] == 0.5
    assert told(np.tile(few, (40, 1)), np.tile(np.arange(3).repeat(50), 40)).chosen().exponents[1] == 1


def test_the_strength_follows_what_held_out_items_say() -> None:
    pairs = log(*([0, 1], [2, 3], [4, 5]) * 20)
    part = fit_linear(pairs, N_ITEMS, LinearConfig(ridge=1.0))
    asked = log(*([0], [2], [4]) * 10)
    assert min(trial(part, [1, 3, 5] * 10, asked, even(30)).chosen().strengths) > 4  # it knows
    assert trial(part, [3, 5, 1] * 10, asked, even(30)).chosen().strengths == (0,) * 4  # it misleads
    few = log(*[[0]] * (FEWEST - 1))
    assert trial(part, [1] * (FEWEST - 1), few, even(FEWEST - 1)).chosen().strengths == (0,) * 4


def test_where_it_knows_nothing_taking_probability_from_the_history_is_no_reason_for_it() -> None:
    """A network that expects repeats, of which there are none, gains by anything that lifts other items."""
    rng = np.random.default_rng(5)
    part = Linear(
        known=np.arange(N_ITEMS),
        offsets=np.arange(N_ITEMS + 1) * N_ITEMS,
        places=np.tile(np.arange(N_ITEMS, dtype=np.uint16), N_ITEMS),
        weights=rng.random(N_ITEMS * N_ITEMS).astype(np.float16),
    )
    drawn = np.stack([rng.permutation(N_ITEMS)[:4] for _ in range(2000)])
    asked = log(*drawn[:, :3].tolist())
    network = even(2000)
    network[asked.rows, asked.items] += 3
    network -= np.log(np.exp(network).sum(axis=1, keepdims=True))
    found = trial(part, drawn[:, 3].tolist(), asked, network)
    assert found.likely.sum(axis=0).argmax() > 0
    assert found.chosen().strengths == (0.0,) * 4


def test_each_class_of_history_lengths_has_a_strength_of_its_own() -> None:
    """It knows what follows one event and misleads after three; after ten there are too few cases to tell."""
    part = fit_linear(log(*([0, 1], [2, 3], [4, 5]) * 20), N_ITEMS, LinearConfig(ridge=1.0))
    asked = log(*[[0]] * 40, *[[0, 6, 7]] * 30, *[[0] * 10] * 3)
    found = trial(part, [1] * 40 + [8] * 30 + [1] * 3, asked, even(73))
    every = STRENGTHS[int(np.argmax(found.likely.sum(axis=0)))]
    assert found.chosen().exponents == (1.0,) * 4
    none, short, middle, long = found.chosen().strengths
    assert none == long == every and short > every > middle == 0
    lifted = replace(part, strengths=(0, 2, 3, 5))
    unit = part.scores(np.array([0]))
    for length, strength in ((1, 2), (2, 2), (3, 3), (9, 3), (10, 5), (100, 5)):
        np.testing.assert_allclose(lifted.lifts(np.zeros(length, dtype=np.int64)), strength * unit, rtol=1e-6)
