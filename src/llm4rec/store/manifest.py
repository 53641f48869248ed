"""The page of an artefact that says what it is and which files it has, and guards every one of them."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm4rec.errors import ArtefactError

FORMAT = "llm4rec-artefact"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
META = "meta.json"
LARGEST = 16 << 20
"""The most a manifest may hold [bytes]; one of a hundred files holds about ten thousand."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


def legal_name(name: str) -> bool:
    """Whether a file may be called so: a plain name that can't lead out of the directory."""
    return _NAME.fullmatch(name) is not None and name != MANIFEST


class Entry(BaseModel):
    """What a file must be: its checksum in hexadecimal and its size [bytes]."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(BaseModel):
    """What `manifest.json` says; `created` is a UTC time in ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: str
    format_version: int = Field(ge=1)
    package_version: str
    kind: str
    created: str
    files: dict[str, Entry]

    def to_json(self) -> str:
        """The text of the file, with a checksum of its own."""
        values = self.model_dump()
        return json.dumps({**values, "sha256": _digest(values)}, indent=1)

    @classmethod
    def read(cls, directory: Path, kind: str) -> Manifest:
        """The manifest of the artefact in `directory`.

        Raises:
            ArtefactError: where it is damaged, of a newer format, or not of the kind asked for.
        """
        values = _parse(directory, kind)
        written = values.get("format_version")
        if not isinstance(written, int):
            raise _damaged(directory, kind, "it names no format version")
        if written > FORMAT_VERSION:
            raise ArtefactError(
                f"The artefact in {directory} is of format {written}, written by llm4rec "
                f"{values.get('package_version')}; this version reads formats up to {FORMAT_VERSION}. "
                "Upgrade llm4rec to read it."
            )
        if values.pop("sha256", None) != _digest(values):
            raise _damaged(directory, kind, "its text doesn't match its checksum")
        try:
            manifest = cls.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise _damaged(directory, kind, f"{where}: {problem['msg']}") from None
        if manifest.kind != kind:
            raise ArtefactError(f"{directory} holds a {manifest.kind}, and a {kind} is needed here.")
        illegal = [name for name in manifest.files if not legal_name(name)]
        if illegal:
            raise _damaged(directory, kind, f"it names a file {illegal[0]!r}, which no artefact has")
        return manifest


def is_here(directory: Path) -> bool:
    """Whether a directory holds a manifest of ours; other programs have files of that name too."""
    try:
        with (directory / MANIFEST).open("rb") as stream:
            return FORMAT.encode() in stream.read(1024)
    except OSError:
        return False


def _parse(directory: Path, kind: str) -> dict[str, Any]:
    found = (directory / MANIFEST).lstat()
    if not stat.S_ISREG(found.st_mode):  # a link may lead out of the directory
        raise _damaged(directory, kind, "it is not a plain file")
    if found.st_size > LARGEST:
        raise _damaged(directory, kind, f"it is larger than {LARGEST >> 20} MiB")
    try:
        values = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(directory, kind, f"it isn't JSON ({error})") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]
        raise ArtefactError(f"{directory} has a {MANIFEST} that llm4rec didn't write; it holds no {kind}.")
    return values  # pyright: ignore[reportUnknownVariableType]


def _damaged(directory: Path, kind: str, how: str) -> ArtefactError:
    return ArtefactError(
        f"The file {MANIFEST} of the {kind} in {directory} is damaged: {how}. "
        "Copy the directory again from where it came, or write it anew."
    )


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
