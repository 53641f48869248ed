"""What weighing events by inverse propensities is worth, in worlds where what people like is known.

    python benchmarks/selection.py --seeds 0 1 3 4 --out selection.json

A platform shows items by taste and popularity; what is clicked is the log that models are fitted on. Each
world is drawn and each model fitted with a seed of its own. Of everybody with three clicks or more the last
is held out as the test. In a first world, whose popularity moves, validation took recent popularity alone
beside a small model, weighed by popularity or not; so `FORCES` aim what is shown at tastes. They were set
on validation figures of a model without weights, in a world of seed 100. Of six seeds four had ended when
the figures in the docs were made.

Models, as `debias.selection` sets them:

- none: all events weigh alike, and `scores`: the same model, popularity taken out of its scores at the power
  that weights have (`debias.popularity.strength`).
- ips and snips by popularity, at its default power, and by the true propensities that were logged with each
  click: the probability that the person was shown the item and looked.

Three questions, NDCG@10 over the whole catalogue, what a person has clicked left out:

- clicks: the held-out click of each person, led to as the log was.
- trial: clicks of a trial that showed uniformly random items, of who has any; a person's items are one case.
- liked: the true relevance of every item to each person, as a graded gain (relevance / the best ten).

Each is asked of the model as it is served, and of its network alone: linear part and recent popularity are
not weighed, and what they weigh beside the network is chosen on clicks, as its epoch is. Retrieval is off.
Nothing is chosen on the three questions. Intervals are Student's over worlds; differences are paired by
world.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.stats import t

if TYPE_CHECKING:
    from llm4rec.data.events import EventLog
    from llm4rec.data.split import Cases
    from llm4rec.data.world import World
    from llm4rec.recommender import Recommender
    from llm4rec.types import Array, Floats, Ints

PEOPLE, ITEMS, IMPRESSIONS, TRIAL = 500, 100, 50_000, 50_000
FORCES: dict[str, float] = {"targeting": 0.9, "wave": 0.0, "sharpness": 3.0}
FIGURES = ("clicks", "trial", "liked")
WAYS = ("network", "served")
SETTINGS: dict[str, dict[str, str]] = {
    "none": {},
    "ips, popularity": {"weights": "ips", "of": "popularity"},
    "snips, popularity": {"weights": "snips", "of": "popularity"},
    "ips, logged": {"weights": "ips", "of": "logged"},
    "snips, logged": {"weights": "snips", "of": "logged"},
}
TRAIN: dict[str, Any] = {
    "model": {"embedding_size": 32, "layers": 1, "heads": 2},
    "encode": {"text": {"encoder": "hash"}},
    "retrieve": {"enabled": False},
    "train": {"epochs": 12, "attention_epochs": 0, "context_epochs": 0},
}
"""A small model, so that a world takes minutes."""


def world(seed: int) -> World:
    """A world of the size that is measured."""
    from llm4rec.data.world import WorldConfig, make_world

    return make_world(
        WorldConfig(
            seed=seed,
            n_events=PEOPLE,
            n_users=PEOPLE,
            n_items=ITEMS,
            n_impressions=IMPRESSIONS,
            n_trial=TRIAL,
            **FORCES,
        )
    )


def clicks(made: World) -> EventLog:
    """What was clicked of what was shown, with the probability that it was shown and seen."""
    from llm4rec.data.events import build_log

    shown = made.impressions
    users, items, times = (each[shown.clicked] for each in (shown.users, shown.items, shown.times))
    chances = made.truth.observation(users, items, times).astype(np.float32)
    return build_log(_names(users), items, times=times, propensities=chances)


def _names(users: Ints) -> pl.Series:
    return pl.Series("user_id", users).cast(pl.String)


class Trial:
    """The questions of one world, asked of a model."""

    def __init__(self, made: World) -> None:
        from llm4rec.data.split import next_event_cases

        log = clicks(made)
        rows = np.flatnonzero(log.lengths >= 3)
        kept = log.lengths.copy()
        kept[rows] -= 1
        self.train = log.heads(kept)
        self.clicked: Cases = next_event_cases(log, rows, kept[rows])
        self.people = log.user_ids.cast(pl.Int64).to_numpy()
        self.n_items = made.config.items
        trial = made.trial
        place = np.full(made.config.users, -1)
        place[self.people] = np.arange(len(self.people))
        hits = np.zeros((len(self.people), self.n_items))
        users, items = trial.users[trial.clicked], trial.items[trial.clicked]
        hits[place[users][place[users] >= 0], items[place[users] >= 0]] = 1
        self.hits = hits
        all_items = np.tile(np.arange(self.n_items), len(self.people))
        now = int(made.truth.midpoints()[-1])
        asked = np.repeat(self.people, self.n_items)
        self.liked = made.truth.relevance(asked, all_items, now).reshape(hits.shape)

    def figures(self, model: Recommender) -> dict[str, float]:
        """NDCG@10 of each question."""
        from llm4rec.evaluate.protocol import mean_ndcg

        lists = model.rank(self.train, 10).items
        left = np.ones_like(self.hits, dtype=bool)
        left[self.train.rows, self.train.items] = False
        return {
            "clicks": mean_ndcg(model, self.clicked, self.n_items),
            "trial": gained(lists, self.hits * left),
            "liked": gained(lists, self.liked * left),
        }


def gained(lists: Ints, gains: Array) -> float:
    """Mean NDCG@10 of lists [u, 10] over the people with any gain [u, i]."""
    discount = 1 / np.log2(np.arange(lists.shape[1]) + 2)
    found = np.where(lists >= 0, np.take_along_axis(gains, np.maximum(lists, 0), axis=1), 0) @ discount
    best = -np.sort(-gains, axis=1)[:, : lists.shape[1]] @ discount
    return float((found[best > 0] / best[best > 0]).mean())


def alone(model: Recommender) -> Recommender:
    """The model with its network alone."""
    from llm4rec.model.linear import Linear
    from llm4rec.recommender import Recommender

    prior = replace(model.fitted.prior, shares=tuple(0.0 for _ in model.fitted.prior.shares))
    return Recommender(replace(model.fitted, prior=prior, linear=Linear()))


def measure(seed: int) -> dict[str, Any]:
    """Every model of one world."""
    from llm4rec.recommender import Config, Recommender

    made = world(seed)
    trial = Trial(made)
    told: dict[str, Any] = {}
    for name, selection in SETTINGS.items():
        began = time.perf_counter()
        parts = TRAIN | {"debias": {"selection": selection}, "train": TRAIN["train"] | {"seed": seed}}
        config = Config.model_validate(parts)
        model = Recommender.fit(trial.train, made.catalog, config)
        told[name] = {"served": trial.figures(model), "network": trial.figures(alone(model))}
        told[name] |= {"seconds": time.perf_counter() - began, "selection": model.meta["selection"]}
        told[name]["prior"] = model.fitted.prior.shares
        if name == "none":
            less = model.adjusted(popularity=config.debias.selection.power)
            told["scores"] = {"served": trial.figures(less), "network": trial.figures(alone(less))}
        print(f"world {seed}, {name}: {told[name]}", flush=True)
    return told


def spread(values: Floats | list[float]) -> dict[str, float]:
    """Mean over worlds with Student's interval; without width for one world."""
    mean, n = float(np.mean(values)), len(values)
    reach = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each model's figures over the worlds, and what they are over those of `none`."""
    return {
        name: {
            way: {
                figure: spread([run[name][way][figure] for run in runs])
                | {"over none": spread([run[name][way][figure] - run["none"][way][figure] for run in runs])}
                for figure in FIGURES
            }
            for way in WAYS
        }
        for name in runs[0]
    }


def main() -> None:
    """Measure what the command line names."""
    import torch

    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 3, 4], help="a world for each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    runs: list[dict[str, Any]] = []
    for seed in given.seeds:
        runs.append(measure(seed))
        files.write_json({"summary": summary(runs), "worlds": runs}, given.out)
    for name, found in summary(runs).items():
        for way, figure in ((way, figure) for way in WAYS for figure in FIGURES):
            value, over = found[way][figure], found[way][figure]["over none"]
            print(
                f"{name}, {way}: {figure} {value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}], "
                f"over none {over['mean']:+.4f} [{over['low']:+.4f}, {over['high']:+.4f}]"
            )


if __name__ == "__main__":
    main()
