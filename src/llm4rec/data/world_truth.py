"""What is true in the synthetic world: its settings, its hidden arrays, its probabilities in closed form.

All methods work row by row (person, item, time) and never form a people × items table; a call on b
rows takes O(b · aspects) memory, so callers cut very long queries into chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import expit, ndtr, softmax

from llm4rec.config import Section
from llm4rec.types import Floats, Ints

Doubles = NDArray[np.float64]

START = 1_577_836_800  # 2020-01-01 00:00 UTC, the first second of every world
DAY = 86_400  # seconds
TOP_RATING = 5
BASE_RELEVANCE = -0.5  # log-odds that an average item of average quality pleases
QUALITY_GAIN = 0.5  # log-odds of relevance per standard deviation of quality


class WorldConfig(Section):
    """How large the world is and how strong each of its forces; 0 turns a force off."""

    seed: int = Field(0, ge=0, description="seed of every draw: the same one gives the same world")
    n_events: int = Field(100_000, ge=1, description="events in the log [events]")
    n_users: int | None = Field(None, ge=1, description="people; empty: one per 50 events, √n_events or more")
    n_items: int | None = Field(
        None, ge=2, description="items; empty: 0.4 · n_events^0.74, 2 per aspect or more"
    )
    n_impressions: int | None = Field(
        None, ge=0, description="impressions; empty: one per event, at most 10^6"
    )
    n_trial: int | None = Field(None, ge=0, description="impressions of random items; empty: a tenth as many")
    n_aspects: int = Field(16, ge=2, le=24, description="aspects of taste, each with a name and words")
    days: int = Field(365, ge=1, description="length of the world [days]")
    n_periods: int = Field(24, ge=1, description="equal stretches of time in which popularity stands still")
    newcomers: float = Field(0.3, ge=0, le=1, description="share of people who arrive after the start")
    sequence: float = Field(0.6, ge=0, le=1, description="probability that an intent follows from the last")
    sharpness: float = Field(2.0, ge=0, description="inverse temperature of tastes; 0: all aspects alike")
    drift: float = Field(0.5, ge=0, description="angle that every taste turns from start to end [radians]")
    demographic: float = Field(0.5, ge=0, le=1, description="correlation of leanings and demographics")
    missing: float = Field(0.1, ge=0, le=1, description="share of attribute values that are not recorded")
    spread: float = Field(1.5, ge=0, description="standard deviation of popularity [log-odds]")
    wave: float = Field(0.3, ge=0, le=1, description="share of popularity's variance that moves with time")
    quality_popularity: float = Field(0.3, ge=-1, le=1, description="correlation of quality and popularity")
    exposure: float = Field(2.0, ge=0, description="exponent of popularity in what is chosen and shown")
    targeting: float = Field(0.5, ge=0, le=1, description="share of impressions aimed by the person's taste")
    explore: float = Field(0.1, ge=0, le=1, description="share of impressions drawn from all items alike")
    n_positions: int = Field(10, ge=1, le=1000, description="places of a slate, 1 the best")
    placement: float = Field(2.0, ge=0, description="how much better the places of popular items are")
    inattention: float = Field(0.5, ge=0, description="exponent by which looking falls with the position")
    gamma: float = Field(0.5, ge=0, description="exponent of popularity in a click: f(u, i) · z^γ")
    conformity: float = Field(0.0, ge=0, le=1, description="spread of γ over people; not separable if > 0")
    noise: float = Field(0.5, gt=0, description="standard deviation of a rating [rating points]")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.n_users is not None and self.n_users > self.n_events:
            raise ValueError(f"n_users = {self.n_users} is more than n_events = {self.n_events}")
        if self.n_items is not None and self.n_items < self.n_aspects:
            raise ValueError(f"n_items = {self.n_items} is less than n_aspects = {self.n_aspects}")
        return self

    @property
    def users(self) -> int:
        """People in this world."""
        return self.n_users or max(round(self.n_events**0.5), self.n_events // 50)

    @property
    def items(self) -> int:
        """Items in this world."""
        return self.n_items or max(2 * self.n_aspects, round(0.4 * self.n_events**0.74))

    @property
    def impressions(self) -> int:
        """Impressions of the platform's policy."""
        return min(self.n_events, 1_000_000) if self.n_impressions is None else self.n_impressions

    @property
    def trial(self) -> int:
        """Impressions of uniformly random items."""
        return self.impressions // 10 if self.n_trial is None else self.n_trial


