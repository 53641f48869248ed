"""Semantic ids: every item's vector as a few codes, coarse to fine, and one code more that tells twins apart.

Residual k-means: the first level's codes are the nearest centres of the vectors, each further level's the
nearest centres of what the levels before leave over. Items whose codes are all the same are numbered in
the last place, so that each item has exactly one id.

Source: Rajput et al., Recommender Systems with Generative Retrieval, 2023, with residual k-means in the
place of their RQ-VAE (a deviation).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field as Option
from pydantic import ValidationInfo, field_validator

from llm4rec.config import Section
from llm4rec.errors import InputError
from llm4rec.types import Floats, Ints

ROUNDS = 25
"""Iterations of k-means per level."""
REVIVALS = 5
"""Times that codes without an item are moved to where they are needed."""

SAMPLED = 64
"""Vectors looked at per code where a few of many are enough."""


class GenerateConfig(Section):
    """Semantic ids and generation over them (section `generate`)."""

    mode: Literal["off", "joint", "only"] = Option(
        default="off",
        description="off: the dense head alone. joint: a head over semantic ids is trained after it, and "
        "both are joined. only: semantic ids from content and no dense head, so that share is 1, and "
        "train.epochs sets how long it is trained.",
    )
    n_levels: int = Option(default=3, ge=1, le=8, description="Codes per item, without the one for twins.")
    codebook_size: int = Option(default=64, ge=2, le=65_536, description="Different codes per level.")
    source: Literal["fused", "content"] = Option(
        default="fused",
        description="Vectors that become codes: fused with what people do, or of content alone.",
    )
    epochs: int = Option(
        default=20,
        ge=1,
        description="The most epochs of the stage that trains the code head, with mode = joint.",
    )
    distil: float = Option(
        default=0.7,
        ge=0,
        le=1,
        description="What the dense head's distribution over the codes weighs in the code head's loss; the "
        "true codes weigh the rest. With mode = joint, and up to train.full_softmax_up_to items.",
    )
    joint_epochs: int = Option(
        default=4,
        ge=0,
        description="The most epochs of the stage that trains backbone (but a pretrained decoder) and both "
        "heads together, item vectors and codes fixed, with mode = joint.",
    )
    beam: int = Option(
        default=64, ge=1, description="Prefixes kept at each level of a search; never fewer than asked for."
    )
    share: float | None = Option(
        default=None,
        ge=0,
        le=1,
        description="Share of the generated distribution in the score; chosen on validation where none.",
    )
    exact_up_to: int = Option(
        default=50_000,
        ge=0,
        description="Catalogues up to this size are scored whole for every request; above, candidates come "
        "from an index, the linear part, what is retrieved, the search along semantic ids, recent popularity "
        "and what is taken of the new [items].",
    )

    @field_validator("share")
    @classmethod
    def _of_two_heads(cls, share: float | None, found: ValidationInfo) -> float | None:
        if share not in (None, 1) and found.data.get("mode") == "only":
            raise ValueError("generate.mode = only trains no dense head to share with")
        return share

    @property
    def of(self) -> Literal["fused", "content"]:
        """What vectors the ids are made of."""
        return "content" if self.mode == "only" else self.source

    def refuse_impossible(self, n_items: int, *, features: bool) -> None:
        """Say what can't come about before any work is done for it.

        Args:
            n_items: size of the catalogue.
            features: whether the items have any.

        Raises:
            InputError: where the items can't be told apart by such ids, or have no content to make them of.
        """
        if self.of == "content" and not features:
            raise InputError(
                "Semantic ids of content need items with features. Give some, or set generate.mode=joint and "
                "generate.source=fused."
            )
        if n_items > (room := self.codebook_size ** (self.n_levels + 1)):
            raise _too_few(room, n_items)


@dataclass(frozen=True)
class SemanticIds:
    """The id of every item, and what a new item's is made with.

    A row is never removed or changed: an item that is withdrawn keeps its id, which nobody else gets.

    Attributes:
        codes: [i, l + 1]; the last column numbers the items whose other codes are the same.
        centres: [l, v, d]; unused rows of a level with fewer centres are NaN.
    """

    codes: Ints
    centres: Floats

    @property
    def codebook_size(self) -> int:
        return self.centres.shape[1]

    def extended(self, vectors: Floats) -> SemanticIds:
        """With further items of `vectors` [n, d], each given the nearest id that is free.

        Raises:
            InputError: where no id is left.
        """
        codes = np.concatenate([self.codes[:, :-1], quantise(vectors, self.centres)])
        taken = np.concatenate([self.codes[:, -1], np.full(len(vectors), -1, dtype=np.int64)])
        return replace(self, codes=_numbered(codes, taken, vectors, self.centres))


@dataclass(frozen=True)
class Quality:
    """How well ids tell items apart and stand for their vectors.

    Attributes:
        utilisation: share of each level's codes that have an item.
        collisions: share of items that share all codes but the last with another.
        twins: the most items that share them.
        error: share of the vectors' variance that the codes leave over, by level.
    """

    utilisation: tuple[float, ...]
    collisions: float
    twins: int
    error: tuple[float, ...]


def fit_ids(vectors: Floats, *, n_levels: int, codebook_size: int, seed: int) -> SemanticIds:
    """Codebooks and ids of items with `vectors` [i, d].

    Raises:
        InputError: where there are more items than ids.
    """
    left = np.ascontiguousarray(vectors, dtype=np.float32)
    centres = np.full((n_levels, codebook_size, left.shape[1]), np.nan, dtype=np.float32)
    codes = np.empty((len(left), n_levels), dtype=np.int64)
    for level in range(n_levels):
        found = _centres(left, codebook_size, seed + level)
        centres[level, : len(found)] = found
        codes[:, level] = _nearest(left, found)
        left = left - found[codes[:, level]]
    untaken = np.full(len(codes), -1, dtype=np.int64)
    return SemanticIds(_numbered(codes, untaken, vectors, centres), centres)


def quantise(vectors: Floats, centres: Floats) -> Ints:
    """Codes [n, l] of `vectors` [n, d], each level's the centre nearest to what is left."""
    left = np.ascontiguousarray(vectors, dtype=np.float32)
    codes = np.empty((len(left), len(centres)), dtype=np.int64)
    for level, found in enumerate(_usable(centres)):
        codes[:, level] = _nearest(left, found)
        left = left - found[codes[:, level]]
    return codes


