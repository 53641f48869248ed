"""Tiny language models with random weights, saved as the hub would give them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Read once, when torch and numpy are loaded, which is why this file loads neither. Threads that wait for each
# other cost a busy machine many times the work they share, and what tests compute is small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["NUMBA_DISABLE_JIT"] = "1"  # numba reads it once; compiling takes longer than what ranx compares
settings.register_profile("patient", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("patient")

WORDS = ("recommend", "the", "next", "film", "to", "watch")


def save_decoder(place: Path, family: str) -> Path:
    """A causal model of `family` with two layers, and a tokenizer that knows a few words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    config: Any = AutoConfig.for_model(
        family, vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library deprecates in its own saving
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4)  # a real model's layers say something
        model.save_pretrained(place)
    words = {word: number for number, word in enumerate(("<pad>", "<s>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a tiny model of a family, made once."""
    made: dict[str, Path] = {}

    def place(family: str) -> Path:
        if family not in made:
            made[family] = save_decoder(tmp_path_factory.mktemp(family), family)
        return made[family]

    return place
