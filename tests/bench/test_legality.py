"""The count of legal recommendations finds none at fault, and would find those that are."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from llm4rec.data.world import WorldConfig, make_world
from llm4rec.generate.generator import Generator
from llm4rec.recommender import Recommender
from llm4rec.settings import Config


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("legality")


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    world = make_world(WorldConfig(n_users=40, n_items=60, n_events=800))
    config = Config.model_validate({
        "encode": {"text": {"encoder": "hash"}},
        "train": {"epochs": 1, "context_epochs": 0, "attention_epochs": 0},
        "generate": {"mode": "joint", "codebook_size": 8, "epochs": 1, "joint_epochs": 0},
    })
    return Recommender.fit(world.log, world.catalog, config)


def test_all_generated_items_are_legal(script: ModuleType, recommender: Recommender) -> None:
    log = recommender.fitted.histories
    assert log is not None
    told = script.count(recommender, script.histories(log, 300, 0), 5)
    assert (told["items"], told["legal_share"]) == (1500, 1.0)
    assert told["not_in_catalogue"] == told["seen"] == told["repeated"] == told["missing"] == 0
    assert told["free"] == 1500
    assert told["illegal_share_without_the_trie"] > 0


def test_faults_are_counted(
    script: ModuleType, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = recommender.fitted.histories
    assert log is not None
    asked = script.histories(log, 50, 0)
    seen = int(asked.items[0])

    def faulty(self: Generator, states: Tensor, n: int, legal: Tensor | None = None) -> tuple[Tensor, Tensor]:
        items = torch.tensor([[seen, seen, 60, -1]]).expand(len(states), -1)
        return items, torch.zeros(items.shape)

    monkeypatch.setattr(Generator, "generate", faulty)
    told = script.count(recommender, asked, 4)
    assert (told["items"], told["not_in_catalogue"], told["missing"]) == (100, 50, 50)
    assert told["repeated"] == 50
    assert 2 <= told["seen"] <= 100
    assert told["legal_share"] < 0.5
