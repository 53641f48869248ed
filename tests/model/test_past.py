"""What is kept of a history makes its answers quicker, not other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from llm4rec.data.events import EventLog
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.tokens import TokenSpace
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.eight_bits import Int8Linear, LlamaStep, in_eight_bits, rounded
from llm4rec.model.events import EventSpace
from llm4rec.model.network import Network
from llm4rec.model.origin import open_decoder
from llm4rec.model.past import FEW, ServeConfig
from llm4rec.model.pretrained import PretrainedBackbone, PretrainedConfig
from llm4rec.model.scorer import CHUNK, Scorer

N_ITEMS, MOST, SIZE = 12, 10, 8
Models = Callable[[str], Path]
NEAR = {"float32": {"rtol": 1e-4, "atol": 1e-4}, "bfloat16": {"rtol": 0.05, "atol": 0.1}}
"""How much a state may differ for being read in parts: the last digits of the decoder's numbers."""


def scorer(
    place: Path, *, serve: ServeConfig | None = None, precision: str = "float32", instruction: str = ""
) -> Scorer:
    """Random weights; ratings, gaps and the time of asking count."""
    config = PretrainedConfig.model_validate({
        "tuning": "frozen", "precision": precision, "instruction": instruction,
    })  # fmt: skip
    torch.manual_seed(0)
    network = Network(
        TokenSpace({}, {}, {}, {}, {}), None, n_items=N_ITEMS, n_ratings=2, n_kinds=0, max_history=MOST,
        backbone=BackboneConfig(backbone=str(place), embedding_size=SIZE, dropout=0.0, pretrained=config),
        fusion=FusionConfig(), decoder=open_decoder(place, config, MOST + 1),
    )  # fmt: skip
    context = network.context
    with torch.no_grad():
        for table in (network.gap, network.rating, context.gap, context.hour, context.weekday):
            table.weight[1:].normal_()
    tokens = {BEHAVIOUR: behaviour_tokens(torch.ones(N_ITEMS, dtype=torch.bool))}
    return Scorer(network.eval(), tokens, None, EventSpace((3.0,), 3.0, 1.0, ()), serve=serve)


def keeping(plain: Scorer, **options: int) -> Scorer:
    return replace(plain, serve=ServeConfig.model_validate(options))


def history(n: int, *, seed: int = 0, asked_at: int | None = None) -> EventLog:
    """The first n events of a person."""
    draw = np.random.default_rng(seed)
    items, ratings = draw.integers(0, N_ITEMS, 30), draw.choice([1, 5], 30)
    times = draw.integers(0, 90_000, 30).cumsum()
    return EventLog(
        user_ids=pl.Series(["u"]), offsets=np.array([0, n]), items=items[:n], times=times[:n],
        ratings=ratings[:n].astype(np.float32),
        asked_at=None if asked_at is None else np.array([asked_at]),
    )  # fmt: skip


def state(of: Scorer, asked: EventLog) -> Tensor:
    return of.states(asked, np.full(asked.n_users, -1))


