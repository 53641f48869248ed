"""Two policies that were both logged: each one's value from the other's log, beside what it really earned.

    python benchmarks/off_policy.py --data open-bandit-small --out off-policy.json

--data is what `llm4rec data get open-bandit` writes, or holds interactions.parquet with `policy` (two of
them, one called random), `campaign`, `item_id`, `position`, `click` and `propensity_score`, the probability
that the policy gave to the item in that place.
Per campaign: the random policy shows all items of the campaign alike; what the other shows in each place is
taken from how often it did, for its probabilities elsewhere are not in its log. The model of the rewards is
each item's click rate, drawn towards that of all by `PRIOR` impressions, learnt from the other half of the
log. Nobody who clicks is known, so that impressions are taken for independent.

Each estimate stands beside the mean that was logged of the valued policy; `agrees` says whether the
difference is within 1.96 of its standard errors. Last, wrong propensities are planted (all alike, shuffled
among the impressions, doubled), which `check` is to reject.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from llm4rec.evaluate.off_policy import Logged, Value
    from llm4rec.types import Floats, Ints

RANDOM = "random"
PRIOR = 200
SWITCH = 5.0
"""Weights above which `switch` trusts the model alone."""


def impressions(folder: Path) -> pl.DataFrame:
    """The logs in `folder`, also where the reader of the whole data set wrote them."""
    path = folder / "impressions.parquet"
    if not path.exists():
        return pl.read_parquet(folder / "interactions.parquet")
    columns = ["policy", "campaign", "item_id", "position", "click", "propensity"]
    return pl.read_parquet(path, columns=columns).rename({"propensity": "propensity_score"})


def frequencies(frame: pl.DataFrame, items: Ints, n_items: int) -> Floats:
    """How often each item stood in each place [position, item]; each place's sum to 1."""
    places = frame["position"].to_numpy() - 1
    found = np.zeros((int(places.max()) + 1, n_items))
    np.add.at(found, (places, items), 1)
    return found / found.sum(axis=1, keepdims=True)


def rates(clicks: Floats, items: Ints, n_items: int, seed: int) -> tuple[Floats, Floats]:
    """Click rate of every item by half of the log [2, i], and by which half each impression is judged [e]."""
    half = np.random.default_rng(seed).integers(2, size=len(clicks))
    found = np.empty((2, n_items))
    for number in range(2):
        other = half != number
        shown = np.bincount(items[other], minlength=n_items)
        clicked = np.bincount(items[other], weights=clicks[other], minlength=n_items)
        found[number] = (clicked + PRIOR * clicks[other].mean()) / (shown + PRIOR)
    return found, half


def logged(log: pl.DataFrame, ids: list[str], target: Floats, seed: int) -> Logged:
    """The log, and what a policy of probabilities `target` [position, item] would have done in its place."""
    from llm4rec.evaluate.off_policy import Logged

    number = {name: place for place, name in enumerate(ids)}
    items = np.array([number[name] for name in log["item_id"]])
    clicks, places = log["click"].to_numpy().astype(np.float64), log["position"].to_numpy() - 1
    rate, half = rates(clicks, items, len(ids), seed)
    return Logged(
        rewards=clicks,
        actions=items,
        propensities=log["propensity_score"].to_numpy(),
        probabilities=target[places, items],
        people=np.arange(len(clicks)),
        predicted=rate[half, items],
        expected=np.einsum("ei,ei->e", target[places], rate[half]),
    )


def estimates(log: Logged) -> Mapping[str, Value]:
    """Every estimate by name."""
    from llm4rec.evaluate import off_policy as ope

    clip = float(np.quantile(log.weights, 0.999))
    return {
        "naive": ope.naive(log),
        "ips": ope.ips(log),
        "ips, clipped at the 99.9th percentile": ope.ips(log, clip=clip),
        "snips": ope.snips(log),
        "dr": ope.doubly_robust(log),
        f"switch at {SWITCH:g}": ope.switch(log, most=SWITCH),
    }


def measure(frame: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """A line of figures per campaign and direction."""
    from llm4rec.evaluate import off_policy as ope

    told: list[dict[str, Any]] = []
    (other,) = set(frame["policy"].unique()) - {RANDOM}
    for campaign in sorted(frame["campaign"].unique()):
        part = frame.filter(pl.col("campaign") == campaign)
        ids = sorted(part["item_id"].unique())
        number = {name: place for place, name in enumerate(ids)}
        logs = {name: part.filter(pl.col("policy") == name) for name in (RANDOM, other)}
        items = np.array([number[name] for name in logs[other]["item_id"]])
        often = frequencies(logs[other], items, len(ids))
        targets = {other: often, RANDOM: np.full_like(often, 1 / len(ids))}
        for source, target in ((RANDOM, other), (other, RANDOM)):
            log = logged(logs[source], ids, targets[target], seed)
            clicks = logs[target]["click"].to_numpy().astype(np.float64)
            truth = ope.mean_of(clicks, np.arange(len(clicks)))
            found = {
                name: asdict(value)
                | {
                    "width": value.high - value.low,
                    "agrees": bool(abs(value.mean - truth.mean) <= 1.96 * np.hypot(value.error, truth.error)),
                }
                for name, value in estimates(log).items()
            }
            shuffled = np.random.default_rng(seed).permutation(log.propensities)
            flat = np.full(len(log.rewards), 1 / len(ids))
            planted = {
                "all alike": flat,
                "shuffled": shuffled,
                "doubled": np.minimum(2 * log.propensities, 1),
            }
            told.append({
                "campaign": campaign,
                "log": source,
                "valued": target,
                "impressions": len(log.rewards),
                "logged mean": asdict(truth),
                "estimates": found,
                "weighing": asdict(ope.check(log)) | {"rejected": ope.check(log).rejected},
                "planted": {
                    name: ope.check(replace(log, propensities=wrong)).rejected
                    for name, wrong in planted.items()
                    if not np.allclose(wrong, log.propensities)
                },
            })
    return told


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    told = measure(impressions(given.data), given.seed)
    given.out.write_text(json.dumps(told, indent=1), encoding="utf-8")
    for line in told:
        print(f"{line['campaign']}: {line['valued']} from the log of {line['log']}, {line['impressions']:,}")
        mean = line["logged mean"]
        print(f"  it earned {mean['mean']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}]")
        for name, value in line["estimates"].items():
            print(
                f"  {name}: {value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}] {value['agrees']}"
            )
        print(f"  {line['weighing']}")
        print(f"  planted: {line['planted']}")


if __name__ == "__main__":
    main()
