"""How differently groups of people are served, and what holding exposure equal costs.

    python benchmarks/fairness.py --data ml-100k --model ml-100k-model --fit --out fairness.json

--data is a folder as `llm4rec data get` writes it, with users.parquet; --world 24000 makes a world of people
of that many in its place. --model is a model of the leave-last-out training part, which --fit makes first
(with --set KEY=VALUE): one that has read the answers can't be asked for them. Of each attribute (--by, gender
and age) it tells, with 95% intervals over people: exposure parity of item categories and popularity deciles
(18), the NDCG gap, equal opportunity (hit rate), the gap in calibration, and the balanced accuracy of an
attacker who reads the attribute from user states. `chance` is what the same figure is on average when people
are dealt to the groups at random.

Then the lists are re-ranked so that exposure differs by at most ε, the offsets being found on validation
cases and measured on test cases of other people: each half of the people gets those of the other half. The
cost is the difference in NDCG@10, person by person. A model that was fitted with
debias.parity.attribute comes with offsets of its own: --bare leaves them out, so that what training did is
told by itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from llm4rec.data.catalog import Catalog
    from llm4rec.data.events import EventLog
    from llm4rec.data.split import Cases, Split
    from llm4rec.evaluate.exposure import ExposureParity
    from llm4rec.evaluate.fairness import Disparity
    from llm4rec.evaluate.groups import Groups, ItemGroups
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config
    from llm4rec.types import Array, Floats, Rankings

WORLD_ITEMS = 1_000
CANDIDATES = 100
"""Items of each list that the re-ranker chooses the ten shown from."""


class Asked(NamedTuple):
    """Cases and what the model ranks for them.

    Attributes:
        cases: of people.
        rankings: candidates [c, CANDIDATES].
    """

    cases: Cases
    rankings: Rankings

    @classmethod
    def of(cls, model: Recommender, cases: Cases) -> Asked:
        """The best candidates of each case."""
        return cls(cases, model.rank(cases.histories(), CANDIDATES))

    def ndcg(self, rankings: Rankings) -> Floats:
        """NDCG@10 of lists for these cases [c]."""
        from llm4rec.evaluate.metrics import per_case

        return per_case(rankings, self.cases, (10,))["ndcg@10"]


def measure(
    model: Recommender,
    split: Split,
    attributes: Sequence[str],
    epsilons: Sequence[float],
    *,
    shuffles: int,
    seed: int,
) -> dict[str, Any]:
    """All figures, by attribute."""
    from llm4rec.evaluate.groups import by_category, by_popularity, groups_of
    from llm4rec.fitted import person_rows

    people, log = model.fitted.people, split.test.log
    assert people is not None
    rows = person_rows(people, log)
    popularity = by_popularity(split.train.item_counts(len(model.catalog)))
    item_groups = [each for each in (by_category(model.catalog), popularity) if each is not None]
    valid, test = Asked.of(model, split.valid), Asked.of(model, split.test)
    histories = split.test.histories()
    states = model.fitted.scorer.states(histories, model.fitted.person_rows(histories)).numpy()
    found: dict[str, Any] = {}
    for name in attributes:
        column = people.table[name]
        groups = groups_of(column).of_rows(rows)
        attacked = groups_of(column, bands=2).of_rows(rows).of_rows(split.test.rows)
        found[name] = served(test, groups, item_groups, seed) | read(states, attacked, shuffles, seed)
        found[name]["reranked"] = [
            reranked(valid, test, groups, items, epsilon, seed)
            for items in item_groups
            for epsilon in epsilons
        ]
    return found


def served(test: Asked, groups: Groups, item_groups: Sequence[ItemGroups], seed: int) -> dict[str, Any]:
    """How differently groups are served by the lists as they are."""
    from llm4rec.evaluate.exposure import exposure_parity
    from llm4rec.evaluate.fairness import metric_gap, miscalibration
    from llm4rec.evaluate.metrics import per_case

    rows, lists = test.cases.rows, test.rankings.items
    values: dict[str, Array] = dict(per_case(test.rankings, test.cases, (10,)))
    values = {name: values[name] for name in ("ndcg@10", "hr@10")}
    if len(item_groups) > 1:
        values["miscalibration"] = miscalibration(lists, test.cases.histories(), item_groups[0])
    return {
        "parity": {
            items.kind: told_of_parity(exposure_parity(lists, rows, groups, items, seed=seed))
            for items in item_groups
        },
        "gaps": {
            name: told_of_gap(metric_gap(name, each, rows, groups, seed=seed))
            for name, each in values.items()
        },
    }


def read(states: Floats, groups: Groups, shuffles: int, seed: int) -> dict[str, Any]:
    """What attackers read of the attribute; numbers are guessed as above the median or not."""
    from llm4rec.evaluate.attacker import attack

    found = {
        name: asdict(attack(states, groups, curved=curved, shuffles=shuffles, seed=seed))
        for name, curved in (("straight", False), ("curved", True))
    }
    return {"attacker": found}


def reranked(
    valid: Asked, test: Asked, groups: Groups, items: ItemGroups, epsilon: float, seed: int
) -> dict[str, Any]:
    """Exposure and cost on test cases with offsets found on validation cases of other people."""
    from llm4rec.debias.parity import fit_parity
    from llm4rec.evaluate.exposure import exposure_parity
    from llm4rec.evaluate.protocol import person_means
    from llm4rec.evaluate.significance import paired
    from llm4rec.types import Rankings

    half = np.random.default_rng(seed).permutation(test.cases.log.n_users) % 2
    lists, scores = test.rankings.items.copy(), test.rankings.scores.copy()
    held: list[float] = []
    for side in range(2):
        learnt, mine = half[valid.cases.rows] != side, half[test.cases.rows] == side
        known = groups.of_rows(valid.cases.rows[learnt])
        parity = fit_parity(
            valid.rankings.items[learnt], valid.rankings.scores[learnt], known, items, epsilon
        )
        held.append(parity.gap)
        whose = groups.members[test.cases.rows[mine]]
        found = parity.reordered(Rankings(lists[mine], scores[mine]), whose)
        lists[mine], scores[mine] = found.items, found.scores
    rows = test.cases.rows
    after, before = (person_means(test.ndcg(each), rows) for each in (Rankings(lists, scores), test.rankings))
    cost = paired(after, before, seed)
    found = exposure_parity(lists, rows, groups, items, seed=seed)
    return {
        "items": items.kind,
        "epsilon": epsilon,
        "gap on validation": held,
        "parity": told_of_parity(found),
        "ndcg@10": [float(before.mean()), float(after.mean())],
        "difference": [cost.difference, cost.low, cost.high],
        "kept": float(
            np.mean([np.isin(a[:10], b[:10]).mean() for a, b in zip(lists, test.rankings.items, strict=True)])
        ),
    }


def told_of_parity(found: ExposureParity) -> dict[str, Any]:
    """The largest gap, where it is, and what chance would make it."""
    at: dict[str, Any] = {}
    if found.largest is not None:
        place, item = np.unravel_index(np.abs(found.differences).argmax(), found.differences.shape)
        pair = found.pairs[int(place)]
        at = {
            "between": [found.groups.names[a] for a in pair],
            "of": found.items[int(item)],
            "shares": [float(found.shares[a, item]) for a in pair],
        }
    return {
        "largest": None if found.largest is None else asdict(found.largest),
        **at,
        "chance": found.chance,
        "p": found.p,
        "people": dict(zip(found.groups.names, found.groups.sizes.tolist(), strict=True)),
        "notes": found.groups.notes,
    }


def told_of_gap(found: Disparity) -> dict[str, Any]:
    """The difference and ratio over groups, and what chance would make of the first."""
    return {
        "means": dict(zip(found.groups.names, found.means.tolist(), strict=True)),
        "difference": None if found.difference is None else asdict(found.difference),
        "ratio": None if found.ratio is None else asdict(found.ratio),
        "chance": found.chance,
        "p": found.p,
    }


def fitted(
    folder: Path, split: Split, catalog: Any, people: Any, config: Config, *, fit: bool
) -> Recommender:
    """The model in a folder, fitted first where that is asked for.

    Raises:
        InputError: where it was fitted on other events than the training part.
    """
    from llm4rec.errors import InputError
    from llm4rec.recommender import Recommender

    if fit:
        model = Recommender.fit(split.train, catalog, config, people=people, valid=split.valid)
        model.save(folder)
        return model
    model = Recommender.load(folder)
    if model.meta["n_events"] != split.train.n_events or model.fitted.people is None:
        raise InputError(
            f"The model in {folder} was fitted on {model.meta['n_events']} events, and the training part has "
            f"{split.train.n_events}; or it knows no people. Make one with --fit."
        )
    return model


def bare(model: Recommender) -> Recommender:
    """The same model without offsets that hold exposure."""
    from llm4rec.fitted import as_indexed

    return type(model)(as_indexed(model.fitted, replace(model.fitted, balance=None)))


def printed(found: dict[str, Any]) -> None:
    """The figures in few lines."""
    for name, told in found.items():
        print(name)
        for kind, parity in told["parity"].items():
            where = f"{parity.get('of')}, {parity.get('between')}"
            print(f"  parity by {kind}: {ends(parity['largest'])} {by_chance(parity)} ({where})")
        for metric, gap in told["gaps"].items():
            print(f"  {metric} gap: {ends(gap['difference'])} {by_chance(gap)} ratio {ends(gap['ratio'])}")
        for kind, each in told["attacker"].items():
            print(f"  attacker, {kind}: {ends(each['accuracy'])} {by_chance(each)}")
        for line in told["reranked"]:
            cost = line["difference"]
            print(
                f"  ε {line['epsilon']:g} by {line['items']}: gap {ends(line['parity']['largest'])}, on "
                f"validation {max(line['gap on validation']):.4f}; NDCG@10 {line['ndcg@10'][0]:.4f}, "
                f"{cost[0]:+.4f} [{cost[1]:+.4f}, {cost[2]:+.4f}]; kept {line['kept']:.3f}"
            )


def ends(value: dict[str, float] | None) -> str:
    """A figure with its interval."""
    return "none" if value is None else f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"


def by_chance(told: dict[str, Any]) -> str:
    """What chance makes of a figure."""
    return f"chance {told['chance']:.4f} p {told['p']:.3f}"


def world(n_people: int) -> tuple[EventLog, Catalog, Catalog]:
    """Events, items and people of a world in which taste leans by gender, region and age."""
    from llm4rec.data.world import WorldConfig, make_world

    size = {"n_users": n_people, "n_events": 10 * n_people, "n_items": WORLD_ITEMS}
    made = make_world(WorldConfig.model_validate(size | {"n_impressions": 1, "n_trial": 1}))
    return made.log, made.catalog, made.people


def read_folder(folder: Path, config: Config) -> tuple[EventLog, Catalog, Catalog | None]:
    """Events, items and people of a folder."""
    from llm4rec.bench import job
    from llm4rec.data.ingest import ingest

    where = job.Source.folder(folder)
    data = ingest(where.interactions, where.items, where.users, config=config.data)
    return data.log, data.catalog, data.people


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.config import load
    from llm4rec.data.split import leave_last_out
    from llm4rec.settings import Config
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="as `llm4rec data get` writes it")
    source.add_argument(
        "--world", type=int, help="people of a synthetic world, ten events each, in its place"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--fit", action="store_true", help="fit it first")
    parser.add_argument("--bare", action="store_true", help="leave out the offsets it was fitted with")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the fit, may be repeated")
    parser.add_argument("--by", nargs="+", default=["gender", "age"], help="columns of the people")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[1.0, 0.05, 0.02], help="bounds tried")
    parser.add_argument("--shuffles", type=int, default=20, help="of the groups, for each attacker")
    parser.add_argument("--seed", type=int, default=0, help="of halves and intervals")
    parser.add_argument("--out", type=Path, required=True, help="file for all figures (JSON)")
    given = parser.parse_args()
    config = load(Config, settings=given.set)
    log, catalog, people = world(given.world) if given.data is None else read_folder(given.data, config)
    split = leave_last_out(log)
    model = fitted(given.model, split, catalog, people, config, fit=given.fit)
    if given.bare:
        model = bare(model)
    found = measure(model, split, given.by, given.epsilon, shuffles=given.shuffles, seed=given.seed)
    files.write_text(json.dumps(found, indent=1, default=lambda value: value.tolist()), given.out)
    printed(found)


if __name__ == "__main__":
    main()
