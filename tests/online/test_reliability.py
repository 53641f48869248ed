"""Equations (28), (31) and (32), by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llm4rec.online.reliability import FLOOR, KIND_PRIOR, Mean, Reliability


def test_the_mean_by_hand() -> None:
    mean = Mean(0.8, 2).after(0.2, 100)
    assert mean == Mean(pytest.approx(0.6), 3)
    assert mean.after(0.0, 3) == Mean(pytest.approx(0.4), 3)  # it remembers three: 0.6 · 2/3


def test_weights_by_hand() -> None:
    known = Reliability(0.8)
    assert known.weights(["click"], ["u"]).tolist() == [1.0]
    known.kinds["click"] = Mean(0.4, 50)
    assert known.of_kind("click") == pytest.approx(0.5)  # half of what is usual
    known.people["odd"] = Mean(0.4, 9)
    assert known.of_person("odd") == 1.0  # half of what is usual is no bad faith
    known.people["worse"] = Mean(0.1, 9)
    assert known.of_person("worse") == pytest.approx(0.25)
    known.people["random"] = Mean(-0.1, 9)
    found = known.weights(["click", "click", "like", "like"], ["odd", "worse", "worse", "random"])
    np.testing.assert_allclose(found, [0.5, 0.125, 0.25, FLOOR], rtol=1e-6)


def test_who_answers_at_random_loses_trust_and_can_win_it_back() -> None:
    known = Reliability(0.8)
    rng = np.random.default_rng(0)
    for _ in range(10):
        known.saw(["click"] * 32, ["flood"] * 32, rng.uniform(-1, 1, 32))
    assert known.of_person("flood") < 0.4 and known.of_kind("click") < 0.5
    known.saw(["click"] * 200, ["flood"] * 200, np.full(200, 0.9))
    assert known.of_person("flood") == 1.0


def test_one_event_counts_beside_what_is_usual() -> None:
    known = Reliability(0.8)
    known.saw(["click"], ["u"], np.array([-1.0]))
    assert known.kinds["click"].value == pytest.approx((KIND_PRIOR * 0.8 - 1) / (KIND_PRIOR + 1))


def test_a_model_that_foresees_nothing_judges_nobody() -> None:
    known = Reliability(0.0)
    known.saw(["click"] * 100, ["u"] * 100, np.full(100, -0.5))
    assert known.weights(["click"], ["u"]).tolist() == [1.0]
