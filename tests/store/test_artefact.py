"""An artefact comes back exactly as it was written, or says in one sentence why it can't."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from polars.testing import assert_frame_equal

from llm4rec.errors import ArtefactError
from llm4rec.store import artefact, replace
from llm4rec.store.manifest import FORMAT_VERSION, MANIFEST

DTYPES = st.sampled_from([
    "?",
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u2",
    "u4",
    "u8",
    "f2",
    "f4",
    "f8",
    "c8",
    ">i4",
    ">f8",
])


def write_model(path: Path, generation: int = 1, **options: bool) -> None:
    artefact.write(
        path,
        kind="model",
        meta={"generation": generation},
        tensors={"network": {"weight": np.full((3, 2), generation, dtype=np.float32)}},
        tables={"items": pl.DataFrame({"item_id": ["a", "b"], "rank": [1, 2]})},
        texts={"config.toml": f"generation = {generation}\n"},
        **options,
    )


def generation(path: Path) -> int:
    """The generation an artefact holds, once every part of it agrees."""
    model = artefact.read(path, "model")
    number = model.meta["generation"]
    assert model.tensors("network")["weight"].tolist() == [[number] * 2] * 3
    assert model.table("items")["item_id"].to_list() == ["a", "b"]
    assert model.text("config.toml") == f"generation = {number}\n"
    return int(number)


def fail(path: Path, kind: str = "model") -> str:
    """The sentence with which every way of reading the artefact ends."""
    with pytest.raises(ArtefactError) as caught:
        model = artefact.read(path, kind)
        model.tensors("network")
        model.table("items")
        model.text("config.toml")
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- what goes in comes out


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        DTYPES.flatmap(lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, min_side=0))),
        max_size=4,
    )
)
def test_arrays_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, written: dict) -> None:
    path = tmp_path_factory.mktemp("store") / "model"
    artefact.write(path, kind="model", meta={}, tensors={"network": written})
    read = artefact.read(path, "model").tensors("network")
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert read[name].shape == array.shape
        assert read[name].dtype == array.dtype.newbyteorder("=")
        assert read[name].tobytes() == array.astype(read[name].dtype).tobytes()


def test_a_transposed_array_keeps_its_rows(tmp_path: Path) -> None:
    columns_first = np.arange(6.0).reshape(2, 3).T
    artefact.write(tmp_path / "m", kind="model", meta={}, tensors={"network": {"weight": columns_first}})
    assert artefact.read(tmp_path / "m", "model").tensors("network")["weight"].tolist() == [
        [0, 3],
        [1, 4],
        [2, 5],
    ]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.none() | st.text(),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(width=32),
            st.none() | st.lists(st.text(max_size=3), max_size=3),
            st.none() | st.lists(st.floats(width=32), min_size=2, max_size=2),
        ),
        max_size=5,
    )
)
def test_tables_come_back_with_their_types(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    schema = {
        "text": pl.String,
        "count": pl.Int64,
        "score": pl.Float32,
        "tags": pl.List(pl.String),
        "vector": pl.Array(pl.Float32, 2),
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    path = tmp_path_factory.mktemp("store") / "model"
    artefact.write(path, kind="model", meta={}, tables={"items": table, "nothing": pl.DataFrame()})
    model = artefact.read(path, "model")
    assert model.table("items").schema == table.schema
    assert_frame_equal(model.table("items"), table)
    assert model.table("nothing").shape == (0, 0)


def test_texts_and_plain_values_come_back(tmp_path: Path) -> None:
    text = "Zeile\r\nλ = ½\n"
    meta = {
        "epochs": [1, 2],
        "best": np.float32(0.25),
        "none": None,
        "loss": float("nan"),
        "nested": {3: (True,)},
    }
    artefact.write(tmp_path / "m", kind="model", meta=meta, texts={"notes.txt": text})
    model = artefact.read(tmp_path / "m", "model")
    assert model.text("notes.txt") == text
    assert model.meta == {"epochs": [1, 2], "best": 0.25, "none": None, "loss": None, "nested": {"3": [True]}}
    assert "notes.txt" in model and "other.txt" not in model


def test_same_content_gives_the_same_files(tmp_path: Path) -> None:
    write_model(tmp_path / "one")
    write_model(tmp_path / "two")
    checksums = [json.loads((tmp_path / name / MANIFEST).read_text())["files"] for name in ("one", "two")]
    assert checksums[0] == checksums[1]
    assert len(checksums[0]) == 4


def test_no_path_is_read_as_a_pattern_or_a_partition(tmp_path: Path) -> None:
    path = tmp_path / "store=3" / "m[*]?"
    write_model(path)
    assert artefact.read(path, "model").table("items").columns == ["item_id", "rank"]


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "a\nb", "a" * 201])
def test_a_part_can_not_be_named_out_of_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name of a file"):
        artefact.write(tmp_path / "m", kind="model", meta={}, tables={name: pl.DataFrame()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["manifest.json", "meta.json", "network.safetensors", "items.parquet"])
def test_a_text_can_not_take_the_name_of_another_part(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="taken"):
        artefact.write(tmp_path / "m", kind="model", meta={}, texts={name: ""})


@pytest.mark.parametrize("array", [np.array([{}], dtype=object), np.array(["a"]), np.array([1], dtype="c16")])
def test_an_array_that_is_not_numbers_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="can't be stored"):
        artefact.write(tmp_path / "m", kind="model", meta={}, tensors={"network": {"weight": array}})


# --- what is wrong is said


def test_missing(tmp_path: Path) -> None:
    assert "There is no model" in fail(tmp_path / "nowhere")
    assert not artefact.exists(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "is a file" in fail(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "not a complete model" in fail(tmp_path / "empty")


@pytest.mark.parametrize("file", ["meta.json", "network.safetensors", "items.parquet", "config.toml"])
def test_every_file_is_guarded(tmp_path: Path, file: str) -> None:
    path = tmp_path / "m"
    write_model(path)
    whole = (path / file).read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        (path / file).write_bytes(changed)
        assert f"{file} of the model in {path} was altered" in fail(path)
    (path / file).write_bytes(whole[:-1])
    assert f"is cut short ({len(whole) - 1} of {len(whole)} bytes)" in fail(path)
    (path / file).write_bytes(whole + b"\n")
    assert "was altered (it has grown)" in fail(path)
    (path / file).unlink()
    assert f"{file} of the model in {path} is missing" in fail(path)
    (path / file).write_bytes(whole)
    assert generation(path) == 1


def test_the_manifest_guards_itself(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_model(path)
    text = (path / MANIFEST).read_text()
    for changed, sentence in [
        (text.replace('"size": ', '"size": 1', 1), "doesn't match its checksum"),
        (text[: len(text) // 2], "isn't JSON"),
        (text.replace('"format_version": 1', '"format_version": "one"'), "names no format version"),
        ("[]", "llm4rec didn't write"),
        ('{"name": "a web page"}', "llm4rec didn't write"),
        ("[" * 100_000, "isn't JSON"),
        ("", "isn't JSON"),
    ]:
        (path / MANIFEST).write_text(changed)
        assert sentence in fail(path)


def resign(path: Path, **changes: object) -> None:
    """Change the manifest and give it a checksum that fits, as one who means harm would."""
    from llm4rec.store.manifest import _digest

    values = json.loads((path / MANIFEST).read_text())
    del values["sha256"]
    values |= changes
    (path / MANIFEST).write_text(json.dumps({**values, "sha256": _digest(values)}))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/file", "..", ".hidden"])
def test_no_file_outside_the_directory_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m"
    write_model(path)
    (tmp_path / "secret").write_text("secret")
    files = json.loads((path / MANIFEST).read_text())["files"]
    resign(path, files={**files, name: {"sha256": "0" * 64, "size": 6}})
    assert "which no artefact has" in fail(path)


def test_no_link_is_followed_out_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_model(path)
    (path / "config.toml").rename(tmp_path / "elsewhere.toml")
    (path / "config.toml").symlink_to(tmp_path / "elsewhere.toml")
    assert "config.toml of the model in " in fail(path)
    assert "is not a plain file" in fail(path)


@pytest.mark.parametrize("file", [MANIFEST, "meta.json", "network.safetensors", "config.toml"])
def test_a_directory_where_a_file_should_be(tmp_path: Path, file: str) -> None:
    path = tmp_path / "m"
    write_model(path)
    (path / file).unlink()
    (path / file).mkdir()
    assert file in fail(path)


def test_a_manifest_that_is_a_link_or_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_model(path)
    (path / MANIFEST).rename(tmp_path / "elsewhere.json")
    (path / MANIFEST).symlink_to(tmp_path / "elsewhere.json")
    assert "it is not a plain file" in fail(path)
    (path / MANIFEST).unlink()
    with (path / MANIFEST).open("wb") as stream:
        stream.truncate(1 << 40)  # a file with holes: it takes no room
    assert "it is larger than 16 MiB" in fail(path)


def test_links_in_a_circle_and_names_too_long_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "There is no model" in fail(tmp_path / "a")
    assert not artefact.exists(tmp_path / "a")
    assert "can't be read" in fail(tmp_path / ("x" * 300))


def test_a_signed_but_senseless_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    for changes in [
        {"files": {"meta.json": {"sha256": 1, "size": 1}}},
        {"files": {"meta.json": {"sha256": "0" * 64, "size": -1}}},
        {"files": {"meta.json": {"sha256": "0" * 64, "size": 1.5}}},
        {"files": {"meta.json": {"sha256": "zero", "size": 1}}},
        {"format_version": 0},
        {"format_version": True},
        {"files": []},
        {"kind": None},
        {"x": 1},
    ]:
        write_model(tmp_path / "m")
        resign(path, **changes)
        assert "is damaged" in fail(path)
        for file in path.iterdir():
            file.unlink()


def test_a_size_no_file_has_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    files = json.loads((tmp_path / "m" / MANIFEST).read_text())["files"]
    for size in (2**40, 10**30):
        resign(tmp_path / "m", files={**files, "config.toml": files["config.toml"] | {"size": size}})
        assert f"config.toml of the model in {tmp_path / 'm'} is cut short" in fail(tmp_path / "m")
    (tmp_path / "m" / MANIFEST).write_text('{"format_version": ' + "1" * 5000 + "}")
    assert "isn't JSON" in fail(tmp_path / "m")


def tensors(dtype: str, size: int, shape: list[int]) -> bytes:
    """A safetensors file of one array."""
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("network.safetensors", b"nonsense"),
        ("network.safetensors", b""),
        ("network.safetensors", (2**63).to_bytes(8, "little") + b"{}"),
        ("network.safetensors", tensors("F32", 4, [2**62, 4])),
        ("network.safetensors", tensors("F32", 4, [-1])),
        ("network.safetensors", tensors("BF16", 2, [1])),
        ("network.safetensors", tensors("F8_E4M3", 1, [1])),
        ("items.parquet", b"nonsense"),
        ("items.parquet", b""),
        ("meta.json", b"[]"),
        ("meta.json", b"null"),
        ("meta.json", b"[" * 100_000),
        ("meta.json", b"\xff"),
        ("config.toml", b"\xff"),
    ],
)
def test_a_signed_but_senseless_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    import hashlib

    path = tmp_path / "m"
    write_model(path)
    files = json.loads((path / MANIFEST).read_text())["files"]
    (path / name).write_bytes(content)
    files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    resign(path, files=files)
    assert f"{name} of the model in {path} can't be understood" in fail(path)


def test_a_table_that_makes_the_reader_panic_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polars' panics are no `Exception`; that some content of a file causes them was found by fuzzing."""

    def panic(_: object) -> None:
        raise pl.exceptions.PanicException("range end out of bounds")

    write_model(tmp_path / "m")
    monkeypatch.setattr(pl, "read_parquet", panic)
    assert "items.parquet" in fail(tmp_path / "m") and "range end" in fail(tmp_path / "m")


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_model(path)
    resign(path, format_version=FORMAT_VERSION + 1, package_version="9.0", invented="later")
    assert f"format {FORMAT_VERSION + 1}, written by llm4rec 9.0" in fail(path)
    with pytest.raises(ArtefactError, match="Upgrade"):
        write_model(path)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    assert "holds a model, and a checkpoint is needed" in fail(tmp_path / "m", kind="checkpoint")


