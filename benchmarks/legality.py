"""Whether every generated item is in the catalogue, unseen and once in its list, and what the trie prevents.

    python benchmarks/legality.py --model model --interactions events.parquet --lists 100000

The model must have a code head (`generate.mode` joint or only). Its code head alone makes a list for every
history: the first events of each person, at lengths drawn from the seed. Beside it, the share of ids that a
search without the trie finds and that are no item's, or a seen one's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from llm4rec.data.events import EventLog
from llm4rec.data.ingest import ingest
from llm4rec.generate.beam import unconstrained
from llm4rec.recommender import Recommender

AT_ONCE = 256
"""Histories asked at a time."""


def histories(log: EventLog, n_lists: int, seed: int) -> EventLog:
    """Up to `n_lists` distinct histories, each the first events of a person."""
    events = np.sort(np.random.default_rng(seed).permutation(log.n_events)[:n_lists])
    rows = log.rows[events]
    return log.histories(rows, events - log.offsets[rows] + 1)


def count(recommender: Recommender, asked: EventLog, n: int) -> dict[str, float]:
    """How many items and ids were generated, and how many of them are faulty in which way."""
    fitted = recommender.fitted
    assert fitted.generator is not None
    generator, trie = fitted.generator, fitted.generator.trie
    n_items = len(fitted.catalog)
    told = dict.fromkeys(
        ("items", "not_in_catalogue", "seen", "repeated", "missing", "free", "free_illegal"), 0
    )
    for start in range(0, asked.n_users, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, asked.n_users))
        part = asked.histories(rows, asked.lengths[rows])
        legal = np.ones((len(rows), n_items), dtype=bool)
        legal[part.rows, part.items] = False
        people = fitted.person_rows(part)
        with torch.inference_mode():
            states = fitted.scorer.states(part, people)
            items = generator.generate(states, n, torch.from_numpy(legal))[0].numpy()
            free = unconstrained(generator.head, states, n, trie.depth)
            found = trie.find(free.flatten(0, 1)).view(len(rows), n).numpy()
        inside = (items >= 0) & (items < n_items)
        told["items"] += int(inside.sum())
        told["missing"] += int((items < 0).sum())
        told["not_in_catalogue"] += int((items >= n_items).sum())
        told["seen"] += int((inside & ~np.take_along_axis(legal, items.clip(0, n_items - 1), axis=1)).sum())
        told["repeated"] += sum(len(row) - len(set(row)) for row in items.tolist())
        told["free"] += found.size
        known = (found >= 0) & np.take_along_axis(legal, found.clip(0), axis=1)
        told["free_illegal"] += int((~known).sum())
    legal_items = told["items"] - told["seen"] - told["repeated"]
    return told | {
        "legal_share": legal_items / max(told["items"] + told["missing"] + told["not_in_catalogue"], 1),
        "illegal_share_without_the_trie": told["free_illegal"] / max(told["free"], 1),
    }


def main() -> None:
    """Read the arguments, generate and print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--interactions", required=True)
    parser.add_argument("--lists", type=int, default=100_000)
    parser.add_argument("--n", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    recommender = Recommender.load(given.model)
    if recommender.fitted.generator is None:
        parser.error(f"{given.model} has no code head: fit it with generate.mode=joint or only.")
    data = ingest(given.interactions, config=recommender.config.data)
    known = recommender.catalog.numbers(data.catalog.ids)  # the file's items in the model's numbers
    log = data.log.select(known[data.log.items] >= 0)
    log = EventLog(log.user_ids, log.offsets, known[log.items], log.times, log.ratings)
    print(json.dumps(count(recommender, histories(log, given.lists, given.seed), given.n)))


if __name__ == "__main__":
    main()
