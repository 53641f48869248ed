"""What retrieval adds, and each kind of entry and term of its relevance: NDCG@10 on leave-last-out.

    python benchmarks/retrieval.py --data ml-100k --seeds 3 --models models --out retrieval.json
    python benchmarks/retrieval.py --data office --config configs/sparse.toml --parts --out office.json

Per seed one model is fitted without retrieval; what is retrieved is weighed on its validation cases, and the
test cases are ranked with and without; where retrieve.prompt is set, also without a prompt. With --parts, of
the first seed, also each kind of entry and each
term of equation (9) left out and the others weighed anew, and the whole with random entries: each item says
what another says, and each event is followed by another's, at the weights that the real ones were given.
Differences are paired by person, the seeds' mean of each; intervals are bootstrapped over people. Apart from
all cases, those of rare items (fewer than 10 training events) and of people with fewer than 5.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from llm4rec.bench.job import Study
    from llm4rec.data.split import Cases
    from llm4rec.fitted import Fitted
    from llm4rec.settings import Config

Values = npt.NDArray[np.float32]
RARE, SHORT = 10, 5
EVERYTHING = "retrieval"


def fitted(study: Study, config: Config, seed: int, place: Path | None) -> Fitted:
    """The model without retrieval, read from `place` where it is there, else fitted and left there."""
    from llm4rec.fitting import heard
    from llm4rec.recommender import Recommender

    if place is not None and place.exists():
        model = Recommender.load(place).fitted
    else:
        off = {"train": config.train.model_copy(update={"seed": seed})}
        off |= {"retrieve": config.retrieve.model_copy(update={"enabled": False})}
        found = Recommender.fit(
            study.split.train,
            study.catalog,
            config.model_copy(update=off),
            people=study.data.people,
            valid=study.split.valid,
        )
        if place is not None:
            found.save(place)
        model = found.fitted
    return heard(model, study.data.remarks, study.split.train)


def variants(parts: bool, study: Study, model: Fitted) -> dict[str, dict[str, Any]]:
    """Name → what the section `retrieve` says."""
    from llm4rec.fitting import tried
    from llm4rec.retrieve.entries import FACTORS, KINDS

    found: dict[str, dict[str, Any]] = {EVERYTHING: {}}
    if model.config.retrieve.prompt:
        found["without prompt"] = {"prompt": 0}
    if not parts:
        return found
    had = tried(model.config, study.catalog, study.split.train, model.remarks)
    for axis, (key, names) in enumerate((("kinds", KINDS), ("factors", FACTORS))):
        there = np.flatnonzero(had.any(axis=1 - axis))
        all_of_them = tuple(names[place] for place in there)
        for name in all_of_them if len(all_of_them) > 1 else ():
            found[f"without {name}"] = {key: tuple(other for other in all_of_them if other != name)}
    return found | {"without attention": {"attention": False}}


def grounded(model: Fitted, study: Study, config: Config, options: dict[str, Any]) -> Fitted:
    """The model with retrieval weighed on the validation cases."""
    from llm4rec.choosing import Questions, sample
    from llm4rec.fitting import ground

    train = model.config.train
    valid = sample(study.split.valid, train.validation_people, train.seed)
    questions = Questions(valid, model.people, len(model.catalog), model.scorer)
    retrieve = config.retrieve.model_copy(update={"enabled": True, **options})
    told = model.config.model_copy(update={"retrieve": retrieve})
    events = study.split.train
    return ground(replace(model, config=told), questions, events, events)


def at_random(model: Fitted) -> Fitted:
    """The same weights on random entries."""
    import torch

    draw = np.random.default_rng(0)
    order = draw.permutation(len(model.catalog))
    vectors = {name: values[order] for name, values in model.vectors.items()}
    scorer = replace(model.scorer)
    vars(scorer)["vectors"] = model.scorer.vectors[torch.from_numpy(order)]
    mixed = replace(
        model,
        catalog=model.catalog.take(order),
        vectors=vectors,
        scorer=scorer,
        memories=None
        if model.memories is None
        else replace(model.memories, items=draw.permutation(model.memories.items)),
        remarks={
            manner: replace(said, items=draw.permutation(said.items))
            for manner, said in model.remarks.items()
        },
    )
    found = replace(model)
    vars(found)["grounding"] = mixed.grounding
    return found


def ndcg(model: Fitted, cases: Cases) -> Values:
    """NDCG@10 of each case [c]."""
    from llm4rec.evaluate.protocol import case_ndcg
    from llm4rec.recommender import Recommender

    return case_ndcg(Recommender(model), cases, len(model.catalog))


def compare(study: Study, config: Config, *, seeds: int, parts: bool, models: Path | None) -> dict[str, Any]:
    """NDCG@10 without and with retrieval, the seeds' mean, and every difference from `without`."""
    test = study.split.test
    per_seed: dict[str, list[Values]] = {"nothing retrieved": []}
    told: list[dict[str, Any]] = []
    for seed in range(seeds):
        start = time.perf_counter()
        model = fitted(study, config, seed, None if models is None else models / f"seed-{seed}")
        per_seed["nothing retrieved"].append(ndcg(model, test))
        for name, options in variants(parts and seed == 0, study, model).items():
            began = time.perf_counter()
            found = grounded(model, study, config, options)
            per_seed.setdefault(name, []).append(ndcg(found, test))
            told.append({
                "seed": seed,
                "variant": name,
                **found.relevance.told(),
                "validation": found.about["retrieval"]["gain"],
                "attention": found.about["retrieval"]["attention"],
                "prompt": found.about["retrieval"]["prompt"],
                "seconds": round(time.perf_counter() - began, 1),
            })
            if name == EVERYTHING and parts and seed == 0:
                per_seed["random entries"] = [ndcg(at_random(found), test)]
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    if parts:  # what the parts, of one seed, stand beside
        per_seed[f"{EVERYTHING}, first seed"] = per_seed[EVERYTHING][:1]
    first = test.targets[test.target_offsets[:-1]]
    apart = {
        "all": np.ones(len(test), dtype=bool),
        f"items with fewer than {RARE} events": study.split.train.item_counts(len(study.catalog))[first]
        < RARE,
        f"people with fewer than {SHORT} events": study.split.train.lengths[test.rows] < SHORT,
    }
    tables = {name: _table(per_seed, test, where) for name, where in apart.items() if where.any()}
    return {"cases": len(test), "seeds": seeds, "tables": tables, "weighed": told}


