"""One configuration tree: frozen sections declared beside the component they belong to.

A section is a pydantic model whose fields each carry a one-line description with the unit. The root
is `llm4rec.settings.Config`; this module reads any root from a TOML file, from `LLM4REC_A__B`
environment variables and from `a.b=value` settings, in rising order of precedence.
`LLM4REC_CACHE` names the one folder the package keeps files in on its own account.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from llm4rec.errors import ConfigError

ENVIRONMENT_PREFIX = "LLM4REC_"


MOST = 2**63 - 1
"""The largest whole number an option takes: the largest that arrays hold."""
LISTS = {"tuple_type", "list_type"}
"""Errors of pydantic about a value that is no list."""
TOO_LARGE = f"the largest number it takes is {MOST:,}"


class Section(BaseModel):
    """Base of every configuration section: immutable, numbers are finite, and an unknown key is an error.

    A truth value is no number and a number no truth value, though Python takes them for one another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, bool) and kinds & {int, float}:
                raise ValueError("it is a truth value, and a number is needed")
            if isinstance(part, int | float) and not isinstance(part, bool) and bool in kinds:
                raise ValueError("it is a number, and true or false is needed")
            if isinstance(part, int | float) and int in kinds and part > MOST:
                raise ValueError(TOO_LARGE)
        return value

    @field_validator("*")
    @classmethod
    def _not_too_large(cls, value: Any) -> Any:
        if isinstance(value, int) and value > MOST:  # it came as text, such as "007"
            raise ValueError(TOO_LARGE)
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that a value of this type, or what a list of it holds, can have."""
    parts = get_args(annotation)
    return set[Any]().union(*map(_kinds, parts)) if parts else {annotation}


Root = TypeVar("Root", bound=Section)


def cache_dir() -> Path:
    """Where downloads and vectors of texts are kept: `$LLM4REC_CACHE`, else `~/.cache/llm4rec`."""
    return Path(os.environ.get("LLM4REC_CACHE") or "~/.cache/llm4rec").expanduser()


def load(
    root: type[Root],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
) -> Root:
    """Build `root` from defaults, then `file` (TOML), then the environment, then `a.b=value` settings.

    Raises:
        ConfigError: naming the key, its source and what is allowed there.
    """
    values: dict[str, Any] = _read_toml(file) if file is not None else {}
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            path = name[len(ENVIRONMENT_PREFIX) :].lower().replace("__", ".")
            _assign(values, path, text, name)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {setting!r} is not of the form section.key=value.")
        _assign(values, path.strip(), text.strip(), f"--set {setting}")
    return made(root, values)


def made(root: type[Root], values: Mapping[str, Any]) -> Root:
    """A tree of nested `values`.

    Raises:
        ConfigError: naming the key and what is allowed there.
    """
    try:
        return root.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, root)) from None


def options(root: type[Section], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every option of the tree as (dotted key, type, default, description), in declared order."""
    for name, field in root.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from options(annotation, f"{prefix}{name}.")
        else:
            kind = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
            text = kind or str(annotation).replace("typing.", "")
            yield f"{prefix}{name}", text, repr(field.get_default()), field.description or ""


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"The configuration file {file} does not exist.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {file} is not valid TOML: {error}.") from None
    except OSError as error:
        raise ConfigError(f"The configuration file {file} can't be read: {error.strerror}.") from None


def _assign(values: dict[str, Any], path: str, text: str, source: str) -> None:
    """Put `text`, read as a TOML value where it is one and as a plain string where not, at `path`."""
    *parents, key = path.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{source}: {parent!r} is a value, not a section.")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    node[key] = parsed["value"] if parsed.keys() == {"value"} else text


def _explain(error: ValidationError, root: type[Section]) -> str:
    known = [key for key, *_ in options(root)]
    lines: list[str] = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"The configuration key {key!r} is unknown. {_nearest(key, known)}")
        else:
            # a place in a table of free keys is followed by the alternatives of its type, which say nothing
            key = next((name for name in known if key.startswith(f"{name}.")), key)
            said = problem["msg"].removeprefix("Value error, ")
            if not key:  # it is about several keys, and names them
                lines.append(f"{said}.")
                continue
            if problem["type"] in LISTS:
                said = f"it is a list, written in square brackets: --set '{key}=[…, …]'"
            lines.append(f"The configuration key {key!r} can't be {problem['input']!r}: {said}.")
    return " ".join(dict.fromkeys(lines))


def _nearest(key: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return "`llm4rec fit --help-config` lists all keys."
