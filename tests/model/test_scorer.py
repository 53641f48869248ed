"""Scores of a request are its own: they depend neither on who else asks nor on the order of asking."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec.data.events import EventLog
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import TokenSpace
from llm4rec.model import scorer as module
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.events import EventSpace
from llm4rec.model.network import Network
from llm4rec.model.scorer import Scorer

N_ITEMS, MOST = 9, 5


@pytest.fixture
def scorer() -> Scorer:
    torch.manual_seed(0)
    network = Network(
        TokenSpace({}, {}, {}, {}, {}), None, n_items=N_ITEMS, n_ratings=2, n_kinds=0, max_history=MOST,
        backbone=BackboneConfig(embedding_size=8, layers=1, heads=1), fusion=FusionConfig(),
    )  # fmt: skip
    with torch.no_grad():
        for table in (network.gap, network.rating):
            table.weight[1:].normal_()
    tokens = {BEHAVIOUR: behaviour_tokens(torch.ones(N_ITEMS, dtype=torch.bool))}
    return Scorer(network, tokens, None, EventSpace((3.0,), 3.0, 1.0, ()))


def histories(lengths: list[int]) -> EventLog:
    draw = np.random.default_rng(2)
    n = sum(lengths)
    return EventLog(
        user_ids=pl.Series(["u"] * len(lengths)),
        offsets=np.cumsum([0, *lengths]),
        items=draw.integers(0, N_ITEMS, n),
        times=np.cumsum(draw.integers(0, 100_000, n)),
        ratings=draw.choice([1.0, 5.0, np.nan], n).astype(np.float32),
    )


LENGTHS = [3, 0, 12, 1, 5, 7, 0, 2, 4, 6]
STRANGERS = np.full(len(LENGTHS), -1)


def test_scores_are_log_probabilities(scorer: Scorer) -> None:
    scores = scorer.log_scores(histories(LENGTHS), STRANGERS)
    assert scores.shape == (len(LENGTHS), N_ITEMS) and scores.dtype == np.float32
    assert np.exp(scores).sum(axis=1) == pytest.approx(np.ones(len(LENGTHS)), abs=1e-5)


def test_a_request_is_answered_alike_alone_and_in_company(scorer: Scorer) -> None:
    asked = histories(LENGTHS)
    together = scorer.log_scores(asked, STRANGERS)
    for row, length in enumerate(LENGTHS):
        alone = scorer.log_scores(asked.histories(np.array([row]), np.array([length])), STRANGERS[:1])
        np.testing.assert_allclose(alone[0], together[row], atol=2e-5)


def test_the_order_and_size_of_chunks_change_nothing(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = histories(LENGTHS)
    whole = scorer.log_scores(asked, STRANGERS)
    for size in (1, 3, 256):
        monkeypatch.setattr(module, "CHUNK", size)
        order = np.random.default_rng(size).permutation(len(LENGTHS))
        shuffled = asked.histories(order, asked.lengths[order])
        seen = []
        for rows, chosen in scorer.chunks(shuffled):
            scores = scorer.log_scores(chosen, STRANGERS[rows])
            assert len(rows) <= size
            np.testing.assert_array_equal(chosen.lengths, shuffled.lengths[rows])
            np.testing.assert_allclose(scores, whole[order[rows]], atol=2e-5)
            seen += rows.tolist()
        assert sorted(seen) == list(range(len(LENGTHS)))


def test_only_the_newest_events_are_read(scorer: Scorer) -> None:
    asked = histories([12])
    cut = asked.histories(np.array([0]), np.array([12]), most=MOST)
    shorter = asked.histories(np.array([0]), np.array([12]), most=MOST - 1)
    whole = scorer.log_scores(asked, STRANGERS[:1])
    np.testing.assert_array_equal(whole, scorer.log_scores(cut, STRANGERS[:1]))
    assert np.abs(whole - scorer.log_scores(shorter, STRANGERS[:1])).max() > 1e-4


def test_scoring_switches_dropout_off_and_keeps_no_graph(scorer: Scorer) -> None:
    scorer.network.train()
    asked = histories(LENGTHS)
    np.testing.assert_array_equal(scorer.log_scores(asked, STRANGERS), scorer.log_scores(asked, STRANGERS))
    assert not scorer.vectors.requires_grad


def test_nobody_asking_is_answered_with_nothing(scorer: Scorer) -> None:
    assert list(scorer.chunks(histories([]))) == []
