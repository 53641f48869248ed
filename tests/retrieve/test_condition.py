"""Attention to what is retrieved: nothing while its gate is closed, and kept only where others gain by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from llm4rec.retrieve.condition import Condition, Gated, Retrieved
from llm4rec.retrieve.conditioning import Held, Stage
from llm4rec.types import Floats, Ints

SIZE, N_ITEMS = 16, 30


def told(items: Ints, evidence: Floats | None = None, there: bool = True) -> Retrieved:
    """Each of b histories attends to `items` [b, k]."""
    b, k = items.shape
    found = Retrieved.none(b)
    found.items[:, :k], found.there[:, :k] = items, there
    if evidence is not None:
        found.evidence[:, :k, 0] = evidence
    return found


def states(b: int) -> Tensor:
    return torch.randn(b, SIZE, generator=torch.Generator().manual_seed(1))


VECTORS = torch.nn.functional.normalize(
    torch.randn(N_ITEMS, SIZE, generator=torch.Generator().manual_seed(2)), dim=1
)


def opened() -> Condition:
    found = Condition(SIZE)
    torch.nn.init.ones_(found.gate.bias)
    return found


def test_a_closed_gate_changes_nothing() -> None:
    found, h = Condition(SIZE), states(4)
    assert torch.equal(found(h, VECTORS, told(np.array([[1, 2]] * 4))), h)
    assert not found.openness(h).any()


def test_a_history_without_entries_stays_as_it_is() -> None:
    h = states(2)
    some = told(np.array([[1, 2], [3, 4]]))
    some.there[1] = False
    after = opened()(h, VECTORS, some)
    assert torch.equal(after[1], h[1]) and not torch.allclose(after[0], h[0])
    assert torch.isfinite(after).all()


def test_what_is_not_there_is_not_read() -> None:
    h, some = states(1), told(np.array([[1, 2]]))
    other = told(np.array([[1, 2, 9]]))
    other.there[:, 2] = False
    assert torch.equal(opened()(h, VECTORS, some), opened()(h, VECTORS, other))


def test_queries_keys_and_values_learn_once_the_gate_is_open() -> None:
    for found, learns in ((Condition(SIZE), False), (opened(), True)):
        read = told(np.array([[1, 2, 5]] * 3), np.array([[0.1, 2.0, 0.5]] * 3, dtype=np.float32))
        found(states(3), VECTORS, read).square().sum().backward()
        assert found.gate.weight.grad is not None and found.gate.weight.grad.any()
        for part in (found.queries, found.keys, found.values, found.outputs, found.facts):
            assert part.weight.grad is not None and bool(part.weight.grad.any()) == learns


def stage(noise: bool) -> Stage:
    """What is asked for is the one attended item that the evidence speaks for; or any other."""
    draw = np.random.default_rng(0)
    n = 600
    items = np.stack([draw.permutation(N_ITEMS)[:4] for _ in range(n)])
    right = draw.integers(4, size=n)
    evidence = np.zeros((n, 4), dtype=np.float32)
    evidence[np.arange(n), right] = 3.0
    targets = items[np.arange(n), right]
    held = Held(
        torch.zeros(n, SIZE) + 0.1,
        told(items, evidence),
        torch.ones(n),
        np.zeros((n, N_ITEMS), dtype=np.float32),
        draw.permutation(targets) if noise else targets,
        np.arange(n) // 2,
    )
    return Stage(held, VECTORS, lambda h: 8 * h @ VECTORS.T, lambda: Condition(SIZE), seed=0)


@pytest.fixture(scope="module")
def telling() -> Stage:
    return stage(noise=False)


def test_it_is_kept_where_the_evidence_tells_the_answer(telling: Stage) -> None:
    found, gain = telling.chosen()
    assert found is not None and gain is not None and gain.mean > 3 * gain.error
    assert found.openness(states(5)).abs().min() > 0


def test_it_is_dropped_where_its_gate_stays_closed(telling: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others gained by theirs, but the one that would be served has learnt nothing."""
    trained = Stage.trained

    def watched(self: Stage, rows: Ints) -> Gated:
        return trained(self, rows) if len(rows) < len(self.held.targets) else self.new()

    monkeypatch.setattr(Stage, "trained", watched)
    found, gain = telling.chosen()
    assert found is None and gain is not None and gain.exceeds()
    assert Condition(SIZE).closed and not opened().closed


def test_it_is_dropped_where_it_tells_nothing() -> None:
    found, gain = stage(noise=True).chosen()
    assert found is None and gain is not None and gain.mean <= gain.error


def test_the_same_seed_trains_the_same(telling: Stage) -> None:
    first, second = (telling.trained(np.arange(200)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nobody_is_judged_by_what_their_own_cases_taught(
    telling: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, set[int]]] = []
    trained, ndcg = Stage.trained, Stage.ndcg

    def watched_trained(self: Stage, rows: Ints) -> Gated:
        seen.append(("taught", set(self.held.people[rows].tolist())))
        return trained(self, rows)

    def watched_ndcg(self: Stage, module: Gated | None, rows: Ints) -> Floats:
        if module is not None:
            seen.append(("judged", set(self.held.people[rows].tolist())))
        return ndcg(self, module, rows)

    monkeypatch.setattr(Stage, "trained", watched_trained)
    monkeypatch.setattr(Stage, "ndcg", watched_ndcg)
    telling.chosen()
    assert [name for name, _ in seen[:4]] == ["taught", "judged"] * 2
    for (_, taught), (_, judged) in (seen[:2], seen[2:4]):
        assert judged and not taught & judged
