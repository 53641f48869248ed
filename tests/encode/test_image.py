"""Image files become unit vectors by what is in them; what can't be read is missing and said."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from llm4rec.data.catalog import Catalog, Field
from llm4rec.encode.image import ImageConfig, ImageEncoder, encode_images, open_images, reopen_images
from llm4rec.encode.image_files import content_of, open_image
from llm4rec.encode.text import TextConfig
from llm4rec.encode.tokens import fit_tokens
from llm4rec.encode.vectors import FrozenVectors, frozen_vectors
from llm4rec.errors import ConfigError, InputError
from llm4rec.types import Array, Floats

RED, GREEN, BLUE = (200, 20, 30), (10, 180, 40), (30, 40, 220)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """red.png, green.png, blue.png, red again as copy.png, noise.png, broken.png, cut.png."""
    directory = tmp_path / "pictures"
    directory.mkdir()
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE), ("copy", RED)):
        Image.new("RGB", (48, 40), colour).save(directory / f"{name}.png")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(directory / "noise.png")
    (directory / "broken.png").write_bytes(b"this is no image")
    (directory / "cut.png").write_bytes((directory / "noise.png").read_bytes()[:2000])
    return directory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM4REC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def opened(directory: Path, **options: int) -> ImageEncoder:
    encoder = open_images(ImageConfig(encoder=str(directory), **options))
    assert encoder is not None
    return encoder


def encoded(
    directory: Path, *paths: Path | str | None, cache: Path | None = None
) -> tuple[Floats, list[str]]:
    column = pl.Series("photo", [None if path is None else str(path) for path in paths], dtype=pl.String)
    return encode_images(opened(directory), column, cache=cache)


def items(*paths: Path | None) -> Catalog:
    photos = pl.Series([None if path is None else str(path) for path in paths], dtype=pl.String)
    table = pl.DataFrame({"item_id": [str(row) for row in range(len(paths))], "photo": photos})
    return Catalog(table, (Field("photo", "image"),))


def frozen(catalog: Catalog, directory: Path | None, name: str | None = None) -> FrozenVectors:
    images = ImageConfig(encoder=None if directory is None else str(directory))
    return frozen_vectors(catalog, TextConfig(encoder="hash"), images, image_encoder=name)


def pixels_of(file: Path) -> Array:
    return np.asarray(open_image(file, content_of(file)))


# --- vectors


def test_images_become_unit_vectors_and_equal_files_equal_ones(clip: Path, pictures: Path) -> None:
    paths = [pictures / f"{name}.png" for name in ("red", "green", "copy", "noise")]
    vectors, notes = encoded(clip, paths[0], None, *paths[1:])
    assert vectors.shape == (5, 8) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3
    assert notes == []


def test_vectors_are_those_of_the_model_itself(clip: Path, pictures: Path) -> None:
    """The same model and processor by hand, without sentence-transformers."""
    import torch
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    bare = clip.with_name("clip-bare")
    shown = CLIPImageProcessorPil.from_pretrained(bare)(
        Image.open(pictures / "noise.png"), return_tensors="pt"
    )
    model = CLIPModel.from_pretrained(bare)
    with torch.no_grad():
        pooled = model.vision_model(**shown).pooler_output
        expected = model.visual_projection(pooled)[0].numpy()
    vectors, _ = encoded(clip, pictures / "noise.png")
    np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_a_bare_transformers_directory_will_do(clip: Path, pictures: Path) -> None:
    there, _ = encoded(clip, pictures / "noise.png")
    bare, _ = encoded(clip.with_name("clip-bare"), pictures / "noise.png")
    np.testing.assert_allclose(there, bare, atol=1e-6)


def test_vectors_do_not_depend_on_the_batch(clip: Path, pictures: Path) -> None:
    names = [str(pictures / f"{name}.png") for name in ("red", "noise", "green", "blue", "broken")]
    told: list[tuple[str, int, int]] = []

    def note(stage: str, done: int, total: int, **_: float) -> None:
        told.append((stage, done, total))

    alone, _ = encode_images(opened(clip, batch_size=1), pl.Series("photo", names), cache=None, progress=note)
    assert told == [("find images", 5, 5), *(("encode images", done, 5) for done in (1, 2, 3, 4, 5))]
    together, _ = encode_images(opened(clip), pl.Series("photo", names[::-1]), cache=None)
    np.testing.assert_allclose(alone, together[::-1], atol=1e-5)


def test_relative_paths_start_at_the_current_directory(
    clip: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    relative, notes = encoded(clip, "red.png", "gone.png")
    np.testing.assert_array_equal(relative[0], encoded(clip, pictures / "red.png")[0][0])
    assert f"Relative paths start at {pictures}." in notes[0]


# --- what the model is shown


def test_transparent_pixels_are_white_and_palettes_are_colours(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.putpixel((0, 0), (*BLUE, 255))
    clear.save(tmp_path / "clear.png")
    found = pixels_of(tmp_path / "clear.png")
    assert found[0, 0].tolist() == list(BLUE) and found[4, 4].tolist() == [255, 255, 255]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "palette.png", transparency=b"\x00\xff")
    found = pixels_of(tmp_path / "palette.png")
    assert found[0, 0].tolist() == [255, 255, 255] and found[4, 4].tolist() == list(RED)


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x8040, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert pixels_of(tmp_path / "deep.png")[0, 0].tolist() == [0x80] * 3


def test_an_image_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    upright = Image.new("RGB", (8, 16), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright.save(tmp_path / "turned.jpg", exif=exif)
    assert pixels_of(tmp_path / "turned.jpg").shape == (8, 16, 3)


def test_a_very_long_image_loses_its_ends(tmp_path: Path) -> None:
    long = np.zeros((8, 1000, 3), dtype=np.uint8)
    long[:, 500] = 255
    Image.fromarray(long).save(tmp_path / "long.png")
    found = pixels_of(tmp_path / "long.png")
    assert found.shape == (8, 128, 3)
    assert found[:, 64].min() == 255 and found.sum() == 8 * 3 * 255


# --- what can't be read


def test_what_cannot_be_read_is_missing_counted_and_the_first_is_named(clip: Path, pictures: Path) -> None:
    Image.new("RGB", (1, 1)).save(pictures / "dot.png")
    os.mkfifo(pictures / "pipe.png")
    bad = ["broken.png", "cut.png", "gone.png", "dot.png", "pipe.png", "", "a\x00b.png", "x" * 300 + ".png"]
    paths = [pictures / "red.png", *(pictures / name for name in bad), pictures / "broken.png", None]
    vectors, notes = encoded(clip, *paths)
    assert np.flatnonzero(vectors.any(axis=1)).tolist() == [0]
    assert len(notes) == 1
    assert "'photo' that can't be read: 8." in notes[0]  # the same file twice is one, the directory is one
    assert f"the first is '{pictures / 'broken.png'}' (not an image as JPEG" in notes[0]
    assert "Relative" not in notes[0]


@pytest.mark.parametrize(("name", "why"), [
    ("cut.png", "truncated"), ("gone.png", "no such file"), ("dot.png", "only 1 × 1 pixels"),
    ("vast.png", "exceeds limit"), ("run.eps", "not an image as"),
])  # fmt: skip
def test_the_cause_is_told(
    clip: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    Image.new("RGB", (1, 1)).save(pictures / "dot.png")
    Image.new("RGB", (50, 50)).save(pictures / "run.eps")
    Image.new("RGB", (50, 50)).save(pictures / "vast.png")
    if name == "vast.png":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    vectors, notes = encoded(clip, pictures / name)
    assert not vectors.any()
    assert why in notes[0]


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "HTTP://x/a.png", "file:///etc/a.png", "data:image/png;base64,AA"]
)
def test_urls_are_never_fetched(clip: Path, pictures: Path, url: str) -> None:
    vectors, notes = encoded(clip, url, pictures / "red.png")
    assert vectors.any(axis=1).tolist() == [False, True]
    assert len(notes) == 1 and "URLs in the image column 'photo': 1. They are never fetched" in notes[0]


# --- the cache


def test_each_content_is_encoded_once_wherever_it_lies(
    clip: Path, pictures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    run = ImageEncoder.run

    def counting(self: ImageEncoder, images: list[Image.Image]) -> Floats:
        shown.append(len(images))
        return run(self, images)

    monkeypatch.setattr(ImageEncoder, "run", counting)
    cold, _ = encoded(clip, pictures / "red.png", pictures / "copy.png", pictures / "blue.png", cache=cache)
    assert shown == [2]
    moved = pictures.rename(pictures.with_name("moved"))
    warm, _ = encoded(clip, moved / "blue.png", moved / "copy.png", cache=cache)
    assert shown == [2]
    assert np.array_equal(warm, cold[[2, 0]])
    (moved / "blue.png").write_bytes((moved / "noise.png").read_bytes())  # another content under a known path
    changed, _ = encoded(clip, moved / "blue.png", cache=cache)
    assert shown == [2, 1]
    assert not np.array_equal(changed[0], cold[2])


def test_a_failure_is_not_kept(clip: Path, pictures: Path, cache: Path) -> None:
    for _ in range(2):
        _, notes = encoded(clip, pictures / "broken.png", pictures / "red.png", cache=cache)
        assert "can't be read: 1." in notes[0]
    assert len(list(cache.rglob("*.safetensors"))) == 1


def test_a_file_that_changes_while_it_is_read_spoils_no_cache(pictures: Path) -> None:
    content = content_of(pictures / "red.png")
    (pictures / "red.png").write_bytes((pictures / "blue.png").read_bytes())
    with pytest.raises(ValueError, match="changed while it was read"):
        open_image(pictures / "red.png", content)


def test_a_warm_cache_loads_no_model(clip: Path, pictures: Path, cache: Path) -> None:
    encoded(clip, pictures / "red.png", cache=cache)
    code = (
        "import sys, pathlib, polars; from llm4rec.encode.image import *\n"
        "e = open_images(ImageConfig(encoder=sys.argv[1]))\n"
        "v, _ = encode_images(e, polars.Series('p', [sys.argv[2]]), cache=pathlib.Path(sys.argv[3]))\n"
        "assert v.shape == (1, 8) and abs((v ** 2).sum() - 1) < 1e-5\n"
        "assert not {'torch', 'transformers', 'sentence_transformers', 'PIL'} & set(sys.modules)"
    )
    arguments = [str(clip), str(pictures / "red.png"), str(cache)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def test_loading_says_nothing_and_leaves_random_numbers_alone(
    clip: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    before, level = torch.random.get_rng_state(), logging.getLogger().level
    capfd.readouterr()
    encoded(clip, pictures / "red.png")
    assert torch.equal(before, torch.random.get_rng_state())
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().level == level


# --- which encoder


def test_without_an_encoder_paths_are_left_out_and_said(pictures: Path) -> None:
    assert open_images(ImageConfig()) is None
    found = frozen(items(pictures / "red.png"), None)
    assert found.by_field == {} and found.image_encoder is None
    assert "'photo' holds paths" in found.notes[0] and "encode.image.encoder" in found.notes[0]


def test_an_encoder_without_paths_is_not_opened_and_said() -> None:
    found = frozen(Catalog(pl.DataFrame({"item_id": ["a"]})), Path("nowhere"))
    assert found.image_encoder is None
    assert "is not used" in found.notes[0]


def test_names_of_hubs_and_other_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'openai/clip' .*encode\.image\.encoder.* not downloaded"):
        opened(Path("openai/clip"))
    with pytest.raises(ConfigError, match="holds no model"):
        opened(tmp_path)


@pytest.mark.parametrize("kind", ["clip", "clip-bare"])
def test_weights_as_a_pickle_are_refused_and_never_read(clip: Path, tmp_path: Path, kind: str) -> None:
    directory = shutil.copytree(clip.with_name(kind), tmp_path / "model")
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")  # ends the process that reads it
    with pytest.raises(ConfigError, match="no weights as safetensors"):
        opened(directory)


def test_one_module_as_a_pickle_is_refused_too(clip: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(clip, tmp_path / "model")
    (directory / "1_Dense").mkdir()
    (directory / "1_Dense" / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
    with pytest.raises(ConfigError, match="no weights as safetensors"):
        opened(directory)
    with pytest.raises(InputError, match=r"1_Dense/pytorch_model\.bin is a pickle"):
        ImageEncoder(directory, batch_size=1).run([Image.new("RGB", (32, 32))])


def test_code_in_a_directory_is_not_run(clip: Path, pictures: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(clip, tmp_path / "model")
    modules = (directory / "modules.json").read_text().replace("sentence_transformers.", "evil.", 1)
    (directory / "modules.json").write_text(modules)
    (directory / "evil.py").write_text("import os; os.abort()")
    with pytest.raises(InputError, match="can't be read as a sentence-transformers directory"):
        encoded(directory, pictures / "red.png")


def test_a_model_of_texts_is_refused(pictures: Path) -> None:
    from llm4rec.encode.text import _packaged

    directory = _packaged()
    assert directory is not None
    with pytest.raises(InputError, match="can't read images"):
        encoded(directory, pictures / "red.png")


# --- later items


def test_a_later_image_is_read_as_those_at_fit_time(clip: Path, pictures: Path) -> None:
    catalog = items(pictures / "red.png", None, pictures / "noise.png")
    found = frozen(catalog, clip)
    assert found.image_encoder == opened(clip).name and found.notes == []
    space = fit_tokens(catalog, found.by_field, max_values=1, max_vocabulary=1, min_count=1)
    assert space.widths == {"image": 8}
    then = space.transform(catalog, found.by_field)["image"]
    assert then.present.tolist() == [True, False, True]
    fresh = items(pictures / "noise.png", pictures / "gone.png")
    late = frozen(fresh, clip, found.image_encoder)
    tokens = space.transform(fresh, late.by_field)["image"]
    np.testing.assert_allclose(tokens.values[0], then.values[2], atol=1e-5)
    assert tokens.present.tolist() == [True, False]
    assert "can't be read: 1." in late.notes[0]


def test_a_column_of_which_nothing_can_be_read_is_left_out(clip: Path, pictures: Path) -> None:
    found = frozen(items(pictures / "gone.png"), clip)
    assert found.by_field == {}
    assert "it is left out" in found.notes[-1]


def test_another_model_is_not_taken_for_the_same(clip: Path, tmp_path: Path) -> None:
    config = ImageConfig(encoder=str(clip))
    name = opened(clip).name
    assert reopen_images(config, name).name == name
    other = shutil.copytree(clip, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(InputError, match=rf"fitted with the image encoder {name}, but this is images-"):
        reopen_images(ImageConfig(encoder=str(other)), name)
    with pytest.raises(InputError, match="no encoder is named"):
        reopen_images(ImageConfig(), name)
