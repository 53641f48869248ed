"""Equations (28), (31) and (32), by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llm4rec.online.reliability import FLOOR, KIND_PRIOR, Mean, Reliability, quality


def test_the_mean_by_hand() -> None:
    mean = Mean(0.8, 2).after(0.2, 100)
    assert mean == Mean(pytest.approx(0.6), 3)
    assert mean.after(0.0, 3) == Mean(pytest.approx(0.4), 3)  # it remembers three: 0.6 · 2/3


def test_weights_by_hand() -> None:
    known = Reliability(Mean(0.8, 9))
    assert known.weights(["click"], ["u"]).tolist() == [1.0]
    known.kinds = {"click": Mean(0.4, 50), "purchase": Mean(0.8, 50)}
    assert known.of_kind("click") == pytest.approx(0.5)  # half of what the most reliable has
    assert known.of_kind("purchase") == known.of_kind("like") == 1.0  # one that has not come yet is like all
    known.people["odd"] = Mean(0.4, 9)
    assert known.of_person("odd") == 1.0  # half of what is usual is no bad faith
    known.people["worse"] = Mean(0.1, 9)
    assert known.of_person("worse") == pytest.approx(0.0625)  # a quarter of that, squared
    known.people["random"] = Mean(-0.1, 9)
    found = known.weights(["click", "click", "like", "like"], ["odd", "worse", "worse", "random"])
    np.testing.assert_allclose(found, [0.5, 0.03125, 0.0625, FLOOR], rtol=1e-6)


def test_people_are_weighed_one_by_one() -> None:
    found = Reliability.begin(0.5)
    found.saw(["click"] * 1_000, [f"p{n}" for n in range(1_000)], np.full(1_000, 0.5))
    found.saw(["click"] * 100, ["nonsense"] * 100, np.full(100, -1.0))
    weights = found.of_people(["nonsense", "p3", "stranger"])
    assert weights.tolist() == [np.float32(0.01), 1.0, 1.0]


def test_who_answers_at_random_loses_trust_and_can_win_it_back() -> None:
    known = Reliability.begin(0.8)
    rng = np.random.default_rng(0)
    for _ in range(10):
        known.saw(["click"] * 32, ["flood"] * 8 + ["good"] * 24, np.append(rng.uniform(-1, 1, 8), [0.8] * 24))
    assert known.of_person("flood") < 0.5 and known.of_person("good") == 1.0
    assert known.kinds["click"].value < 0.7  # the kind is less reliable than it was
    known.saw(["click"] * 200, ["flood"] * 200, np.full(200, 0.9))
    assert known.of_person("flood") == 1.0


def test_a_kind_that_is_given_at_random_weighs_less() -> None:
    known = Reliability.begin(0.8)
    rng = np.random.default_rng(1)
    for number in range(300):
        known.saw(["click", "like"], [f"u{number % 9}"] * 2, np.array([0.8, rng.uniform(-1, 1)]))
    assert known.of_kind("like") < 0.3 and known.of_kind("click") == 1.0


def test_one_event_counts_beside_what_is_expected() -> None:
    known = Reliability.begin(0.8)
    known.saw(["click"], ["u"], np.array([-1.0]))
    assert known.kinds["click"].value == pytest.approx((KIND_PRIOR * 0.8 - 1) / (KIND_PRIOR + 1))
    assert known.every == known.kinds["click"]


def test_what_speaks_against_an_item_counts_for_its_kind_alone() -> None:
    known = Reliability.begin(0.8)
    known.saw(["click"], ["u"], np.array([0.8]))
    known.spoke_against(["dislike", "skip"], np.array([1.0, -0.5]))
    assert known.kinds["dislike"].value == pytest.approx((KIND_PRIOR * 0.8 + 1) / (KIND_PRIOR + 1))
    assert known.kinds["skip"].value == pytest.approx((KIND_PRIOR * 0.8 - 0.5) / (KIND_PRIOR + 1))
    assert known.of_kind("dislike") == 1.0
    assert known.of_kind("skip") == pytest.approx((KIND_PRIOR * 0.8 - 0.5) / (KIND_PRIOR * 0.8 + 1))
    assert known.every.count == KIND_PRIOR + 1 and [*known.people] == ["u"]


def test_a_model_that_foresees_nothing_judges_nobody() -> None:
    known = Reliability.begin(0.0)
    known.saw(["click"] * 100, ["u"] * 100, np.full(100, -0.5))
    assert known.weights(["click"], ["u"]).tolist() == [1.0]


def test_quality_by_hand() -> None:
    ones = np.ones(4, dtype=np.float32)
    assert quality(ones, ["a", "b", "c", "d"], 1.0) == pytest.approx(1.0)
    assert quality(ones, ["a"] * 4, 1.0) == pytest.approx(1 / 4)
    assert quality(ones, ["a"] * 4, 0.5) == pytest.approx(1 / 2)
    assert quality(ones, ["a"] * 4, 0.0) == pytest.approx(1.0)
    # three of one person and one of another: n_eff = 16 / (9 + 1)
    assert quality(ones, ["a", "a", "b", "a"], 1.0) == pytest.approx(1.6 / 4)
    # who is not trusted is hardly a witness: n_eff = 1.5² / (1² + .5²) = 1.8, of a mean weight of .75
    doubted = np.array([1.0, 0.5], dtype=np.float32)
    assert quality(doubted, ["a", "b"], 1.0) == pytest.approx(0.75 * 1.8 / 2)
