"""A CLIP of a few thousand random weights, saved as a sentence-transformers directory."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads images into 8 numbers."""
    return make_clip(tmp_path_factory.mktemp("models") / "clip", seed=0)


def make_clip(directory: Path, seed: int) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 8}
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    text = {"vocab_size": 3, "num_hidden_layers": 1, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"num_hidden_layers": 2, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(
            CLIPConfig(text_config=small | text, vision_config=small | vision, projection_dim=8)
        )
    bare = directory.with_name(f"{directory.name}-bare")
    model.save_pretrained(bare)
    CLIPProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=CLIPTokenizerFast(vocab=words, merges=[]),
    ).save_pretrained(bare)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = SentenceTransformer(str(bare), device="cpu", local_files_only=True)
        loaded.save(str(directory), create_model_card=False)
    assert os.listdir(directory)
    return directory
