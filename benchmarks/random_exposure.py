"""Ratings people chose to give, tested on pairs drawn at random: what each way of debiasing is worth.

    python benchmarks/random_exposure.py --data coat --seeds 10 --out coat.json
    python benchmarks/random_exposure.py --data yahoo-r3 --seeds 10 --folds 2 --batch 8192 --out yahoo.json

--data holds interactions.parquet with user_id, item_id, rating and `split`, which is train for what people
chose and test for what was drawn for them, `propensity` of the train rows where there is one, and
users.parquet and items.parquet. Protected columns of people are not read (`data.protected`).

Protocol: trained on all train ratings; a rating of `--like` or more is a positive; AUC over all test pairs
together; NDCG@5 of each person's test items, averaged over all test people, one without a positive counting
1 as in the public code of the compared papers (`ndcg_liking` leaves those people out); MSE of P(r >= like)
against 0 or 1 (`rating_mse`: of the expected rating).

Methods are those of `llm4rec.debias.methods`, with the propensities of the data where it has them, else with
learned ones (`debias.exposure`, learnt once, held out).

Nothing is chosen on the test part. Models are cross-fitted on the train ratings; their held-out predictions,
weighted by inverse propensities, give each person's log loss and an AUC. `default` is, seed by seed, what
`methods.choose` takes: naive unless another is shown to be better.

Intervals of figures are Student's over seeds; those of differences in NDCG@5 are also a bootstrap over
people, whose seeds are averaged first.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from scipy.stats import t

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm4rec.debias.exposure import Exposure
    from llm4rec.debias.learning import CrossFitted
    from llm4rec.debias.methods import Held
    from llm4rec.debias.rated import Rated
    from llm4rec.debias.ratings import Features
    from llm4rec.types import Array, Ints

K = 5
FIGURES = ("auc", "ndcg", "ndcg_liking", "mse", "rating_mse")


def ndcg(people: Ints, liked: Array, scores: Array, k: int = K) -> Array:
    """NDCG@k of each person's own test items, ascending by person; NaN for one without a positive."""
    order = np.lexsort((-scores, people))
    who, hit = people[order], liked[order].astype(np.float64)
    first = np.flatnonzero(np.r_[True, np.diff(who) > 0])
    lengths = np.diff(np.r_[first, len(who)])
    place = np.arange(len(who)) - np.repeat(first, lengths)
    gained = np.add.reduceat(np.where(place < k, hit / np.log2(place + 2), 0), first)
    ideal = np.r_[0, np.cumsum(1 / np.log2(np.arange(k) + 2))]
    best = ideal[np.minimum(np.add.reduceat(hit, first), k).astype(np.int64)]
    return np.where(best > 0, gained / np.where(best > 0, best, 1), np.nan)


class Trial(NamedTuple):
    """A data set: what is trained on, and the pairs that were drawn.

    Attributes:
        rated: the train ratings.
        features: of people and items.
        propensities: e of each train rating [e]; None where the data has none.
        people: of the test pairs [p].
        items: of the test pairs [p].
        ratings: of the test pairs [p].
    """

    rated: Rated
    features: Features
    propensities: Array | None
    people: Ints
    items: Ints
    ratings: Array


def read(folder: Path) -> Trial:
    """Read the tables of a data set."""
    from llm4rec.data.entities import read_entities
    from llm4rec.data.ingest import DataConfig
    from llm4rec.debias.rated import Rated
    from llm4rec.debias.ratings import Features
    from llm4rec.encode.tokens import TokenConfig, fit_tokens

    catalogs, spaces = {}, {}
    for role, protected in (("user", DataConfig().protected), ("item", ())):
        catalog, _, notes = read_entities(str(folder / f"{role}s.parquet"), role, {}, {}, protected)
        for note in notes:
            print(f"  {note}")
        space = fit_tokens(catalog, {}, **TokenConfig().limits)
        catalogs[role] = catalog
        spaces[role] = (space, space.transform(catalog, {})) if space.fields else (None, {})
    log = pl.read_parquet(folder / "interactions.parquet")
    parts: list[tuple[Any, Any, Any]] = []
    for split in ("train", "test"):
        rows = log.filter(pl.col("split") == split)
        people, items = (
            catalogs[role].numbers(rows[f"{role}_id"].cast(pl.String)) for role in ("user", "item")
        )
        parts.append((people, items, rows["rating"].to_numpy().astype(np.float64)))
    (people, items, ratings), test = parts
    rated = Rated.of(people, items, ratings, len(catalogs["user"]), len(catalogs["item"]))
    propensities = None
    if "propensity" in log.columns:
        propensities = log.filter(pl.col("split") == "train")["propensity"].to_numpy()
        propensities = propensities[np.argsort(people * rated.n_items + items, kind="stable")]
    return Trial(rated, Features(*spaces["item"], *spaces["user"]), propensities, *test)


