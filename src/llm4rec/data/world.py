"""A seeded synthetic world whose truths are known, so that later parts can be proven right.

The story, each force with its setting in `WorldConfig`:

- An **item** holds one to three of the aspects and has a quality; its text and categories name the aspects.
- A **person** leans towards aspects, in part by gender, region and age; leanings turn steadily with time.
- **Popularity** is a number per item that waves over time; quality raises it.
- **The log**: people come again and again. With probability `sequence` the next intent is the aspect
  after the last one, else it is drawn from taste; an item not yet chosen is then picked from that
  aspect's shelf, popular ones first, and rated.
- **Impressions**: a platform shows items to people drawn at random, by taste, popularity and a little
  at random, popular ones in better places. People look by position and click by relevance and popularity.
- **The trial** shows uniformly random items in first place: the unbiased test.

Every probability behind these draws is a method of `Truth`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import expit

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.world_tables import ASPECTS, REGIONS, items_table, people_table, user_ids
from llm4rec.data.world_truth import DAY, START, TOP_RATING, Doubles, Truth, WorldConfig
from llm4rec.types import Bools, Floats, Ints

__all__ = ["Impressions", "Truth", "World", "WorldConfig", "make_world"]

CHUNK = 1 << 18  # rows of [chunk, aspects] arrays held at once; changing it changes the worlds of a seed
REDRAWS = 32  # rounds in which items a person has chosen before are drawn again


@dataclass(frozen=True)
class Impressions:
    """What was shown to whom, under a policy whose probabilities are known.

    Attributes:
        users: rows of the people [e].
        items: dense item numbers [e].
        times: UTC seconds [e].
        positions: place in the slate [e], 1 the best.
        propensities: probability [e] with which the policy shows this item to this person at this time.
        looked: whether the person looked [e]; without a look there is neither click nor rating.
        clicked: whether the person clicked [e].
        ratings: what the person thinks of it, 1 … 5 [e]; NaN without a look.
    """

    users: Ints
    items: Ints
    times: Ints
    positions: Ints
    propensities: Doubles
    looked: Bools
    clicked: Bools
    ratings: Floats

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class World:
    """What can be seen of a world, and the truth behind it.

    Attributes:
        truth: hidden arrays and every probability.
        log: what people chose by themselves, one row per person, with times and ratings.
        intents: the aspect that each event of `log` was chosen for [e].
        catalog: items with text, categories, brand and price.
        people: row-aligned to `log`, with gender, region and age, some missing.
        impressions: what the platform's policy showed, in no order of time.
        trial: the same for a uniformly random policy that always uses the first place.
        aspects: names of the aspects [k].
    """

    truth: Truth
    log: EventLog
    intents: Ints
    catalog: Catalog
    people: Catalog
    impressions: Impressions
    trial: Impressions
    aspects: tuple[str, ...]

    @property
    def config(self) -> WorldConfig:
        return self.truth.config


def make_world(config: WorldConfig) -> World:
    """Draw a world; the same settings give the same world, bit for bit."""
    nature, tables, choices, shown, random = (np.random.default_rng([config.seed, part]) for part in range(5))
    truth = _draw_truth(config, nature)
    log, intents = _draw_log(truth, choices)
    return World(
        truth=truth,
        log=log,
        intents=intents,
        catalog=items_table(truth.item_aspects, truth.quality, config.missing, tables),
        people=people_table(truth.genders, truth.regions, truth.ages, config.missing, tables),
        impressions=_draw_impressions(truth, config.impressions, shown, uniform=False),
        trial=_draw_impressions(truth, config.trial, random, uniform=True),
        aspects=tuple(ASPECTS)[: config.n_aspects],
    )


def _draw_truth(config: WorldConfig, rng: np.random.Generator) -> Truth:
    n_users, n_items, n_aspects = config.users, config.items, config.n_aspects
    quality = rng.standard_normal(n_items)
    genders, regions = rng.integers(2, size=n_users), rng.integers(len(REGIONS), size=n_users)
    ages = rng.standard_normal(n_users)
    # D_u = (±v_gender + v_region + age · v_age) / √3, of unit variance in every aspect
    signs = rng.choice([-1.0, 1.0], size=(2, n_aspects))
    by_region = rng.standard_normal((len(REGIONS), n_aspects))
    by_region = (by_region - by_region.mean(0)) / by_region.std(0)
    by_gender, by_age = (2 * genders - 1)[:, None] * signs[0], ages[:, None] * signs[1]
    traits = (by_gender + by_region[regions] + by_age) / np.sqrt(3)
    # θ_u = s · D_u + √(1 − s²) · (cos · early + sin · late)
    own = np.sqrt(1 - config.demographic**2)
    return Truth(
        config=config,
        item_aspects=_draw_aspects(n_items, n_aspects, rng),
        quality=quality.astype(np.float32),
        popularities=_draw_popularities(config, quality, rng),
        fixed=(config.demographic * traits).astype(np.float32),
        early=(own * rng.standard_normal((n_users, n_aspects))).astype(np.float32),
        late=(own * rng.standard_normal((n_users, n_aspects))).astype(np.float32),
        conformity=rng.uniform(-1, 1, n_users).astype(np.float32),
        genders=genders,
        regions=regions,
        ages=ages.astype(np.float32),
    )


def _draw_aspects(n_items: int, n_aspects: int, rng: np.random.Generator) -> Floats:
    """Shares 4 : 2 : 1 of one, two or three different aspects; every aspect comes first in some item."""
    first = rng.permutation(np.arange(n_items) % n_aspects)
    step = rng.integers(1, n_aspects, size=(2, n_items))
    count = np.minimum(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2], size=n_items), n_aspects)
    shares = np.zeros((n_items, n_aspects))
    row = np.arange(n_items)
    for place in (2, 1):  # the third before the second, which overwrites it where they are the same
        shares[row, (first + step[place - 1]) % n_aspects] = np.where(count > place, 4.0 / 2**place, 0)
    shares[row, first] = 4
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def _draw_popularities(config: WorldConfig, quality: Doubles, rng: np.random.Generator) -> Floats:
    """Popularity z = sigmoid(−2 + spread · (√(1 − wave) · base + √(2 wave) · cos 2π(cycles · t + phase)))."""
    link = config.quality_popularity
    base = link * quality + np.sqrt(1 - link**2) * rng.standard_normal(len(quality))
    cycles, phase = rng.uniform(0.5, 2, len(quality)), rng.random(len(quality))
    time = (np.arange(config.n_periods) + 0.5)[:, None] / config.n_periods
    swing = np.cos(2 * np.pi * (cycles * time + phase))
    level = np.sqrt(1 - config.wave) * base + np.sqrt(2 * config.wave) * swing
    return expit(-2 + config.spread * level).astype(np.float32)


def _draw_log(truth: Truth, rng: np.random.Generator) -> tuple[EventLog, Ints]:
    config = truth.config
    lengths = _draw_lengths(config, rng)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.repeat(np.arange(config.users), lengths)
    times = _draw_times(config, lengths, offsets, rng)
    intents = _draw_intents(truth, rows, offsets, times, rng)
    items = _draw_unseen(truth, rows, intents, times, rng)
    ratings = np.empty(len(rows), np.float32)
    for part in _chunks(len(rows)):
        ratings[part] = _rate(truth.relevance(rows[part], items[part], times[part]), config.noise, rng)
    return EventLog(pl.Series("user_id", user_ids(config.users)), offsets, items, times, ratings), intents


def _draw_lengths(config: WorldConfig, rng: np.random.Generator) -> Ints:
    """Events per person [u]: up to three for each, the others by a lognormal activity."""
    least = min(3, config.n_events // config.users)
    activity = rng.lognormal(0, 1, config.users)
    rest = config.n_events - least * config.users
    return least + rng.multinomial(rest, activity / activity.sum()).astype(np.int64)


def _draw_times(config: WorldConfig, lengths: Ints, offsets: Ints, rng: np.random.Generator) -> Ints:
    """Times [e], ascending within each person; gaps are gamma(1/2) draws, so visits come in bursts."""
    start = np.where(rng.random(config.users) < config.newcomers, rng.random(config.users), 0)
    total = np.cumsum(rng.standard_gamma(0.5, config.n_events) + 1e-9)
    before = np.concatenate([[0], total])[offsets]
    after = rng.standard_gamma(0.5, config.users) + 1e-9  # from the last event to the end of the world
    span = before[1:] - before[:-1] + after
    share = (total - np.repeat(before[:-1], lengths)) / np.repeat(span, lengths)
    first = np.repeat(start, lengths)
    seconds = ((first + (1 - first) * share) * (config.days * DAY)).astype(np.int64)
    return START + np.clip(seconds, 0, config.days * DAY - 1)


def _draw_intents(truth: Truth, rows: Ints, offsets: Ints, times: Ints, rng: np.random.Generator) -> Ints:
    """P(a' | a, u, t) = sequence · 1(a' = a + 1) + (1 − sequence) · τ_ua'(t); the first by taste alone."""
    fresh = rng.random(len(rows)) >= truth.config.sequence
    fresh[offsets[:-1][offsets[:-1] < offsets[1:]]] = True
    starts = np.flatnonzero(fresh)
    wanted = np.empty(len(starts), np.int64)
    for part in _chunks(len(starts)):
        wanted[part] = _pick_column(truth.tastes(rows[starts[part]], times[starts[part]]), rng)
    run = np.diff(np.append(starts, len(rows)))
    since = np.arange(len(rows)) - np.repeat(starts, run)
    return (np.repeat(wanted, run) + since) % truth.config.n_aspects


