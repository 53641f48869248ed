"""Exposure held while training: the soft top ten and λ by hand, their laws, what training makes of them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from llm4rec.config import load
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog
from llm4rec.debias import dual
from llm4rec.debias.balance import ParityConfig
from llm4rec.debias.dual import Dual, soft_exposure
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import TokenSpace
from llm4rec.errors import ConfigError, InputError
from llm4rec.evaluate.groups import Groups, ItemGroups, exposures
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.events import event_arrays, fit_events
from llm4rec.model.network import Network, Offer
from llm4rec.model.scorer import Scorer
from llm4rec.settings import Config
from llm4rec.train.loop import Penalty, TrainConfig, train
from llm4rec.train.material import Material

N_ITEMS = 40
LEFT = ItemGroups(
    "shelf", ("left", "right"), sparse.csr_array(np.eye(2)[(np.arange(N_ITEMS) >= N_ITEMS // 2).astype(int)])
)


def made(members: list[int], epsilon: float, items: ItemGroups = LEFT, least: int = 1) -> Dual:
    names = tuple("FMX"[: max(members) + 1])
    return Dual(Groups("gender", names, np.array(members)), [items], epsilon, least)


def test_a_soft_top_by_hand() -> None:
    """Of two items at the border 1 of one place, σ(1) = .7311 and σ(−1) = .2689 are shown; far off, σ(−3)."""
    logits = torch.tensor([[2.0, 0.0, -2.0]], requires_grad=True)
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    found = soft_exposure(logits, shares, 1, softness=1.0)
    whole = 0.731059 + 0.268941 + 0.047426
    expected = [(0.731059 + 0.047426 / 2) / whole, (0.268941 + 0.047426 / 2) / whole]
    assert found.tolist()[0] == pytest.approx(expected, abs=1e-6)
    found[0, 0].backward()
    assert logits.grad is not None
    # σ' (share − exposure) / Σσ of each: σ'(1) = .196612, σ'(−3) = .045177
    slopes = [0.196612 * (1 - expected[0]), -0.196612 * expected[0], 0.045177 * (0.5 - expected[0])]
    assert logits.grad.tolist()[0] == pytest.approx([each / whole for each in slopes], abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
@settings(max_examples=30, deadline=None)
def test_a_hard_border_is_the_share_of_the_best(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    logits = np.argsort(draw.random((3, N_ITEMS)), axis=1).astype(np.float32)
    hard = exposures(np.argsort(-logits, axis=1), LEFT, n)
    shares = torch.from_numpy(LEFT.shares.toarray()).float()
    np.testing.assert_allclose(soft_exposure(torch.from_numpy(logits), shares, n, 0.01), hard, atol=1e-6)


def test_steps_of_the_dual_by_hand() -> None:
    each = made([0, 0, 0, 0, 1, 1, 1, 1], epsilon=0.1)
    shown = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]], requires_grad=True)
    term = each.charged(shown, torch.tensor([0, 0, 1]))
    # (.7, .3) and (.5, .5) are .2 apart, give or take √(.01 ÷ 2): λ = η (.2 − .1 − .0707) of each shelf
    first = dual.ASCENT * (0.1 - 0.0707107)
    assert each.prices.tolist()[0] == pytest.approx([first, first], rel=1e-4)
    assert term.item() == pytest.approx(2 * first * 0.2, rel=1e-4)
    term.backward()
    slopes = [[first / 2, -first / 2], [first / 2, -first / 2], [-first, first]]
    torch.testing.assert_close(shown.grad, torch.tensor(slopes), rtol=1e-4, atol=1e-4)
    told = each.told()
    assert (told["gap"], told["price"]) == (pytest.approx(0.2), pytest.approx(first, rel=1e-4))
    assert told["error"] == pytest.approx(0.0707107, rel=1e-4)
    assert told["gap_of"][1:] == ["F", "M"]
    assert "differed by 0.200" in each.notes()[0] and "0.071 by chance" in each.notes()[0]
    # one list more of M that is as the first was: as far apart, and λ rises by as much again
    of_m = torch.tensor([1])
    assert each.charged(torch.tensor([[0.5, 0.5]]), of_m).item() == pytest.approx(4 * first * 0.2, rel=1e-4)
    assert 2 * first < dual.HIGHEST
    # and (.85, .15): .0833 apart, give or take √(.01 ÷ 2 + .0272 ÷ 3) = .119, which is within ε: λ falls to 0
    assert each.charged(torch.tensor([[0.85, 0.15]]), of_m).item() == 0
    assert not each.prices.any()
    assert each.told()["error"] == pytest.approx(0.1186, abs=1e-4)
    assert each.notes() == []


def test_what_few_people_differ_by_is_not_charged() -> None:
    """Both groups are shown all or nothing of a shelf, three of four against one of four."""
    each = made([0, 0, 0, 0, 1, 1, 1, 1], epsilon=0.02)
    lists = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    one = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    for _ in range(50):
        each.charged(torch.cat([lists, lists]), one)
    assert not each.prices.any()
    # .5 apart, give or take √(2 · .1875 ÷ 4) = .306: λ would be 10 · .174
    each.charged(torch.cat([lists, lists.flip(1)]), one)
    assert dual.ASCENT * (0.5 - 0.02 - 0.306186) > dual.HIGHEST
    assert each.prices[0].tolist() == [dual.HIGHEST, dual.HIGHEST]


def test_a_mean_forgets_what_was_shown_before_every_person_had_a_list() -> None:
    each = made([0, 0, 1, 1], epsilon=0.02)
    both = torch.tensor([0, 0, 1, 1])
    each.charged(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), both)
    assert each.prices.all()
    each.charged(torch.full((4, 2), 0.5), both)
    torch.testing.assert_close(each.means, torch.full((2, 2), 0.5))


def test_of_many_lists_the_latest_count_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual, "MEMORY", 4)
    each, of_f = made([0] * 9 + [1], epsilon=1.0), torch.zeros(8, dtype=torch.long)
    each.charged(torch.tensor([[1.0, 0.0]]).expand(8, 2), of_f)
    each.charged(torch.tensor([[0.0, 1.0]]), of_f[:1])
    torch.testing.assert_close(each.means[0], torch.tensor([0.75, 0.25]))
    assert each.counted.tolist() == [4, 0]


def test_who_was_never_met_is_not_compared() -> None:
    each = made([0, 1], epsilon=0.0)
    assert each.charged(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item() == 0
    assert not each.prices.any() and each.told()["gap"] == 0


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_prices_are_never_negative_and_nothing_is_charged_within_epsilon(seed: int, epsilon: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    each, free = made([0, 1, 2], epsilon), made([0, 1, 2], epsilon=1.0)
    for _ in range(6):
        shown = torch.rand(9, 1, generator=draw)
        shown, whose = torch.cat([shown, 1 - shown], dim=1), torch.randint(3, (9,), generator=draw)
        assert each.charged(shown, whose).item() >= 0 and (each.prices >= 0).all()
        assert free.charged(shown, whose).item() == 0 and not free.prices.any()


def test_few_and_unknown_people_are_left_out() -> None:
    each = made([0, 0, 1, 2, 2, -1], epsilon=0.1, least=2)
    assert each.names == ("F", "X")
    assert each.members.tolist() == [0, 0, -1, 1, 1, -1]
    assert each.prices.shape == (1, 2)


def test_as_many_last_states_of_each_group_are_read_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual, "LISTS", 6)
    each = made([0, 1, -1, 0], epsilon=0.1)
    owners = torch.tensor([0, 0, 3, 3, 3, 1, 2, 0, 3, 0, 1, 1, 2])
    read: list[Tensor] = []

    class Listening:
        def head(self, states: Tensor, vectors: Tensor) -> Tensor:
            read.append(states)
            return states @ vectors

    states = torch.arange(13.0)[:, None]
    offer = Offer(torch.arange(N_ITEMS), torch.randn(1, N_ITEMS))
    each(cast(Any, Listening()), states, cast(Any, None), owners, offer)
    places = read[0].squeeze(1).long()
    assert sorted(places.tolist()) == [1, 4, 11]  # the ends of each person's longest window; 2 is unknown


def test_where_nobody_is_known_nothing_is_charged() -> None:
    class Plain:
        def head(self, states: Tensor, vectors: Tensor) -> Tensor:
            return states @ vectors.T

    each = made([0, 1, -1], epsilon=0.0)
    for n in (2, N_ITEMS):  # two drawn items have one place
        offer = Offer(torch.arange(n), torch.randn(n, 4))
        states = torch.randn(3, 4, requires_grad=True)
        term = each(cast(Any, Plain()), states, cast(Any, None), torch.full((3,), 2), offer)
        assert term.item() == pytest.approx(0, abs=1e-6)
        assert each(cast(Any, Plain()), states, cast(Any, None), torch.arange(3), offer).isfinite()


def test_what_logits_carry_when_served_is_part_of_the_soft_top() -> None:
    """Right items carry so much that none of the left is shown to anybody."""

    class Plain:
        def head(self, states: Tensor, vectors: Tensor) -> Tensor:
            return states @ vectors.T

    each = made([0, 1], epsilon=0.0)
    carried = torch.where(torch.arange(N_ITEMS) < N_ITEMS // 2, 0.0, 100.0)
    offer = Offer(torch.arange(N_ITEMS), torch.randn(N_ITEMS, 4), carried)
    each(cast(Any, Plain()), torch.randn(2, 4), cast(Any, None), torch.arange(2), offer)
    torch.testing.assert_close(each.means, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


PEOPLE = Groups("gender", ("F", "M"), np.arange(60) % 2)


def shop() -> Catalog:
    shelves = pl.Series([["left"] if item < N_ITEMS // 2 else ["right"] for item in range(N_ITEMS)])
    table = pl.DataFrame({"item_id": [f"i{item}" for item in range(N_ITEMS)], "shelf": shelves})
    return Catalog(table, (Field("shelf", "categorical"),))


def sides() -> EventLog:
    """Two groups that take from their own shelf nine times of ten, whichever item of it."""
    draw, n = np.random.default_rng(0), len(PEOPLE.members)
    right = (draw.random((n, 8)) < 0.9) == (PEOPLE.members == 1)[:, None]
    half = N_ITEMS // 2
    items = draw.integers(half, size=(n, 8)) + half * right
    return EventLog(pl.Series([f"u{row}" for row in range(n)]), 8 * np.arange(n + 1), items.ravel())


def of(log: EventLog, groups: Groups | None = PEOPLE, attention: bool = True, **settings: Any) -> Dual | None:
    config = ParityConfig(attribute="gender", training=True, epsilon=0.02)
    rows = np.arange(log.n_users)
    return Dual.of(
        config, groups, rows, log, shop(), TrainConfig().model_copy(update=settings), attention=attention
    )


def test_it_is_made_of_categories_and_popularity() -> None:
    each = of(sides())
    assert each is not None and each.names == ("F", "M") and each.epsilon == 0.02
    assert each.item_names[:2] == ("shelf: left", "shelf: right")
    assert each.item_names[2].startswith("popularity: 1st of 10")
    torch.testing.assert_close(each.shares.sum(dim=1), torch.full((N_ITEMS,), 2.0))
    assert of(sides(), None) is None
    few = Groups("gender", ("F", "M"), np.where(np.arange(60) < 50, 0, 1))
    assert of(sides(), few) is None  # ten are too few, and there is nothing to compare the others with
    silent = sides().heads(np.where(PEOPLE.members == 0, 8, 0))
    assert of(silent) is None  # no event of theirs is trained on


def test_a_step_has_to_score_enough_items() -> None:
    with pytest.raises(InputError, match=r"train\.negatives = 3 of 40 are too few: set it to 4 or more"):
        of(sides(), negatives=3)
    assert of(sides(), negatives=3, attention_epochs=0) is not None  # all items, at every step
    assert of(sides(), attention=False, negatives=3) is not None
    assert of(sides(), negatives=4, full_softmax_up_to=1) is not None


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"training is set, and debias\.parity\.attribute names no column"):
        load(ParityConfig, environment={}, settings=["training=true"])
    asked = ["debias.parity.training=true", "debias.parity.attribute=gender", "generate.mode=only"]
    with pytest.raises(ConfigError, match="trains no scores of items"):
        load(Config, environment={}, settings=asked)


def trained(penalties: list[Penalty], **options: Any) -> tuple[Network, float]:
    """A network, and by how much the two groups differ in what it shows after each history."""
    log = sides()
    torch.manual_seed(1)
    network = Network(
        TokenSpace({}, {}, {}, {}, {}), None, n_items=N_ITEMS, n_ratings=fit_events(log).n_ratings, n_kinds=0,
        max_history=8, fusion=FusionConfig(),
        backbone=BackboneConfig.model_validate({"embedding_size": 8, "layers": 1, "heads": 1}),
    )  # fmt: skip
    items = {BEHAVIOUR: behaviour_tokens(torch.ones(N_ITEMS, dtype=torch.bool))}
    arrays = event_arrays(log, fit_events(log), np.full(log.n_users, -1))
    material = Material(arrays, items, None, torch.full((log.n_events + 1,), float("nan")))
    settings = {"epochs": 8, "learning_rate": 0.03, "averaging": 0.0, "negatives": 80}
    epochs = iter(range(100))
    train(
        network, material, validate=lambda _: float(next(epochs)), penalties=penalties,
        config=TrainConfig.model_validate(settings | options),
    )  # fmt: skip
    scorer = Scorer(network, items, None, fit_events(log))
    scores = scorer.log_scores(log, np.full(log.n_users, -1))
    shown = exposures(np.argsort(-scores, axis=1), LEFT)
    means = [shown[PEOPLE.members == group].mean(axis=0) for group in range(2)]
    return network, float(np.abs(means[0] - means[1]).max())


@pytest.mark.parametrize("full", [30_000, 1], ids=["all items", "a sample of them"])
def test_training_brings_what_two_groups_see_together(full: int) -> None:
    held = of(sides())
    assert held is not None
    _, before = trained([], full_softmax_up_to=full)
    _, after = trained([held], full_softmax_up_to=full)
    assert before > 0.15
    assert after < before / 2


def test_within_epsilon_the_network_is_the_same_bit_for_bit() -> None:
    plain, _ = trained([], epochs=2)
    watched, _ = trained([Dual(PEOPLE, [LEFT], 1.0)], epochs=2)
    assert all(torch.equal(value, watched.state_dict()[name]) for name, value in plain.state_dict().items())
