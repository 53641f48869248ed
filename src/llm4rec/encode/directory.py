"""Model directories: told apart by what is in them, loaded without a network and without a pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from llm4rec.errors import InputError


def digest(directory: Path) -> str:
    """A short hash over every file of a model directory that can change its vectors."""
    total = hashlib.sha256()
    for file in sorted(directory.rglob("*")):
        if file.suffix in {".json", ".txt", ".safetensors", ".model"} and file.is_file():
            state = file.stat()
            inner = _file_digest(file, state.st_size, state.st_mtime_ns)
            total.update(file.relative_to(directory).as_posix().encode() + b"\0" + inner)
    return total.hexdigest()[:16]


@lru_cache(maxsize=64)
def _file_digest(file: Path, size: int, changed: int) -> bytes:
    """SHA-256 of a file, read again only where its size or time of change is another."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def pickled(directory: Path) -> Path | None:
    """Weights in `directory` that are a pickle with no safetensors beside them, the first of them."""
    found = [*directory.rglob("pytorch_model*.bin"), *directory.rglob("adapter_model*.bin")]
    return next((file for file in sorted(found) if not any(file.parent.glob("*.safetensors"))), None)


def refuse_pickle(directory: Path) -> None:
    """Let no weights be read that could run code.

    Raises:
        InputError: where some of the weights in `directory` are a pickle.
    """
    weights = pickled(directory)
    if weights is not None:
        raise InputError(
            f"{weights} is a pickle, which can run code when it is read, and there are no safetensors beside "
            "it. Save the model again with safetensors, or name another."
        )


def load_sentence_transformer(directory: Path, **options: Any) -> Any:
    """A `SentenceTransformer` on the processor; `options` go to its constructor.

    Raises:
        InputError: where the directory can't be read as one, or some of its weights are a pickle.
    """
    refuse_pickle(directory)
    import torch
    from sentence_transformers import SentenceTransformer

    # loading must leave the caller's random numbers alone: a warm cache never loads
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            return SentenceTransformer(
                str(directory),
                device="cpu",
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
                **options,
            )
        except (OSError, TypeError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                f"{directory} can't be read as a sentence-transformers directory: {error}"
            ) from error


@contextmanager
def quiet() -> Generator[None]:
    """Without progress bars and remarks of transformers, which are given back as they were."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
