"""Laws of the synthetic world: what it says of itself is what its draws obey."""

from dataclasses import fields

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from llm4rec.data.world import Impressions, World, WorldConfig, make_world
from llm4rec.data.world_tables import ASPECTS
from llm4rec.data.world_truth import DAY, START

SMALL = WorldConfig(
    n_events=20_000, n_users=400, n_items=300, n_impressions=40_000, n_trial=20_000, n_aspects=6, n_periods=4
)


@pytest.fixture(scope="module")
def small() -> World:
    return make_world(SMALL)


def changed(**settings: float) -> World:
    return make_world(WorldConfig.model_validate({**SMALL.model_dump(), **settings}))


def every_pair(world: World) -> tuple[np.ndarray, np.ndarray]:
    """All (person, item) pairs, person by person."""
    people, items = np.arange(world.log.n_users), np.arange(len(world.catalog))
    return np.repeat(people, len(items)), np.tile(items, len(people))


def z_score(draws: np.ndarray, expected: np.ndarray | float) -> float:
    """How many standard errors the mean of draws − expected is from 0."""
    gaps = draws - expected
    return float(gaps.mean() / (gaps.std() / np.sqrt(len(gaps))))


def assert_equal(one: object, two: object) -> None:
    for field in fields(one):  # type: ignore[arg-type]
        left, right = getattr(one, field.name), getattr(two, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype


# --- the same seed, every size -------------------------------------------------------------------


def test_the_same_seed_gives_the_same_world_bit_for_bit(small: World) -> None:
    again = make_world(SMALL)
    for part in ("truth", "log", "impressions", "trial"):
        assert_equal(getattr(small, part), getattr(again, part))
    np.testing.assert_array_equal(small.intents, again.intents)
    assert_frame_equal(small.catalog.table, again.catalog.table)
    assert_frame_equal(small.people.table, again.people.table)


def test_another_seed_gives_another_world(small: World) -> None:
    other = changed(seed=1)
    assert (other.log.items != small.log.items).mean() > 0.5
    assert not np.array_equal(other.truth.popularities, small.truth.popularities)


def test_the_number_of_impressions_leaves_the_log_alone(small: World) -> None:
    assert_equal(changed(n_impressions=10, n_trial=0).log, small.log)


@pytest.mark.parametrize("n_events", [1, 2, 100, 1_000, 20_000])
def test_every_size_works(n_events: int) -> None:
    world = make_world(WorldConfig(n_events=n_events))
    log, config = world.log, world.config
    assert log.n_events == n_events == len(world.intents)
    assert log.n_users == len(world.people) == config.users == len(log.user_ids)
    assert log.offsets[0] == 0
    assert log.offsets[-1] == n_events
    assert log.lengths.min() >= min(3, n_events // config.users)
    assert log.user_ids.to_list() == world.people.ids.to_list()
    assert len(world.catalog) == config.items > log.items.max()
    assert len(world.impressions) == config.impressions
    assert len(world.trial) == config.trial
    same_person = np.diff(log.rows) == 0
    assert (np.diff(log.clock)[same_person] >= 0).all()
    assert log.clock.min() >= START
    assert log.clock.max() < START + config.days * DAY
    assert set(np.unique(log.ratings)) <= {1, 2, 3, 4, 5}  # type: ignore[arg-type]


def test_impossible_sizes_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValidationError, match="n_users = 11 is more than n_events = 10"):
        WorldConfig(n_events=10, n_users=11)
    with pytest.raises(ValidationError, match="n_items = 5 is less than n_aspects = 6"):
        WorldConfig(n_items=5, n_aspects=6)


# --- exposure ------------------------------------------------------------------------------------


def test_propensities_are_probabilities_over_the_catalogue(small: World) -> None:
    people, items = every_pair(small)
    for time in (START, START + 200 * DAY):
        sums = small.truth.propensity(people, items, time).reshape(small.log.n_users, -1).sum(1)
        np.testing.assert_allclose(sums, 1, rtol=1e-6)


def test_items_are_shown_as_often_as_their_propensities_say(small: World) -> None:
    shown, n = small.impressions, len(small.impressions)
    people, items = every_pair(small)
    rate = np.zeros(len(small.catalog))
    for time in small.truth.midpoints():  # people and periods are drawn alike
        table = small.truth.propensity(people, items, int(time)).reshape(small.log.n_users, -1)
        rate += table.mean(0) / small.config.n_periods
    counts = np.bincount(shown.items, minlength=len(rate))
    chi_square = ((counts - n * rate) ** 2 / (n * rate)).sum()
    freedom = len(rate) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_logged_propensities_are_those_of_the_truth(small: World) -> None:
    shown = small.impressions
    expected = small.truth.propensity(shown.users, shown.items, shown.times)
    np.testing.assert_array_equal(shown.propensities, expected)
    assert (small.trial.propensities == 1 / len(small.catalog)).all()


def test_inverse_propensities_count_the_catalogue(small: World) -> None:
    # E[1 / π] = number of items, an identity that wrong propensities break
    weights = 1 / small.impressions.propensities
    assert abs(z_score(weights, len(small.catalog))) < 4


def test_exposure_0_shows_popular_items_no_more_than_others() -> None:
    flat, steep = changed(exposure=0.0), changed(exposure=2.0)
    for world, least, most in ((flat, -0.15, 0.15), (steep, 0.6, 1)):
        counts = np.bincount(world.impressions.items, minlength=len(world.catalog))
        popularity = world.truth.popularities.mean(0)
        assert least < np.corrcoef(counts, popularity)[0, 1] < most


def test_positions_and_looks_follow_their_formulas(small: World) -> None:
    shown, truth = small.impressions, small.truth
    for position in (1, 2, 10):
        place = np.full(len(shown), position)
        assert abs(z_score(shown.positions == place, truth.placed(shown.items, shown.times, place))) < 4
    assert abs(z_score(shown.looked, truth.looked(shown.positions))) < 4
    assert shown.positions.min() == 1
    assert shown.positions.max() == small.config.n_positions
    popular = truth.popularity(shown.items, shown.times) > 0.5
    assert shown.positions[popular].mean() < shown.positions[~popular].mean() - 0.2
    assert (small.trial.positions == 1).all()
    assert small.trial.looked.all()


def test_observation_averages_the_positions_out(small: World) -> None:
    shown, truth = small.impressions, small.truth
    chance = truth.observation(shown.users, shown.items, shown.times)
    # E[look / P(show and look)] over the policy = number of items
    assert abs(z_score(shown.looked / chance, len(small.catalog))) < 4
    assert (chance < shown.propensities).all()


# --- clicks, ratings and what selection does to them ---------------------------------------------


def test_clicks_and_ratings_need_a_look_and_follow_their_formulas(small: World) -> None:
    for shown in (small.impressions, small.trial):
        assert not shown.clicked[~shown.looked].any()
        np.testing.assert_array_equal(np.isnan(shown.ratings), ~shown.looked)
        users, items = shown.users[shown.looked], shown.items[shown.looked]
        times = shown.times[shown.looked]
        click = small.truth.click(users, items, times)
        assert abs(z_score(shown.clicked[shown.looked], click)) < 4
        rating = small.truth.rating(users, items, times)
        assert abs(z_score(shown.ratings[shown.looked], rating)) < 4


def test_ratings_of_the_log_follow_relevance(small: World) -> None:
    log = small.log
    assert log.ratings is not None
    assert abs(z_score(log.ratings, small.truth.rating(log.rows, log.items, log.clock))) < 4


def test_naive_mean_is_biased_and_inverse_propensity_weighting_is_not() -> None:
    errors: dict[str, list[float]] = {"naive": [], "ips": [], "trial": []}
    inside = 0
    for seed in range(12):
        world = changed(seed=seed, n_events=2000, n_impressions=20_000)
        people, items = every_pair(world)
        times = world.truth.midpoints()
        truth = np.mean([world.truth.rating(people, items, int(time)).mean() for time in times])
        shown = world.impressions
        seen = shown.looked
        weights = 1 / (shown.propensities * world.truth.looked(shown.positions) * len(world.catalog))
        terms = np.where(seen, shown.ratings, 0) * weights
        errors["naive"].append(float(shown.ratings[seen].mean() - truth))
        errors["ips"].append(float(terms.mean() - truth))
        errors["trial"].append(float(world.trial.ratings.mean() - truth))
        inside += abs(z_score(terms, truth)) < 1.96

    def standard_errors_off(values: list[float]) -> float:
        return float(abs(np.mean(values)) / (np.std(values, ddof=1) / np.sqrt(len(values))))

    assert min(errors["naive"]) > 0.15  # rating points, in every world
    assert standard_errors_off(errors["ips"]) < 3
    assert standard_errors_off(errors["trial"]) < 3
    assert inside >= 9  # of 12; 11.4 expected, P(< 9) < 1e-3


def gamma_of(world: World, shown: Impressions, keep: np.ndarray) -> tuple[float, float]:
    """Maximum likelihood of γ given f, and its standard error, by Newton steps on P = f · z^γ."""
    keep = keep & shown.looked
    users, items, times = shown.users[keep], shown.items[keep], shown.times[keep]
    relevance = world.truth.relevance(users, items, times)
    log_z = np.log(world.truth.popularity(items, times))
    clicked = shown.clicked[keep]
    gamma, information = 0.2, 1.0
    for _ in range(30):
        chance = relevance * np.exp(gamma * log_z)
        score = (log_z * (clicked - chance) / (1 - chance)).sum()
        information = (log_z**2 * chance / (1 - chance)).sum()
        gamma += score / information
    return gamma, float(information**-0.5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_the_popularity_exponent_is_recovered(gamma: float) -> None:
    world = changed(gamma=gamma)
    everyone = np.ones(len(world.impressions), np.bool_)
    estimate, error = gamma_of(world, world.impressions, everyone)
    assert abs(estimate - gamma) < 3.5 * error
    assert error < 0.05


def test_conformity_breaks_separability() -> None:
    world = changed(conformity=1.0)
    shown = world.impressions
    conform = world.truth.conformity[shown.users] > 0
    low, low_error = gamma_of(world, shown, ~conform)
    high, high_error = gamma_of(world, shown, conform)
    # γ_u is uniform in [0, 0.5] for one half of people and in [0.5, 1] for the other
    assert high - low > 4 * np.hypot(low_error, high_error)
    pair = np.array([0, 1]), np.array([5, 5])
    separable, broken = changed().truth, world.truth
    early, late = (int(time) for time in broken.midpoints()[[0, 2]])
    for truth, same in ((separable, True), (broken, False)):
        lift = (truth.click(*pair, late) / truth.relevance(*pair, late)) / (
            truth.click(*pair, early) / truth.relevance(*pair, early)
        )
        assert (abs(lift[0] - lift[1]) < 1e-9) == same


def test_back_door_effect_is_what_a_world_with_that_popularity_would_show(small: World) -> None:
    still = changed(drift=0.0)
    people, items = every_pair(still)
    by_hand = still.truth.relevance(people, items)[:300] * np.mean(
        [still.truth.popularities[p, items[:300]] ** 0.5 for p in range(4)], axis=0
    )
    np.testing.assert_allclose(still.truth.effect(people[:300], items[:300]), by_hand, rtol=1e-6)
    # the trial shows every item at every time alike, so it measures the effect; the policy's log does not
    effect = small.truth.effect(people, items).mean()
    assert abs(z_score(small.trial.clicked, effect)) < 4
    shown = small.impressions
    assert z_score(shown.clicked[shown.looked], effect) > 10


# --- tastes and demographics ---------------------------------------------------------------------


def test_without_drift_tastes_stand_still_and_with_it_they_turn_at_the_known_rate() -> None:
    people = np.arange(400)
    end = START + 365 * DAY - 1
    still = changed(drift=0.0).truth
    np.testing.assert_array_equal(still.tastes(people, START), still.tastes(people, end))
    for drift in (0.5, np.pi / 2):
        truth = changed(drift=drift, demographic=0.0).truth
        first, last = truth.leanings(people, START), truth.leanings(people, end)
        correlation = np.corrcoef(first.ravel(), last.ravel())[0, 1]
        assert abs(correlation - np.cos(drift)) < 0.07  # 2,400 pairs: four standard errors are at most .08
        assert abs(last.std() - 1) < 0.06


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_demographics_correlate_with_leanings_as_configured(strength: float) -> None:
    truth = changed(n_users=5_000, demographic=strength, n_impressions=0).truth
    leanings = truth.leanings(np.arange(5_000), START + 100 * DAY)
    for attribute in (truth.genders, truth.ages):
        correlations = [abs(np.corrcoef(attribute, column)[0, 1]) for column in leanings.T]
        np.testing.assert_allclose(correlations, strength / np.sqrt(3), atol=0.06)
    by_region = np.stack([leanings[truth.regions == region].mean(0) for region in range(6)])
    np.testing.assert_allclose(by_region.std(0), strength / np.sqrt(3), atol=0.06)
    explained = 1 - np.var(leanings - truth.fixed, axis=0) / np.var(leanings, axis=0)
    np.testing.assert_allclose(explained, strength**2, atol=0.06)


def test_people_show_their_demographics_with_gaps(small: World) -> None:
    table, truth = small.people.table, small.truth
    gender = table["gender"].list.first()
    known = gender.is_not_null().to_numpy()
    assert (gender.to_numpy()[known] == np.array(["female", "male"])[truth.genders[known]]).all()
    for gaps in (gender.null_count(), table["region"].list.len().eq(0).sum(), table["age"].null_count()):
        assert 15 < gaps < 70  # 10% of 400; the standard error is 6
    age = table["age"].drop_nulls()
    assert age.min() >= 16  # type: ignore[operator]
    assert age.max() <= 90  # type: ignore[operator]
    whole = changed(missing=0.0).people.table
    assert whole.null_count().sum_horizontal().item() == 0
    assert whole["gender"].list.len().min() == 1


# --- the log -------------------------------------------------------------------------------------


def test_intents_follow_from_the_last_one_or_from_taste(small: World) -> None:
    log, k = small.log, small.config.n_aspects
    later = np.flatnonzero(np.diff(log.rows) == 0) + 1
    taste = small.truth.tastes(log.rows[later], log.clock[later])
    successor = (small.intents[later - 1] + 1) % k
    expected = 0.6 + 0.4 * taste[np.arange(len(later)), successor]
    assert abs(z_score(small.intents[later] == successor, expected)) < 4
    for aspect in range(k):
        others = successor != aspect
        chance = 0.4 * taste[others, aspect]
        assert abs(z_score(small.intents[later][others] == aspect, chance)) < 4
    first = log.offsets[:-1]
    chance = small.truth.tastes(np.arange(log.n_users), log.clock[first])
    assert abs(z_score(small.intents[first] == 2, chance[:, 2])) < 4


def test_choice_is_the_probability_of_the_next_item() -> None:
    world = changed(n_items=2_000, n_users=4_000, exposure=0.5)  # so many items that few are seen before
    log = world.log
    later = np.flatnonzero(np.diff(log.rows) == 0) + 1
    chances = world.truth.choice(
        log.rows[later[:500]], world.intents[later[:500] - 1], log.clock[later[:500]]
    )
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-6)
    first = world.truth.choice(np.arange(50), np.full(50, -1), START)
    by_hand = sum(
        world.truth.tastes(np.arange(50))[:, [a]]
        * world.truth.on_shelf(np.full(2000, a), np.arange(2000), START)[None, :]
        for a in range(6)
    )
    np.testing.assert_allclose(first, by_hand, rtol=1e-6)
    counts, expected = np.zeros(2_000), np.zeros(2_000)
    for part in np.array_split(later, 10):
        expected += world.truth.choice(log.rows[part], world.intents[part - 1], log.clock[part]).sum(0)
        counts += np.bincount(log.items[part], minlength=2_000)
    popular = expected > 5
    chi_square = ((counts - expected)[popular] ** 2 / expected[popular]).sum()
    assert abs(chi_square / popular.sum() - 1) < 0.15


def test_people_choose_nothing_twice_while_their_shelves_last(small: World) -> None:
    world = changed(n_items=2_000)
    log = world.log
    pairs = log.rows * 2_000 + log.items
    assert len(np.unique(pairs)) > 0.999 * len(pairs)
    tiny = changed(n_items=6, n_users=400)  # 50 events of 6 items: repeats are unavoidable, and allowed
    assert tiny.log.n_events == 20_000


def test_the_order_of_events_tells_more_than_their_set() -> None:
    """The last item alone beats item-kNN over all items, unless intents do not chain."""

    def hits(world: World) -> tuple[float, float]:
        log, n = world.log, len(world.catalog)
        last = log.offsets[1:] - 1
        train = np.ones(log.n_events, np.bool_)
        train[last] = False
        bought = np.zeros((log.n_users, n))
        bought[log.rows[train], log.items[train]] = 1
        together = bought.T @ bought
        norms = np.sqrt(np.diag(together) + 1)
        cosine = together / norms / norms[:, None]
        np.fill_diagonal(cosine, 0)
        pairs = np.flatnonzero(train[:-1] & train[1:] & (np.diff(log.rows) == 0))
        follows = np.zeros((n, n))
        np.add.at(follows, (log.items[pairs], log.items[pairs + 1]), 1)
        # items of one aspect behave alike: smooth the transitions over the shelves
        first = world.truth.item_aspects.argmax(1)
        shelf = np.eye(world.config.n_aspects)[first]
        block = shelf.T @ follows @ shelf
        block /= block.sum(1, keepdims=True)
        count = bought.sum(0)
        on_shelf = shelf.T * count / (shelf.T @ count)[:, None]
        results = []
        for scores in (bought @ cosine, (block @ on_shelf)[first[log.items[last - 1]]]):
            scores[bought > 0] = -1
            rank = (scores >= scores[np.arange(log.n_users), log.items[last]][:, None]).sum(1)
            results.append(float((rank <= 10).mean()))
        return results[0], results[1]

    sizes = {"n_users": 1_000, "n_items": 500}
    knn, markov = hits(changed(**sizes, sequence=0.8))
    assert markov > 1.3 * knn
    knn, markov = hits(changed(**sizes, sequence=0.0))
    assert markov < knn


def test_popularity_moves_over_time_only_with_a_wave(small: World) -> None:
    still = changed(wave=0.0).truth.popularities
    assert (still == still[0]).all()
    moving = small.truth.popularities
    assert (moving.std(0) > 0.01).mean() > 0.5
    assert moving.min() > 0
    assert moving.max() < 1
    # what is popular in a period is chosen more often in it
    log = small.log
    period = small.truth.periods(log.clock)
    rises = moving[3] > 1.5 * moving[0]
    counts = np.stack([np.bincount(log.items[period == p], minlength=300) for p in (0, 3)])
    share = counts / counts.sum(1, keepdims=True)
    assert share[1, rises].sum() > 1.3 * share[0, rises].sum()


def test_newcomers_arrive_after_the_start() -> None:
    for share in (0.0, 1.0):
        log = changed(newcomers=share).log
        first = (log.clock[log.offsets[:-1]] - START) / (365 * DAY)
        late = (first > 0.3).mean()
        assert late < 0.1 if share == 0 else late > 0.6


# --- what the catalogue says ---------------------------------------------------------------------


def test_text_and_categories_name_the_true_aspects(small: World) -> None:
    assert small.aspects == tuple(ASPECTS)[:6]
    shares = small.truth.item_aspects
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    assert set(np.unique((shares > 0).sum(1))) == {1, 2, 3}
    assert (np.bincount(shares.argmax(1), minlength=6) == 50).all()
    for row, share in zip(small.catalog.table.iter_rows(named=True), shares, strict=True):
        true = {small.aspects[a] for a in np.flatnonzero(share)}
        assert set(row["categories"]) == true
        assert row["categories"][0] == small.aspects[int(share.argmax())]
        assert row["title"].endswith(row["categories"][0])
        if row["description"] is not None:
            words = set(row["description"].replace(".", "").split())
            assert true == words & set(small.aspects)
        if row["brand"]:
            assert row["title"].startswith(row["brand"][0])


def test_catalog_fields_have_their_declared_types(small: World) -> None:
    kinds = {field.name: field.modality for field in small.catalog.fields}
    assert kinds == {
        "title": "text",
        "description": "text",
        "categories": "categorical",
        "brand": "categorical",
        "price": "numerical",
    }
    types = {"text": pl.String, "categorical": pl.List(pl.String), "numerical": pl.Float64}
    for catalog in (small.catalog, small.people):
        for field in catalog.fields:
            assert catalog.table.schema[field.name] == types[field.modality]
    homes = small.catalog.table.explode("brand", empty_as_null=True, keep_nulls=True).drop_nulls("brand")
    by_brand = homes.group_by("brand").agg(pl.col("categories").list.first().n_unique())
    assert (by_brand["categories"] == 1).all()
    price = small.catalog.table["price"].to_numpy()
    known = ~np.isnan(price)
    assert np.corrcoef(np.log(price[known]), small.truth.quality[known])[0, 1] > 0.3
