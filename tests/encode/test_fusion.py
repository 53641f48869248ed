"""The laws of fusion: order of modalities, missing ones, weights, the gate, and items nobody has touched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, Fusion, FusionConfig
from llm4rec.encode.tokens import Tokens, TokenSpace

N_ITEMS, SIZE = 12, 8
SPACE = TokenSpace(
    fields={"categorical": ("genre",), "numerical": ("price", "year"), "text": ("title", "plot")},
    vocabularies={"genre": ("a", "b", "c", "rare")},
    quantiles={"price": (0.0, 1.0), "year": (0.0, 1.0)},
    most={"genre": 3},
    widths={"text": 6},
)


def features(seed: int = 0) -> dict[str, Tokens]:
    """Several tokens of every modality but behaviour; items 0 and 1 have all, later ones lack some."""
    draw = torch.Generator().manual_seed(seed)

    def mask(width: int) -> Tensor:
        there = torch.rand(N_ITEMS, width, generator=draw) < 0.7
        there[:2] = True
        return there

    genre = mask(3)
    codes = torch.randint(1, SPACE.n_codes, (N_ITEMS, 3), generator=draw) * genre
    return {
        "text": Tokens(torch.randn(N_ITEMS, 2, 6, generator=draw), mask(2)),
        "categorical": Tokens(codes, genre),
        "numerical": Tokens(torch.rand(N_ITEMS, 2, generator=draw), mask(2)),
        BEHAVIOUR: behaviour_tokens(mask(1)[:, 0]),
    }


def fusion(*, gate: float | None = 0.7, **options: bool | float) -> Fusion:
    """A fusion whose gate is open that far, or has never been opened (None)."""
    torch.manual_seed(3)
    made = Fusion(SPACE, N_ITEMS, SIZE, FusionConfig.model_validate(options))
    if gate is not None:
        made.attend = True
        with torch.no_grad():
            made.gate.fill_(gate)
    return made


def without(tokens: dict[str, Tokens], modality: str, items: slice) -> dict[str, Tokens]:
    mask = tokens[modality].mask.clone()
    mask[items] = False
    return {**tokens, modality: Tokens(tokens[modality].values, mask)}


def plain_sum(module: Fusion, tokens: dict[str, Tokens]) -> Tensor:
    total = torch.zeros(N_ITEMS, SIZE)
    for modality in module.modalities:
        total = total + module.encoder(modality).pooled(tokens[modality])
    return total


def test_the_order_of_modalities_changes_nothing() -> None:
    one, other = fusion(), fusion()
    names = list(one.modalities)
    other.encoders = torch.nn.ModuleDict({name: other.encoders[name] for name in reversed(names)})
    assert other.modalities == tuple(reversed(names))
    tokens = features()
    left, right = one(tokens), other(dict(reversed(tokens.items())))
    assert left.weights is not None and right.weights is not None
    torch.testing.assert_close(left.vectors, right.vectors)
    torch.testing.assert_close(left.weights, right.weights.flip(1))


def test_weights_sum_to_one_and_missing_modalities_have_none() -> None:
    module, tokens = fusion(), features()
    weights = module(tokens).weights
    there = torch.stack([tokens[m].present for m in module.modalities], dim=1)
    assert weights.shape == (N_ITEMS, 4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(N_ITEMS))
    assert (weights[~there] == 0).all()
    assert (weights[there] > 0).all()
    assert not there.all()


@pytest.mark.parametrize("missing", ["text", "categorical", "numerical", BEHAVIOUR])
def test_a_missing_modality_changes_nothing_and_learns_nothing(missing: str) -> None:
    module = fusion()
    tokens = without(features(), missing, slice(None))
    fused = module(tokens)
    assert (fused.weights[:, module.modalities.index(missing)] == 0).all()
    fused.vectors.square().sum().backward()
    own = {f"encoders.{missing}."} | {
        f"pairs.{asking}_{answering}."
        for asking in module.modalities
        for answering in module.modalities
        if missing in (asking, answering)
    }
    for name, parameter in module.named_parameters():
        if any(name.startswith(prefix) for prefix in own):
            assert parameter.grad is None or (parameter.grad == 0).all(), name
    with torch.no_grad():
        for parameter in module.encoders[missing].parameters():
            parameter.add_(5.0)
        torch.testing.assert_close(module(tokens).vectors, fused.vectors)


def test_a_closed_gate_is_the_plain_sum_exactly() -> None:
    tokens = features()
    never, closed = fusion(gate=None), fusion(gate=0.0)
    assert torch.equal(never(tokens).vectors, plain_sum(never, tokens))
    assert torch.equal(closed(tokens).vectors, plain_sum(closed, tokens))
    assert never(tokens).weights is None
    asked = never(tokens, weights=True)
    assert torch.equal(asked.vectors, plain_sum(never, tokens))
    torch.testing.assert_close(asked.weights, closed(tokens).weights)


def test_a_new_fusion_starts_as_the_plain_sum_and_can_open() -> None:
    torch.manual_seed(3)
    module = Fusion(SPACE, N_ITEMS, SIZE, FusionConfig())
    module.attend = True
    tokens = features()
    fused = module(tokens)
    assert torch.equal(fused.vectors, plain_sum(module, tokens))
    fused.vectors.square().sum().backward()
    assert module.gate.grad is not None and module.gate.grad.abs() > 1e-6


def test_every_pair_asks_and_answers_once_the_gate_is_open() -> None:
    module = fusion()
    aim = torch.randn(N_ITEMS, SIZE, generator=torch.Generator().manual_seed(5))
    (module(features()).vectors * aim).sum().backward()
    assert len(module.pairs) == 4 * 3
    for name, parameter in module.pairs.named_parameters():
        # one token has nothing to choose between: who asks behaviour needs no question
        if f"_{BEHAVIOUR}." in name and ".value." not in name:
            continue
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-7, name
    for parameter in (module.squash.weight, module.weigh.weight):
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-7


def test_the_gated_parameters_are_those_a_closed_gate_does_not_read() -> None:
    module = fusion(gate=None)
    module(features()).vectors.sum().backward()
    unread = {name for name, p in module.named_parameters() if p.grad is None}
    gated = {id(p) for p in module.gated()}
    assert unread == {name for name, p in module.named_parameters() if id(p) in gated}
    assert "gate" in unread


def test_attention_by_hand() -> None:
    """One asking token, two answering: z = h_t + h_c + g · Σ α h̃ with every share worked out."""
    space = TokenSpace(
        {"text": ("title",), "categorical": ("genre",)}, {"genre": ("a", "b")}, {}, {"genre": 2}, {"text": 2}
    )
    module = Fusion(space, 1, 2, FusionConfig(behaviour=False))
    module.attend = True
    ask, answer = module.pairs["text_categorical"], module.pairs["categorical_text"]
    with torch.no_grad():
        module.encoders["text"].project.copy_(torch.eye(2))  # type: ignore[union-attr,operator]
        module.encoders["categorical"].table.copy_(torch.tensor([[0.0, 0], [2, 0], [0, 4]]))  # type: ignore[union-attr]
        for pair in (ask, answer):
            for linear in (pair.query, pair.key, pair.value):  # type: ignore[union-attr]
                linear.weight.copy_(torch.eye(2))  # type: ignore[union-attr]
        module.weigh.weight.zero_()  # both modalities weigh ½
        module.gate.fill_(1.0)
    tokens = {
        "text": Tokens(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[True]])),
        "categorical": Tokens(torch.tensor([[1, 2]]), torch.tensor([[True, True]])),
    }
    share = torch.tensor([2 / 2**0.5, 0.0]).softmax(0)  # of a and b, as the title sees them
    title = torch.tensor([1.0, 0]) + share[0] * torch.tensor([2.0, 0]) + share[1] * torch.tensor([0, 4.0])
    genre = torch.tensor([1.0, 2.0]) + torch.tensor([1.0, 0])  # mean of the two, and the one title
    plain = torch.tensor([1.0, 0]) + torch.tensor([2.0, 4.0]) / 2**0.5
    fused = module(tokens)
    torch.testing.assert_close(fused.vectors[0], plain + (title + genre) / 2)
    assert fused.weights[0].tolist() == pytest.approx([0.5, 0.5])


def test_an_item_without_any_token_is_zero_and_harmless() -> None:
    module, tokens = fusion(), features()
    for modality in module.modalities:
        tokens = without(tokens, modality, slice(4, 5))
    fused = module(tokens)
    assert (fused.vectors[4] == 0).all()
    assert (fused.weights[4] == 0).all()
    torch.nn.functional.normalize(fused.vectors, dim=-1).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_an_item_unseen_in_training_has_a_vector_of_its_content_alone() -> None:
    module = fusion()
    tokens = without(features(), BEHAVIOUR, slice(0, 2))
    vectors = module(tokens).vectors
    assert vectors[:2].isfinite().all() and (vectors[:2].norm(dim=1) > 0.1).all()
    with torch.no_grad():
        module.encoders[BEHAVIOUR].table[:2] += 9  # type: ignore[index]
    assert torch.equal(module(tokens).vectors, vectors)


def test_attention_reads_no_more_tokens_than_it_may() -> None:
    short, tokens = fusion(attention_tokens=1), features()
    first_only = {m: t.mask & (t.mask.cumsum(dim=1) == 1) for m, t in tokens.items()}
    cut = {m: Tokens(t.values, first_only[m]) for m, t in tokens.items()}
    assert any(not torch.equal(first_only[m][:, 0], t.present) for m, t in tokens.items())
    whole, first, all_read = short(tokens), short(cut), fusion()(cut)
    torch.testing.assert_close(first.vectors, all_read.vectors)
    torch.testing.assert_close(whole.weights, first.weights)
    torch.testing.assert_close(
        whole.vectors - plain_sum(short, tokens), first.vectors - plain_sum(short, cut)
    )


def test_without_behaviour_there_is_none_unless_nothing_else_exists() -> None:
    assert BEHAVIOUR not in fusion(behaviour=False).modalities
    bare = TokenSpace({}, {}, {}, {}, {})
    assert Fusion(bare, 3, 4, FusionConfig(behaviour=False)).modalities == (BEHAVIOUR,)
