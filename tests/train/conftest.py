"""A small world to train on: everybody walks along the items in steps of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec.data.events import EventLog
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import Tokens, TokenSpace
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.events import event_arrays, fit_events
from llm4rec.model.network import Network
from llm4rec.train.loop import TrainConfig, TrainLog, train
from llm4rec.train.material import Material

N_ITEMS = 12
SPACE = TokenSpace(
    {"text": ("title", "plot"), "categorical": ("genre",)},
    {"genre": ("odd", "even", "rare")},
    {},
    {"genre": 2},
    {"text": 4},
)


@dataclass(frozen=True)
class Toy:
    """A log and how to train on it; every fit starts from the same random network."""

    log: EventLog
    config: TrainConfig

    def network(self, *, codes: tuple[int, int] | None = None, **model: Any) -> Network:
        torch.manual_seed(7)
        options = {"embedding_size": 8, "layers": 1, "heads": 1, **model}
        return Network(
            SPACE, None, n_items=N_ITEMS, n_ratings=fit_events(self.log).n_ratings, n_kinds=0, max_history=6,
            backbone=BackboneConfig.model_validate(options), fusion=FusionConfig(), code_shape=codes,
        )  # fmt: skip

    def material(self) -> Material:
        draw = torch.Generator().manual_seed(0)
        numbers = torch.arange(N_ITEMS)
        genre = torch.stack([1 + numbers % 2, (numbers % 3 == 0) * 3], dim=1)
        items = {
            "text": Tokens(
                torch.randn(N_ITEMS, 2, 4, generator=draw), torch.ones(N_ITEMS, 2, dtype=torch.bool)
            ),
            "categorical": Tokens(genre, genre > 0),
            BEHAVIOUR: behaviour_tokens(torch.ones(N_ITEMS, dtype=torch.bool)),
        }
        space = fit_events(self.log)
        ratings = np.append((self.log.ratings - space.rating_mean) / space.rating_std, np.nan)
        arrays = event_arrays(self.log, space, np.full(self.log.n_users, -1))
        return Material(arrays, items, None, torch.from_numpy(ratings.astype(np.float32)))

    def changed(self, **settings: Any) -> Toy:
        return replace(self, config=self.config.model_copy(update=settings))

    def train(
        self,
        network: Network | None = None,
        *,
        validate: Callable[[Network], float] = lambda network: 0.5,
        checkpoints: Path | None = None,
        **options: Any,
    ) -> tuple[Network, TrainLog]:
        network = self.network() if network is None else network
        log = train(
            network,
            self.material(),
            validate=validate,
            config=self.config,
            checkpoints=checkpoints,
            **options,
        )
        return network, log


@pytest.fixture
def toy() -> Toy:
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, 12, 24)
    items = np.concatenate([(draw.integers(N_ITEMS) + np.arange(n)) % N_ITEMS for n in lengths])
    log = EventLog(
        user_ids=pl.Series([f"u{row}" for row in range(24)]),
        offsets=np.cumsum([0, *lengths]),
        items=items,
        times=np.concatenate([np.cumsum(draw.integers(1, 10_000, n)) for n in lengths]),
        ratings=draw.choice([1.0, 3.0, 5.0, np.nan], len(items)).astype(np.float32),
    )
    config = TrainConfig(epochs=3, batch_size=40, learning_rate=0.01, checkpoint_seconds=0, fewest_steps=1)
    return Toy(log, config)


@pytest.fixture
def weights() -> Callable[[Network], dict[str, torch.Tensor]]:
    """A network's weights, to be compared bit for bit."""
    return lambda network: {name: tensor.clone() for name, tensor in network.state_dict().items()}