def quality(ids: SemanticIds, vectors: Floats) -> Quality:
    """Utilisation, collisions and reconstruction error of the ids of items with `vectors` [i, d]."""
    codes = ids.codes[:, :-1]
    _, twins = np.unique(codes, axis=0, return_counts=True)
    left = vectors - vectors.mean(axis=0)
    whole = float(np.square(left).sum()) or 1.0
    left, errors = vectors.copy(), list[float]()
    for level in range(codes.shape[1]):
        left -= ids.centres[level, codes[:, level]]
        errors.append(float(np.square(left).sum()) / whole)
    used = tuple(len(np.unique(column)) / ids.codebook_size for column in codes.T)
    return Quality(used, float(twins[twins > 1].sum()) / len(codes), int(twins.max()), tuple(errors))


def _usable(centres: Floats) -> Iterator[Floats]:
    for level in centres:
        yield np.ascontiguousarray(level[~np.isnan(level[:, 0])])


def _centres(vectors: Floats, most: int, seed: int) -> Floats:
    """Centres [k, d] by k-means, k at most `most` and the number of different vectors."""
    if len(np.unique(vectors[: SAMPLED * most], axis=0)) <= most:
        distinct = np.unique(vectors, axis=0)
        if len(distinct) <= most:
            return distinct
    import faiss

    means: Any = faiss.Kmeans(
        vectors.shape[1], most, niter=ROUNDS, seed=seed + 1,
        min_points_per_centroid=1, max_points_per_centroid=1024,
    )  # fmt: skip
    means.train(vectors)
    return _revived(vectors, np.asarray(means.centroids, dtype=np.float32))


