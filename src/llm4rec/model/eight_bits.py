"""A pretrained decoder with its projections in 8 bits.

One position costs what its weights cost to fetch, and of 8 bits these are half as many bytes. Many positions
cost their sums, so they are read with the same codes written out as weights of the decoder's own type, which
rounds code times scale once more: the two readings differ in the last digits of that type, not in the codes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # as everywhere

from llm4rec.model.pretrained import PretrainedBackbone

if TYPE_CHECKING:
    from transformers import Cache


class Int8Linear(nn.Module):
    """x Wᵀ + b with the rows of W as 8-bit integers, each with a scale; x and the sums keep their type.

    Inputs are not rounded: some projections of language models get a few inputs hundreds of times as large
    as the others, beside which those would vanish.

    Args:
        of: projections of the same input, one after the other in the output [..., Σ out].
    """

    def __init__(self, *of: nn.Linear) -> None:
        super().__init__()
        codes, scales = zip(*(_codes(each.weight) for each in of), strict=True)
        self.register_buffer("weight", torch.cat(codes))
        self.register_buffer("scales", torch.cat(scales))
        self.bias = None if of[0].bias is None else torch.cat([each.bias for each in of])

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out: Tensor = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scales)
        if self.bias is not None:
            out = out + self.bias
        return out.view(*x.shape[:-1], -1)


def _codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [o, i] as 8-bit integers [o, i] and the scale of each row [o]."""
    exact = weight.detach().float()
    scales = (exact.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny).to(weight.dtype)
    codes = (exact / scales.float().unsqueeze(1)).round().clamp(-127, 127)  # by the scale they are read with
    return codes.to(torch.int8), scales


def can_round(module: nn.Module) -> bool:
    """Whether a module is a plain product of inputs that the 8-bit one, 16 at a time, reads to the end."""
    return type(module) is nn.Linear and module.in_features % 16 == 0


def rounded(backbone: PretrainedBackbone) -> PretrainedBackbone:
    """The backbone with the decoder's projections rounded to 8 bits, in the type they had."""

    def written_out(of: nn.Linear) -> nn.Linear:
        codes, scales = _codes(of.weight)
        made = nn.Linear(of.in_features, of.out_features, bias=False)
        made.weight = nn.Parameter(
            (codes * scales.float().unsqueeze(1)).to(of.weight.dtype), requires_grad=False
        )
        made.bias = of.bias
        return made

    return _with(backbone, written_out)


def in_eight_bits(backbone: PretrainedBackbone) -> PretrainedBackbone:
    """The same numbers as `rounded` for a few positions that follow others: quicker, and in less memory."""
    if _is_plain_llama(backbone.model):
        made = _sharing(backbone)
        made.model = LlamaStep(backbone.model)
        return made
    return _with(backbone, Int8Linear)


def _with(backbone: PretrainedBackbone, made_of: Callable[[nn.Linear], nn.Module]) -> PretrainedBackbone:
    """A copy whose projections are made anew; it shares all else, and leaves the backbone as it is."""
    made = _sharing(backbone)
    for module in list(cast(nn.Module, made.model).modules()):
        for name, child in module.named_children():
            if can_round(child):
                setattr(module, name, made_of(cast(nn.Linear, child)))
    return made


def _sharing(backbone: PretrainedBackbone) -> PretrainedBackbone:
    tensors = [*backbone.parameters(), *backbone.buffers()]
    return copy.deepcopy(backbone, {id(tensor): tensor for tensor in tensors})


def _is_plain_llama(model: Any) -> bool:
    """Whether a decoder is one that `LlamaStep` computes: Llama, SmolLM and others of that very class."""
    from transformers import LlamaModel

    return (
        type(model) is LlamaModel
        and model.config.hidden_act == "silu"
        and all(can_round(module) for module in model.modules() if isinstance(module, nn.Linear))
    )


class LlamaStep(nn.Module):
    """What a Llama decoder says of a few new positions, with 8-bit projections.

    The library's own layers spend as long on their fifty small operations as on the weights.

    Source: Touvron et al., LLaMA: Open and Efficient Foundation Language Models, 2023, section 2.2; grouped
    queries: Ainslie et al., GQA, EMNLP 2023.
    """

    def __init__(self, of: Any) -> None:
        super().__init__()
        config = of.config
        self.places = of.rotary_emb
        self.norm, self.eps = of.norm.weight, config.rms_norm_eps
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.layers = nn.ModuleList(_LlamaLayer(layer) for layer in of.layers)

    def forward(self, inputs_embeds: Tensor, *, use_cache: bool, **kept: Cache) -> Any:
        """Hidden states [1, t, h] of `inputs_embeds` [1, t, h], added to the one past that is named."""
        (past,) = kept.values()
        before, new = past.get_seq_length(), inputs_embeds.shape[1]
        cosines, sines = self.places(inputs_embeds, torch.arange(before, before + new).unsqueeze(0))
        turn = cosines[0].unsqueeze(1), sines[0].unsqueeze(1)  # [t, 1, w]
        per_group = self.heads // self.groups
        mask = None
        if new > 1:
            mask = torch.ones(new, before + new, dtype=torch.bool).tril(before).repeat(per_group, 1)
        states = inputs_embeds[0]
        for number, layer in enumerate(self.layers):
            states = self._read(cast(_LlamaLayer, layer), number, states, turn, mask, past)
        return SimpleNamespace(last_hidden_state=self._normed(states, self.norm).unsqueeze(0))

    def _normed(self, states: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(states, weight.shape, weight, self.eps)

    def _read(
        self,
        layer: _LlamaLayer,
        number: int,
        states: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        past: Cache,
    ) -> Tensor:
        new, both = len(states), self.heads + self.groups
        heads = layer.attend(self._normed(states, layer.before_attention)).view(new, both + self.groups, -1)
        turned = _turned(heads[:, :both], *turn)
        queries, keys = turned[:, : self.heads], turned[:, self.heads :]
        keys, values = past.update(
            keys.transpose(0, 1).unsqueeze(0), heads[:, both:].transpose(0, 1).unsqueeze(0), number
        )
        # the queries of a group ask the same keys: they stand below one another
        asked = queries.view(new, self.groups, -1, queries.shape[-1]).permute(1, 2, 0, 3).flatten(1, 2)
        found = F.scaled_dot_product_attention(asked.unsqueeze(0), keys, values, attn_mask=mask)
        found = found.view(self.heads, new, -1).transpose(0, 1).reshape(new, -1)
        states = states + layer.answer(found)
        gate, up = layer.widen(self._normed(states, layer.before_feedforward)).chunk(2, dim=-1)
        return states + layer.narrow(F.silu(gate) * up)


class _LlamaLayer(nn.Module):
    def __init__(self, of: Any) -> None:
        super().__init__()
        attention, feedforward = of.self_attn, of.mlp
        self.attend = Int8Linear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.answer = Int8Linear(attention.o_proj)
        self.widen = Int8Linear(feedforward.gate_proj, feedforward.up_proj)
        self.narrow = Int8Linear(feedforward.down_proj)
        self.before_attention = of.input_layernorm.weight
        self.before_feedforward = of.post_attention_layernorm.weight


def _turned(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary embedding of [t, n, w]; its halves are turned against one another."""
    left, right = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat([-right, left], dim=-1) * sines
