"""Images by their paths: opened here, read by a model the user names, kept by the content of the file."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import Field

from llm4rec.config import Section
from llm4rec.encode.cache import encode_cached
from llm4rec.encode.directory import digest, load_sentence_transformer, pickled
from llm4rec.encode.image_files import PREPARED, blank, content_of, open_image, reason
from llm4rec.encode.text_encoders import unit
from llm4rec.errors import ConfigError, InputError, MissingPackageError
from llm4rec.types import Floats, Progress, silent

if TYPE_CHECKING:
    from PIL.Image import Image

STAGE = "encode images"
MOST_PIXELS = 64_000_000  # of one batch, opened: about 200 MB

_URL = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


class ImageConfig(Section):
    """How image files become frozen vectors."""

    encoder: str | None = Field(
        default=None,
        description="Directory of a sentence-transformers model that reads images (CLIP), its weights as "
        "safetensors; paths are left out without one. Relative paths start at the current directory.",
    )
    batch_size: int = Field(default=32, ge=1, description="The most images encoded at once [images].")


class ImageEncoder:
    """A sentence-transformers directory that reads images, on the processor, loaded when one needs it.

    Attributes:
        name: identifies the vectors, as a text encoder's does.
    """

    def __init__(self, directory: Path, *, batch_size: int) -> None:
        self.batch_size = batch_size
        self._directory = directory
        self.name = f"images-{digest(directory)}-{PREPARED}"

    @property
    def size(self) -> int:
        return self._size

    @cached_property
    def _size(self) -> int:
        """As the files say it, since vectors found in a cache need no model; else by trying."""
        return _declared_size(self._directory) or self._encode([blank()]).shape[1]

    def run(self, images: Sequence[Image]) -> Floats:
        """Unit vectors [n, size] of RGB images."""
        vectors = self._encode(images)
        if vectors.shape != (len(images), self.size) or not np.isfinite(vectors).all():
            raise InputError(
                f"The image encoder in {self._directory} gave vectors {vectors.shape} for {len(images)} "
                f"images, where finite ones of length {self.size} were expected."
            )
        return unit(vectors)

    def _encode(self, images: Sequence[Image]) -> Floats:
        found = self._model.encode(list(images), batch_size=len(images), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    @cached_property
    def _model(self) -> Any:
        # one way of scaling images whether or not torchvision is installed: a name stands for its vectors
        model = load_sentence_transformer(self._directory, processor_kwargs={"backend": "pil"})
        try:
            model.encode([blank()], show_progress_bar=False)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise InputError(f"The model in {self._directory} can't read images: {error}") from error
        return model


def open_images(config: ImageConfig) -> ImageEncoder | None:
    """The encoder that is named, None where none is.

    Raises:
        ConfigError: where it is no directory of a model, or has its weights as a pickle alone.
        MissingPackageError: without Pillow.
    """
    if config.encoder is None:
        return None
    directory = Path(config.encoder)
    told = f"The image encoder {config.encoder!r} (encode.image.encoder)"
    if not directory.is_dir():
        raise ConfigError(
            f"{told} is not a directory here. Models are not downloaded: give the path of a "
            "sentence-transformers directory that reads images."
        )
    if not (directory / "modules.json").is_file() and not (directory / "config.json").is_file():
        raise ConfigError(f"{told} holds no model (no modules.json or config.json there).")
    if pickled(directory) is not None or not any(directory.rglob("*.safetensors")):
        raise ConfigError(
            f"{told} has no weights as safetensors, and other forms are not read since they can run code. "
            "Save the model again with safetensors, or name another."
        )
    if importlib.util.find_spec("PIL") is None:
        raise MissingPackageError(
            "Images need Pillow to be opened. Install it: pip install 'llm4rec[images]'."
        )
    return ImageEncoder(directory, batch_size=config.batch_size)


def reopen_images(config: ImageConfig, name: str) -> ImageEncoder:
    """The encoder whose vectors are called `name`, as a stored model needs it for new images.

    Raises:
        InputError: that encoder isn't on this machine any more, or not in the same version.
    """
    encoder = open_images(config)
    if encoder is None or encoder.name != name:
        here = "no encoder is named (encode.image.encoder)" if encoder is None else f"this is {encoder.name}"
        raise InputError(
            f"The model was fitted with the image encoder {name}, but {here}: put the same directory "
            "in place."
        )
    return encoder


def encode_images(
    encoder: ImageEncoder, paths: pl.Series, *, cache: Path | None, progress: Progress = silent
) -> tuple[Floats, list[str]]:
    """Vectors [n, size] of the images at `paths` and sentences on those that could not be read.

    Each distinct file is encoded once and kept under `cache` by the SHA-256 of its content. A null, a URL
    and a file that can't be read have a vector of zeros.
    """
    distinct = list(dict.fromkeys(path for path in paths.to_list() if path))
    urls = [path for path in distinct if _URL.match(path)]
    files = _Files(encoder)
    contents: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for done, path in enumerate(distinct, start=1):
        if not _URL.match(path):
            try:
                contents[path] = files.add(Path(path))
            except (OSError, ValueError) as error:
                wrong[path] = reason(error)
        if done % 256 == 0 or done == len(distinct):
            progress("find images", done, len(distinct))
    wanted = list(dict.fromkeys(contents.values()))
    vectors = encode_cached(files, wanted, cache=cache, progress=progress, keep_zeros=False)
    wrong |= {path: files.wrong[content] for path, content in contents.items() if content in files.wrong}
    place = {content: row for row, content in enumerate(wanted)}
    rows = [place.get(contents.get(path or "", ""), len(wanted)) for path in paths.to_list()]
    padded = np.concatenate([vectors, np.zeros((1, encoder.size), dtype=np.float32)])
    return padded[rows], _notes(paths.name, [path for path in distinct if path in wrong], wrong, urls)


def _notes(column: str, unread: list[str], wrong: Mapping[str, str], urls: list[str]) -> list[str]:
    notes: list[str] = []
    if unread:
        absolute = all(Path(path).is_absolute() for path in unread)
        start = "" if absolute else f" Relative paths start at {Path.cwd()}."
        notes.append(
            f"Files of the image column {column!r} that can't be read: {len(unread):,}. They count as "
            f"missing; the first is {_short(unread[0])} ({wrong[unread[0]]}).{start}"
        )
    if urls:
        notes.append(
            f"URLs in the image column {column!r}: {len(urls):,}. They are never fetched and count as "
            f"missing; the first is {_short(urls[0])}. Give the paths of files instead."
        )
    return notes


def _short(path: str) -> str:
    return repr(path if len(path) <= 160 else f"{path[:160]}…")  # a data URL may be megabytes


@dataclass(frozen=True)
class _Files:
    """Image files as a cache asks for them: by the SHA-256 of their content.

    Attributes:
        encoder: what reads them.
        paths: content → a file of that content.
        wrong: content → why it could not be read, filled as images are opened.
    """

    encoder: ImageEncoder
    paths: dict[str, Path] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def size(self) -> int:
        return self.encoder.size

    def add(self, path: Path) -> str:
        """The content of a file [SHA-256, hexadecimal].

        Raises:
            OSError: where there is no such file.
            ValueError: where the path can't be one, or is no plain file.
        """
        content = content_of(path)
        self.paths.setdefault(content, path)
        return content

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> Floats:
        """Unit vectors [n, size] of the files with the contents `texts`; zeros where one is no image."""
        found = np.zeros((len(texts), self.size), dtype=np.float32)
        for rows, images, done in self._batches(texts):
            if images:
                found[rows] = self.encoder.run(images)
            progress(STAGE, done, len(texts))
        return found

    def _batches(self, contents: Sequence[str]) -> Iterator[tuple[list[int], list[Image], int]]:
        """Opened images with their rows, as many as a batch may have, and how many contents are done."""
        rows: list[int] = []
        images: list[Image] = []
        pixels = 0
        for row, content in enumerate(contents):
            try:
                image = open_image(self.paths[content], content)
            except Exception as error:  # a decoder that is fed damaged bytes raises anything at all
                self.wrong[content] = reason(error)
                continue
            rows.append(row)
            images.append(image)
            pixels += image.width * image.height
            if len(images) == self.encoder.batch_size or pixels >= MOST_PIXELS:
                yield rows, images, row + 1
                rows, images, pixels = [], [], 0
        yield rows, images, len(contents)


def _declared_size(directory: Path) -> int | None:
    """The vector length of a CLIP model, bare or within sentence-transformers; None for anything else."""
    try:
        inside = directory
        if (directory / "modules.json").is_file():
            modules = json.loads((directory / "modules.json").read_text(encoding="utf-8"))
            kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
            if kinds[0] not in ("Transformer", "CLIPModel") or kinds[1:] not in ([], ["Normalize"]):
                return None
            inside = directory / modules[0]["path"]
        config = json.loads((inside / "config.json").read_text(encoding="utf-8"))
        return int(config["projection_dim"]) if config["model_type"] == "clip" else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
