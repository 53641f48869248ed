"""A pretrained decoder reads the past and nothing else, and tuning changes what it says it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from llm4rec.errors import ConfigError
from llm4rec.model.origin import open_decoder
from llm4rec.model.pretrained import Decoder, PretrainedBackbone, PretrainedConfig, prepared, restored

FAMILIES = ("llama", "qwen2", "gemma", "gemma3_text")
PRECISIONS = ("float32", "bfloat16")
SIZE, TIME, HIDDEN = 8, 6, 32
Models = Callable[[str], Path]


def config(**options: Any) -> PretrainedConfig:
    return PretrainedConfig.model_validate({"precision": "float32", "lora_rank": 4, **options})


def backbone(place: Path, **options: Any) -> PretrainedBackbone:
    """As it is at the start of training, the dropout of its events off."""
    torch.manual_seed(0)
    chosen = config(**options)
    decoder = prepared(open_decoder(place, chosen, longest=TIME), chosen)
    return PretrainedBackbone(decoder, SIZE, 0.5, chosen).eval()


def moved_adapters(model: PretrainedBackbone) -> PretrainedBackbone:
    """LoRA starts as nothing; here it has learnt something."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_" in name:
                weights.copy_(0.2 * torch.randn(weights.shape, generator=draw))
    return model


def events(seed: int = 1, n: int = 2) -> Tensor:
    return torch.randn(n, TIME, SIZE, generator=torch.Generator().manual_seed(seed))


def read(model: PretrainedBackbone, told: Tensor, **options: Any) -> Tensor:
    with torch.no_grad():
        return model(told, **options)


# --- what it reads


