"""A pretrained backbone: a language model's decoder between two learned projectors.

Events enter as soft tokens, one position each, after an optional instruction in words. What fixes the
model is kept with its weights, so that nothing of where it came from is needed to read it again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from pydantic import Field as Option
from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from llm4rec.config import Section
from llm4rec.errors import ConfigError
from llm4rec.model.keys import weighed
from llm4rec.model.precision import Precision, dtype_of
from llm4rec.model.words import Words

if TYPE_CHECKING:
    from transformers import Cache

WITHOUT_VOCABULARY = {
    "vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
READING: dict[str, Any] = {"trust_remote_code": False, "attn_implementation": "eager"}
"""How a decoder is opened. On histories of some hundred events plain attention is as fast as the fused one
forwards and several times as fast backwards in bfloat16, and every family has it."""
NOT_KEPT = ("_name_or_path", "architectures", "auto_map", "dtype", "quantization_config")


class PretrainedConfig(Section):
    """How a pretrained backbone is tuned (section `model.pretrained`)."""

    tuning: Literal["lora", "full", "frozen"] = Option(
        default="lora",
        description="What of the decoder is trained: low-rank additions to its projections, which are merged "
        "into them at the end; all of it; or nothing. What surrounds it always is.",
    )
    learning_rate: float = Option(
        default=3e-4, gt=0, le=10, description="Step size of AdamW for what is trained of the decoder."
    )
    lora_rank: int = Option(
        default=16,
        ge=1,
        le=65_536,
        description="Rank of the additions; they are scaled by 2, whatever their rank.",
    )
    lora_targets: tuple[str, ...] = Option(
        default=(), description="Names of the projections that get one, as q_proj; none named: all of them."
    )
    instruction: str = Option(
        default="", description="Words the decoder reads before the events, in its own vocabulary."
    )
    gradient_checkpointing: bool = Option(
        default=False, description="Keep one activation per layer and compute the others again: less memory."
    )
    precision: Precision = Option(
        default="auto",
        description="Type of the decoder's numbers; auto takes bfloat16 where the processor multiplies it "
        "natively. What is trained is held in float32 all the same.",
    )
    random_weights: bool = Option(
        default=False,
        description="Start the same architecture from random weights: the control that shows what the "
        "pretrained ones are worth. Needs tuning = full.",
    )

    @field_validator("random_weights")
    @classmethod
    def _train_what_is_random(cls, random: bool, found: ValidationInfo) -> bool:
        if random and found.data.get("tuning") != "full":
            raise ValueError("random weights have to be trained: set model.pretrained.tuning=full")
        return random

    @property
    def dtype(self) -> torch.dtype:
        """What `precision` means on this machine."""
        return dtype_of(self.precision)


@dataclass(frozen=True)
class Decoder:
    """A decoder of `transformers` whose vocabulary has been taken off.

    Attributes:
        model: embeddings [b, t, h] → hidden states [b, t, h], causal.
        prefix: embeddings of the instruction [p, h] in the type of the decoder's numbers; p is 0 without one.
        tokens: embeddings of some of the vocabulary [v, h]; None where the projectors are given later.
        words: what the items are called, where it is to read that.
    """

    model: Any
    prefix: Tensor
    tokens: Tensor | None
    words: Words | None = None


class PretrainedBackbone(nn.Module):
    """Event embeddings [b, t, d] → states [b, t, d] (float32), strictly causal, one position per event.

    Args:
        decoder: what reads the soft tokens; see `prepared` for one that is to be trained.
        size: d.
        dropout: of the events.
        config: how it is tuned.
    """

    prefix: Tensor

    def __init__(self, decoder: Decoder, size: int, dropout: float, config: PretrainedConfig) -> None:
        super().__init__()
        hidden = decoder.prefix.shape[-1]
        self.learning_rate: float | None = config.learning_rate
        self.dtype = decoder.prefix.dtype
        self.model = decoder.model
        self.register_buffer("prefix", decoder.prefix)
        into = nn.Linear(size, hidden)
        if decoder.tokens is not None:
            _start_like(into, decoder.tokens)
        # events differ in length, tokens hardly
        self.enter = nn.Sequential(nn.RMSNorm(size, eps=1e-6), nn.Dropout(dropout), into)
        out = nn.Linear(hidden, size, bias=False)
        nn.init.normal_(out.weight, std=hidden**-0.5)
        self.leave = nn.Sequential(nn.RMSNorm(hidden, eps=1e-6), out)
        self._mixed = self._has_other_types()
        # renamed in the course of transformers 5; LoRA's own signature says nothing
        accepted = signature(getattr(self.model, "model", self.model).forward).parameters
        self._past_is = "cache" if "cache" in accepted else "past_key_values"

    def forward(
        self,
        events: Tensor,
        past: Cache | None = None,
        names: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Tensor:
        """States of `events`; padding must be on the right, where causality keeps it harmless.

        Args:
            events: [b, t, d].
            past: keys and values of the events before these, which this call adds to; None keeps none.
            names: embeddings of words [p, h] that are read after the instruction; None for none.
            keys: log-weights of the events as keys of attention [b, t], see `weighed`; None for 0. What is
                read before the events keeps its weight, and `past` is not to be kept.
        """
        soft = self.enter(events).to(self.dtype)
        first = self.prefix if names is None else torch.cat([self.prefix, names.to(self.prefix.dtype)])
        told = len(first) if past is None or past.get_seq_length() == 0 else 0
        if told:
            soft = torch.cat([first.to(self.dtype).expand(len(events), -1, -1), soft], dim=1)
        options: dict[str, Any] = {} if keys is None else {"attention_mask": self._mask(keys, told)}
        # the float32 weights that are trained are multiplied in the decoder's type too
        with torch.autocast(events.device.type, self.dtype, enabled=self._mixed):
            out = self.model(
                inputs_embeds=soft,
                use_cache=past is not None,
                **{self._past_is: past},
                **options,
            )
        return self.leave(out.last_hidden_state[:, told:].float())

    def _mask(self, keys: Tensor, told: int) -> Tensor | dict[str, Tensor]:
        """`weighed` keys; layers that read the newest positions alone take a mask as it is given."""
        whole, config = weighed(keys, self.dtype, told), self.model.config
        window = getattr(config, "sliding_window", None)
        if window is None or whole.shape[-1] <= window:
            return whole
        behind = torch.ones(whole.shape[-2:], dtype=torch.bool).tril(-window)
        newest = whole.masked_fill(behind, torch.finfo(self.dtype).min)
        if getattr(config, "layer_types", None) is None:
            return newest
        return {"full_attention": whole, "sliding_attention": newest}

    def settle(self) -> bool:
        """Merge the additions into the decoder and hold all of it in the type it is kept in, untrained.

        Returns:
            Whether states may have changed, if only in their last digits.
        """
        if hasattr(self.model, "merge_and_unload"):
            self.model = self.model.merge_and_unload()
        for parameter in cast(nn.Module, self.model).parameters():
            parameter.requires_grad_(False)
            # copied out of the file they were read from: products may hang on how memory is aligned
            parameter.data = parameter.data.to(self.dtype, copy=True)
        self._mixed = self._has_other_types()
        return True

    def _has_other_types(self) -> bool:
        """Whether some of the decoder's weights are not of its type; to ask them all takes 2 ms."""
        return any(parameter.dtype != self.dtype for parameter in self.model.parameters())

    @property
    def shape(self) -> dict[str, Any]:
        """What `restored` needs beside the weights; values JSON can hold."""
        architecture: dict[str, Any] = self.model.config.to_dict()
        kept = {key: value for key, value in architecture.items() if key not in NOT_KEPT}
        return {
            "architecture": kept | WITHOUT_VOCABULARY,
            "prefix": len(self.prefix),
            "dtype": str(self.dtype).removeprefix("torch."),
        }


