"""The ways of learning ratings that were chosen, and the choice among them."""

from __future__ import annotations

import numpy as np
import pytest

from llm4rec.debias import methods
from llm4rec.debias.learning import CrossFitted
from llm4rec.debias.methods import Held, choose, held, learn
from llm4rec.debias.rated import Rated
from llm4rec.debias.ratings import Features, RatingConfig

BARE = Features()


def test_the_choice_stays_naive_unless_validation_shows_more() -> None:
    naive = Held(np.array([1.0, 1.0, 1.0, 1.0]), 0.7)
    better, unsure = Held(np.array([0.9, 0.8, 0.9, 0.8]), 0.7), Held(np.array([0.1, 1.6, 0.6, 1.6]), 0.7)
    assert choose({"naive": naive, "ips": better}) == "ips"
    assert choose({"naive": naive, "ips": unsure}) == "naive"
    assert choose({"naive": naive, "ips": Held(better.losses, 0.6)}) == "naive"
    assert choose({"naive": naive}) == "naive"


def test_what_is_held_out_is_weighed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Propensities ½ and ¼ weigh 1 and 2: ⅓ and ⅔ of the loss, which is told as a mean over two people."""
    monkeypatch.setattr(methods, "CLIP", 0.0)
    rated = Rated.of(np.array([0, 1]), np.array([0, 0]), np.array([1.0, 2.0]), 2, 1)
    fitted = CrossFitted((), np.array([[0.2], [0.6]], dtype=np.float32), (1, 1))
    found = held(rated, fitted, np.array([0.5, 0.25]), like=2.0)
    np.testing.assert_allclose(found.losses, [-2 / 3 * np.log(0.8), -4 / 3 * np.log(0.6)], rtol=1e-6)
    assert found.order == 1


def test_every_way_is_tried_and_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm4rec.debias.exposure.STEPS", 40)
    draw = np.random.default_rng(0)
    people, items = np.nonzero(draw.random((40, 12)) < 0.4)
    ratings = np.clip(draw.integers(1, 5, len(people)) + (items % 2 == 0), 1, 5).astype(float)
    rated = Rated.of(people, items, ratings, 40, 12)
    config = RatingConfig(epochs=3)
    found = learn(rated, BARE, config, like=3.0, folds=2)
    assert set(found.held) == set(methods.METHODS)
    assert found.method == choose(found.held)
    assert found.fitted.predict(rated, np.array([0, 1]), np.array([3, 4])).shape == (2, len(rated.levels) - 1)
    fewer = learn(rated, BARE, config, like=3.0, methods=("snips",), folds=2)
    assert set(fewer.held) == {"naive", "snips"}
    assert fewer.held["naive"].order == found.held["naive"].order
