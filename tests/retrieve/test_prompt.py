"""A prompt of retrieved names: nothing while its gate is closed, and kept only where others gain by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.retrieve.test_condition import N_ITEMS, SIZE, VECTORS, states

from llm4rec.retrieve.conditioning import Held, Stage
from llm4rec.retrieve.prompt import Prompt, Read


def opened() -> Prompt:
    found = Prompt(SIZE)
    torch.nn.init.constant_(found.gate.bias, 20)
    return found


def test_a_closed_gate_changes_nothing() -> None:
    h = states(3)
    assert torch.equal(Prompt(SIZE)(h, VECTORS, Read(h + 1, np.ones(3, dtype=bool))), h)


def test_an_open_one_gives_the_state_after_the_names_where_there_are_some() -> None:
    """g = 1 and W = 1: h' = h + (h_p − h)."""
    h = states(2)
    after = opened()(h, VECTORS, Read(torch.ones(2, SIZE), np.array([True, False])))
    torch.testing.assert_close(after[0], torch.ones(SIZE))
    assert torch.equal(after[1], h[1])


@pytest.mark.parametrize("noise", [False, True])
def test_it_is_kept_where_names_tell_the_answer(noise: bool) -> None:
    draw = np.random.default_rng(0)
    n = 600
    targets = draw.integers(N_ITEMS, size=n)
    named = draw.permutation(targets) if noise else targets
    read = Read(VECTORS[torch.from_numpy(named)], np.ones(n, dtype=bool))
    held = Held(
        torch.zeros(n, SIZE) + 0.1, read, torch.ones(n), np.zeros((n, N_ITEMS), dtype=np.float32), targets,
        np.arange(n) // 2,
    )  # fmt: skip
    found, gain = Stage(held, VECTORS, lambda h: 8 * h @ VECTORS.T, lambda: Prompt(SIZE), seed=0).chosen()
    assert gain is not None and (gain.mean > 3 * gain.error) == (found is not None) != noise