def _start_like(into: nn.Linear, tokens: Tensor) -> None:
    """Let soft tokens begin with mean and covariance of a model's own `tokens` [v, h].

    A decoder answers what is unlike its tokens with less difference between one input and another, and
    with states that hang on the last bits of bfloat16.
    """
    mean = tokens.mean(dim=0)
    mixed = (tokens - mean).T @ torch.randn(len(tokens), into.in_features)
    with torch.no_grad():
        into.weight.copy_(mixed / math.sqrt(len(tokens) * into.in_features))
        into.bias.copy_(mean)


def prepared(decoder: Decoder, config: PretrainedConfig) -> Decoder:
    """The decoder, ready to be trained as `config` says.

    What is trained is held in float32: at these step sizes an update is mostly smaller than the gap
    between two neighbours in bfloat16, and weights of that type would not move.

    Raises:
        ConfigError: where it has no projection of a name that is to be tuned.
    """
    model = decoder.model
    model.requires_grad_(config.tuning == "full")
    if config.gradient_checkpointing:
        # renamed in the course of transformers 5, where the old name then warns
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    if config.tuning == "lora":
        model = _with_lora(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return replace(decoder, model=model)


def _with_lora(model: Any, config: PretrainedConfig) -> Any:
    """Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2022."""
    from peft import LoraConfig, LoraModel
    from transformers.pytorch_utils import Conv1D  # what GPT-2 has in the place of nn.Linear

    modules = cast(nn.Module, model).named_modules()
    able = [name for name, module in modules if isinstance(module, nn.Linear | Conv1D)]
    none = [t for t in config.lora_targets if not any(f".{name}".endswith(f".{t}") for name in able)]
    if none:
        known = sorted({name.rpartition(".")[2] for name in able})
        raise ConfigError(
            f"The backbone has no projections called {', '.join(none)} (model.pretrained.lora_targets). "
            f"It has {', '.join(known)}."
        )
    options = LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules=list(config.lora_targets) or "all-linear",
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # which it sets right itself
            return LoraModel(model, options, "default")
    except ValueError as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"The backbone can't be given low-rank additions ({why}). Set model.pretrained.tuning to full or "
            "frozen, or name other projections in model.pretrained.lora_targets."
        ) from None


def restored(shape: Mapping[str, Any]) -> Decoder:
    """A decoder of the kept shape, its weights still to be loaded; opens no file and asks no network.

    Its numbers have the type they are kept in, whatever this machine is quick at: nothing is rounded by
    being read.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.initialization import no_init_weights

    architecture, dtype = dict(shape["architecture"]), dtype_of(shape["dtype"])
    kind = architecture.pop("model_type")
    with no_init_weights():
        model = AutoModel.from_config(AutoConfig.for_model(kind, **architecture), dtype=dtype, **READING)
    model.set_input_embeddings(nn.Identity())
    model.requires_grad_(False)
    return Decoder(model, torch.zeros(shape["prefix"], model.config.hidden_size, dtype=dtype), None)