@dataclass(frozen=True)
class Truth:
    """All that usually stays hidden behind a log.

    `users` and `items` below are dense numbers [b], `times` UTC seconds [b] or one for all.

    Attributes:
        config: the settings.
        item_aspects: shares q [i, k] of the aspects in each item, rows summing to 1.
        quality: standard normal [i].
        popularities: z in (0, 1) by period and item [p, i].
        fixed, early, late: the parts [u, k] of `leanings`; `fixed` comes from demographics alone.
        conformity: how far a person's γ departs from the common one, in [−1, 1] [u].
        genders: 0 or 1 [u].
        regions: numbers of the regions [u].
        ages: standard normal [u].
    """

    config: WorldConfig
    item_aspects: Floats
    quality: Floats
    popularities: Floats
    fixed: Floats
    early: Floats
    late: Floats
    conformity: Floats
    genders: Ints
    regions: Ints
    ages: Floats

    def progress(self, times: Ints | int) -> Doubles:
        """Share of the world's time that has passed, in [0, 1)."""
        return (np.asarray(times) - START) / (self.config.days * DAY)

    def periods(self, times: Ints | int) -> Ints:
        """The period of constant popularity that a time falls in."""
        return (self.progress(times) * self.config.n_periods).astype(np.int64)

    def midpoints(self) -> Ints:
        """The time in the middle of each period [p]."""
        shares = (np.arange(self.config.n_periods) + 0.5) / self.config.n_periods
        return START + (shares * self.config.days * DAY).astype(np.int64)

    def leanings(self, users: Ints, times: Ints | int = START) -> Doubles:
        """How much each person leans towards each aspect [b, k], standard normal, turning with time.

        θ_u(t) = fixed_u + cos(drift · t) · early_u + sin(drift · t) · late_u, with t in [0, 1).
        """
        angle = np.broadcast_to(self.config.drift * self.progress(times), users.shape)[:, None]
        turned = np.cos(angle) * self.early[users] + np.sin(angle) * self.late[users]
        return self.fixed[users] + turned

    def tastes(self, users: Ints, times: Ints | int = START) -> Doubles:
        """Probability τ [b, k] that a person who starts afresh wants each aspect.

        τ_u(t) = softmax(sharpness · θ_u(t)).
        """
        return softmax(self.config.sharpness * self.leanings(users, times), axis=1)

    def popularity(self, items: Ints, times: Ints | int) -> Doubles:
        """Popularity z of each item at its time, in (0, 1)."""
        return self.popularities[self.periods(times), items].astype(np.float64)

    @cached_property
    def appeals(self) -> Doubles:
        """z^exposure by period and item [p, i]: how well popularity places an item on its shelves."""
        return self.popularities.astype(np.float64) ** self.config.exposure

    @cached_property
    def shelf_sizes(self) -> Doubles:
        """W_a(t) = Σ_i q_ia · z_i(t)^exposure, by period and aspect [p, k]."""
        return self.appeals @ self.item_aspects.astype(np.float64)

    def on_shelf(self, intents: Ints, items: Ints, times: Ints | int) -> Doubles:
        """P(item | aspect, time) = q_ia · z_i(t)^exposure / W_a(t): what is picked for an aspect."""
        period = self.periods(times)
        share = self.item_aspects[items, intents] * self.appeals[period, items]
        return share / self.shelf_sizes[period, intents]

    def choice(self, users: Ints, intents: Ints, times: Ints | int) -> Doubles:
        """Probability of every item [b, i] as the next of the log, given the intent [b] before it.

        P(i | u, a, t) = Σ_k [sequence · 1(k = a + 1) + (1 − sequence) · τ_uk(t)] · P(i | k, t), before items
        already chosen are left out. An intent of −1 (none yet) leaves taste alone. It is the ceiling for
        any model of the log. Memory O(b · items).
        """
        chain = self.config.sequence
        wanted = self.tastes(users, times)
        known = np.flatnonzero(intents >= 0)
        wanted[known] *= 1 - chain
        wanted[known, (intents[known] + 1) % self.config.n_aspects] += chain
        period = np.broadcast_to(self.periods(times), users.shape)
        return (wanted / self.shelf_sizes[period]) @ self.item_aspects.T * self.appeals[period]

    def propensity(self, users: Ints, items: Ints, times: Ints | int) -> Doubles:
        """Probability π that an impression to a person at a time shows this item; over items it sums to 1.

        π(i | u, t) = explore / n_items + (1 − explore) · Σ_a P(a | u, t) · P(i | a, t)
        P(a | u, t) = targeting · τ_ua(t) + (1 − targeting) / n_aspects
        """
        settings = self.config
        aims = settings.targeting * self.tastes(users, times) + (1 - settings.targeting) / settings.n_aspects
        period = np.broadcast_to(self.periods(times), users.shape)
        per_share = (aims / self.shelf_sizes[period] * self.item_aspects[items]).sum(1)
        aimed = per_share * self.appeals[period, items]
        return settings.explore / settings.items + (1 - settings.explore) * aimed

    def placed(self, items: Ints, times: Ints | int, positions: Ints) -> Doubles:
        """P(position | item, time) when shown: popular items stand in better places.

        P(position ≤ k) = (k / n_positions)^(1 / (1 + placement · z_i(t)))
        """
        power = 1 / (1 + self.config.placement * self.popularity(items, times))
        last, before = positions / self.config.n_positions, (positions - 1) / self.config.n_positions
        return last**power - before**power

    def looked(self, positions: Ints) -> Doubles:
        """P(look | position) = position^(−inattention)."""
        return positions.astype(np.float64) ** -self.config.inattention

    def observation(self, users: Ints, items: Ints, times: Ints | int) -> Doubles:
        """Probability that an impression shows this item and the person looks, positions averaged out.

        The propensity to use where the position is not recorded: π(i | u, t) · Σ_k P(k | i, t) · P(look | k).
        """
        look = np.zeros(len(items))
        for position in range(1, self.config.n_positions + 1):
            place = np.full(len(items), position)
            look += self.placed(items, times, place) * self.looked(place)
        return self.propensity(users, items, times) * look

    def relevance(self, users: Ints, items: Ints, times: Ints | int = START) -> Doubles:
        """f(u, i) in (0, 1): the share of it that is the person's own and not the crowd's.

        f = sigmoid(−0.5 + q_i · θ_u(t) / |q_i| + 0.5 · quality_i)
        """
        shares = self.item_aspects[items]
        match = (shares * self.leanings(users, times)).sum(1) / np.sqrt((shares**2).sum(1))
        return expit(BASE_RELEVANCE + match + QUALITY_GAIN * self.quality[items])

    def gammas(self, users: Ints) -> Doubles:
        """γ_u = γ · (1 + conformity · c_u): one for all, hence separable, only where conformity is 0."""
        return self.config.gamma * (1 + self.config.conformity * self.conformity[users].astype(np.float64))

    def click(self, users: Ints, items: Ints, times: Ints | int) -> Doubles:
        """P(click | look) = f(u, i) · z_i(t)^γ_u, the separable model of popularity where conformity is 0.

        Source: Zhang et al. 2021, "Causal intervention for leveraging popularity bias" (PDA).
        """
        return self.relevance(users, items, times) * self.popularity(items, times) ** self.gammas(users)

    def effect(self, users: Ints, items: Ints) -> Doubles:
        """P(click | do(show), look) = Σ_z P(click | u, i, z) P(z), the back-door adjustment.

        P(z) is popularity as time brings it, every period alike, and not as the policy shows it.
        """
        return np.mean([self.click(users, items, int(time)) for time in self.midpoints()], axis=0)

    def rating(self, users: Ints, items: Ints, times: Ints | int = START) -> Doubles:
        """Expected rating in 1 … 5: 1 + 4 f + noise, rounded and clipped, is an ordered probit.

        E = 1 + Σ_{k=2..5} Φ((1 + 4 f − (k − 1/2)) / noise)
        """
        mean = 1 + (TOP_RATING - 1) * self.relevance(users, items, times)
        steps = np.arange(2, TOP_RATING + 1) - 0.5
        return 1 + ndtr((mean[:, None] - steps) / self.config.noise).sum(1)