class Judged(NamedTuple):
    """One method with one seed.

    Attributes:
        figures: of the test part, by name.
        held: what validation says.
        people: NDCG of each test person, one without a positive counting 1.
        epochs: passes of each fold.
        seconds: what it took.
    """

    figures: dict[str, float]
    held: Held
    people: Array
    epochs: tuple[int, ...]
    seconds: float = 0.0


def judge(trial: Trial, fitted: CrossFitted, propensities: Array, like: float) -> Judged:
    """Its figures on the test part, and what validation says of it."""
    from llm4rec.debias.methods import held
    from llm4rec.debias.rated import at_least, expected
    from llm4rec.evaluate.metrics import auc

    rated = trial.rated
    liked = trial.ratings >= like
    p = fitted.predict(rated, trial.people, trial.items).astype(np.float64)
    scores = at_least(rated.levels, p, like)
    per_person = ndcg(trial.people, liked, scores)
    figures = {
        "auc": auc(liked, scores),
        "ndcg": float(np.nan_to_num(per_person, nan=1.0).mean()),
        "ndcg_liking": float(np.nanmean(per_person)),
        "mse": float(np.mean((scores - liked) ** 2)),
        "rating_mse": float(np.mean((expected(rated.levels, p) - trial.ratings) ** 2)),
    }
    counted = np.nan_to_num(per_person, nan=1.0)
    return Judged(figures, held(rated, fitted, propensities, like), counted, fitted.epochs)


def measure(
    trial: Trial, propensities: Array, learnt: Exposure, given: argparse.Namespace, seed: int
) -> dict[str, Judged]:
    """Every method with one seed; `default` is the one validation chooses."""
    from llm4rec.debias.learning import cross_fit
    from llm4rec.debias.methods import choose, objectives
    from llm4rec.debias.ratings import RatingConfig

    config = RatingConfig(batch_size=given.batch, epochs=given.epochs)
    told: dict[str, Judged] = {}
    for name, objective in objectives(trial.rated, propensities, learnt).items():
        if name in given.methods:
            began = time.perf_counter()
            fitted = cross_fit(trial.rated, trial.features, config, objective, folds=given.folds, seed=seed)
            found = judge(trial, fitted, propensities, given.like)
            told[name] = found._replace(seconds=time.perf_counter() - began)
    return told | {"default": told[choose({name: judged.held for name, judged in told.items()})]}


def spread(values: Array) -> dict[str, float]:
    """Mean over seeds with Student's interval; without width for one seed."""
    mean, n = float(np.mean(values)), len(values)
    reach = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def summary(runs: list[dict[str, Judged]]) -> dict[str, Any]:
    """Each method's figures over the seeds, and their paired differences from naive."""
    from llm4rec.evaluate.significance import paired

    told: dict[str, Any] = {}
    for name in runs[0]:
        of = [run[name] for run in runs]
        naive = [run["naive"] for run in runs]
        told[name] = {figure: spread(np.array([j.figures[figure] for j in of])) for figure in FIGURES}
        told[name]["validation loss"] = spread(np.array([j.held.losses.mean() for j in of]))
        told[name]["validation auc"] = spread(np.array([j.held.order for j in of]))
        told[name]["over naive"] = {
            figure: spread(
                np.array([j.figures[figure] - n.figures[figure] for j, n in zip(of, naive, strict=True)])
            )
            for figure in FIGURES
        }
        people, theirs = (np.mean([j.people for j in each], axis=0) for each in (of, naive))
        told[name]["over naive"]["ndcg over people"] = asdict(paired(people, theirs))
        told[name]["seconds"] = float(np.mean([j.seconds for j in of]))
        told[name]["epochs"] = [j.epochs for j in of]
    told["default"]["chosen"] = [next(name for name in run if run[name] is run["default"]) for run in runs]
    return told


