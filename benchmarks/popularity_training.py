"""Popularity adjusted for at training or afterwards: which comes nearer to what people like?

    python benchmarks/popularity_training.py --seeds 5 --out popularity-training.json

In the synthetic world people take an item with a probability that grows with its popularity. What each would
take in the same world were all items equally popular is known in closed form: the preference to be found. One
dense head is trained per power of popularity that its logits are given (`debias.popularity.training`) on all
but the last event of everybody. It is asked before that event, at several strengths of the adjustment; what
is taken out is counted in the whole log or in its newest tenth. Told are, over items not yet taken:

- `rank`: Spearman's correlation of scores and true preference, in the mean over people;
- `kl`: Kullback-Leibler divergence of the scores from the true preference, in the same mean [nats];
- `ndcg@10`: of the event that came next, popularity and all.

Intervals are over worlds, a seed each: 95% by Student's t; differences are paired by world.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from llm4rec.data.events import EventLog
    from llm4rec.data.world import World
    from llm4rec.settings import Config
    from llm4rec.types import Array, Bools, Floats

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
WINDOWS = (1.0, 0.1)
"""Shares of the newest events that what is taken out is counted in."""


def preference(made: World) -> Array:
    """P(i | u, intent before, t) [u, i] of everybody's last event, were all items equally popular."""
    ends = made.log.offsets[1:]
    level = replace(made.truth, config=made.config.model_copy(update={"exposure": 0.0}))
    people = np.arange(made.log.n_users)
    return np.concatenate([
        level.choice(people[[row]], made.intents[[end - 2]], made.log.times[[end - 1]])
        for row, end in zip(people, ends, strict=True)
    ])


def asked(made: World, config: Config) -> tuple[EventLog, Floats, dict[float, Any]]:
    """Histories, the dense head's log-probabilities [u, i] for them, and popularity by window."""
    from llm4rec.debias.popularity import Popularity
    from llm4rec.fitting import fit

    known = made.log.heads(made.log.lengths - 1)
    fitted = fit(known, made.catalog, config)
    people, scores = (
        np.full(known.n_users, -1),
        np.empty((known.n_users, len(made.catalog)), dtype=np.float32),
    )
    for rows, chosen in fitted.scorer.chunks(known):
        scores[rows] = fitted.scorer.log_scores(chosen, people[rows])
    options = config.debias.popularity
    counted = {
        window: Popularity.of(known, len(made.catalog), options.model_copy(update={"window": window}))
        for window in WINDOWS
    }
    return known, scores, counted


def told(scores: Floats, true: Array, legal: Bools, answers: Array) -> dict[str, float]:
    """The three figures, in the mean over people, of log-probabilities [u, i]."""
    from scipy.stats import spearmanr

    found: list[tuple[float, float, float]] = []
    for row, may in enumerate(legal):
        score, wanted = scores[row, may].astype(np.float64), true[row, may] / true[row, may].sum()
        score = score - np.logaddexp.reduce(score)
        place = int((scores[row, may] >= scores[row, answers[row]]).sum())
        asked_for = bool(may[answers[row]])  # what is taken again is not
        found.append((
            float(spearmanr(score, wanted).statistic),
            float((wanted * (np.log(wanted) - score)).sum()),
            1 / float(np.log2(1 + place)) if asked_for and place <= 10 else 0.0,
        ))
    return dict(zip(("rank", "kl", "ndcg@10"), np.mean(found, axis=0).tolist(), strict=True))


def measure(made: World, powers: list[float], config: Config) -> list[dict[str, Any]]:
    """A row per power of training, window and strength."""
    true, answers = preference(made), made.log.items[made.log.offsets[1:] - 1]
    rows: list[dict[str, Any]] = []
    for power in powers:
        popularity = config.debias.popularity.model_copy(update={"training": power})
        debias = config.debias.model_copy(update={"popularity": popularity})
        known, scores, counted = asked(made, config.model_copy(update={"debias": debias}))
        legal = np.ones(scores.shape, dtype=bool)
        legal[known.rows, known.items] = False
        for window, found in counted.items():
            for strength in STRENGTHS:
                figures = told(found.at(strength).adjust(scores), true, legal, answers)
                rows.append({"training": power, "window": window, "strength": strength} | figures)
        print(made.config.seed, power, json.dumps(rows[-len(STRENGTHS) :]), flush=True)
    return rows


def interval(values: Array) -> tuple[float, float | None, float | None]:
    """Mean of one value per world, and its 95% interval, which a single one has not."""
    from scipy.stats import t

    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None
    reach = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - reach, mean + reach


def summed(worlds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means with intervals by setting, and how much more they are than with the first power at that strength.

    `more` is with what is taken out counted in the same window, `more than usual` in the first, the default.
    """
    found: list[dict[str, Any]] = []
    for place, row in enumerate(worlds[0]):
        setting = {key: row[key] for key in ("training", "window", "strength")}
        same, usual = place % (len(WINDOWS) * len(STRENGTHS)), place % len(STRENGTHS)
        for figure in ("rank", "kl", "ndcg@10"):
            own, beside, first = (
                np.array([rows[at][figure] for rows in worlds]) for at in (place, same, usual)
            )
            setting |= {figure: interval(own), f"{figure} more": interval(own - beside)}
            setting[f"{figure} more than usual"] = interval(own - first)
        found.append(setting)
    return found


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.config import load
    from llm4rec.data.world import WorldConfig, make_world
    from llm4rec.settings import Config
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000, help="events of a world")
    parser.add_argument("--wave", type=float, default=0.3, help="share of popularity's variance that moves")
    parser.add_argument("--seeds", type=int, default=5, help="worlds")
    parser.add_argument("--training", type=float, nargs="+", default=[0.0, 0.5, 1.0], help="powers")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    alone = ["linear.items=0", "retrieve.enabled=false", "train.attention_epochs=0", "train.context_epochs=0"]
    config = load(Config, settings=["encode.text.encoder=hash", *alone, *options.set])
    worlds: list[list[dict[str, Any]]] = []
    for seed in range(options.seeds):
        world = WorldConfig(seed=seed, n_events=options.events, wave=options.wave, n_impressions=0, n_trial=0)
        train = config.train.model_copy(update={"seed": seed})
        worlds.append(
            measure(make_world(world), options.training, config.model_copy(update={"train": train}))
        )
        files.write_json({"worlds": worlds, "summary": summed(worlds)}, options.out)


if __name__ == "__main__":
    main()
