"""The training loop learns, stops, weighs, punishes, repeats itself exactly, and says why it can't go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llm4rec.encode.tokens import Tokens
from llm4rec.errors import TrainingError
from llm4rec.model.network import Batch, Network, Offer
from llm4rec.model.offset import Offsets
from llm4rec.train import loop
from llm4rec.train.loop import TrainConfig, train
from llm4rec.train.windows import cut_windows

if TYPE_CHECKING:
    from conftest import Toy

Weights = Callable[[Network], dict[str, Tensor]]


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_the_loss_falls_below_guessing(toy: Toy) -> None:
    _, log = toy.changed(epochs=10, patience=10).train()
    assert log.losses[-1] < log.losses[0] - 0.3
    assert log.losses[-1] < np.log(12)


def test_the_network_ends_with_the_weights_of_its_best_epoch(toy: Toy, weights: Weights) -> None:
    metrics = iter([0.1, 0.5, 0.3, 0.5, 0.2])
    kept: list[dict[str, Tensor]] = []

    def validate(network: Network) -> float:
        assert not network.training and not torch.is_grad_enabled()
        kept.append(weights(network))
        return next(metrics)

    network, log = toy.changed(epochs=20, patience=3).train(validate=validate)
    assert log.metrics == [0.1, 0.5, 0.3, 0.5, 0.2]  # an equal metric later is no better
    assert (log.best_epoch, log.best_metric) == (1, 0.5)
    assert equal(weights(network), kept[1])
    assert not equal(kept[1], kept[4])
    assert not network.training


def steps(toy: Toy) -> int:
    """How many steps its training takes."""
    told: list[int] = []
    toy.train(progress=lambda stage, done, total, **figures: told.append(done) if "part" in figures else None)
    return len(told)


def test_on_little_data_a_step_predicts_fewer_events(toy: Toy) -> None:
    assert [TrainConfig().events_per_step(n) for n in (0, 2_000, 3_200, 65_535, 65_536, 10**7)] == [
        64, 64, 100, 2047, 2048, 2048,
    ]  # fmt: skip
    assert TrainConfig(batch_size=8).events_per_step(2_000) == 8
    one = toy.changed(epochs=1, batch_size=10_000)
    assert steps(one.changed(steps_per_epoch=1)) <= 2 < steps(one)


def test_a_metric_that_stands_still_at_first_does_not_end_training(toy: Toy) -> None:
    metrics = iter([0.2, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1])
    waiting = toy.changed(epochs=20, patience=2, fewest_steps=4 * steps(toy.changed(epochs=1)) + 1)
    _, log = waiting.train(validate=lambda _: next(metrics))
    assert len(log.metrics) == 7
    assert log.best_epoch == 4
    metrics = iter([0.2, 0.1, 0.1])
    _, log = toy.changed(epochs=20, patience=2).train(validate=lambda _: next(metrics))
    assert len(log.metrics) == 3


def test_the_same_seed_gives_the_same_weights_bit_for_bit(toy: Toy, weights: Weights) -> None:
    torch.manual_seed(1)
    once, _ = toy.train()
    torch.manual_seed(2)
    np.random.default_rng(3).random()
    again, _ = toy.train()
    assert equal(weights(once), weights(again))
    other, _ = toy.changed(seed=1).train()
    assert not equal(weights(once), weights(other))


def test_training_leaves_the_callers_random_numbers_alone(toy: Toy) -> None:
    network = toy.network()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    toy.train(network)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("full_softmax_up_to", [100, 1], ids=["full", "sampled"])
def test_uniform_weights_are_no_weights(toy: Toy, weights: Weights, full_softmax_up_to: int) -> None:
    toy = toy.changed(full_softmax_up_to=full_softmax_up_to, negatives=20)
    plain, _ = toy.train()
    weighed, _ = toy.train(weights=np.ones(toy.log.n_events, dtype=np.float32))
    assert equal(weights(plain), weights(weighed))
    doubled, _ = toy.train(weights=np.full(toy.log.n_events, 2, dtype=np.float32))
    assert not equal(weights(plain), weights(doubled))


@pytest.mark.parametrize("full_softmax_up_to", [100, 1], ids=["full", "sampled"])
def test_normalised_weights_that_are_alike_are_no_weights(
    toy: Toy, weights: Weights, full_softmax_up_to: int
) -> None:
    toy = toy.changed(full_softmax_up_to=full_softmax_up_to, negatives=20)
    plain, _ = toy.train()
    for value in (1, 0.25):
        alike = np.full(toy.log.n_events, value, dtype=np.float32)
        normalised, _ = toy.train(weights=alike, normalised=True)
        assert equal(weights(plain), weights(normalised))


def test_a_step_weighs_by_ips_and_by_snips_as_by_hand(toy: Toy) -> None:
    """Four events of one person, each asked for alone: Σ w ℓ / 4, or Σ w ℓ / Σ w."""
    material = toy.material()
    network = toy.network(dropout=0.0).eval()
    exact = toy.changed(hide=0.0, precision="float32").config
    windows = cut_windows(material.events.offsets, 6, np.random.default_rng(0))
    chosen = np.flatnonzero(windows.lengths - ~windows.first == 4)[:1]
    targets = loop._targets(windows, chosen)[0]
    assert len(targets) == 4

    def loss(weights: list[float], normalised: bool = False) -> float:
        given = torch.zeros(toy.log.n_events + 1)
        given[targets] = torch.tensor(weights)
        return loop.step(network, material, windows, chosen, exact, given, [], normalised).item()

    alone = np.array([4 * loss(row) for row in np.eye(4).tolist()])
    assert len(set(alone.round(4))) == 4
    w = [2.0, 4.0, 8.0, 2.0]
    assert loss(w) == pytest.approx((2 * alone[0] + 4 * alone[1] + 8 * alone[2] + 2 * alone[3]) / 4, rel=1e-5)
    snips = (2 * alone[0] + 4 * alone[1] + 8 * alone[2] + 2 * alone[3]) / 16
    assert loss(w, normalised=True) == pytest.approx(snips, rel=1e-5)
    assert loss([weight / 8 for weight in w]) == pytest.approx(loss(w) / 8, rel=1e-5)
    assert loss([weight / 8 for weight in w], normalised=True) == loss(w, normalised=True)


@pytest.mark.parametrize("full_softmax_up_to", [100, 1], ids=["full", "sampled"])
def test_weighed_by_propensity_a_log_is_one_of_equal_exposure(toy: Toy, full_softmax_up_to: int) -> None:
    """What was shown a quarter as often counts four times: loss and gradient are those of four events."""
    sampled = {"full_softmax_up_to": full_softmax_up_to, "negatives": 12}
    config = toy.changed(hide=0.0, precision="float32", **sampled).config

    def learnt(items: list[int], **options: Any) -> tuple[float, Tensor]:
        n = len(items)
        names = toy.log.user_ids.new_from_index(0, n)
        ratings = np.full(n, 3, dtype=np.float32)
        alone = replace(toy.log, user_ids=names, offsets=np.arange(n + 1), items=np.array(items))
        material = replace(toy, log=replace(alone, times=np.arange(n), ratings=ratings)).material()
        network = toy.network(dropout=0.0).eval()
        torch.manual_seed(0)
        windows = cut_windows(material.events.offsets, 6, np.random.default_rng(0))
        options = {"weights": None, "penalties": []} | options
        loss = loop.step(network, material, windows, np.arange(n), config, **options)
        loss.backward()
        assert network.start.grad is not None
        return loss.item(), network.start.grad

    loss, gradient = learnt([0, 0, 0, 0, 1, 1, 1, 1])
    chances = torch.tensor([0.8, 0.8, 0.8, 0.8, 0.2, torch.inf])
    weights = 1 / chances
    for given in ({"weights": weights, "normalised": True}, {"weights": weights / weights[:5].mean()}):
        found, pull = learnt([0, 0, 0, 0, 1], **given)
        assert found == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(pull, gradient, rtol=1e-4, atol=1e-6)
    assert learnt([0, 0, 0, 0, 1])[0] != pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("pointwise", [0.0, 1.0], ids=["softmax", "with ratings"])
def test_an_event_of_weight_zero_teaches_nothing(toy: Toy, weights: Weights, pointwise: float) -> None:
    """Everybody's last event, which is never an input, may be anything at all once it has no weight."""
    last = toy.log.offsets[1:] - 1
    event_weights = np.ones(toy.log.n_events, dtype=np.float32)
    event_weights[last] = 0
    items, ratings = toy.log.items.copy(), toy.log.ratings.copy()  # type: ignore[union-attr]
    items[last] = (items[last] + 5) % 12
    ratings[last] = np.where(np.isnan(ratings[last]), np.nan, 6 - ratings[last])  # keeps the classes
    other = replace(toy, log=replace(toy.log, items=items, ratings=ratings))

    def fitted(which: Any, **options: Any) -> dict[str, Tensor]:
        network = toy.network(pointwise=pointwise)
        loop.train(network, which, validate=lambda network: 0.5, config=toy.config, **options)
        return weights(network)

    # the same standardisation of all other ratings, so that only the last events differ
    told = toy.material().ratings
    told[last] = -told[last]
    material = replace(other.material(), ratings=told)
    assert equal(fitted(toy.material(), weights=event_weights), fitted(material, weights=event_weights))
    assert not equal(fitted(toy.material()), fitted(material))


