"""Image files: what is in them, as the pixels a model is shown."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

PREPARED = 1
"""To be raised with every change of how a file becomes what a model is shown: caches go by it."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is opened, by content and whatever the name; the others of PIL run programs or are rare."""

LEAST_SIDE = 4  # an image processor takes a shorter side for colour channels
LONGEST_SIDE = 16  # times the shorter one: beyond, a processor that scales the shorter side fills the memory


def content_of(file: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        OSError: where there is no such file.
        ValueError: where the path can't be one, or is no plain file.
    """
    if file.exists() and not file.is_file():  # a pipe would be waited for without end
        raise ValueError("not a file")
    with file.open("rb") as stream:
        return _sha256(stream)


def _sha256(stream: io.BufferedReader) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def open_image(file: Path, content: str) -> Image:
    """The image in `file` as RGB: turned as its camera says, on white where it is transparent.

    Raises:
        Exception: of any kind, where the file is no sound image, or no longer of that content.
    """
    from PIL import Image, ImageOps

    with file.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if _sha256(stream) != content:
            raise ValueError("changed while it was read")
        stream.seek(0)
        with Image.open(stream, formats=FORMATS) as image:
            image.load()
            found = _in_rgb(ImageOps.exif_transpose(image))
    short, long = sorted(found.size)
    if short < LEAST_SIDE:
        raise ValueError(f"only {found.width} × {found.height} pixels")
    if long > LONGEST_SIDE * short:
        found = ImageOps.fit(found, tuple(min(side, LONGEST_SIDE * short) for side in found.size))
    return found


def _in_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I;16"):  # PIL would cut the upper values instead of scaling all
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return image.convert("RGB")


def reason(error: Exception) -> str:
    """Why a file could not be opened, in a few words."""
    from PIL import UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return told or type(error).__name__


def blank() -> Image:
    """A white image, to try a model on."""
    from PIL import Image

    return Image.new("RGB", (64, 64), "white")
