"""What retrieval and attention to it add to one recommendation: milliseconds, cold and warm.

    OMP_NUM_THREADS=1 python benchmarks/retrieval_cost.py --data ml-100k --models seed-0 --out cost.json

The model in --models (or one that is fitted and left there, without retrieval) is asked for 10 items after
the histories of a leave-last-out test, one at a time: with nothing retrieved; with every kind of entry that
the data has, all weights 1; and with an attention whose gate is open, whatever validation would keep. The
three take turns, so that what else the machine does falls on all. Cold: no anchor was asked for before.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("nothing retrieved", "retrieval", "retrieval and attention")


def models(plain: Any, events: Any) -> dict[str, Any]:
    """The model in each of the `WAYS`."""
    from llm4rec.recommender import Recommender
    from llm4rec.retrieve.condition import Condition
    from llm4rec.retrieve.entries import FACTORS, KINDS
    from llm4rec.retrieve.relevance import Relevance

    kinds = [kind for kind in KINDS if kind not in ("review", "tag") or kind in plain.remarks]
    if not plain.catalog.fields:
        kinds.remove("item_text")
    every = Relevance.of({"weights": {kind: dict.fromkeys(FACTORS, 1.0) for kind in kinds}, "gamma": 0.01})
    grounded = replace(plain, memories=events, relevance=every)
    condition = Condition(plain.scorer.vectors.shape[1])
    condition.gate.bias.data.fill_(0.5)
    attentive = replace(grounded, condition=condition.eval())
    found = zip(WAYS, (plain, grounded, attentive), strict=True)
    return {name: Recommender(model) for name, model in found}


def measure(asked: dict[str, Any], histories: Any, n: int) -> dict[str, Any]:
    """Quantiles of the milliseconds of each way, the first time a history is asked and the second."""
    took: dict[str, list[list[float]]] = {name: [[], []] for name in asked}
    rows = np.linspace(0, histories.n_users - 1, min(n, histories.n_users)).astype(np.int64)
    for model in asked.values():  # what is made once is made before
        first = histories.histories(rows[:1], histories.lengths[rows[:1]])
        model.recommend_many(first, None, 10)
    for turn in (0, 1):
        for row in rows:
            one = histories.histories(np.array([row]), histories.lengths[row : row + 1])
            for name, model in asked.items():
                start = time.perf_counter()
                model.recommend_many(one, None, 10)
                took[name][turn].append(1000 * (time.perf_counter() - start))
    told: dict[str, Any] = {"histories": len(rows)}
    for name, turns in took.items():
        for turn, values in zip(("cold", "warm"), turns, strict=True):
            p50, p95 = np.quantile(values, [0.5, 0.95])
            told.setdefault(turn, {})[name] = {"p50_ms": float(p50), "p95_ms": float(p95)}
    for turn in ("cold", "warm"):
        base = told[turn][WAYS[0]]["p50_ms"]
        for name in WAYS[1:]:
            told[turn][name]["added_p50_ms"] = told[turn][name]["p50_ms"] - base
    return told


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
    parser.add_argument("--models", type=Path, help="the fitted model is kept here, or read if it is there")
    parser.add_argument("--n", type=int, default=500, help="histories asked")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    spec = importlib.util.spec_from_file_location("retrieval", Path(__file__).with_name("retrieval.py"))
    assert spec is not None and spec.loader is not None
    retrieval = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(retrieval)
    config = load(Config, file=given.config, settings=given.set)
    study = job.read(job.Source.folder(given.data), "leave-last-out", config.data)
    plain = retrieval.fitted(study, config, 0, given.models)
    found = measure(models(plain, study.split.train), study.split.test.histories(), given.n)
    text = json.dumps(found, indent=1)
    files.write_text(text, given.out)
    print(text)


if __name__ == "__main__":
    main()