def test_a_penalty_reaches_the_weights(toy: Toy) -> None:
    def heavy(network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer) -> Tensor:
        assert states.requires_grad and states.ndim == 2
        assert batch.items.shape[1] <= 6
        return 100 * (network.start - 3).square().sum()

    pulled, log = toy.changed(averaging=0.0, epochs=1).train(penalties=[heavy])
    free, _ = toy.changed(averaging=0.0, epochs=1).train()
    before = toy.network().start
    assert log.losses[0] > 100
    assert ((pulled.start - before) > 0).all()
    assert not ((free.start - before) > 0).all()


def test_a_penalty_of_zero_changes_nothing(toy: Toy, weights: Weights) -> None:
    plain, _ = toy.train()
    free, _ = toy.train(penalties=[lambda network, states, batch, owners, offer: 0 * states.sum()])
    assert equal(weights(plain), weights(free))


@pytest.mark.parametrize("full_softmax_up_to", [100, 1], ids=["full", "sampled"])
def test_a_penalty_is_told_what_was_scored(toy: Toy, full_softmax_up_to: int) -> None:
    offers: list[Offer] = []

    def told(network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer) -> Tensor:
        assert offer.vectors.requires_grad
        offers.append(offer)
        return torch.zeros(())

    toy = toy.changed(full_softmax_up_to=full_softmax_up_to, negatives=20, epochs=1, learning_rate=1e-9)
    network, _ = toy.train(penalties=[told])
    fused = network.fuse(toy.material().items).vectors
    for offer in offers[:2]:
        assert offer.items.tolist() == list(range(12)) if full_softmax_up_to > 12 else len(offer.items) == 20
        # some of what is said of items is hidden in training, but not from all
        same = (offer.vectors - fused[offer.items]).abs().amax(dim=1) < 1e-4
        assert same.float().mean() > 0.3