def _draw_unseen(truth: Truth, rows: Ints, intents: Ints, times: Ints, rng: np.random.Generator) -> Ints:
    """Items [e] from the shelves of `intents`, drawn again where the person has chosen one before.

    What is chosen twice after many rounds stays: that person has all but emptied the shelf.
    """
    items = np.empty(len(rows), np.int64)
    periods = truth.periods(times)
    again = watched = np.arange(len(rows))
    for _ in range(1 + REDRAWS):
        items[again] = _pick_from_shelves(truth, intents[again], periods[again], rng)
        key = rows[watched] * truth.config.items + items[watched]
        order = np.argsort(key, kind="stable")  # of equal ones the earliest comes first, and stays
        ordered = key[order]
        again = np.sort(watched[order[1:][ordered[1:] == ordered[:-1]]])
        if not len(again):
            break
        unsettled = np.zeros(truth.config.users, np.bool_)
        unsettled[rows[again]] = True
        watched = watched[unsettled[rows[watched]]]
    return items


def _pick_from_shelves(truth: Truth, intents: Ints, periods: Ints, rng: np.random.Generator) -> Ints:
    """Items [e] with P(i | a, t) = q_ia · z_i(t)^exposure / W_a(t), by inverting one long sum per period."""
    shares = np.ascontiguousarray(truth.item_aspects.T, dtype=np.float64)
    n_aspects, n_items = shares.shape
    # aspect a owns the stretch [a, a + 1) of the sum; staying just below 1 keeps a draw inside of it
    points = intents + rng.random(len(intents)) * (1 - 1e-9)
    items = np.empty(len(intents), np.int64)
    for period in range(truth.config.n_periods):
        rows = np.flatnonzero(periods == period)
        if len(rows):
            shelves = np.cumsum(shares * truth.appeals[period], axis=1)
            line = shelves / shelves[:, -1:] + np.arange(n_aspects)[:, None]
            items[rows] = np.searchsorted(line.ravel(), points[rows], side="right") % n_items
    return items