def _revived(vectors: Floats, centres: Floats) -> Floats:
    """Move centres that no vector is nearest to onto the vectors worst served."""
    centres = centres.copy()
    for _ in range(REVIVALS):
        codes = _nearest(vectors, centres)
        dead = np.flatnonzero(np.bincount(codes, minlength=len(centres)) == 0)
        if not len(dead):
            break
        far = np.square(vectors - centres[codes]).sum(axis=1)
        worst = np.argsort(-far, kind="stable")
        worst = worst[: SAMPLED * len(dead)]
        _, first = np.unique(vectors[worst], axis=0, return_index=True)  # each different vector once
        centres[dead[: len(first)]] = vectors[worst[np.sort(first)][: len(dead)]]
    return centres


def _nearest(vectors: Floats, centres: Floats) -> Ints:
    """Number of the nearest centre [n]; of equally near ones the first."""
    half_norms = 0.5 * np.square(centres).sum(axis=1)
    found = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), 16_384):
        part = slice(start, start + 16_384)
        found[part] = np.argmin(half_norms - vectors[part] @ centres.T, axis=1)
    return found


def _numbered(codes: Ints, taken: Ints, vectors: Floats, centres: Floats) -> Ints:
    """Codes [i, l] with the number that tells twins apart as a last column.

    Args:
        codes: [i, l]; those of items without a number may be changed where too many share them.
        taken: numbers given already [i], -1 for items that have none, which come last.
        vectors: [n, d] of the items without a number.
        centres: [l, v, d].
    """
    size = centres.shape[1]
    codes, taken = codes.copy(), taken.copy()
    _, bucket = np.unique(codes, axis=0, return_inverse=True)
    bucket = bucket.ravel()
    free = np.zeros(bucket.max(initial=-1) + 1, dtype=np.int64)
    old = taken >= 0
    np.maximum.at(free, bucket[old], taken[old] + 1)
    new = np.flatnonzero(~old)
    order = new[np.argsort(bucket[new], kind="stable")]
    among = bucket[order]
    first = np.flatnonzero(np.diff(among, prepend=-1))
    place = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    taken[order] = free[among] + place
    if (crowded := np.flatnonzero(taken >= size)).size:
        _move(codes, taken, np.sort(crowded), vectors, centres)
    return np.column_stack([codes, taken])


def _move(codes: Ints, taken: Ints, crowded: Ints, vectors: Floats, centres: Floats) -> None:
    """Give each crowded item the nearest free id, in place: the last code gives way first, the first last."""
    size, n_old = centres.shape[1], len(codes) - len(vectors)
    usable = list(_usable(centres))
    room = [math.prod(map(len, usable[level:])) * size for level in range(len(usable) + 1)]
    if len(codes) > room[0]:
        raise _too_few(room[0], len(codes))
    used: Counter[tuple[int, ...]] = Counter()  # ids under each prefix, those of withdrawn items too

    def free(left: Floats, prefix: tuple[int, ...]) -> tuple[int, ...] | None:
        level = len(prefix)
        if used[prefix] >= room[level]:
            return None
        if level == len(usable):
            return prefix
        away = np.square(usable[level] - left).sum(axis=1)
        for code in np.argsort(away, kind="stable").tolist():
            found = free(left - usable[level][code], (*prefix, code))
            if found is not None:
                return found
        return None

    def use(found: tuple[int, ...]) -> None:
        used.update(found[:level] for level in range(len(found) + 1))

    for row in np.flatnonzero(taken < size):
        use(tuple(codes[row].tolist()))
    for row in crowded:
        found = free(vectors[row - n_old], ())
        assert found is not None  # there are as many ids as items
        codes[row], taken[row] = found, used[found]
        use(found)


def _too_few(room: int, n_items: int) -> InputError:
    return InputError(
        f"There are {room:,} semantic ids and {n_items:,} items, and each needs its own. Fit with a higher "
        "generate.codebook_size or generate.n_levels, or give the items features that differ."
    )
