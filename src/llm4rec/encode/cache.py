"""Vectors of texts and images kept on disk by content, so that each is encoded once.

A directory per encoder holds shards: safetensors files with `keys` [n, 32] (SHA-256 of encoder and text, for
an image the SHA-256 of its file)
and `vectors` [n, d]. A shard is named by the SHA-256 of its bytes, so a damaged one is recognised, two
processes never write different things to one name, and nothing is ever changed in place.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load, save

from llm4rec.types import Floats, Progress, silent

SHARD = 4096
"""Most texts of one shard: what an interrupted run can lose."""


class Encodes(Protocol):
    """What the cache needs of an encoder; equal names give equal vectors [n, size]."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> Floats: ...


def encode_cached(
    encoder: Encodes,
    texts: pl.Series | Sequence[str],
    *,
    cache: Path | None,
    progress: Progress = silent,
    keep_zeros: bool = True,
) -> Floats:
    """Vectors [n, size] of `texts`, each distinct text encoded once and kept under `cache`.

    Args:
        encoder: what makes the vectors.
        texts: nulls count as empty.
        cache: a directory such as `cache_dir()`; None keeps nothing.
        progress: told how many of the texts not found in the cache are done.
        keep_zeros: whether a vector of zeros is kept; where it means a failure, it is to be tried again.

    Warns:
        UserWarning: where a damaged shard is left out or the cache can't be written; the vectors are right.
    """
    values = texts.cast(pl.String).to_list() if isinstance(texts, pl.Series) else list(texts)
    place: dict[str, int] = {}
    rows = np.array([place.setdefault(text or "", len(place)) for text in values], dtype=np.int64)
    distinct = list(place)
    found = np.zeros((len(distinct), encoder.size), dtype=np.float32)
    if cache is None:
        return encoder.encode(distinct, progress)[rows] if distinct else found
    keys = [_key(encoder.name, text) for text in distinct]
    directory = cache / "vectors" / encoder.name
    missing = _read(directory, dict(zip(keys, range(len(keys)), strict=True)), found)
    missing.sort(key=lambda row: len(distinct[row]))  # one length per shard: batches stay unpadded
    for start in range(0, len(missing), SHARD):
        part = missing[start : start + SHARD]
        told = _Part(progress, before=start, total=len(missing))
        found[part] = encoder.encode([distinct[row] for row in part], told)
        kept = part if keep_zeros else [row for row in part if found[row].any()]
        if kept:
            _write(directory, [keys[row] for row in kept], found[kept])
    return found[rows]


@dataclass(frozen=True)
class _Part:
    """The progress of one shard as part of the whole."""

    progress: Progress
    before: int
    total: int

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        self.progress(stage, self.before + done, self.total, **figures)


def _key(name: str, text: str) -> bytes:
    return hashlib.sha256(f"{name}\0{text}".encode("utf-8", "surrogatepass")).digest()


def _read(directory: Path, wanted: dict[bytes, int], into: Floats) -> list[int]:
    """Fill the rows of `into` whose keys are in a sound shard; the rows left over."""
    for file in sorted(directory.glob("*.safetensors")):
        if not wanted:
            break
        try:
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != file.stem:
                raise ValueError("its content is not what was written")
            shard = load(content)
            keys, vectors = shard["keys"], shard["vectors"]
            if vectors.shape != (len(keys), into.shape[1]) or vectors.dtype != into.dtype:
                raise ValueError(f"it holds {vectors.dtype} vectors {vectors.shape}")
        except FileNotFoundError:  # another process found it damaged first
            continue
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            warnings.warn(
                f"The cached vectors in {file} can't be used ({error}); their texts are encoded again.",
                stacklevel=3,
            )
            _remove(file)
            continue
        for row, key in enumerate(keys):
            target = wanted.pop(key.tobytes(), None)
            if target is not None:
                into[target] = vectors[row]
    return list(wanted.values())


def _write(directory: Path, keys: list[bytes], vectors: Floats) -> None:
    """Add one shard: written beside under a name of its own, then renamed."""
    packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
    content = save({"keys": packed, "vectors": np.ascontiguousarray(vectors)})
    target = directory / f"{hashlib.sha256(content).hexdigest()}.safetensors"
    beside = directory / f".{uuid.uuid4().hex}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(content)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"Vectors can't be kept in {directory}: {error}.", stacklevel=3)


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:
        pass  # a cache that can't be written is told of when the vectors are kept