def _draw_impressions(truth: Truth, n: int, rng: np.random.Generator, *, uniform: bool) -> Impressions:
    config = truth.config
    users = rng.integers(config.users, size=n)
    times = START + rng.integers(config.days * DAY, size=n)
    items = rng.integers(config.items, size=n)  # of the trial, and of the policy's `explore`
    positions = np.ones(n, np.int64)
    propensities = np.full(n, 1 / config.items)
    if not uniform:
        aimed = np.flatnonzero(rng.random(n) >= config.explore)
        intents = rng.integers(config.n_aspects, size=len(aimed))
        by_taste = np.flatnonzero(rng.random(len(aimed)) < config.targeting)
        for part in _chunks(len(by_taste)):
            chosen = aimed[by_taste[part]]
            intents[by_taste[part]] = _pick_column(truth.tastes(users[chosen], times[chosen]), rng)
        items[aimed] = _pick_from_shelves(truth, intents, truth.periods(times[aimed]), rng)
        # P(position ≤ k) = (k / n_positions)^(1 / (1 + placement · z)), inverted
        power = 1 + config.placement * truth.popularity(items, times)
        place = config.n_positions * rng.random(n) ** power
        positions += np.minimum(place, config.n_positions - 1).astype(np.int64)
    looked = rng.random(n) < truth.looked(positions)
    clicked = np.empty(n, np.bool_)
    ratings = np.empty(n, np.float32)
    for part in _chunks(n):
        person, item, time = users[part], items[part], times[part]
        if not uniform:
            propensities[part] = truth.propensity(person, item, time)
        clicked[part] = looked[part] & (rng.random(len(person)) < truth.click(person, item, time))
        opinion = _rate(truth.relevance(person, item, time), config.noise, rng)
        ratings[part] = np.where(looked[part], opinion, np.nan)
    return Impressions(users, items, times, positions, propensities, looked, clicked, ratings)


def _rate(relevance: Doubles, noise: float, rng: np.random.Generator) -> Floats:
    """1 + 4 f + noise, rounded and clipped to 1 … 5."""
    felt = 1 + (TOP_RATING - 1) * relevance + noise * rng.standard_normal(len(relevance))
    return np.clip(np.floor(felt + 0.5), 1, TOP_RATING).astype(np.float32)


def _pick_column(probabilities: Doubles, rng: np.random.Generator) -> Ints:
    """One column per row [b] of `probabilities` [b, k], by inverting the running sum."""
    above = np.cumsum(probabilities, axis=1)[:, :-1] <= rng.random((len(probabilities), 1))
    return above.sum(1)


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK))