def test_a_part_it_has_not_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    with pytest.raises(ArtefactError, match=r"has no people\.parquet"):
        artefact.read(tmp_path / "m", "model").table("people")


def test_a_file_that_changes_after_opening_is_caught(tmp_path: Path) -> None:
    write_model(tmp_path / "m", 1)
    opened = artefact.read(tmp_path / "m", "model")
    write_model(tmp_path / "m", 2)
    with pytest.raises(ArtefactError, match="was altered"):
        opened.tensors("network")


# --- replacing


def test_the_newer_replaces_the_older_and_leaves_nothing_beside(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_model(tmp_path / "m", number)
        assert generation(tmp_path / "m") == number
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_replacing_can_be_forbidden(tmp_path: Path) -> None:
    write_model(tmp_path / "m", 1, overwrite=False)
    with pytest.raises(ArtefactError, match="already"):
        write_model(tmp_path / "m", 2, overwrite=False)
    assert generation(tmp_path / "m") == 1


def test_nothing_of_others_is_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtefactError, match="isn't a model written by llm4rec"):
        write_model(home)
    (home / MANIFEST).write_text('{"name": "a web page"}')
    with pytest.raises(ArtefactError, match="llm4rec didn't write"):
        write_model(home)
    assert (home / "thesis.tex").read_text() == "years of work"
    file = tmp_path / "file"
    file.write_text("years of work")
    with pytest.raises(ArtefactError, match="isn't a model written by llm4rec"):
        write_model(file)
    assert file.read_text() == "years of work"


