"""A fit that is killed outright, as by a power cut, and resumed ends like one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from llm4rec.cli import app
from llm4rec.errors import ArtefactError
from llm4rec.store import artefact

SETTINGS = [
    "train.epochs=4", "train.attention_epochs=1", "train.batch_size=16", "train.checkpoint_seconds=0",
    "model.embedding_size=8", "model.layers=1", "model.heads=1", "encode.text.encoder=hash",
]  # fmt: skip


def write_data(folder: Path) -> None:
    """Everybody walks along a ring of items."""
    rows = [
        (f"u{u}", f"i{(u + step) % 20}", 1_600_000_000 + 3_600 * step) for u in range(40) for step in range(8)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_csv(folder / "events.csv")
    titles = [f"Tale {item}" for item in range(20)]
    pl.DataFrame({"item_id": [f"i{item}" for item in range(20)], "title": titles}).write_csv(
        folder / "items.csv"
    )


def asked(folder: Path, name: str) -> list[str]:
    files = ["--interactions", folder / "events.csv", "--items", folder / "items.csv", "--out", folder / name]
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["fit", *map(str, files), *settings, "--json"]


def start(arguments: list[str], cache: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from llm4rec.cli import main; main()", *arguments]
    environment = os.environ | {"LLM4REC_CACHE": cache}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finished(arguments: list[str], cache: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, arguments, env={"LLM4REC_CACHE": cache})
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def kill_in_the_middle(process: subprocess.Popen[str], checkpoint: Path) -> dict[str, Any]:
    """Send the signal nobody can catch once the second epoch has begun; what the checkpoint then says."""
    while process.poll() is None:
        try:
            meta = artefact.read(checkpoint, "checkpoint").meta
        except ArtefactError:  # not there yet, or just being replaced
            meta = {"epoch": 0, "step": 0}
        if meta["epoch"] >= 1 and meta["step"] >= 1:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return artefact.read(checkpoint, "checkpoint").meta


@pytest.mark.slow
def test_a_killed_fit_resumed_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    write_data(tmp_path)
    cache = str(tmp_path / "cache")
    whole = finished(asked(tmp_path, "whole"), cache)["training"]
    killed = start(asked(tmp_path, "killed"), cache)
    left = kill_in_the_middle(killed, tmp_path / "killed.checkpoint" / "floor")
    assert 1 <= left["epoch"] < 4
    assert not (tmp_path / "killed").exists()
    resumed = finished([*asked(tmp_path, "killed"), "--resume"], cache)["training"]
    assert len(whole["floor"]["metrics"]) == 4
    for stage in ("floor", "attention", "context"):
        for part in ("losses", "metrics", "best_epoch"):
            assert resumed[stage][part] == whole[stage][part], (stage, part)
    one, other = (artefact.read(tmp_path / name, "model").tensors("network") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    assert not (tmp_path / "killed.checkpoint").exists()