def test_a_penalty_is_told_whose_each_state_is(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long histories are cut into windows, and owners are hidden from the network but not from penalties."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    named: list[Tensor] = []
    real, plain = loop.softmax_loss, toy.material()
    everybody = replace(plain.events, people=np.arange(toy.log.n_users))
    monkeypatch.setattr(type(toy), "material", lambda _: replace(plain, events=everybody))

    def listening(head: Any, states: Tensor, vectors: Tensor, wanted: Tensor, *rest: Any) -> Tensor:
        seen.append((states.detach(), wanted, wanted))
        return real(head, states, vectors, wanted, *rest)

    def told(network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer) -> Tensor:
        assert torch.equal(states.detach(), seen[-1][0])
        seen[-1] = (*seen[-1][:2], owners)
        named.append((batch.people >= 0).float().mean())
        return states.new_zeros(())

    monkeypatch.setattr(loop, "softmax_loss", listening)
    toy.changed(epochs=1, hide=0.9).train(penalties=[told])
    assert 0 < torch.stack(named).mean() < 0.4  # most are hidden
    found = torch.cat([torch.stack([owners, wanted]) for _, wanted, owners in seen], dim=1).T.tolist()
    # every event of the log is asked for once, of the one who did it
    expected = np.stack([toy.log.rows, toy.log.items]).T.tolist()
    assert sorted(found) == sorted(expected)


def test_what_a_penalty_has_to_learn_is_trained(toy: Toy) -> None:
    class Learning(torch.nn.Module):
        def __init__(self, learning_rate: float | None) -> None:
            super().__init__()
            self.learning_rate = learning_rate
            self.seen = torch.nn.Parameter(torch.zeros(()))
            self.fixed = torch.nn.Parameter(torch.zeros(()), requires_grad=False)

        def forward(
            self, network: Network, states: Tensor, batch: Batch, owners: Tensor, offer: Offer
        ) -> Tensor:
            return (self.seen - 100).abs()

    def after(learning_rate: float | None) -> float:
        penalty = Learning(learning_rate)
        toy.changed(epochs=1, averaging=0.0, weight_decay=0.0).train(penalties=[penalty])
        assert penalty.fixed.item() == 0
        return penalty.seen.item()

    # AdamW goes by its step size at each step where the gradient stays the same
    taken = steps(toy.changed(epochs=1))
    assert after(None) == pytest.approx(0.01 * taken, rel=1e-3)
    assert after(0.5) == pytest.approx(0.5 * taken, rel=1e-3)


def test_a_loss_that_is_not_finite_names_the_step_and_the_remedy(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop.step, []

    def broken(*arguments: Any) -> Tensor:
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(loop, "step", broken)
    with pytest.raises(
        TrainingError, match=r"nan in epoch 1, step 2\. Lower train\.learning_rate \(now 0\.01\)"
    ):
        toy.train()


def test_an_endless_feature_is_found_out(toy: Toy) -> None:
    material = toy.material()
    values = material.items["text"].values.clone()
    values[4, 0, 0] = float("inf")
    spoilt = {**material.items, "text": Tokens(values, material.items["text"].mask)}
    with pytest.raises(TrainingError, match=r"epoch 1, step 1\..*item features"):
        loop.train(
            toy.network(), replace(material, items=spoilt), validate=lambda network: 0.0, config=toy.config
        )


def test_progress_is_told_of_every_step_and_epoch(toy: Toy) -> None:
    told: list[tuple[str, int, int, dict[str, float]]] = []
    toy.train(progress=lambda stage, done, total, **figures: told.append((stage, done, total, figures)))
    epochs = [entry for entry in told if "ndcg" in entry[3]]
    assert [entry[:3] for entry in epochs] == [("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]
    parts = [entry[3]["part"] for entry in told if "part" in entry[3]]
    assert len(parts) > 6 and parts[-1] == 1


@pytest.mark.parametrize("hide", [0.0, 0.4])
def test_times_ratings_kinds_and_owners_are_hidden_each_by_itself(toy: Toy, hide: float) -> None:
    material = toy.material()
    windows = cut_windows(material.events.offsets, 6, np.random.default_rng(0))
    batch = material.events.batch(windows.rows, windows.starts, windows.lengths - 1)
    batch = replace(batch, people=torch.from_numpy(windows.rows), kinds=(batch.items >= 0).long())
    torch.manual_seed(0)
    shares: dict[str, list[Tensor]] = {"gaps": [], "ratings": [], "kinds": [], "people": []}
    for _ in range(60):
        now = loop._hidden(batch, hide)
        shares["people"].append(now.people == -1)
        assert ((now.people == -1) | (now.people == batch.people)).all()
        for name in ("gaps", "ratings", "kinds"):
            then, here = getattr(batch, name), getattr(now, name)
            told = (then > 0).any(dim=1)
            hidden = (here == 0).all(dim=1)
            assert (hidden | (here == then).all(dim=1)).all()
            shares[name].append(hidden[told])
        assert torch.equal(now.items, batch.items)
    for name, found in shares.items():
        assert torch.cat(found).float().mean().item() == pytest.approx(hide, abs=0.05), name


def test_a_catalogue_too_large_for_the_full_softmax_is_learnt_too(toy: Toy) -> None:
    _, log = toy.changed(epochs=10, patience=10, full_softmax_up_to=1, negatives=50).train()
    assert log.losses[-1] < log.losses[0] - 0.3


def test_sampling_reads_the_items_it_should(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every item a negative, a step's sampled loss is its full one: no index is out of place."""
    material = toy.material()
    network = toy.network(dropout=0.0).eval()
    windows = cut_windows(material.events.offsets, 6, np.random.default_rng(0))
    chosen = np.arange(len(windows.rows))
    exact = toy.changed(hide=0.0, precision="float32")
    full = loop.step(network, material, windows, chosen, exact.config, None, [])
    sampled = toy.changed(hide=0.0, full_softmax_up_to=1, negatives=12).config
    monkeypatch.setattr(loop.torch, "randint", lambda high, shape: torch.arange(high))
    found = loop.step(network, material, windows, chosen, sampled, None, [])
    torch.testing.assert_close(found, full)


def test_popularity_of_power_0_changes_no_bit_and_of_another_changes_what_is_learnt(
    toy: Toy, weights: Weights
) -> None:
    found = Offsets.of(toy.log, 12, 0.7)
    assert found is not None
    nothing = replace(found, table=torch.zeros_like(found.table))
    for most in (100, 1):  # full and sampled softmax
        trained: list[dict[str, Tensor]] = []
        for offsets in (None, nothing, found):
            network, config = toy.network(), toy.changed(epochs=1, full_softmax_up_to=most).config
            material = replace(toy.material(), offsets=offsets)
            train(network, material, validate=lambda _: 0.5, config=config)
            trained.append(weights(network))
        assert equal(trained[0], trained[1])
        assert not equal(trained[0], trained[2])
