"""What projections of 8 bits cost a model with a pretrained backbone in accuracy.

    llm4rec bench --data ml-100k --config configs/smollm2.toml --models ours --keep model --out bench/smollm2
    python benchmarks/eight_bits.py --model model --interactions ml-100k/interactions.parquet

Everybody's last event is asked for after all the person did before, once of the model as it was trained
(`serve.int8=false`) and once with 8 bits. One line of JSON: NDCG@10 of both, the difference with its 95%
interval, paired by person, and how many of their ten items both lists hold. The model must not have seen
these last events.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from llm4rec.data.ingest import ingest
from llm4rec.data.split import Cases, leave_last_out
from llm4rec.evaluate.protocol import Evaluation, evaluate
from llm4rec.evaluate.significance import paired
from llm4rec.recommender import Recommender
from llm4rec.types import Floats

METRIC, N = "ndcg@10", 10


def reading(recommender: Recommender, *, int8: bool) -> Recommender:
    """The same model, with or without 8 bits."""
    serve = recommender.config.serve.model_copy(update={"int8": int8})
    fitted = recommender.fitted
    return Recommender(replace(fitted, scorer=replace(fitted.scorer, serve=serve)))


def shared(one: Evaluation, other: Evaluation) -> Floats:
    """The share of the first ten items of each case that both lists hold [c]."""
    return np.array([
        len(np.intersect1d(a, b)) / N for a, b in zip(one.lists.items, other.lists.items, strict=True)
    ])


def compare(recommender: Recommender, cases: Cases) -> dict[str, Any]:
    """Both ways of reading, asked the same."""
    catalog = recommender.catalog
    exact, short = (
        evaluate(reading(recommender, int8=int8), cases, train=cases.log, catalog=catalog)
        for int8 in (False, True)
    )
    found = paired(short.per_person(METRIC), exact.per_person(METRIC))
    return {
        "cases": len(cases),
        METRIC: {"exact": exact.summary[METRIC], "8 bits": short.summary[METRIC]},
        "8 bits minus exact": asdict(found),
        "same of ten": float(shared(exact, short).mean()),
    }


def main() -> None:
    """Read the arguments, ask and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--interactions", required=True)
    given = parser.parse_args()
    recommender = Recommender.load(given.model)
    log, _, _ = ingest(given.interactions, config=recommender.config.data).numbered_by(recommender.catalog)
    print(json.dumps(compare(recommender, leave_last_out(log).test)))


if __name__ == "__main__":
    main()
