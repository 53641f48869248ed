"""Events as the network reads them: what is unknown adds nothing, who asks is told once, and first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import Tokens, TokenSpace
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.network import Batch, Network

N_ITEMS, SIZE = 6, 8
SPACE = TokenSpace({"text": ("title",)}, {}, {}, {}, {"text": 4})
PEOPLE = TokenSpace({"categorical": ("city",)}, {"city": ("x", "y", "rare")}, {}, {"city": 1}, {})
CITIES = {"categorical": Tokens(torch.tensor([[1], [2], [0]]), torch.tensor([[True], [True], [False]]))}


def network(*, people: bool = False, **fusion: float) -> Network:
    torch.manual_seed(0)
    made = Network(
        SPACE,
        PEOPLE if people else None,
        n_items=N_ITEMS,
        n_ratings=3,
        n_kinds=2,
        max_history=4,
        backbone=BackboneConfig(embedding_size=SIZE, layers=1, heads=1),
        fusion=FusionConfig.model_validate(fusion),
    )
    with torch.no_grad():
        for table in (made.gap, made.rating, made.kind):
            table.weight[1:].normal_()
    return made.eval()


def items() -> dict[str, Tokens]:
    texts = torch.randn(N_ITEMS, 1, 4, generator=torch.Generator().manual_seed(1))
    seen = torch.tensor([True] * 5 + [False])
    return {
        "text": Tokens(texts, torch.ones(N_ITEMS, 1, dtype=torch.bool)),
        BEHAVIOUR: behaviour_tokens(seen),
    }


def batch() -> Batch:
    histories = torch.tensor([[0, 1, 2], [3, 4, -1], [-1, -1, -1]])
    zeros = torch.zeros_like(histories)
    return Batch(histories, zeros, zeros.clone(), zeros.clone(), torch.tensor([-1, -1, -1]))


def states(model: Network, told: Batch, people: dict[str, Tokens] | None = None) -> Tensor:
    with torch.no_grad():
        return model.read(told, model.fuse(items()).vectors, people)


def test_there_is_a_state_before_the_first_event() -> None:
    read = states(network(), batch())
    assert read.shape == (3, 4, SIZE)
    assert torch.equal(read[0, 0], read[1, 0]) and torch.equal(read[0, 0], read[2, 0])
    assert not torch.allclose(read[0, 1], read[1, 1])


@pytest.mark.parametrize("aspect", ["gaps", "ratings", "kinds"])
def test_what_is_known_counts_and_what_is_unknown_adds_nothing(aspect: str) -> None:
    model, told = network(), batch()
    table = {"gaps": model.gap, "ratings": model.rating, "kinds": model.kind}[aspect]
    unknown = states(model, told)
    known = torch.zeros_like(told.items)
    known[0, 1] = 2
    now = states(model, replace(told, **{aspect: known}))
    assert torch.equal(now[0, :2], unknown[0, :2])
    assert not torch.allclose(now[0, 2:], unknown[0, 2:])
    assert torch.equal(now[1:], unknown[1:])
    with torch.no_grad():
        table.weight[1:] += 100  # known classes mean something else: nobody without one notices
    assert torch.equal(states(model, told), unknown)


@pytest.mark.parametrize("aspect", ["gap", "rating", "kind"])
def test_the_unknown_class_never_learns(aspect: str) -> None:
    model, told = network(), batch()
    some = (torch.arange(9).view(3, 3) % 3).clamp(max=2)
    told = replace(told, gaps=some, ratings=some, kinds=some)
    model.read(told, model.fuse(items()).vectors, None).square().sum().backward()
    table: torch.nn.Embedding = getattr(model, aspect)
    assert table.weight.grad is not None
    assert (table.weight.grad[0] == 0).all()
    assert (table.weight.grad[1:3].abs().sum(dim=1) > 0).all()


def test_a_new_network_listens_to_no_gap_rating_or_kind_yet() -> None:
    model = Network(
        SPACE, None, n_items=N_ITEMS, n_ratings=3, n_kinds=2, max_history=4,
        backbone=BackboneConfig(embedding_size=SIZE, layers=1, heads=1), fusion=FusionConfig(),
    ).eval()  # fmt: skip
    told = batch()
    some = torch.ones_like(told.items)
    assert torch.equal(states(model, told), states(model, replace(told, gaps=some, ratings=some, kinds=some)))


def test_padding_hides_what_stands_in_it() -> None:
    model = network()
    short = states(model, batch())[1, :3]
    alone = Batch(
        *(getattr(batch(), name)[1:2, :2] for name in ("items", "gaps", "ratings", "kinds")),
        torch.tensor([-1]),
    )
    torch.testing.assert_close(states(model, alone)[0], short)


def test_people_are_told_in_the_first_state() -> None:
    model, told = network(people=True), batch()
    named = replace(told, people=torch.tensor([0, 1, -1]))
    read, bare = states(model, named, CITIES), states(model, told, CITIES)
    assert not torch.allclose(read[0], bare[0]) and not torch.allclose(read[1], bare[1])
    assert not torch.allclose(read[0, 0], read[1, 0])
    assert torch.equal(read[2], bare[2])
    torch.testing.assert_close(bare, states(model, named, None))


def test_a_person_without_features_is_a_stranger() -> None:
    model, told = network(people=True), batch()
    nobody = states(model, replace(told, people=torch.tensor([2, 2, 2])), CITIES)
    torch.testing.assert_close(nobody, states(model, told, CITIES))


def test_people_have_no_behaviour_vector() -> None:
    model = network(people=True)
    assert model.people is not None
    assert model.people.modalities == ("categorical",)


def test_behaviour_is_hidden_in_training_only() -> None:
    model = network(behaviour_dropout=0.5)
    with torch.no_grad():
        whole = model.fuse(items()).vectors
        assert torch.equal(model.fuse(items()).vectors, whole)
        hidden = items()
        hidden[BEHAVIOUR] = behaviour_tokens(torch.zeros(N_ITEMS, dtype=torch.bool))
        content = model.fuse(hidden).vectors
        model.train()
        torch.manual_seed(4)
        times, draws = 0, 200
        for _ in range(draws):
            now = model.fuse(items()).vectors
            bare = (now[:5] == content[:5]).all(dim=1)
            assert (bare | (now[:5] == whole[:5]).all(dim=1)).all()  # hidden or whole, nothing between
            times += int(bare.sum())
    assert times / (5 * draws) == pytest.approx(0.5, abs=0.06)  # 3.8 standard errors of 1,000 draws


def test_where_nothing_else_says_who_an_item_is_behaviour_is_never_hidden() -> None:
    bare = Network(
        TokenSpace({}, {}, {}, {}, {}), None, n_items=N_ITEMS, n_ratings=1, n_kinds=0, max_history=4,
        backbone=BackboneConfig(embedding_size=SIZE, layers=1, heads=1),
        fusion=FusionConfig(behaviour_dropout=0.9),
    ).train()  # fmt: skip
    vectors = bare.fuse({BEHAVIOUR: behaviour_tokens(torch.ones(N_ITEMS, dtype=torch.bool))}).vectors
    assert (vectors.abs().sum(dim=1) > 0).all()


def test_scores_are_log_probabilities() -> None:
    model = network()
    vectors = model.fuse(items()).vectors
    scores = model.score(states(model, batch()), vectors)
    assert scores.shape == (3, 4, N_ITEMS)
    torch.testing.assert_close(scores.exp().sum(dim=-1), torch.ones(3, 4))
