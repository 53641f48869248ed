"""The measurement of latency: who is asked, what is timed, and that the way beside it does what it says."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from llm4rec.model.origin import open_decoder
from llm4rec.model.pretrained import PretrainedBackbone, PretrainedConfig


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("latency")


def test_every_item_occurs_and_every_request_is_another(script: ModuleType) -> None:
    log, catalog = script.make(300, 8, 0)
    assert (log.item_counts(300) > 0).all() and (log.lengths == script.HISTORY).all()
    asked = script.requests(300, 30, 0)
    assert len({query.history for query in asked}) == 30
    assert all(len(set(query.history)) == script.HISTORY for query in asked)
    assert (catalog.numbers(catalog.ids) == np.arange(300)).all()
    shorter = script.beginning(asked[0])
    assert shorter.history == asked[0].history[:-1] and shorter.timestamps == asked[0].timestamps[:-1]
    assert shorter.context == asked[0].context


def test_what_comes_before_and_the_first_requests_are_not_counted(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def spend(milliseconds: float) -> None:
        nonlocal now
        now += milliseconds / 1000

    monkeypatch.setattr(script.time, "perf_counter", lambda: now)
    monkeypatch.setattr(script.time, "process_time", lambda: now / 2)
    asked = [1000.0] * script.WARM_UP + [float(n) for n in range(1, 102)]
    found = script.timed(spend, asked, before=lambda _: spend(7))
    assert found == {
        "p50_ms": 51, "p95_ms": 96, "p99_ms": 100, "cpu_p50_ms": 25.5, "cpu_p95_ms": 48, "cpu_p99_ms": 50,
    }  # fmt: skip


def test_beam_search_finds_what_reading_every_prefix_anew_finds(
    script: ModuleType, language_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PretrainedConfig(tuning="frozen", precision="float32")
    torch.manual_seed(0)
    decoder = open_decoder(language_model("llama"), config, 20)
    backbone = PretrainedBackbone(decoder, 8, 0.0, config).eval()
    monkeypatch.setattr(script, "CODEBOOK", 6)
    monkeypatch.setattr(script, "BEAM", 36)  # wide enough to leave nothing out
    events = torch.randn(1, 5, 8)
    found = script.beam_search(backbone, 3, 5, seed=1)(events)

    draw = torch.Generator().manual_seed(1)  # as the search draws
    vocabulary = torch.randn(3, 6, 8, generator=draw)
    heads = torch.randn(3, 8, 6, generator=draw) / 8**0.5
    every = torch.cartesian_prod(*[torch.arange(6)] * 3)
    with torch.no_grad():
        codes = torch.stack([vocabulary[n, every[:, n]] for n in (0, 1)], dim=1)
        read = torch.cat([events.expand(216, -1, -1), codes], dim=1)
        states = backbone(read)[:, 4:]
        log_p = sum((states[:, n] @ heads[n]).log_softmax(dim=-1)[range(216), every[:, n]] for n in range(3))
    best = every[torch.as_tensor(log_p).topk(script.N).indices]
    assert found.tolist() == best.tolist()


def test_it_prints_a_line_for_every_way(
    script: ModuleType,
    language_model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = shutil.copytree(language_model("llama"), tmp_path / "model")
    told = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(told | {"max_position_embeddings": 256}))
    monkeypatch.setattr(script, "LLM_PEOPLE", 20)
    read, forward = list[tuple[int, int]](), PretrainedBackbone.forward

    def remembered(backbone: PretrainedBackbone, events: torch.Tensor, *rest: Any) -> torch.Tensor:
        read.append((events.shape[0], events.shape[1]))
        return forward(backbone, events, *rest)

    monkeypatch.setattr(PretrainedBackbone, "forward", remembered)
    asked = ["latency.py", "--items", "60", "--people", "20", "--requests", "3", "--backbone", str(place)]
    monkeypatch.setattr(sys, "argv", asked)
    script.main()
    about, *lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert about["items"] == 60 and about["threads"] == torch.get_num_threads()
    assert [line["way"] for line in lines] == [
        "compact", "compact, retrieving, anchors new", "compact, retrieving, anchors known",
        "cold", "warm", "warm, exact",
        "one LLM pass per code token and beam, one position per event",
        "one LLM pass per code token and beam, three codes per event",
    ]  # fmt: skip
    assert all(line["p50_ms"] > 0 and line["cpu_p99_ms"] > 0 for line in lines)
    each = 3 + script.WARM_UP
    once = [[(1, 51)], [(1, 50), (1, 1)], [(1, 50), (1, 1)]]  # the start of a history is a position too
    once += [[(1, n), (script.BEAM, 1), (script.BEAM, 1)] for n in (50, 150)]
    expected = [pass_ for passes in once for pass_ in passes * each]
    assert read[-len(expected) :] == expected