def exposures(trial: Trial) -> tuple[Array, Exposure, dict[str, Any]]:
    """The propensities of the train ratings, the learned model, and what they are worth."""
    from llm4rec.debias.exposure import learn_exposure
    from llm4rec.debias.methods import CLIP
    from llm4rec.debias.propensity import clippings

    learnt = learn_exposure(trial.rated, trial.features)
    own = learnt.calibration
    propensities = learnt.propensities if trial.propensities is None else trial.propensities
    bounds = (0.0, *np.quantile(propensities, (0.01, CLIP, 0.1, 0.25)).tolist())
    return (
        propensities,
        learnt,
        {
            "of": "learned" if trial.propensities is None else "the data",
            "clipping": [asdict(line) for line in clippings(propensities, bounds)],
            "learned": {
                "brier": own.brier,
                "brier of the mean": own.constant,
                "error": own.error,
                "predicted": own.predicted.tolist(),
                "observed": own.observed.tolist(),
                "counts": own.counts.tolist(),
            },
        },
    )


def calibration_plot(learned: Mapping[str, Any]) -> str:
    """An SVG of how often pairs were rated against how likely the learned propensities held it."""
    from llm4rec.bench.charts import growth

    seen = [(p, y) for p, y in zip(learned["predicted"], learned["observed"], strict=True) if p > 0 and y > 0]
    lines = {"right": [(p, p) for p, _ in seen], "learned": seen}
    return growth(lines, "Propensities, held out", "mean predicted", "share that was rated")


def main() -> None:
    """Measure what the command line names."""
    import torch

    from llm4rec.debias.methods import METHODS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1024, help="ratings per step")
    parser.add_argument("--epochs", type=int, default=80, help="the most passes over the ratings")
    parser.add_argument("--like", type=float, default=3.0, help="ratings from here on are positives")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file; a calibration plot is put beside it (.svg)"
    )
    given = parser.parse_args()
    if "naive" not in given.methods:
        parser.error("--methods needs naive, which the others are compared with")
    torch.set_num_threads(given.threads)
    trial = read(given.data)
    propensities, learnt, worth = exposures(trial)
    print(json.dumps(worth, indent=1))
    given.out.with_suffix(".svg").write_text(calibration_plot(worth["learned"]), encoding="utf-8")
    runs: list[dict[str, Judged]] = []
    for seed in range(given.seeds):
        runs.append(measure(trial, propensities, learnt, given, seed))
        told = {"settings": vars(given) | {"data": str(given.data), "out": str(given.out)}, "seeds": seed + 1}
        told |= {"propensities": worth, "methods": summary(runs)}
        given.out.write_text(json.dumps(told, indent=1), encoding="utf-8")
        for name, judged in runs[-1].items():
            print(
                f"seed {seed}, {name}: " + ", ".join(f"{f} {v:.4f}" for f, v in judged.figures.items()),
                flush=True,
            )
    for name, found in told["methods"].items():
        figures = "  ".join(
            f"{f} {found[f]['mean']:.4f} [{found[f]['low']:.4f}, {found[f]['high']:.4f}]" for f in FIGURES
        )
        gained = "  ".join(
            f"{f} {found['over naive'][f]['mean']:+.4f} [{found['over naive'][f]['low']:+.4f}, "
            f"{found['over naive'][f]['high']:+.4f}]"
            for f in FIGURES
        )
        print(f"{name}\n  {figures}\n  over naive: {gained}")
    print(f"default: {told['methods']['default']['chosen']}")


if __name__ == "__main__":
    main()
