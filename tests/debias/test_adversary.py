"""The adversary: its losses by hand, the reversed gradient, and what training makes of it."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from llm4rec.config import load
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.debias.adversary import Adversary, AdversaryConfig, Attribute, attribute, reverse
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import TokenSpace
from llm4rec.errors import ConfigError, InputError
from llm4rec.evaluate.attacker import attack
from llm4rec.evaluate.groups import Groups
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.events import event_arrays, fit_events
from llm4rec.model.network import Batch, Network
from llm4rec.model.scorer import Scorer
from llm4rec.train.loop import TrainConfig, train
from llm4rec.train.material import Material

NOTHING = cast(Any, None)  # of network, batch and items nothing is read
PEOPLE = Catalog(
    pl.DataFrame({
        "user_id": list("abcdef"),
        "gender": ["F", "M", None, "M", "X", "F"],
        "age": [20, 30, 40, 50, None, 60],
        "alike": ["z"] * 6,
    }),
    key="user_id",
)


def penalty(adversary: Adversary, states: Tensor, owners: list[int]) -> Tensor:
    return adversary(NOTHING, states, NOTHING, torch.tensor(owners), NOTHING)


def test_attributes_run_along_the_log() -> None:
    rows = np.array([5, -1, 1, 2, 0])  # nobody of the log is an X
    gender = attribute(PEOPLE, "gender", rows)
    assert (gender.kind, gender.names) == ("categorical", ("F", "M"))
    assert gender.values.tolist() == [0, -1, 1, -1, 0]
    age = attribute(PEOPLE, "age", rows)
    assert (age.kind, age.names) == ("numerical", ())
    known = np.array([60, 30, 40, 20])  # mean 37.5, standard deviation 14.79
    np.testing.assert_allclose(age.values[[0, 2, 3, 4]], (known - 37.5) / known.std(), rtol=1e-6)
    assert np.isnan(age.values[1])
    with pytest.raises(
        InputError, match=r"'sex', which is no column of the people\. Columns: gender, age, alike"
    ):
        attribute(PEOPLE, "sex", rows)
    with pytest.raises(InputError, match="'user_id', which is no column"):
        attribute(PEOPLE, "user_id", rows)
    for name, seen in (("alike", rows), ("gender", np.array([0, 5])), ("age", np.array([-1, -1]))):
        with pytest.raises(InputError, match=f"'{name}', in which all people .* are alike or unknown"):
            attribute(PEOPLE, name, seen)


def test_losses_by_hand() -> None:
    """A head whose weights are 0 says log-odds 0, 0 and number 0 of everybody."""
    both = [
        Attribute("gender", "categorical", np.array([0, 1, -1]), ("F", "M")),
        Attribute("age", "numerical", np.array([2.0, np.nan, -1.0], dtype=np.float32)),
    ]
    adversary = Adversary(both, [1.0, 1.0], size=4, hidden=3, seed=0)
    for parameter in adversary.parameters():
        torch.nn.init.zeros_(parameter)
    gender, age = adversary.losses(torch.randn(4, 4), torch.tensor([0, 1, 2, 2]))
    assert gender.item() == pytest.approx(math.log(2))  # of the first two alone
    assert age.item() == pytest.approx((4 + 1 + 1) / 3 / 2)
    assert penalty(adversary, torch.randn(2, 4), [0, 2]).item() == pytest.approx(math.log(2) + 5 / 4)
    # nobody known of gender: it adds nothing, and nothing that is not a number
    gender, _ = adversary.losses(torch.randn(1, 4), torch.tensor([2]))
    assert gender.item() == 0


def test_the_gradient_is_turned_round() -> None:
    states = torch.tensor([1.0, -2.0], requires_grad=True)
    reverse(states, 3.0).square().sum().backward()
    assert states.grad is not None and states.grad.tolist() == [-6.0, 12.0]


def test_discriminators_learn_what_the_states_unlearn() -> None:
    """λ turns the states' gradient and leaves that of the discriminator as it is."""
    values = np.arange(6) % 2
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))

    def gradients(weight: float) -> tuple[Tensor, Tensor]:
        adversary = Adversary([Attribute("a", "categorical", values, ("x", "y"))], [weight], 4, 5, seed=1)
        states = start.clone().requires_grad_()
        penalty(adversary, states, [0, 1, 2, 3, 4, 5]).backward()
        first = next(adversary.parameters()).grad
        assert states.grad is not None and first is not None
        return states.grad, first

    (half, own), (double, same) = gradients(0.5), gradients(2.0)
    torch.testing.assert_close(double, 4 * half)
    torch.testing.assert_close(own, same)
    # along the states' gradient of descent, the discriminator's loss rises
    adversary = Adversary([Attribute("a", "categorical", values, ("x", "y"))], [1.0], 4, 5, seed=1)
    with torch.no_grad():
        before = penalty(adversary, start, [0, 1, 2, 3, 4, 5])
        after = penalty(adversary, start - 0.01 * half, [0, 1, 2, 3, 4, 5])
    assert after > before


def test_the_length_of_a_state_changes_nothing() -> None:
    adversary = Adversary([Attribute("a", "categorical", np.array([0, 1]), ("x", "y"))], [1.0], 4, 5, seed=1)
    states = torch.randn(2, 4)
    torch.testing.assert_close(penalty(adversary, states, [0, 1]), penalty(adversary, 50 * states, [0, 1]))


