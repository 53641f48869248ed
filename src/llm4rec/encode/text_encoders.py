"""The three encoders of text: a whole sentence model, that model's token vectors averaged, hashed n-grams.

Each gives unit vectors [n, size], zeros for a text without a printable character, and the same vector
for a text (to about 1e-6) whatever stands beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from llm4rec.encode.directory import digest, load_sentence_transformer
from llm4rec.errors import InputError
from llm4rec.types import Array, Floats, Progress, silent

STAGE = "encode text"
CHARACTERS_PER_TOKEN = 32
"""Characters kept for each token a model reads: far more than a word has, so truncation stays the model's."""


def clean(text: str, most: int) -> str:
    """One line of at most `most` characters that any tokenizer takes; empty where nothing is printable."""
    text = text[: 4 * most]  # leading blanks may take some room; a text of megabytes must not cost its length
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates: pairs are joined, the rest become U+FFFD
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = " ".join(text.split())[:most]
    return text if any(c != " " and c.isprintable() for c in text) else ""


def unit(vectors: Array) -> Floats:
    """Rows [n, d] at length one; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


class _Sentences(Protocol):
    """The part of `SentenceTransformer` that is used."""

    max_seq_length: int | None

    def encode(self, inputs: list[str], *, batch_size: int, show_progress_bar: bool) -> Array: ...


class SentenceEncoder:
    """A sentence-transformers directory on the processor, loaded when the first text needs it.

    Texts are sorted by length and batched by their sum, so that little is spent on padding.
    """

    def __init__(self, directory: Path, *, max_tokens: int, batch_characters: int, kind: str) -> None:
        self.kind = kind
        self._directory = directory
        self._max_tokens = max_tokens
        self._batch_characters = batch_characters
        self.name = f"{'minilm' if kind == 'minilm' else 'sentences'}-{digest(directory)}-{max_tokens}"

    @property
    def size(self) -> int:
        return self._size

    @cached_property
    def _size(self) -> int:
        """As the files say it, since vectors found in a cache need no model; else by trying."""
        return _declared_size(self._directory) or self._run(["a"]).shape[1]

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> Floats:
        """Unit vectors [n, size] of `texts`."""
        most = CHARACTERS_PER_TOKEN * self._max_tokens
        cleaned = [clean(text, most) for text in texts]
        order = sorted((row for row, text in enumerate(cleaned) if text), key=lambda row: len(cleaned[row]))
        found = np.zeros((len(cleaned), self.size), dtype=np.float32)
        done = 0
        for rows in self._batches(order, [len(text) for text in cleaned]):
            found[rows] = self._run([cleaned[row] for row in rows])
            done += len(rows)
            progress(STAGE, done, len(order))
        return found

    def _batches(self, order: list[int], lengths: list[int]) -> Iterator[list[int]]:
        """Runs of `order` (shortest first) whose padded size stays within the characters of a batch."""
        batch: list[int] = []
        longest = 8 * self._max_tokens  # about where a model stops reading
        for row in order:
            if batch and (len(batch) + 1) * min(lengths[row] + 8, longest) > self._batch_characters:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _run(self, texts: list[str]) -> Floats:
        vectors = self._model.encode(texts, batch_size=len(texts), show_progress_bar=False)
        if not np.isfinite(vectors).all():
            raise InputError(f"The text encoder in {self._directory} gave values that are not finite.")
        return unit(vectors)

    @cached_property
    def _model(self) -> _Sentences:
        found = cast(_Sentences, load_sentence_transformer(self._directory))
        found.max_seq_length = min(self._max_tokens, found.max_seq_length or self._max_tokens)
        return found


def _declared_size(directory: Path) -> int | None:
    """The vector length of a plain transformer with mean or similar pooling; None for anything else."""
    try:
        modules = json.loads((directory / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            return None
        pooling = json.loads((directory / modules[1]["path"] / "config.json").read_text(encoding="utf-8"))
        modes = sum(bool(value) for key, value in pooling.items() if key.startswith("pooling_mode_"))
        return int(pooling["word_embedding_dimension"]) if modes == 1 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class StaticEncoder:
    """The sentence model's own input vectors of a text's tokens, rare tokens weighing more, averaged.

    A WordPiece vocabulary lists whole words from common to rare, so the weight log(1 + rank) grows with
    rarity without counting any corpus: what else is in the catalogue changes no vector.
    Source: Arora et al., A Simple but Tough-to-Beat Baseline for Sentence Embeddings, 2017, with Zipf's
    law in place of counts.
    """

    kind = "static"

    def __init__(self, directory: Path, *, max_tokens: int) -> None:
        self._directory = directory
        self._max_tokens = max_tokens
        self.name = f"static-{digest(directory)}-{max_tokens}"

    @property
    def size(self) -> int:
        return self._table.shape[1]

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> Floats:
        """Unit vectors [n, size] of `texts`."""
        from scipy.sparse import csr_array

        most = CHARACTERS_PER_TOKEN * self._max_tokens
        found = np.zeros((len(texts), self.size), dtype=np.float32)
        for start in range(0, len(texts), 4096):
            part = [clean(text, most) for text in texts[start : start + 4096]]
            tokens = [e.ids for e in self._tokenizer.encode_batch_fast(part, add_special_tokens=False)]
            ends = np.cumsum([0, *map(len, tokens)])
            ids = np.fromiter((i for row in tokens for i in row), dtype=np.int64, count=int(ends[-1]))
            bags = csr_array((self._weights[ids], ids, ends), shape=(len(part), len(self._table)))
            found[start : start + len(part)] = unit(np.asarray(bags @ self._table))
            progress(STAGE, start + len(part), len(texts))
        return found

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = cast(Any, Tokenizer.from_file(str(self._directory / "tokenizer.json")))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._max_tokens)
        return tokenizer

    @cached_property
    def _table(self) -> Floats:
        from safetensors import safe_open

        with cast(Any, safe_open)(str(self._directory / "model.safetensors"), framework="np") as file:
            return np.asarray(file.get_tensor("embeddings.word_embeddings.weight"), dtype=np.float32)

    @cached_property
    def _weights(self) -> Floats:
        first_word: int = self._tokenizer.token_to_id("the") or 0  # before it: signs and single letters
        rank = np.maximum(np.arange(len(self._table)) - first_word, 0) + 1
        return np.log1p(rank).astype(np.float32)


class HashEncoder:
    """Words and their character 3- to 5-grams, hashed with signs into a fixed number of places.

    Knows spelling, not meaning. Source: Weinberger et al., Feature Hashing for Large Scale Multitask
    Learning, 2009.
    """

    kind = "hash"
    size = 256
    name = "hash-256-v2"  # to be raised with every change of the vectors: caches go by it

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> Floats:
        """Unit vectors [n, size] of `texts`."""
        found = np.zeros((len(texts), self.size), dtype=np.float32)
        for start in range(0, len(texts), 1024):
            part = [self._words(text) for text in texts[start : start + 1024]]
            found[start : start + len(part)] = self._hashed(part)
            progress(STAGE, start + len(part), len(texts))
        return found

    def _words(self, text: str) -> str:
        text = clean(text, 8192).casefold()
        return re.sub(r"[\W_]+", " ", text).strip() or text

    def _hashed(self, texts: list[str]) -> Floats:
        """Polynomial hashes (base B, modulo 2^64) of all words and n-grams, from one running sum."""
        joined = " " + "".join(f"{text} " for text in texts)
        codes = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
        row = np.append(0, np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts]))
        running = np.append(np.uint64(0), np.cumsum(codes * _powers(_BASE, len(codes)), dtype=np.uint64))
        back = _powers(_INVERSE, len(codes))
        blank = codes == ord(" ")
        blanks = np.append(0, np.cumsum(blank))
        total = np.zeros(len(texts) * self.size)
        gaps = np.flatnonzero(blank)
        spans = [(gaps[:-1] + 1, gaps[1:])]  # whole words
        for n in (3, 4, 5):  # pieces of one word with its borders: no blank strictly inside
            first = np.arange(max(0, len(codes) - n + 1))
            inside = blanks[first + n - 1] - blanks[first + 1]
            first = first[inside == 0]
            spans.append((first, first + n))
        for first, end in spans:
            first, end = first[end > first], end[end > first]
            value = _mix((running[end] - running[first]) * back[first])  # as if the span stood at 0
            bucket = (value >> np.uint64(8)).astype(np.int64) % self.size
            place = row[end - 1] * self.size + bucket
            sign = np.where(value & np.uint64(1), 1.0, -1.0)
            total += np.bincount(place, weights=sign, minlength=len(total))
        return unit(total.reshape(len(texts), self.size))


_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_INVERSE = pow(_BASE, -1, 2**64)


def _powers(base: int, n: int) -> NDArray[np.uint64]:
    """1, base, base², … [n], modulo 2^64."""
    return np.cumprod(np.append(np.uint64(1), np.full(n - 1, base, dtype=np.uint64)), dtype=np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread the low and high bits of 64-bit hashes (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