def _table(per_seed: dict[str, list[Values]], test: Cases, where: npt.NDArray[np.bool_]) -> dict[str, Any]:
    from llm4rec.evaluate.protocol import person_means
    from llm4rec.evaluate.significance import paired

    table: dict[str, Any] = {"people": len(np.unique(test.rows[where]))}
    for name, values in per_seed.items():
        with_it = person_means(np.mean(values, axis=0), test.rows, where)
        without = np.mean(per_seed["nothing retrieved"][: len(values)], axis=0)
        gap = paired(with_it, person_means(without, test.rows, where))
        base = float(with_it.mean()) - gap.difference
        table[name] = {
            "ndcg@10": float(with_it.mean()),
            "difference": [gap.difference, gap.low, gap.high],
            "relative": gap.difference / base if base else None,
        }
    return table


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
    parser.add_argument("--parts", action="store_true", help="leave out each part in turn (first seed)")
    parser.add_argument("--models", type=Path, help="keep fitted models here, and read those that are there")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    config = load(Config, file=given.config, settings=given.set)
    study = job.read(job.Source.folder(given.data), "leave-last-out", config.data)
    if given.models is not None:
        given.models.mkdir(parents=True, exist_ok=True)
    found = compare(study, config, seeds=given.seeds, parts=given.parts, models=given.models)
    files.write_text(json.dumps(found, indent=1), given.out)
    print(json.dumps(found["tables"], indent=1))


if __name__ == "__main__":
    main()