class Counted:
    """Counts the positions a backbone reads."""

    def __init__(self, of: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.positions = 0
        forward = PretrainedBackbone.forward

        def count(backbone: PretrainedBackbone, events: Tensor, *rest: object) -> Tensor:
            self.positions += events.shape[1]
            return forward(backbone, events, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(PretrainedBackbone, "forward", count)
        self.of = of

    def asked(self, log: EventLog) -> tuple[Tensor, int]:
        before = self.positions
        return state(self.of, log), self.positions - before


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
def test_a_longer_history_costs_its_new_events_and_is_answered_alike(
    language_model: Models, monkeypatch: pytest.MonkeyPatch, family: str, precision: str
) -> None:
    plain = scorer(language_model(family), precision=precision, instruction="watch the film")
    counted = Counted(keeping(plain), monkeypatch)
    # the first event of all, which is no one's, is a position too
    for n, positions in ((3, 4), (4, 1), (4, 0), (9, 5), (0, 1), (10, 1)):
        found, read = counted.asked(history(n))
        torch.testing.assert_close(found, state(plain, history(n)), **NEAR[precision])
        assert read == positions, n


def test_a_first_reading_and_a_repeated_one_are_the_same_to_the_last_bit(language_model: Models) -> None:
    plain = scorer(language_model("llama"))
    kept = keeping(plain)
    for _ in range(2):
        assert torch.equal(state(kept, history(5)), state(plain, history(5)))


def test_the_time_of_asking_is_not_part_of_what_is_kept(
    language_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = scorer(language_model("llama"))
    counted = Counted(keeping(plain), monkeypatch)
    counted.asked(history(5))
    answers = list[Tensor]()
    for time in (None, 1_000_000, 2_000_000):
        found, read = counted.asked(history(5, asked_at=time))
        torch.testing.assert_close(found, state(plain, history(5, asked_at=time)))
        assert read == 0
        answers.append(found)
    assert not torch.equal(answers[0], answers[1]) and not torch.equal(answers[1], answers[2])
    found, read = counted.asked(history(6, asked_at=1_000_000))
    torch.testing.assert_close(found, state(plain, history(6, asked_at=1_000_000)), **NEAR["float32"])
    assert read == 1


@pytest.mark.parametrize("what", ["items", "times", "ratings"])
def test_a_past_that_was_changed_is_read_anew(
    language_model: Models, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    plain = scorer(language_model("llama"))
    counted = Counted(keeping(plain), monkeypatch)
    counted.asked(history(6))
    asked = history(7)
    values = getattr(asked, what).copy()
    values[2] = {"items": (values[2] + 1) % N_ITEMS, "times": values[1], "ratings": 6 - values[2]}[what]
    changed = replace(asked, **{what: values})
    found, read = counted.asked(changed)
    assert torch.equal(found, state(plain, changed)) and read == 8
    assert not torch.allclose(found, state(plain, asked), atol=1e-3)


def test_a_window_that_slid_is_read_anew(language_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = scorer(language_model("llama"))
    counted = Counted(keeping(plain), monkeypatch)
    for n, positions in ((MOST, MOST + 1), (MOST + 1, MOST + 1), (MOST + 2, MOST + 1), (MOST + 2, 0)):
        found, read = counted.asked(history(n))
        assert torch.equal(found, state(plain, history(n))) and read == positions, n


def test_the_least_recently_used_goes_first(language_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keeping(scorer(language_model("llama")))
    counted = Counted(kept, monkeypatch)
    assert kept.past is not None
    counted.asked(history(4, seed=1))
    one = kept.past.n_bytes
    kept.past.most_bytes = 2 * one
    for seed, positions in ((2, 5), (1, 0), (3, 5), (1, 0), (2, 5), (3, 5)):
        assert counted.asked(history(4, seed=seed))[1] == positions, seed
        assert kept.past.n_bytes <= 2 * one
    assert len(kept.past) == 2
    kept.past.most_bytes = one - 1  # room for none
    for _ in range(2):
        found, read = counted.asked(history(4, seed=4))
        assert read == 5 and torch.equal(found, state(replace(kept, serve=None), history(4, seed=4)))
    assert len(kept.past) == 0 and kept.past.n_bytes == 0


def test_what_is_kept_is_keys_values_and_a_state(language_model: Models) -> None:
    kept = keeping(scorer(language_model("llama")))
    assert kept.past is not None
    for n in (4, 5, 6):
        state(kept, history(n))
        per_position = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, their size, float32
        assert kept.past.n_bytes == (n + 1) * per_position and len(kept.past) == 1


def test_a_batch_keeps_nothing(language_model: Models) -> None:
    kept = keeping(scorer(language_model("llama")))
    log = history(6)
    state(kept, replace(log, user_ids=pl.Series(["u", "v"]), offsets=np.array([0, 2, 6])))
    assert kept.past is not None and len(kept.past) == 0


def test_a_batch_is_cut_so_that_no_history_of_it_is_read_alone(language_model: Models) -> None:
    kept = keeping(scorer(language_model("llama")))
    log = EventLog(
        pl.Series([f"u{u}" for u in range(CHUNK + 1)]), np.arange(CHUNK + 2), np.zeros(CHUNK + 1, int)
    )
    chunks = list(kept.chunks(log))
    assert sorted(np.concatenate([rows for rows, _ in chunks]).tolist()) == list(range(CHUNK + 1))
    assert max(len(rows) for rows, _ in chunks) <= CHUNK
    for _, chosen in chunks:
        state(kept, chosen)
    assert kept.past is not None and len(kept.past) == 0
    assert list(kept.chunks(log.histories(np.arange(0), np.arange(0)))) == []


def test_layers_whose_past_is_no_keys_and_values_keep_nothing(language_model: Models) -> None:
    """A family with linear attention says so in its configuration; such a model answers all the same."""
    plain = scorer(language_model("minimax"))
    asked = keeping(plain)
    assert asked.past is None
    for n in (3, 4):
        assert torch.equal(state(asked, history(n)), state(plain, history(n)))


def test_nothing_is_kept_where_it_is_off_or_the_backbone_is_compact(language_model: Models) -> None:
    plain = scorer(language_model("llama"))
    assert plain.past is None and keeping(plain, past_mib=0).past is None
    network = Network(
        TokenSpace({}, {}, {}, {}, {}), None, n_items=N_ITEMS, n_ratings=2, n_kinds=0, max_history=MOST,
        backbone=BackboneConfig(embedding_size=SIZE, layers=1, heads=1), fusion=FusionConfig(),
    )  # fmt: skip
    assert keeping(replace(plain, network=network)).past is None


def test_many_threads_may_ask_at_once(language_model: Models) -> None:
    plain = scorer(language_model("llama"))
    kept = keeping(plain)
    asked = [(n, seed) for n in range(1, MOST + 1) for seed in range(4) for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda each: state(kept, history(each[0], seed=each[1])), asked))
    for (n, seed), each in zip(asked, found, strict=True):
        torch.testing.assert_close(each, state(plain, history(n, seed=seed)), **NEAR["float32"])
    assert kept.past is not None
    assert kept.past.n_bytes == sum(read.n_bytes for read in kept.past._kept.values())


# --- eight bits


@pytest.mark.parametrize("bias", [False, True])
def test_a_projection_in_eight_bits_errs_by_no_more_than_half_a_step(bias: bool) -> None:
    torch.manual_seed(0)
    exact = nn.Linear(64, 48, bias=bias).to(torch.bfloat16)
    with torch.no_grad():
        exact.weight[3] = 0  # a row without a largest number
    inputs = torch.randn(1, 3, 64).to(torch.bfloat16)
    with torch.no_grad():
        found, expected = Int8Linear(exact, exact)(inputs).float(), exact(inputs).float()
        assert torch.equal(found[..., :48], found[..., 48:])  # one after the other
        found = found[..., :48]
    step = exact.weight.float().abs().amax(dim=1) / 127
    most = 0.5 * inputs.float().abs().sum(dim=2, keepdim=True) * step + 0.02 * expected.abs() + 0.02
    assert found.shape == expected.shape and bool(((found - expected).abs() <= most).all())
    assert not torch.equal(found, expected)


def test_a_weight_is_rounded_by_the_scale_it_is_read_with() -> None:
    torch.manual_seed(0)
    exact = nn.Linear(512, 8, bias=False, dtype=torch.bfloat16)
    eight = Int8Linear(exact)
    step = eight.scales.double().unsqueeze(1)
    assert ((eight.weight * step - exact.weight.double()).abs() <= step / 2).all()


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # the step of our own, and the library's layers
def test_rounded_projections_answer_alike_whatever_was_read_before(
    language_model: Models, family: str
) -> None:
    plain = scorer(language_model(family), precision="bfloat16", instruction="watch the film")
    eight = keeping(plain, int8=True)
    never = keeping(plain, int8=True, past_mib=0)
    far = 0.0
    for n in (2, 3, 3 + FEW, 10):
        found, expected = state(eight, history(n)), state(never, history(n))
        torch.testing.assert_close(found, expected, **NEAR["bfloat16"])
        far += float((expected - state(plain, history(n))).abs().mean())
    assert far > 0  # rounding is to be seen at all


def test_a_batch_is_read_with_rounded_projections_too(language_model: Models) -> None:
    plain = scorer(language_model("llama"), precision="bfloat16")
    eight = keeping(plain, int8=True)
    pair = EventLog(pl.Series(["u", "v"]), np.array([0, 4, 8]), np.tile(history(4).items, 2))
    assert torch.equal(state(eight, pair), state(keeping(plain, int8=True, past_mib=0), pair))
    assert not torch.equal(state(eight, pair), state(plain, pair))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_eight_bits_leave_the_backbone_and_its_weights_as_they_are(
    language_model: Models, family: str
) -> None:
    backbone = scorer(language_model(family), precision="bfloat16").network.backbone
    assert isinstance(backbone, PretrainedBackbone)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    eight, written_out = in_eight_bits(backbone), rounded(backbone)
    assert any(isinstance(module, Int8Linear) for module in eight.modules())
    assert not any(isinstance(module, Int8Linear) for module in [*backbone.modules(), *written_out.modules()])
    after = backbone.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    own = {tensor.data_ptr() for tensor in backbone.parameters()}
    assert {tensor.data_ptr() for tensor in eight.parameters()} <= own
    for name, tensor in written_out.state_dict().items():
        step = float(before[name].abs().max()) / 127 if before[name].numel() else 0.0
        torch.testing.assert_close(tensor.float(), before[name].float(), rtol=0.01, atol=0.51 * step)


def test_the_step_of_our_own_is_the_library_s_layers(language_model: Models) -> None:
    """Read event by event and by twos, against the library's own layers over the same 8 bits."""
    torch.manual_seed(3)
    backbone = scorer(language_model("llama"), precision="bfloat16").network.backbone
    assert isinstance(backbone, PretrainedBackbone)
    with torch.no_grad():
        for weight in backbone.model.parameters():
            if weight.ndim == 1:  # of the norms, which start as ones
                weight.normal_(1, 0.3)
    step, layers = in_eight_bits(backbone), rounded(backbone)
    assert isinstance(step.model, LlamaStep) and not isinstance(layers.model, LlamaStep)
    events = torch.randn(1, 9, SIZE)
    with torch.inference_mode():
        past = DynamicCache()
        backbone(events[:, :3], past)
        other = copy.deepcopy(past)
        for start, stop in ((3, 4), (4, 6), (6, 9)):
            found, expected = step(events[:, start:stop], past), layers(events[:, start:stop], other)
            torch.testing.assert_close(found, expected, **NEAR["bfloat16"])
            assert past.get_seq_length() == other.get_seq_length() == stop


def test_float32_is_not_rounded(language_model: Models) -> None:
    plain = scorer(language_model("llama"))
    exact, asked = keeping(plain), keeping(plain, int8=True)
    for n in (4, 5):
        assert torch.equal(state(asked, history(n)), state(exact, history(n)))


def test_only_what_the_8_bit_product_can_read_is_replaced() -> None:
    """The product reads 16 inputs at a time without a check; a router made of a `Linear` returns more."""

    class Router(nn.Linear):
        pass

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.ModuleDict({
                "wide": nn.Linear(32, 8),
                "odd": nn.Linear(24, 8),
                "router": Router(32, 8),
            })

    kept = in_eight_bits(Holder()).model  # pyright: ignore[reportArgumentType]
    assert isinstance(kept, nn.ModuleDict)
    assert [type(kept[name]) for name in ("wide", "odd", "router")] == [Int8Linear, nn.Linear, Router]
