"""People as sets of ratings: what they are read as, what is left out, and what training makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from llm4rec.debias.exposure import learn_exposure, set_right
from llm4rec.debias.learning import Objective, cross_fit
from llm4rec.debias.propensity import weights
from llm4rec.debias.rated import Rated, at_least, expected
from llm4rec.debias.ratings import Features, RatedSets, RatingConfig, above, level_losses
from llm4rec.errors import InputError

QUICK = RatingConfig(size=4, batch_size=200, epochs=8, patience=8, learning_rate=0.02)
LONGER = RatingConfig(
    size=8, batch_size=150, epochs=20, patience=20, learning_rate=0.02, decay=0.1, dropout=0.1
)


def chosen(
    seed: int, n_people: int = 80, n_items: int = 24, often: float = 0.4
) -> tuple[Rated, np.ndarray, np.ndarray]:
    """Two kinds of people who like either half of the items, and rate what they like four times as often.

    Also the probability of liking [u, i], and that of rating [u, i].
    """
    draw = np.random.default_rng(seed)
    same = (np.arange(n_people) % 2)[:, None] == (np.arange(n_items) % 2)
    liking = np.where(same, 0.8, 0.2)
    liked = draw.random(liking.shape) < liking
    propensity = np.where(liked, often, often / 4)
    people, items = np.nonzero(draw.random(liking.shape) < propensity)
    ratings = np.where(liked[people, items], 5.0, 2.0)
    return Rated.of(people, items, ratings, n_people, n_items), liking, propensity


def small() -> Rated:
    people, items = np.array([1, 0, 1, 2]), np.array([0, 2, 2, 1])
    return Rated.of(people, items, np.array([3.0, 1.0, 5.0, 3.0]), 4, 3)


def model(rated: Rated) -> RatedSets:
    torch.manual_seed(0)
    made = RatedSets(Features(), rated, QUICK)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def test_ratings_are_put_side_by_side() -> None:
    rated = small()
    assert rated.people.tolist() == [0, 1, 1, 2] and rated.items.tolist() == [2, 0, 2, 1]
    assert rated.levels.tolist() == [1, 3, 5] and rated.classes.tolist() == [0, 1, 2, 1]
    assert rated.offsets.tolist() == [0, 1, 3, 4, 4] and rated.density == pytest.approx(4 / 12)
    assert rated.has(np.array([1, 1, 3]), np.array([2, 1, 2])).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ratings": np.array([1.0, np.nan])}, "each a finite number"),
        ({"ratings": np.array([1.0, 1.0])}, "have 1 different values"),
        ({"people": np.array([0, 5])}, "numbers of people must be from 0 to 1"),
        ({"items": np.array([-1, 0])}, "numbers of items must be from 0 to 1"),
        ({"people": np.array([1, 1]), "items": np.array([0, 0])}, "Person 1 rated item 0 twice"),
    ],
)
def test_ratings_that_make_no_sense_are_refused(changes: dict[str, np.ndarray], sentence: str) -> None:
    usual = {"people": np.array([0, 1]), "items": np.array([0, 1]), "ratings": np.array([1.0, 2.0])}
    with pytest.raises(InputError, match=sentence):
        Rated.of(**{**usual, **changes}, n_people=2, n_items=2)


def test_levels_by_hand() -> None:
    """P(r > 1) = .8 and P(r > 3) = .5: the mean is 1 + 2 · .8 + 2 · .5."""
    levels, p = np.array([1, 3, 5], np.float32), np.array([[0.8, 0.5]])
    assert expected(levels, p) == pytest.approx([3.6])
    assert at_least(levels, p, 3) == pytest.approx([0.8]) and at_least(levels, p, 4) == pytest.approx([0.5])
    for rating in (1, 6):
        with pytest.raises(InputError, match="parts no two of the ratings 1, 3, 5"):
            at_least(levels, p, rating)
    targets = above(torch.tensor([0, 1, 2]), 3)
    assert targets.tolist() == [[0, 0], [1, 0], [1, 1]]
    losses = level_losses(torch.zeros(3, 2), targets)
    assert losses.tolist() == pytest.approx([np.log(2)] * 3)


def test_a_state_is_the_person_and_the_mean_of_the_others_by_hand() -> None:
    """Sets of (1, 0), (3, 0) and of (5, 2), of none; prior 1."""
    made = RatedSets(Features(), small(), QUICK.model_copy(update={"prior": 1.0})).eval()
    people = torch.tensor([[10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])
    told = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 2.0]])
    states, others = made.read(people, told, torch.tensor([0, 0, 1]))
    assert states.numpy() == pytest.approx(np.array([[10 + 4 / 3, 0], [20 + 5 / 2, 1], [30, 0]]))
    assert others.numpy() == pytest.approx(np.array([[10 + 3 / 2, 0], [10 + 1 / 2, 0], [20, 0]]))


def test_a_rating_says_nothing_of_its_own_prediction() -> None:
    rated = small()
    made = model(rated)
    other = replace(rated, classes=np.array([0, 0, 2, 1]))  # person 1 now rated item 0 with the lowest
    who, what = np.array([1, 1]), np.array([0, 2])
    before, after = made.predict(rated, who, what), made.predict(other, who, what)
    assert after[0] == pytest.approx(before[0])
    assert np.abs(after[1] - before[1]).max() > 1e-4
    # the same as from a set that never had it
    without = rated.take(np.array([True, False, True, True]))
    assert made.predict(without, who[:1], what[:1])[0] == pytest.approx(before[0], rel=1e-5)


def test_probabilities_never_rise_with_the_level_and_strangers_get_them_too() -> None:
    made = model(small())
    with torch.no_grad():
        made.cuts.copy_(torch.tensor([1.0, -1.0]))  # out of order
    pairs = np.divmod(np.arange(12), 3)
    found = made.predict(small(), *pairs)
    assert found.shape == (12, 2) and np.isfinite(found).all() and (np.diff(found, axis=1) <= 0).all()


def test_training_finds_who_likes_what() -> None:
    rated, liking, _ = chosen(0, n_people=100, n_items=40, often=0.9)
    first = cross_fit(rated, Features(), LONGER, Objective(), folds=2, seed=3)
    pairs = np.divmod(np.arange(rated.n_people * rated.n_items), rated.n_items)
    found = first.predict(rated, *pairs)[:, 0]
    assert np.corrcoef(found, liking.ravel())[0, 1] > 0.5
    truly = rated.classes == 1
    held = first.held_out[:, 0]
    loss = -np.where(truly, np.log(held), np.log1p(-held)).mean()
    share = truly.mean()
    assert loss < -(share * np.log(share) + (1 - share) * np.log(1 - share))


def test_the_same_seed_trains_the_same_model() -> None:
    rated, _, _ = chosen(0, n_people=30)
    one, again, other = (
        cross_fit(rated, Features(), QUICK, Objective(), folds=2, seed=seed).held_out for seed in (3, 3, 4)
    )
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_weights_and_imputation_move_the_level_towards_that_of_random_pairs() -> None:
    """What is liked is rated more, and true propensities take that out."""
    rated, liking, propensity = chosen(1)
    e = propensity[rated.people, rated.items]
    unit = weights(e).astype(np.float32)
    pairs = np.divmod(np.arange(rated.n_people * rated.n_items), rated.n_items)
    means = {}
    for name, objective in {
        "naive": Objective(),
        "ips": Objective(weights=weights(e, density=rated.density).astype(np.float32)),
        "snips": Objective(weights=unit, normalised=True),
        "dr": Objective(weights=unit, doubly=True),
    }.items():
        fitted = cross_fit(rated, Features(), QUICK, objective, folds=2)
        means[name] = abs(fitted.predict(rated, *pairs)[:, 0].mean() - liking.mean())
    assert max(means["ips"], means["snips"], means["dr"]) < 0.6 * means["naive"]


def test_normalised_weights_know_no_scale() -> None:
    rated, _, _ = chosen(2, n_people=30)
    weight = np.random.default_rng(0).uniform(0.5, 2, size=len(rated)).astype(np.float32)
    one, seven = (
        cross_fit(rated, Features(), QUICK, Objective(weights=w, normalised=True), folds=2).held_out
        for w in (weight, 8 * weight)
    )
    assert one == pytest.approx(seven, rel=1e-4)


def test_offsets_are_learnt_around_and_left_out() -> None:
    """What an offset already says of an item the model need not: without it the item is liked less."""
    rated, _, _ = chosen(3)
    offsets = np.zeros(rated.n_items, np.float32)
    offsets[0] = 8
    pairs = np.arange(rated.n_people), np.zeros(rated.n_people, np.int64)
    plain, around = (
        cross_fit(rated, Features(), LONGER, Objective(offsets=o), folds=2).predict(rated, *pairs).mean()
        for o in (None, offsets)
    )
    assert around < plain - 0.03


def test_objectives_and_folds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="takes neither offsets nor"):
        Objective(doubly=True, offsets=np.zeros(2, np.float32))
    for folds in (1, 9):
        with pytest.raises(InputError, match="4 ratings can't be dealt into"):
            cross_fit(small(), Features(), QUICK, Objective(), folds=folds)


def test_learned_exposure_is_held_out_calibrated_and_better_than_knowing_nothing() -> None:
    """Each person rates one half of the items often; what is rated is likelier by their model."""
    draw = np.random.default_rng(0)
    same = (np.arange(60)[:, None] + np.arange(20)) % 2 == 0
    true = np.where(same, 0.5, 0.05)
    people, items = np.nonzero(draw.random(true.shape) < true)
    rated = Rated.of(people, items, draw.integers(1, 3, size=len(people)).astype(float), 60, 20)
    learnt = learn_exposure(rated, Features(), folds=2)
    told = learnt.calibration
    assert told.brier < 0.9 * told.constant and told.error < 0.05
    assert told.counts.sum() == pytest.approx(1200)
    everything = learnt.predict(*np.divmod(np.arange(1200), 20))
    assert np.corrcoef(everything, true.ravel())[0, 1] > 0.6
    assert everything.sum() == pytest.approx(len(rated), rel=0.15)
    fitted = cross_fit(rated, Features(), QUICK, Objective(exposure=learnt), folds=2)
    assert fitted.predict(rated, people, items).shape == (len(rated), 1)


def test_setting_right_finds_what_was_planted() -> None:
    """Logits twice too sure of themselves are halved."""
    draw = np.random.default_rng(0)
    true = draw.normal(-1, 1, size=20_000)
    happened = draw.random(20_000) < 1 / (1 + np.exp(-true))
    right = set_right(2 * true, happened.astype(float), np.ones(20_000), float(happened.mean()))
    assert right(2 * true) == pytest.approx(1 / (1 + np.exp(-true)), abs=0.03)
