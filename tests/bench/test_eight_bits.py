"""The measurement of what 8 bits cost: both ways are asked, and a difference is found where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.test_pretrained import CATALOG, config, walks

from llm4rec.data.split import leave_last_out
from llm4rec.model import eight_bits
from llm4rec.recommender import Recommender
from llm4rec.retrieve.repository import RetrieveConfig

SPLIT = leave_last_out(walks())


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("eight_bits")


@pytest.fixture(scope="module")
def model(language_model: Callable[[str], Path]) -> Recommender:
    # bfloat16 is what is rounded, and what only some processors take by themselves
    train = {"epochs": 2, "attention_epochs": 0}
    short = config(language_model("llama"), train=train, precision="bfloat16")
    short = short.model_copy(update={"retrieve": RetrieveConfig(enabled=False)})
    return Recommender.fit(SPLIT.train, CATALOG, short, valid=SPLIT.valid)


def test_both_ways_are_asked(script: ModuleType, model: Recommender) -> None:
    told = script.compare(model, SPLIT.test)
    assert told["cases"] == 40 and 0.8 < told["same of ten"] <= 1
    exact, short = told["ndcg@10"]["exact"], told["ndcg@10"]["8 bits"]
    assert exact > 0 and told["8 bits minus exact"]["difference"] == pytest.approx(short - exact)


def test_rounding_that_ruins_a_model_shows(
    script: ModuleType, model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = eight_bits._codes

    def wrong(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, scales = codes(weight)
        return rows.flip(0) * -1, scales * 9

    monkeypatch.setattr(eight_bits, "_codes", wrong)
    told = script.compare(model, SPLIT.test)
    assert told["same of ten"] < 0.95 and told["8 bits minus exact"]["difference"] != 0