@pytest.mark.parametrize("instruction", ["", "recommend the next film"], ids=["bare", "instructed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_strictly_causal_and_reads_the_whole_past(
    language_model: Models, family: str, instruction: str
) -> None:
    model = backbone(language_model(family), instruction=instruction)
    before = read(model, events())
    assert before.shape == (2, TIME, SIZE) and before.dtype == torch.float32
    for t in range(TIME):
        changed = events()
        changed[:, t] += torch.randn(SIZE, generator=torch.Generator().manual_seed(t))
        moved = (read(model, changed) - before).abs().amax(dim=2)
        assert (moved[:, :t] == 0).all(), f"event {t} is seen by an earlier state"
        assert (moved[:, t:] > 1e-4).all(), f"event {t} is not seen by a later state"


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_right_is_harmless_and_rows_do_not_meet(language_model: Models, family: str) -> None:
    model, told = backbone(language_model(family), instruction="watch"), events()
    whole = read(model, told)
    torch.testing.assert_close(whole[:, :3], read(model, told[:, :3]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole[1:], read(model, told[1:]), rtol=1e-4, atol=1e-4)


def test_the_order_of_the_past_is_told(language_model: Models) -> None:
    model, told = backbone(language_model("llama")), events()
    swapped = told[:, [0, 2, 1, 3, 4, 5]]
    assert ((read(model, told) - read(model, swapped))[:, -1].abs().amax(dim=1) > 1e-3).all()


def test_the_instruction_is_read_and_needs_no_tokenizer_later(language_model: Models) -> None:
    bare, told, other = (
        backbone(language_model("llama"), instruction=text)
        for text in ("", "recommend the next film", "recommend the film next")
    )
    assert [len(model.prefix) for model in (bare, told, other)] == [0, 4, 4]
    states = [read(model, events()) for model in (bare, told, other)]
    assert all((states[0] - state).abs().max() > 1e-3 for state in states[1:])
    assert (states[1] - states[2]).abs().max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_soft_tokens_begin_like_the_models_own(language_model: Models, family: str) -> None:
    decoder = open_decoder(language_model(family), config(), longest=TIME)
    assert decoder.tokens is not None
    decoder.tokens[:, 3] += 2  # whatever their mean
    model = PretrainedBackbone(decoder, SIZE, 0.0, config())
    soft = model.enter(100 * events(n=500)).detach().flatten(0, 1)  # whatever the events' length
    torch.testing.assert_close(soft.mean(dim=0), decoder.tokens.mean(dim=0), rtol=0.2, atol=0.2)
    spread = float(decoder.tokens.var(dim=0).sum())
    assert float(soft.var(dim=0).sum()) == pytest.approx(spread, rel=0.3)


def test_the_past_may_come_in_parts(language_model: Models) -> None:
    """Keys and values of what was read can be kept: what a cached person costs is one position."""
    from transformers import DynamicCache

    model, told = backbone(language_model("llama"), instruction="watch the film"), events()
    past = DynamicCache()
    parts = [read(model, told[:, part], past=past) for part in (slice(0, 4), slice(4, 5), slice(5, 6))]
    torch.testing.assert_close(torch.cat(parts, dim=1), read(model, told), rtol=1e-4, atol=1e-4)


def test_the_past_is_given_under_the_name_the_library_has_for_it(language_model: Models) -> None:
    """`past_key_values` is called `cache` from some version of transformers 5 on."""
    from transformers import DynamicCache

    class Renamed(nn.Module):
        def __init__(self, of: PretrainedBackbone) -> None:
            super().__init__()
            self.of, self.old = of.model, of._past_is

        def forward(self, inputs_embeds: Tensor, cache: Any = None, use_cache: bool = False) -> Any:
            return self.of(inputs_embeds=inputs_embeds, use_cache=use_cache, **{self.old: cache})

    made = config(tuning="frozen")
    decoder = open_decoder(language_model("llama"), made, longest=TIME)
    plain = PretrainedBackbone(decoder, SIZE, 0.0, made).eval()
    torch.manual_seed(0)
    renamed = PretrainedBackbone(Decoder(Renamed(plain), decoder.prefix, None), SIZE, 0.0, made).eval()
    renamed.load_state_dict({
        (name.replace("model.", "model.of.", 1) if name.startswith("model.") else name): tensor
        for name, tensor in plain.state_dict().items()
    })
    past, told = DynamicCache(), events()
    parts = [read(renamed, told[:, part], past=past) for part in (slice(0, 4), slice(4, 6))]
    torch.testing.assert_close(torch.cat(parts, dim=1), read(plain, told), rtol=1e-4, atol=1e-4)


# --- what is tuned


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_lora_leaves_the_base_and_merges_into_the_same_function(
    language_model: Models, family: str, precision: str
) -> None:
    model = backbone(language_model(family), precision=precision)
    names = {name for name, weights in model.named_parameters() if weights.requires_grad}
    assert all(name.startswith(("enter", "leave")) or "lora_" in name for name in names)
    assert all(weights.dtype == torch.float32 for weights in model.parameters() if weights.requires_grad)
    frozen = {name: w.clone() for name, w in model.named_parameters() if name not in names}
    assert {w.dtype for w in frozen.values()} == {getattr(torch, precision)}
    optimiser = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        (model(events()) - 1).square().mean().backward()
        optimiser.step()
    assert all(torch.equal(w, frozen[name]) for name, w in model.named_parameters() if name in frozen)
    unmerged = read(moved_adapters(model), events())
    model.settle()
    assert not any("lora" in name for name in model.state_dict())
    near = {"rtol": 1e-3, "atol": 1e-3} if precision == "float32" else {"rtol": 0.1, "atol": 0.25}
    torch.testing.assert_close(read(model, events()), unmerged, **near)


def test_every_lora_weight_learns(language_model: Models) -> None:
    model = moved_adapters(backbone(language_model("llama")))
    model(events()).square().sum().backward()
    adapters = {name: w for name, w in model.named_parameters() if "lora_" in name}
    assert len(adapters) == 2 * 2 * 7  # two layers of seven projections, two matrices each
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in adapters.values())


def test_lora_goes_where_it_is_told(language_model: Models) -> None:
    model = backbone(language_model("llama"), lora_targets=["q_proj", "v_proj"], lora_rank=2)
    adapters = {name: w for name, w in model.named_parameters() if "lora_" in name}
    assert len(adapters) == 2 * 2 * 2 and all(min(w.shape) == 2 for w in adapters.values())
    with pytest.raises(ConfigError, match=r"no projections called wq, k_pro .* It has .*q_proj"):
        backbone(language_model("llama"), lora_targets=["self_attn.q_proj", "wq", "k_pro"])
    gpt2 = backbone(language_model("gpt2"), lora_targets=["c_attn"])  # its projections are no nn.Linear
    assert len([name for name, _ in gpt2.named_parameters() if "lora_" in name]) == 2 * 2
    with pytest.raises(ConfigError, match=r"can't be given low-rank additions \(.*pretrained.tuning to full"):
        backbone(language_model("mamba"))


@pytest.mark.parametrize(("tuning", "trained"), [("full", True), ("frozen", False)])
def test_full_trains_all_in_float32_and_frozen_nothing(
    language_model: Models, tuning: str, trained: bool
) -> None:
    model = backbone(language_model("qwen2"), tuning=tuning, precision="bfloat16")
    decoder = list(model.model.parameters())
    assert all(weights.requires_grad is trained for weights in decoder)
    assert {w.dtype for w in decoder} == {torch.float32 if trained else torch.bfloat16}
    model(events()).sum().backward()
    assert all((weights.grad is not None) is trained for weights in decoder)
    before = read(model, events())
    model.settle()
    assert {w.dtype for w in model.model.parameters()} == {torch.bfloat16}
    assert not any(w.requires_grad for w in model.model.parameters())
    torch.testing.assert_close(read(model, events()), before, rtol=0.1, atol=0.25)


def test_random_weights_keep_the_architecture(language_model: Models) -> None:
    place = language_model("llama")
    known = backbone(place, tuning="full")
    random = backbone(place, tuning="full", random_weights=True)
    shapes = [{name: w.shape for name, w in model.named_parameters()} for model in (known, random)]
    assert shapes[0] == shapes[1]
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(known.state_dict()[name], random.state_dict()[name])
    again = backbone(place, tuning="full", random_weights=True)
    assert torch.equal(again.state_dict()[name], random.state_dict()[name])
    with pytest.raises(ValidationError, match="random weights have to be trained"):
        config(random_weights=True)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_gradient_checkpointing_changes_memory_alone(language_model: Models, tuning: str) -> None:
    gradients: list[dict[str, Tensor]] = []
    for on in (False, True):
        model = backbone(language_model("llama"), tuning=tuning, gradient_checkpointing=on)
        moved_adapters(model).train()
        calls: list[Any] = []
        hook = model.model.layers[0].mlp.register_forward_pre_hook(lambda *call, to=calls: to.append(call))
        torch.manual_seed(1)
        model(events()).square().sum().backward()
        hook.remove()
        assert len(calls) == 1 + on
        gradients.append({name: w.grad for name, w in model.named_parameters() if w.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


# --- what is kept


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_restored_from_its_shape_and_weights_alone(
    language_model: Models, family: str, precision: str
) -> None:
    import json

    chosen = config(precision=precision, instruction="watch the film")
    model = moved_adapters(backbone(language_model(family), **chosen.model_dump()))
    model.settle()
    shape = json.loads(json.dumps(model.shape))
    # where the machine that reads it would choose another type
    elsewhere = config(precision="float32" if precision == "bfloat16" else "bfloat16")
    again = PretrainedBackbone(restored(shape), SIZE, 0.5, elsewhere)
    again.load_state_dict(model.state_dict())
    assert torch.equal(read(again.eval(), events()), read(model, events()))
    assert not any(weights.shape[:1] == (40,) for weights in model.state_dict().values())  # no vocabulary
