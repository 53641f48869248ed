"""Other systems' ranks of the same answers, set beside ours person by person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from llm4rec.bench.run import Result
from llm4rec.bench.tables import Comparison, Estimate, compare, mean_over_seeds
from llm4rec.errors import InputError
from llm4rec.evaluate.protocol import person_means
from llm4rec.evaluate.significance import holm, interval
from llm4rec.types import Array

DEPTH = 10


@dataclass(frozen=True)
class Peer:
    """One other system: its own accuracy on the common people, and ours minus it."""

    name: str
    people: int
    hr: Estimate
    ndcg: Estimate
    hr_difference: Comparison
    ndcg_difference: Comparison


def read_ranks(file: Path) -> pl.DataFrame:
    """A table of `user_id` and one column of 1-based ranks per system.

    Raises:
        InputError: if the file can't be read, has no such columns, or names a person twice.
    """
    try:
        table = pl.read_parquet(file)
    except FileNotFoundError:
        raise InputError(f"--peer-ranks: the file {file} does not exist.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"--peer-ranks: {file} is no readable Parquet file ({error}).") from None
    if "user_id" not in table.columns:
        raise InputError(f"--peer-ranks: {file} has no column user_id; it has {', '.join(table.columns)}.")
    table = table.with_columns(pl.col("user_id").cast(pl.String))
    ranks = [name for name, kind in table.schema.items() if name != "user_id" and kind.is_integer()]
    if not ranks:
        raise InputError(f"--peer-ranks: {file} has no column of whole-number ranks beside user_id.")
    if table["user_id"].n_unique() != table.height:
        raise InputError(f"--peer-ranks: {file} names a person more than once.")
    low = [name for name in ranks if bool((table[name] < 1).any())]
    if low:
        raise InputError(f"--peer-ranks: the column {low[0]!r} holds a rank below 1; ranks count from 1.")
    return table.select("user_id", *ranks)


def hits(ranks: np.ndarray) -> tuple[Array, Array]:
    """HR@10 and NDCG@10 of single right answers at 1-based ranks.

    Example:
        >>> hit, gain = hits(np.array([1, 3, 11]))
        >>> hit.tolist(), gain.round(3).tolist()
        ([1.0, 1.0, 0.0], [1.0, 0.5, 0.0])
    """
    inside = ranks <= DEPTH
    return inside.astype(np.float64), np.where(inside, 1 / np.log2(ranks + 1.0), 0.0)


def beside(ours: Sequence[Result], ranks: pl.DataFrame) -> list[Peer]:
    """Every peer on the people both sides have, best first; p is Holm-corrected over the peers.

    Raises:
        InputError: if no person is in both.
    """
    means = mean_over_seeds(ours)
    asked = ours[0].cases["user_id"].to_numpy()
    table = pl.DataFrame({
        "user_id": np.unique(asked),
        "_hr": person_means(means["hr@10"], asked),
        "_ndcg": person_means(means["ndcg@10"], asked),
    }).join(ranks, on="user_id", how="inner")
    if not table.height:
        raise InputError("--peer-ranks: no person of the file is among those asked here.")
    peers: list[Peer] = []
    for name in ranks.columns[1:]:
        known = table.filter(pl.col(name).is_not_null())
        hr, ndcg = hits(known[name].to_numpy())
        peers.append(
            Peer(
                name=name,
                people=known.height,
                hr=_estimate(hr),
                ndcg=_estimate(ndcg),
                hr_difference=compare(known["_hr"].to_numpy(), hr, name, "hr@10"),
                ndcg_difference=compare(known["_ndcg"].to_numpy(), ndcg, name, "ndcg@10"),
            )
        )
    return sorted(_corrected(peers), key=lambda peer: -peer.ndcg.mean)


def _corrected(peers: list[Peer]) -> list[Peer]:
    from dataclasses import replace

    hr = holm([peer.hr_difference.p for peer in peers])
    ndcg = holm([peer.ndcg_difference.p for peer in peers])
    return [
        replace(
            peer,
            hr_difference=replace(peer.hr_difference, p_holm=float(hr[i])),
            ndcg_difference=replace(peer.ndcg_difference, p_holm=float(ndcg[i])),
        )
        for i, peer in enumerate(peers)
    ]


def _estimate(values: Array) -> Estimate:
    low, high = interval(values)
    return Estimate(float(values.mean()), float(low), float(high))