def test_no_weight_is_no_adversary() -> None:
    rows = np.arange(6)
    assert Adversary.of(AdversaryConfig(), None, rows, size=4, seed=0) is None
    erasing = AdversaryConfig(attributes=("gender",), erase=True)
    assert Adversary.of(erasing, PEOPLE, rows, size=4, seed=0) is None
    some = AdversaryConfig(weight=2, attributes=("gender", "age"), weights={"gender": 0})
    found = Adversary.of(some, PEOPLE, rows, size=4, seed=0)
    assert found is not None and found.learning_rate == some.learning_rate
    assert [each.name for each in found.attributes] == ["age"] and found.reversals == (2.0,)
    own = AdversaryConfig(attributes=("gender", "age"), weights={"gender": 0.5})
    assert own.reversals == {"gender": 0.5}
    with pytest.raises(InputError, match="there is no table of them: give one with --users"):
        Adversary.of(own, None, rows, size=4, seed=0)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('attributes=["age"]', "names columns, and neither weight, weights nor erase says what to do"),
        ("weight=1", r"debias\.adversary\.weight is set, and .*attributes names no column"),
        ("weights.age=1", "names 'age', and debias.adversary.attributes does not"),
        ("weight=-1", "greater than or equal to 0"),
    ],
)
def test_settings_that_make_no_sense(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(AdversaryConfig, environment={}, settings=[setting])


def test_first_weights_come_from_the_seed_alone() -> None:
    def first(seed: int) -> Tensor:
        found = Adversary.of(
            AdversaryConfig(weight=1, attributes=("gender",)), PEOPLE, np.arange(6), size=4, seed=seed
        )
        assert found is not None
        return next(found.parameters()).detach()

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    once = first(0)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(once, first(0)) and not torch.equal(once, first(1))


def two_sides(n_people: int) -> tuple[EventLog, np.ndarray]:
    """The first item tells the side; those after it, which are asked for, are the same walk for both."""
    draw = np.random.default_rng(0)
    side = np.arange(n_people) % 2
    walk = 2 + (draw.integers(6, size=(n_people, 1)) + np.arange(5)) % 6
    items = np.column_stack([side, walk])
    names = pl.Series([f"u{row}" for row in range(n_people)])
    return EventLog(names, 6 * np.arange(n_people + 1), items.ravel()), side


def trained(log: EventLog, side: np.ndarray, weight: float | None, epochs: int) -> tuple[Network, np.ndarray]:
    """A network, and its states after each history."""
    torch.manual_seed(1)
    space = TokenSpace({}, {}, {}, {}, {})
    network = Network(
        space, None, n_items=8, n_ratings=fit_events(log).n_ratings, n_kinds=0, max_history=8,
        backbone=BackboneConfig.model_validate({"embedding_size": 8, "layers": 1, "heads": 1}),
        fusion=FusionConfig(),
    )  # fmt: skip
    items = {BEHAVIOUR: behaviour_tokens(torch.ones(8, dtype=torch.bool))}
    arrays = event_arrays(log, fit_events(log), np.full(log.n_users, -1))
    material = Material(arrays, items, None, torch.full((log.n_events + 1,), float("nan")))
    penalties = []
    if weight is not None:
        told = Attribute("side", "categorical", side, ("left", "right"))
        penalties = [Adversary([told], [weight], 8, 32, seed=0, learning_rate=0.02)]
    config = TrainConfig(epochs=epochs, batch_size=64, learning_rate=5e-3, patience=epochs, averaging=0.0)
    train(network, material, validate=Counting(), config=config, penalties=penalties)
    found = Scorer(network, items, None, fit_events(log)).states(log, np.full(log.n_users, -1))
    return network, found.numpy()


class Counting:
    """A metric that rises with every epoch, so that the last is kept."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, network: Network) -> float:
        self.calls += 1
        return float(self.calls)


def test_of_weight_zero_the_network_is_the_same_bit_for_bit() -> None:
    log, side = two_sides(40)
    plain, _ = trained(log, side, None, 2)
    watched, _ = trained(log, side, 0.0, 2)
    assert all(torch.equal(value, watched.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.slow
def test_an_attacker_finds_less_where_an_adversary_was() -> None:
    log, side = two_sides(120)
    groups = Groups("side", ("left", "right"), side)
    _, plain = trained(log, side, 0.0, 60)
    _, hidden = trained(log, side, 5.0, 60)
    before = attack(plain, groups, curved=True, shuffles=0).accuracy
    after = attack(hidden, groups, curved=True, shuffles=0).accuracy
    assert before.value > 0.9
    assert after.value < 0.7


def test_states_that_nothing_is_trained_by_still_teach_the_adversary() -> None:
    """As in a stage that trains a head on frozen states."""
    adversary = Adversary([Attribute("a", "categorical", np.array([0, 1]), ("x", "y"))], [1.0], 4, 5, seed=1)
    batch = cast(Batch, None)
    adversary(NOTHING, torch.randn(2, 4), batch, torch.tensor([0, 1]), NOTHING).backward()
    assert all(parameter.grad is not None for parameter in adversary.parameters())