def test_a_file_somebody_laid_inside_is_not_lost(tmp_path: Path) -> None:
    write_model(tmp_path / "m", 1)
    (tmp_path / "m" / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtefactError, match=r"'thesis\.tex' lies in the directory"):
        write_model(tmp_path / "m", 2)
    assert generation(tmp_path / "m") == 1


def test_nothing_is_written_into_an_artefact(tmp_path: Path) -> None:
    write_model(tmp_path / "m", 1)
    (tmp_path / "link").symlink_to("m")
    for place in (tmp_path / "m" / "deep" / "er", tmp_path / "link" / "n"):
        with pytest.raises(ArtefactError, match=f"lies in {tmp_path / 'm'}, which holds a model"):
            write_model(place, 2)
    for place in (tmp_path / "m", tmp_path / "link" / "deep" / "a.parquet"):
        with pytest.raises(ArtefactError, match=f"{place} lies in {tmp_path / 'm'}, which holds a model"):
            artefact.check_outside(place)
    artefact.check_outside(tmp_path / "m2")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / MANIFEST).write_text('{"name": "a web page"}')
    write_model(tmp_path / "web" / "n", 1)
    write_model(tmp_path / "m", 3)
    assert generation(tmp_path / "m") == 3
    (tmp_path / "m").rename(tmp_path / ".m.previous")  # as a crash leaves one that is being replaced
    with pytest.raises(ArtefactError, match="which holds a model"):
        artefact.check_outside(tmp_path / "m")


