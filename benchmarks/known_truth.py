"""Corrections of bias where the truth is known: synthetic worlds, a seed each, and what they recover.

    python benchmarks/known_truth.py --worlds 100 --out known-truth.json

Three questions to every world.

- Off-policy: what would uniformly random items have earned, from the log of a policy that shows by taste and
  popularity? IPS, SNIPS and doubly robust with the true, unclipped propensities, beside the naive mean; how
  many of their 95% intervals cover the truth, and how far their mean over the seeds is from it.
- The back door: what would what was shown have earned at the popularity that time brings it, instead of that
  at which it was shown? Beside it, the refutations: a placebo (each item's popularity shuffled over time)
  should have no power and move nothing, a random common cause should change nothing.
- The same in worlds that break its assumptions: people who follow the crowd each with a power of their own,
  of whom those who follow it most are also told apart, and tastes that turn while popularity moves.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from llm4rec.data.world import World
    from llm4rec.evaluate.off_policy import Logged
    from llm4rec.types import Array

EVENTS, IMPRESSIONS = 20_000, 100_000
DRAWS = 200_000
"""Random people, items and times that the true value of the uniform policy is averaged over."""
PRIOR = 200
WORLDS: dict[str, dict[str, float]] = {
    "separable": {},
    "separable, γ = 1": {"gamma": 1.0},
    "every person's own γ": {"conformity": 1.0},
    "every person's own γ, γ = 1, more waves": {"conformity": 1.0, "gamma": 1.0, "wave": 0.6},
    "tastes that turn by π": {"drift": float(np.pi), "targeting": 1.0},
}
"""Worlds that keep the assumption of the back door, and some that do not."""


def world(seed: int, **forces: float) -> World:
    """A world of the size that is measured."""
    from llm4rec.data.world import WorldConfig, make_world

    settings: dict[str, Any] = {"seed": seed, "n_events": EVENTS, "n_impressions": IMPRESSIONS}
    return make_world(WorldConfig(**settings, n_trial=DRAWS, **forces))


def logged(made: World) -> Logged:
    """Impressions, and what uniformly random items in first place would have met with."""
    from llm4rec.evaluate.off_policy import Logged

    shown, n_items = made.impressions, made.config.items
    clicks = shown.clicked.astype(np.float64)
    half = np.random.default_rng([made.config.seed, 7]).integers(2, size=len(shown))
    rates = np.stack([_rates(made, clicks, shown.looked & (half != part)) for part in range(2)])
    return Logged(
        rewards=clicks,
        actions=shown.items,
        # who does not look takes nothing: what was shown and looked at is what was logged
        propensities=made.truth.observation(shown.users, shown.items, shown.times),
        probabilities=shown.looked / n_items,
        people=shown.users,
        predicted=rates[half, shown.items],
        expected=rates.mean(axis=1)[half],
    )


def _rates(made: World, clicks: Array, where: Array) -> Array:
    """Click rate of every item [i] in some impressions, drawn towards that of all."""
    items, n_items = made.impressions.items[where], made.config.items
    taken = np.bincount(items, weights=clicks[where], minlength=n_items)
    return (taken + PRIOR * clicks[where].mean()) / (np.bincount(items, minlength=n_items) + PRIOR)


def off_policy(made: World) -> dict[str, Any]:
    """Each estimate, whether its interval covers the truth, and how far it is off."""
    from llm4rec.evaluate import off_policy as ope

    log, drawn = logged(made), made.trial
    truth = float(made.truth.click(drawn.users, drawn.items, drawn.times).mean())
    looked = made.impressions.looked
    found = {
        "naive": ope.mean_of(log.rewards[looked], log.people[looked]),
        "ips": ope.ips(log),
        "snips": ope.snips(log),
        "dr": ope.doubly_robust(log),
    }
    return {"truth": truth} | {
        name: {"error": value.mean - truth, "covers": bool(value.low <= truth <= value.high)}
        for name, value in found.items()
    }


def back_door(made: World) -> dict[str, Any]:
    """The effect as it is estimated and as it is, and what the refutations say."""
    from llm4rec.debias.backdoor import backdoor, by_period, value

    truth, shown, periods = made.truth, made.impressions, made.config.n_periods
    users, items, times = (each[shown.looked] for each in (shown.users, shown.items, shown.times))
    clicked = shown.clicked[shown.looked]
    counted = by_period(items, truth.periods(times), clicked, made.config.items, periods)
    popular = np.log(truth.popularities.T.astype(np.float64))[None]
    rng = np.random.default_rng([made.config.seed, 9])
    found = backdoor(*counted, popular)
    placebo = backdoor(*counted, rng.permuted(popular, axis=2))
    random = backdoor(*counted, np.concatenate([popular, rng.normal(size=popular.shape)]))
    true = float(truth.effect(users, items).mean())
    told = {
        "truth": true,
        "adjusted": found.value / true - 1,
        "naive": found.naive / true - 1,
        "gamma": float(found.exponents[0]),
        "placebo gamma": float(placebo.exponents[0]),
        "placebo, in standard errors": float(placebo.exponents[0] / placebo.errors[0]),
        "placebo moves": placebo.value / found.naive - 1,
        "random cause moves": random.value / found.value - 1,
    }
    if made.config.conformity:
        most = truth.conformity[users] > 1 / 3
        part = by_period(items[most], truth.periods(times[most]), clicked[most], made.config.items, periods)
        of_most = float(truth.effect(users[most], items[most]).mean())
        told["adjusted, of who follows most"] = value(*part, popular, found.exponents) / of_most - 1
    return told


def measure(worlds: int, progress: Any = print) -> dict[str, Any]:
    """All figures over `worlds` seeds."""
    policies = [off_policy(world(seed)) for seed in range(worlds)]
    told: dict[str, Any] = {"worlds": worlds, "off_policy": _covered(policies), "back_door": {}}
    progress(json.dumps(told["off_policy"]), flush=True)
    for name, forces in WORLDS.items():
        rows = [back_door(world(seed, **forces)) for seed in range(max(worlds // 5, 1))]
        told["back_door"][name] = {
            key: {"mean": float(np.mean(values)), "most": float(np.max(np.abs(values)))}
            for key in rows[0]
            for values in ([row[key] for row in rows],)
        }
        progress(name, json.dumps(told["back_door"][name]), flush=True)
    return told


def _covered(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per estimate: intervals that cover, mean error, its standard error over the seeds."""
    told: dict[str, Any] = {"truth": float(np.mean([row["truth"] for row in rows]))}
    for name in (key for key in rows[0] if key != "truth"):
        errors = np.array([row[name]["error"] for row in rows])
        told[name] = {
            "covers": int(sum(row[name]["covers"] for row in rows)),
            "mean error": float(errors.mean()),
            "its standard error": float(errors.std(ddof=1) / np.sqrt(len(errors)))
            if len(errors) > 1
            else None,
        }
    return told


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=100, help="seeds; of the back door a fifth of them")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    files.write_json(measure(options.worlds), options.out)


if __name__ == "__main__":
    main()
