"""What taking popularity out of the scores costs and gives: NDCG@10 against Gini and coverage.

    python benchmarks/popularity.py --data beauty --config configs/sparse.toml --models m --out beauty.json

One model per seed is fitted on the training part of leave-last-out, and validation chooses a strength for it.
Test cases are then ranked at that strength, at others, and at 0; differences are paired by person, intervals
bootstrapped over people. Popularity is counted in the training part, where the data has a clock in its newest
events.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm4rec.bench.job import Study
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config


def fitted(study: Study, config: Config, place: Path | None) -> Recommender:
    """The model, its strength chosen on validation; read from `place` where it is there, else left there."""
    from llm4rec.recommender import Recommender

    if place is not None and place.exists():
        return Recommender.load(place)
    found = Recommender.fit(
        study.split.train, study.catalog, config, people=study.data.people, valid=study.split.valid
    )
    if place is not None:
        found.save(place)
    return found


def measured(study: Study, config: Config, *, seeds: int, models: Path | None) -> list[dict[str, Any]]:
    """Per seed: what validation chose, and the lists of the test cases at each strength."""
    from llm4rec.audit.strengths import STRENGTHS, curve

    popularity = config.debias.popularity.model_copy(update={"choose": True})
    found: list[dict[str, Any]] = []
    for seed in range(seeds):
        parts = {
            "train": config.train.model_copy(update={"seed": seed}),
            "debias": config.debias.model_copy(update={"popularity": popularity}),
        }
        model = fitted(
            study, config.model_copy(update=parts), None if models is None else models / f"seed-{seed}"
        )
        chosen = model.meta["popularity"]
        strengths = sorted({*STRENGTHS["popularity"], chosen["strength"]})
        points = curve(model, study.split.test, study.split.train, "popularity", strengths)
        found.append({"seed": seed, "chosen": chosen, "points": [asdict(point) for point in points]})
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.bench import job
    from llm4rec.config import load
    from llm4rec.settings import Config
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="as `llm4rec data get` writes it")
    parser.add_argument("--config", type=Path, help="configuration file (TOML)")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, may be repeated")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", type=Path, help="keep fitted models here, and read those that are there")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    config = load(Config, file=options.config, settings=options.set)
    study = job.read(job.Source.folder(options.data), "leave-last-out", config.data)
    files.write_json(
        {"runs": measured(study, config, seeds=options.seeds, models=options.models)}, options.out
    )


if __name__ == "__main__":
    main()