def test_another_kind_is_not_replaced(tmp_path: Path) -> None:
    write_model(tmp_path / "m", 1)
    with pytest.raises(ArtefactError, match="holds a model"):
        artefact.write(tmp_path / "m", kind="checkpoint", meta={})
    assert generation(tmp_path / "m") == 1


def test_a_damaged_one_can_be_replaced(tmp_path: Path) -> None:
    write_model(tmp_path / "m", 1)
    (tmp_path / "m" / "items.parquet").unlink()
    write_model(tmp_path / "m", 2)
    assert generation(tmp_path / "m") == 2


def test_an_empty_directory_is_filled_and_a_link_keeps_its_aim(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_model(tmp_path / "link", 1)
    write_model(tmp_path / "link", 2)
    assert generation(tmp_path / "real") == 2
    assert (tmp_path / "link").is_symlink()


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="can't be written to"):
        write_model(tmp_path / "file" / "m")


# --- crashes


@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_refuses_leaves_the_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    write_model(tmp_path / "m", 1)
    calls, real = [], os.replace

    def refuse(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ArtefactError, match="No space left on device"):
        write_model(tmp_path / "m", 2)
    assert generation(tmp_path / "m") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("where", "left"), [("replace1", 1), ("replace2", 1), ("rmtree", 2), ("manifest", 1)]
)
def test_a_killed_writer_leaves_one_that_loads(tmp_path: Path, where: str, left: int) -> None:
    """The process ends at once, with no handler run, before the named step."""
    path = tmp_path / "m"
    write_model(path, 1)
    script = textwrap.dedent(f"""
        import os, shutil, sys
        from pathlib import Path
        import numpy as np, polars as pl
        from llm4rec.store import artefact, manifest

        def dying(real, wanted, seen=[]):
            def call(*arguments, **options):
                seen.append(1)
                if len(seen) == wanted:
                    os._exit(9)
                return real(*arguments, **options)
            return call

        where = {where!r}
        if where.startswith("replace"):
            os.replace = dying(os.replace, int(where[-1]))
        elif where == "rmtree":
            shutil.rmtree = dying(shutil.rmtree, 2, [])  # the first call sweeps, before anything is written
        else:
            manifest.Manifest.to_json = dying(manifest.Manifest.to_json, 1)
        artefact.write(
            Path({str(path)!r}), kind="model", meta={{"generation": 2}},
            tensors={{"network": {{"weight": np.full((3, 2), 2, dtype=np.float32)}}}},
            tables={{"items": pl.DataFrame({{"item_id": ["a", "b"], "rank": [1, 2]}})}},
            texts={{"config.toml": "generation = 2\\n"}},
        )
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert artefact.exists(path)
    assert generation(path) == left
    write_model(path, 3)
    assert generation(path) == 3
    # what the dead writer left unfinished goes once it is old enough not to be somebody's work
    for entry in tmp_path.iterdir():
        if entry != path:
            os.utime(entry, (0, 0))
    write_model(path, 4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_a_crash_does_not_hide_the_older_from_a_writer_that_may_not_replace(tmp_path: Path) -> None:
    write_model(tmp_path / "m", 1)
    (tmp_path / "m").rename(replace.previous(tmp_path / "m"))
    with pytest.raises(ArtefactError, match="already"):
        write_model(tmp_path / "m", 2, overwrite=False)
    assert generation(tmp_path / "m") == 1


def test_an_index_is_checked_and_may_be_removed(tmp_path: Path) -> None:
    place = tmp_path / "a"
    parts = {"texts": {"note.txt": "kept"}, "indexes": {"near": lambda file: file.write_bytes(b"cells")}}
    artefact.write(place, kind="k", meta={}, **parts)
    read = artefact.read(place, "k")
    assert read.index("near", Path.read_bytes) == b"cells" and read.index("far", Path.read_bytes) is None
    (place / "near.index").write_bytes(b"other")
    with pytest.raises(ArtefactError, match=r"near\.index .*was altered"):
        artefact.read(place, "k").index("near", Path.read_bytes)
    (place / "near.index").write_bytes(b"cut")
    with pytest.raises(ArtefactError, match="cut short"):
        artefact.read(place, "k")
    (place / "near.index").unlink()
    (place / "near.index").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtefactError, match="not a plain file"):
        artefact.read(place, "k")
    (place / "near.index").unlink()
    without = artefact.read(place, "k")
    assert without.index("near", Path.read_bytes) is None and without.text("note.txt") == "kept"
    artefact.write(place, kind="k", meta={}, **parts)  # what is left is replaced as ever
    with pytest.raises(ValueError, match="can't be the name of a file"):
        artefact.write(tmp_path / "b", kind="k", meta={}, indexes={"../near": lambda file: None})
