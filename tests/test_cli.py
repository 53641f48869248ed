"""The command line from outside: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import unicodedata
from collections.abc import Generator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from typer.testing import CliRunner, Result

from llm4rec.bench import facts
from llm4rec.cli import app, console
from llm4rec.cli.recommend import as_text, utc_seconds
from llm4rec.errors import InputError
from llm4rec.explain.language_model import Message
from llm4rec.model.linear import Linear
from llm4rec.recommender import Recommender
from llm4rec.types import Query

TINY = [
    "train.epochs=2", "train.attention_epochs=1", "train.batch_size=64", "model.embedding_size=8",
    "model.layers=1", "model.heads=1", "encode.text.encoder=hash",
]  # fmt: skip
SETTINGS = [part for setting in TINY for part in ("--set", setting)]
N_USERS, N_ITEMS, N_EVENTS = 40, 30, 9
COMMANDS = [
    [],
    ["demo"],
    ["data"],
    ["data", "get"],
    ["fit"],
    ["recommend"],
    ["explain"],
    ["evaluate"],
    ["audit"],
    ["items"],
    ["correct"],
    ["events"],
    ["learn"],
    ["forget-user"],
    ["bench"],
]


def llm4rec(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from llm4rec.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def answered(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def write_data(folder: Path) -> None:
    """Everybody walks along the items, each from another start."""
    rows = [
        (f"u{u}", f"i{(u + step) % N_ITEMS}", 1_600_000_000 + 86_400 * step + u, 1 + (u + step) % 5)
        for u in range(N_USERS)
        for step in range(N_EVENTS)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    items = pl.DataFrame({
        "item_id": [f"i{i}" for i in range(N_ITEMS)],
        "title": [f"Tale {i} of {'the sea' if i % 2 else 'a town'}" for i in range(N_ITEMS)],
        "genres": [["calm", "wet"][i % 2 :] for i in range(N_ITEMS)],
    })
    events.write_parquet(folder / "interactions.parquet")
    items.write_parquet(folder / "items.parquet")
    events.write_csv(folder / "events.csv")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fitted") / "model"
    files = ("--interactions", data / "events.csv", "--items", data / "items.parquet")
    result = llm4rec("fit", *files, "--out", place, *SETTINGS)
    assert result.exit_code == 0, result.stderr
    return place


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command) or "root")
def test_every_help_has_an_example(command: list[str]) -> None:
    result = llm4rec(*command, "--help")
    assert result.exit_code == 0
    if command != ["data"]:
        assert f"Example:\n    llm4rec {' '.join(command)}".rstrip() in result.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom llm4rec.cli import app\nfrom typer.testing import CliRunner\n"
        f"for command in {COMMANDS}:\n"
        "    assert CliRunner().invoke(app, [*command, '--help']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['--version']).exit_code == 0\n"
        "heavy = ('torch', 'transformers', 'sentence_transformers', 'polars', 'pyarrow', 'numpy', 'scipy', "
        "'sqlalchemy', 'safetensors')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_package() -> None:
    result = llm4rec("--version")
    assert (result.exit_code, result.stdout.strip()) == (0, metadata.version("llm4rec"))


def test_fit_says_what_it_did_and_leaves_no_checkpoint(data: Path, tmp_path: Path) -> None:
    found = answered(
        llm4rec("fit", "--interactions", data / "events.csv", "--items", data / "items.parquet",
                "--out", tmp_path / "model", *SETTINGS, "--json")
    )  # fmt: skip
    held_out = N_USERS  # everybody's last event chooses the epoch
    assert (found["people"], found["items"]) == (N_USERS, N_ITEMS)
    assert (found["events"], found["held_out"]) == (N_USERS * N_EVENTS - held_out, held_out)
    assert found["rejected"] == 0 and found["rejected_file"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_fit_weighs_events_by_a_column_of_propensities(data: Path, tmp_path: Path) -> None:
    events = pl.read_parquet(data / "interactions.parquet")
    chances = pl.Series("chance", [(1 + row % 4) / 4 for row in range(len(events))])
    events.with_columns(chances).write_csv(tmp_path / "events.csv")
    place, wanted = tmp_path / "model", ("--set", "debias.selection.of=logged")
    command = ("fit", "--interactions", tmp_path / "events.csv", "--items", data / "items.parquet", "--out",
               place, *SETTINGS, *wanted, "--set", "debias.selection.weights=snips")  # fmt: skip
    lacks = llm4rec(*command)
    assert lacks.exit_code == 2 and "--map propensity=COLUMN" in lacks.stderr and not place.exists()
    said = llm4rec(*command, "--map", "propensity=chance")
    assert said.exit_code == 0, said.stderr
    assert "Events were weighed by inverse propensities (snips, logged): 320 of them" in said.stdout
    found = answered(llm4rec(*command, "--map", "propensity=chance", "--json"))["selection"]
    assert (found["weights"], found["of"], found["events"]) == ("snips", "logged", N_USERS * (N_EVENTS - 1))
    assert 0 < found["effective"] < found["events"] and found["largest"] > 1
    loaded = Recommender.load(place)
    assert loaded.meta["selection"] == found
    assert "propensity" not in pl.read_parquet(place / "histories.parquet").columns
    twice = llm4rec(
        *command, "--set", "debias.selection.of=popularity", "--set", "debias.popularity.choose=true"
    )
    assert twice.exit_code == 2 and "that would be twice" in twice.stderr


def test_fit_reads_reviews_and_tags_beside_the_events(data: Path, tmp_path: Path) -> None:
    rows = [(f"u{u}", f"i{(u + step) % N_ITEMS}", "shiny") for u in range(N_USERS) for step in range(5)]
    schema = ["userId", "movieId", "tag"]
    pl.DataFrame([*rows, ("u1", "i99", "lost")], schema=schema, orient="row").write_csv(tmp_path / "tags.csv")
    files = ("--interactions", data / "events.csv", "--items", data / "items.parquet")
    place = tmp_path / "model"
    found = answered(llm4rec("fit", *files, "--tags", tmp_path / "tags.csv", "--out", place, *SETTINGS,
                             "--set", 'retrieve.kinds=["tag"]', "--json"))  # fmt: skip
    assert found["rejected"] == 1 and "retrieval" in found
    aside = pl.read_parquet(found["rejected_file"]).row(0, named=True)
    assert (aside["row"], aside["reason"]) == (len(rows) + 2, "the item i99 is not in the items file")
    missing = llm4rec("fit", *files, "--out", place, *SETTINGS, "--set", 'retrieve.kinds=["review"]')
    assert missing.exit_code == 2 and "'review': that needs reviews" in missing.stderr
    unread = llm4rec("fit", *files, "--reviews", data / "items.parquet", "--out", place, *SETTINGS)
    assert unread.exit_code == 2 and "items.parquet has no column 'user_id'" in unread.stderr


def test_fit_without_a_terminal_logs_a_line_per_epoch(data: Path, tmp_path: Path) -> None:
    files = ("--interactions", data / "events.csv", "--items", data / "items.parquet")
    lines = llm4rec("fit", *files, "--out", tmp_path / "model", *SETTINGS).stderr.splitlines()
    epochs = [line for line in lines if "loss" in line and "1/2" in line]
    assert len(epochs) >= 1
    assert not [line for line in lines if "\x1b" in line or "\r" in line]


def test_bad_rows_are_set_aside_and_counted(data: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text((data / "events.csv").read_text() + ",i1,1600000000,3\nu1,i2,soon,3\n")
    files = ("--interactions", events, "--items", data / "items.parquet")
    result = llm4rec("fit", *files, "--out", tmp_path / "model", *SETTINGS)
    assert result.exit_code == 0, result.stderr
    assert "2 rows were set aside" in result.stdout
    rejected = pl.read_parquet(tmp_path / "model.rejected.parquet")
    assert rejected.height == 2
    assert {"file", "row", "column", "reason"} <= set(rejected.columns)


def test_what_is_set_aside_is_of_this_run_and_nobody_elses_is_touched(data: Path, tmp_path: Path) -> None:
    publishers = tmp_path / "rejected.parquet"  # as `data get` leaves it
    pl.DataFrame({"file": ["f"], "row": [1], "column": ["c"], "reason": ["r"]}).write_parquet(publishers)
    written = publishers.read_bytes()
    clean = (data / "events.csv").read_text()
    events, aside = tmp_path / "events.csv", tmp_path / "model.rejected.parquet"
    asked = ("fit", "--interactions", events, "--out", tmp_path / "model", *SETTINGS)
    for rows, left in (("u1,i2,soon,3\n", True), ("", False)):
        events.write_text(clean + rows)
        assert llm4rec(*asked).exit_code == 0
        assert aside.exists() is left
        assert publishers.read_bytes() == written


def test_a_file_that_was_never_set_aside_is_not_removed(tmp_path: Path) -> None:
    from llm4rec.data.files import REJECTED

    mine = tmp_path / "mine.parquet"
    for write in (
        lambda: mine.write_text("years of work"),
        lambda: pl.DataFrame({"a": [1]}).write_parquet(mine),
    ):
        write()
        assert console.set_aside(pl.DataFrame(schema=REJECTED), mine) == 0
        assert mine.exists()


@pytest.mark.parametrize(
    ("place", "expected"), [("a/model", "a/model.x"), ("model/", "model.x"), ("a/m.v2", "a/m.v2.x")]
)
def test_what_lies_beside_is_named_after_its_neighbour(place: str, expected: str) -> None:

    assert console.beside(Path(place), ".x") == Path(expected)


def test_nothing_lies_inside_its_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    (tmp_path / "model" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "model")
    assert console.beside(Path("."), ".x") == tmp_path / "model.x"
    monkeypatch.chdir(tmp_path / "model" / "inner")
    assert console.beside(Path(".."), ".x") == tmp_path / "model.x"


def write_splits(data: Path, file: Path) -> None:
    """The last event of each person is test, the one before valid."""
    events = pl.read_parquet(data / "interactions.parquet")
    place = pl.col("timestamp").rank("ordinal").over("user_id")
    part = pl.when(place == N_EVENTS).then(pl.lit("test")).when(place == N_EVENTS - 1).then(pl.lit("valid"))
    events.with_columns(split=part.otherwise(pl.lit("train"))).write_parquet(file)


def test_a_split_is_fitted_on_its_train_rows_and_keeps_whole_histories(data: Path, tmp_path: Path) -> None:
    file, model = tmp_path / "splits.parquet", tmp_path / "model"
    write_splits(data, file)
    found = answered(llm4rec("fit", "--interactions", file, "--out", model, *SETTINGS, "--json"))
    assert (found["events"], found["held_out"]) == (N_USERS * (N_EVENTS - 2), N_USERS * 2)
    # nobody is recommended what they did, be it in valid or test rows
    listed = answered(llm4rec("recommend", "--model", model, "--user", "u3", "-n", N_ITEMS, "--json"))
    seen = {f"i{(3 + step) % N_ITEMS}" for step in range(N_EVENTS)}
    assert {row["item_id"] for row in listed["recommendations"]} == {f"i{i}" for i in range(N_ITEMS)} - seen
    # its own test rows it has not learnt from; asked for as later events, nobody can tell
    asked = ("evaluate", "--model", model, "--interactions", file, "--json")
    assert not any("too good" in note for note in answered(llm4rec(*asked, "--protocol", "given"))["notes"])
    assert any("too good" in note for note in answered(llm4rec(*asked))["notes"])


def test_columns_are_mapped_by_role(data: Path, tmp_path: Path) -> None:
    renamed = pl.read_csv(data / "events.csv").rename({"user_id": "customer", "item_id": "sku"})
    renamed.write_csv(tmp_path / "events.csv")
    found = answered(
        llm4rec("fit", "--interactions", tmp_path / "events.csv", "--items", data / "items.parquet",
                "--map", "user=customer,item=sku", "--modality", "title=text",
                "--out", tmp_path / "model", *SETTINGS, "--json")
    )  # fmt: skip
    assert found["people"] == N_USERS


def test_options_of_the_configuration_are_listed() -> None:
    result = llm4rec("fit", "--help-config")
    assert result.exit_code == 0
    promised = ("train.epochs", "train.learning_rate", "train.batch_size", "train.seed", "model.backbone",
                "model.embedding_size", "model.layers", "data.min_rating", "data.max_history")  # fmt: skip
    for key in promised:
        assert f"\n{key} = " in f"\n{result.stdout}"


def test_recommend_to_a_known_person(model: Path) -> None:
    found = answered(llm4rec("recommend", "--model", model, "--user", "u3", "-n", 5, "--json"))
    assert found["model"] == str(model)
    listed = found["recommendations"]
    assert [row["rank"] for row in listed] == [1, 2, 3, 4, 5]
    assert [row["score"] for row in listed] == sorted((row["score"] for row in listed), reverse=True)
    seen = {f"i{(3 + step) % N_ITEMS}" for step in range(N_EVENTS)}
    assert not seen & {row["item_id"] for row in listed}
    assert listed[0]["title"].startswith("Tale ")


def test_scores_are_log_probabilities(model: Path) -> None:
    import math

    found = answered(
        llm4rec("recommend", "--model", model, "--history", "i1,i2", "-n", N_ITEMS, "--keep-seen", "--json")
    )
    total = sum(math.exp(row["score"]) for row in found["recommendations"])
    assert len(found["recommendations"]) == N_ITEMS
    assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "asked",
    [
        ("--user", "nobody"),
        ("--history", "i1,i2,i3"),
        ("--history", ""),
        ("--history", "i1,never-seen"),
        ("--history", "never-seen"),
        ("--text", "something about the sea"),
        ("--user", "u1", "--text", "the sea"),
    ],
)
def test_everybody_is_served(model: Path, asked: tuple[str, ...]) -> None:
    found = answered(llm4rec("recommend", "--model", model, *asked, "--json"))
    assert len({row["item_id"] for row in found["recommendations"]}) == 10


def test_a_stranger_is_told_apart(model: Path) -> None:
    asked = ("recommend", "--model", model, "--user")
    assert "no history of 'nobody'" in llm4rec(*asked, "nobody").stderr
    assert llm4rec(*asked, "u1").stderr == ""


def test_histories_can_be_left_out_of_the_model(data: Path, tmp_path: Path) -> None:
    files = ("--interactions", data / "events.csv", "--items", data / "items.parquet")
    llm4rec("fit", *files, "--out", tmp_path / "model", *SETTINGS, "--no-histories")
    assert not list((tmp_path / "model").glob("*memor*"))
    kept = json.loads((tmp_path / "model" / "meta.json").read_text())["config"]["retrieve"]
    assert kept["memories"] == 0
    result = llm4rec("recommend", "--model", tmp_path / "model", "--user", "u1")
    assert result.exit_code == 0 and "no history of 'u1'" in result.stderr
    stored = b"".join(file.read_bytes() for file in (tmp_path / "model").rglob("*") if file.is_file())
    assert b"u1" not in stored


def test_unknown_items_of_a_history_are_named(model: Path) -> None:
    result = llm4rec("recommend", "--model", model, "--history", "i1,never-seen")
    assert "1 of 2 items of the history are not in the catalogue" in result.stderr
    assert "never-seen" in result.stderr


def test_excluded_items_stay_out_and_short_lists_are_short(model: Path) -> None:
    out = ",".join(f"i{i}" for i in range(2, N_ITEMS))
    asked = ("recommend", "--model", model, "--history", "i0", "--exclude", out)
    assert [row["item_id"] for row in answered(llm4rec(*asked, "--json"))["recommendations"]] == ["i1"]
    nothing = llm4rec("recommend", "--model", model, "--history", "i0,i1", "--exclude", out)
    assert nothing.exit_code == 0
    assert "no item left" in nothing.stdout


def test_lists_can_be_narrowed_down_by_id_and_by_category(model: Path) -> None:
    asked = ("recommend", "--model", model, "--history", "i0", "--json")
    allowed = llm4rec(*asked, "--allow", "i0,i4,i7,ghost")
    assert {row["item_id"] for row in answered(allowed)["recommendations"]} == {"i4", "i7"}
    assert "1 of 4 items of --allow are not in the catalogue and are passed over: ghost." in allowed.stderr
    spared = llm4rec(*asked, "--exclude", "ghost,i1")
    assert "1 of 2 items of --exclude are not in the catalogue" in spared.stderr
    calm = llm4rec(*asked, "--where", "genres=calm", "--where", "genres=stormy", "-n", 5)
    assert all(int(row["item_id"][1:]) % 2 == 0 for row in answered(calm)["recommendations"])
    assert len(answered(calm)["recommendations"]) == 5
    assert "No item has genres = stormy." in calm.stderr
    wrong = llm4rec(*asked, "--where", "title=Tale")
    assert wrong.exit_code == 2
    assert "'title', which is text, not categorical. Fields for that: genres." in wrong.stderr


@pytest.mark.parametrize("n", [10**9, 10**30])
def test_a_list_is_no_longer_than_the_catalogue(model: Path, tmp_path: Path, n: int) -> None:
    rows = answered(llm4rec("recommend", "--model", model, "--history", "i1", "-n", n, "--json"))
    assert len(rows["recommendations"]) == N_ITEMS - 1
    pl.DataFrame({"request_id": ["r"], "history": [["i1"]]}).write_parquet(tmp_path / "r.parquet")
    asked = ("recommend", "--model", model, "--requests", tmp_path / "r.parquet", "--out", tmp_path / "a")
    assert answered(llm4rec(*asked, "-n", n, "--json"))["rows"] == N_ITEMS - 1


def test_a_place_for_the_answers_is_looked_at_before_the_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm4rec.data import requests

    monkeypatch.setattr(requests, "read_requests", lambda *_: pytest.fail("the work has begun"))
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for out, says in (
        (tmp_path / "file" / "a", "file takes no file"),
        (tmp_path / "pipe", "pipe is no plain file"),
        (tmp_path / "a.csv", "is written as Parquet"),
        ("/proc/a", "/proc takes no file"),
    ):
        asked = ("recommend", "--model", model, "--requests", "r.parquet", "--out", out)
        result = llm4rec(*asked)
        assert result.exit_code == 2 and says in result.stderr


def test_no_output_takes_the_place_of_an_input(model: Path, data: Path, tmp_path: Path) -> None:
    events, asked = tmp_path / "log.rejected.parquet", tmp_path / "r.parquet"
    pl.read_csv(data / "events.csv").write_parquet(events)
    pl.DataFrame({"request_id": ["a"], "history": [["i1"]]}).write_parquet(asked)
    before = events.read_bytes(), asked.read_bytes()
    fit = ("fit", "--interactions", events, *SETTINGS, "--out")
    same = tmp_path / "." / events.name
    for arguments in (
        (*fit, tmp_path / "m", "--rejected", events),
        (*fit, tmp_path / "log"),
        ("evaluate", "--model", model, "--interactions", events, "--rejected", same),
    ):
        result = llm4rec(*arguments)
        says = f"--rejected {events} would replace the file of --interactions"
        assert result.exit_code == 2 and says in result.stderr
    result = llm4rec("recommend", "--model", model, "--requests", asked, "--out", asked)
    assert result.exit_code == 2 and f"--out {asked} would replace the file of --requests" in result.stderr
    assert (events.read_bytes(), asked.read_bytes()) == before
    assert not (tmp_path / "m").exists() and not (tmp_path / "log").exists()


@pytest.mark.parametrize("option", ["--user", "--history"])
def test_an_argument_that_is_no_text_is_bad_input(model: Path, option: str) -> None:
    result = llm4rec("recommend", "--model", model, option, os.fsdecode(b"\xff"))
    assert result.exit_code == 2
    assert "is not written in UTF-8" in result.stderr


def test_a_terminal_that_lacks_letters_is_answered(model: Path, data: Path) -> None:
    asked = ("evaluate", "--model", model, "--interactions", data / "events.csv")
    told = process(*asked, PYTHONIOENCODING="latin-1")
    assert told.returncode == 0, told.stderr
    assert "hr@10" in told.stdout and "–" not in told.stdout  # the dash of an interval is not in Latin-1


@pytest.mark.parametrize(("encoding", "escaped"), [("utf-8", False), ("latin-1", True)])
def test_json_is_escaped_only_where_stdout_lacks_letters(
    monkeypatch: pytest.MonkeyPatch, encoding: str, escaped: bool
) -> None:

    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    console.answer({"title": "Amélie…"})
    sys.stdout.flush()
    assert json.loads(written.getvalue().decode(encoding)) == {"title": "Amélie…"}
    assert written.getvalue().isascii() is escaped


def test_plain_output_is_one_line_an_item(model: Path) -> None:
    lines = llm4rec("recommend", "--model", model, "--history", "i1", "-n", 3).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]


def test_a_terminal_is_given_no_commands_by_what_a_file_says() -> None:
    hostile = "A\x1b[31mred\r\nlife\x9b2J \u202egnp\u2028x"
    assert console.printable(hostile) == "A [31mred life 2J  gnp x"
    assert console.printable("Amélie – 東京 \U0001f600") == "Amélie – 東京 \U0001f600"
    rows = [{"rank": n, "score": -1.0, "item_id": f"\x9b{n}", "title": hostile} for n in (1, 2)]
    lines = as_text(rows).split("\n")
    assert [line.split() for line in lines] == [
        [f"{n}", "-1.000", f"{n}", "A", "[31mred", "life", "2J", "gnp", "x"] for n in (1, 2)
    ]


def test_a_sentence_about_a_file_is_fit_for_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.note("the time \x1b[2J is before 1970")
    assert capsys.readouterr().err == "the time  [2J is before 1970\n"

    def fail(*_: object, **__: object) -> None:
        raise InputError("the value \x1b[2J is wrong")

    monkeypatch.setattr(Recommender, "load", fail)
    assert llm4rec("recommend", "--model", "m", "--user", "a").stderr == "Error: the value  [2J is wrong\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a, b ,,c", ["a", "b", "c"]),
        ('"a,b",c', ["a,b", "c"]),
        ('c, "a, b"', ["c", "a, b"]),
        ('"say ""a,b""",5" disk', ['say "a,b"', '5" disk']),
        ("a\nb", ["a", "b"]),  # "$(cat ids.txt)"
        ("", []),
    ],
)
def test_names_with_commas_stand_in_quotes(text: str, expected: list[str]) -> None:
    assert console.names(text, "--history") == expected


@pytest.mark.parametrize("text", ['"a,b', 'a,"b"c', '"a" b,c'])
def test_a_quote_that_is_not_closed_is_told(text: str) -> None:
    with pytest.raises(InputError, match=r"--allow .* must end with one, right before the next comma"):
        console.names(text, "--allow")


def test_items_whose_ids_hold_a_comma_can_be_named(model: Path, tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["x,y"], "title": ["Tale"]}).write_parquet(tmp_path / "new.parquet")
    out = tmp_path / "changed"
    added = llm4rec("items", "--model", model, "--add", tmp_path / "new.parquet", "--out", out)
    assert added.exit_code == 0, added.stderr
    asked = ("recommend", "--model", out, "--json", "--history")
    found = llm4rec(*asked, "i1", "--allow", '"x,y",i2', "--exclude", '"x,z"')
    assert {row["item_id"] for row in answered(found)["recommendations"]} == {"x,y", "i2"}
    assert "--exclude are not in the catalogue and are passed over: x,z." in found.stderr
    assert llm4rec(*asked, '"x,y"').stderr == ""
    retired = answered(llm4rec("items", "--model", out, "--retire", '"x,y"', "--json"))
    assert retired["retired"] == 1


def test_batch_gives_what_single_requests_give(model: Path, tmp_path: Path) -> None:
    requests = pl.DataFrame({
        "request_id": ["r1", "r2", "r3"],
        "history": [["i1", "i2"], [], ["i5", "never-seen"]],
        "exclude": [["i3"], [], []],
    })
    requests.write_parquet(tmp_path / "requests.parquet")
    done = answered(
        llm4rec("recommend", "--model", model, "--requests", tmp_path / "requests.parquet",
                "--out", tmp_path / "answers.parquet", "-n", 4, "--json")
    )  # fmt: skip
    answers = pl.read_parquet(tmp_path / "answers.parquet")
    assert answers.columns == ["request_id", "rank", "item_id", "score"]
    assert (done["requests"], done["rows"]) == (3, 12)
    alone = answered(
        llm4rec("recommend", "--model", model, "--history", "i1,i2", "--exclude", "i3", "-n", 4, "--json")
    )
    first = answers.filter(pl.col("request_id") == "r1")
    assert first["item_id"].to_list() == [row["item_id"] for row in alone["recommendations"]]
    assert first["rank"].to_list() == [1, 2, 3, 4]
    assert first["score"].to_list() == pytest.approx(
        [row["score"] for row in alone["recommendations"]], abs=1e-4
    )


def test_a_batch_knows_people_by_name_and_says_what_it_passes_over(model: Path, tmp_path: Path) -> None:
    rows = {"request_id": ["r1", "r2"], "history": [[], ["ghost", "i5"]], "user_id": ["u3", "u4"]}
    pl.DataFrame(rows | {"exclude": [["i29"], []]}).write_parquet(tmp_path / "requests.parquet")
    asked = ("recommend", "--model", model, "-n", 4)
    result = llm4rec(*asked, "--requests", tmp_path / "requests.parquet", "--out", tmp_path / "a.parquet")
    assert result.exit_code == 0
    assert "1 of 2 history items are not in the catalogue" in result.stderr
    answers = pl.read_parquet(tmp_path / "a.parquet")
    for request, query in (("r1", ("--user", "u3", "--exclude", "i29")), ("r2", ("--history", "i5"))):
        found = answers.filter(pl.col("request_id") == request)["item_id"].to_list()
        alone = answered(llm4rec(*asked, *query, "--json"))
        assert found == [row["item_id"] for row in alone["recommendations"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24T18:00", 1_795_543_200),
        ("2026-11-24 18:00:00.9", 1_795_543_200),
        ("2026-11-24T18:00Z", 1_795_543_200),
        ("2026-11-24T20:00+02:00", 1_795_543_200),
        ("2026-11-24", 1_795_478_400),
        (" 1795543200 ", 1_795_543_200),
        ("0", 0),
    ],
)
def test_a_time_is_read_in_utc(text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")  # where the machine stands is of no account
    time.tzset()
    try:
        assert utc_seconds(text) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_of_asking_reaches_the_model(model: Path, tmp_path: Path) -> None:
    """Alone and in a batch, for a history, for a person by name and for nobody known."""
    recommender = Recommender.load(model)
    with torch.no_grad():
        for table in recommender.fitted.scorer.network.context.children():
            table.get_parameter("weight")[1:].normal_(generator=torch.Generator().manual_seed(1))
    heard = recommender.fitted.about["training"] | {"context_kept": True}
    about = {**recommender.fitted.about, "training": heard}
    prior = replace(recommender.fitted.prior, shares=(0.0,) * 4)  # what time does not change, left out
    heard_model = replace(recommender.fitted, about=about, prior=prior, linear=Linear())
    Recommender(heard_model).save(tmp_path / "model")
    asked = ("recommend", "--model", tmp_path / "model", "-n", 5)
    who = {"r1": ("--history", "i1,i2"), "r2": ("--user", "u3"), "r3": ("--history", "")}
    noon, night = 1_795_521_600, 1_795_564_800
    requests = {"request_id": ["r1", "r2", "r3"], "history": [["i1", "i2"], [], []],
                "user_id": [None, "u3", None]}  # fmt: skip
    lists: dict[int | None, dict[str, list[str]]] = {}
    for at in (None, noon, night):
        table = pl.DataFrame(requests | {"request_time": [at] * 3})
        table.write_parquet(tmp_path / "r.parquet")
        result = llm4rec(*asked, "--requests", tmp_path / "r.parquet", "--out", tmp_path / "a.parquet")
        assert result.exit_code == 0 and "changes nothing" not in result.stderr
        answers = pl.read_parquet(tmp_path / "a.parquet")
        lists[at] = {name: answers.filter(request_id=name)["item_id"].to_list() for name in who}
        for name, options in who.items():
            times = () if at is None else ("--at", at)
            alone = answered(llm4rec(*asked, *options, *times, "--json"))
            assert lists[at][name] == [row["item_id"] for row in alone["recommendations"]]
    for name in who:
        assert lists[None][name] != lists[noon][name] != lists[night][name]


def test_a_time_that_changes_nothing_is_said_to(data: Path, tmp_path: Path) -> None:
    files = ("--interactions", data / "events.csv", "--items", data / "items.parquet")
    off = ("--set", "train.context_epochs=0", "--set", "retrieve.enabled=false")
    done = answered(llm4rec("fit", *files, "--out", tmp_path / "model", *SETTINGS, *off, "--json"))
    assert done["training"]["context_kept"] is False
    assert set(done["linear"]) == {"items", "strengths", "exponents"} and done["retrieval"] is None
    assert len(done["linear"]["strengths"]) == len(done["linear"]["exponents"]) == 4
    asked = ("recommend", "--model", tmp_path / "model", "--user", "u1")
    timed = llm4rec(*asked, "--at", "2026-11-24T18:00")
    assert timed.exit_code == 0 and "time of asking changes nothing" in timed.stderr
    assert timed.stdout == llm4rec(*asked).stdout
    pl.DataFrame({"request_id": ["r"], "history": [["i1"]], "request_time": [5]}).write_parquet(
        tmp_path / "r.parquet"
    )
    batch = ("--requests", tmp_path / "r.parquet", "--out", tmp_path / "a.parquet")
    assert "time of asking changes nothing" in llm4rec(*asked[:3], *batch).stderr


def test_a_time_no_request_can_have_ends_a_batch(model: Path, tmp_path: Path) -> None:
    pl.DataFrame({"request_id": ["r"], "history": [["i1"]], "request_time": [-5]}).write_parquet(
        tmp_path / "r.parquet"
    )
    batch = ("--requests", tmp_path / "r.parquet", "--out", tmp_path / "a.parquet")
    result = llm4rec("recommend", "--model", model, *batch)
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert "r.parquet, row 1, column 'request_time': the time lies outside 1970 to 2100" in result.stderr


@pytest.mark.parametrize("protocol", ["leave-last-out", "global-time"])
def test_evaluate(model: Path, data: Path, protocol: str) -> None:
    found = answered(
        llm4rec("evaluate", "--model", model, "--interactions", data / "events.csv",
                "--protocol", protocol, "--json")
    )  # fmt: skip
    assert found["protocol"] == protocol
    ndcg = found["metrics"]["ndcg@10"]
    assert 0 <= ndcg["low"] <= ndcg["mean"] <= ndcg["high"] <= 1
    assert found["people"] <= N_USERS
    assert any("figures are too good" in note for note in found["notes"])  # fitted on these very events
    assert 0 < found["beyond"]["coverage@10"] <= 1


def test_evaluate_strangers_and_unknown_items(model: Path, tmp_path: Path) -> None:
    rows = [("new", f"i{i}", 100 + i) for i in range(4)] + [("new", "foreign", 50)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "e.csv")
    found = answered(llm4rec("evaluate", "--model", model, "--interactions", tmp_path / "e.csv", "--json"))
    assert (found["cases"], found["people"]) == (1, 1)
    assert not any("too good" in sentence for sentence in found["notes"])
    assert any(sentence.startswith("1 events on items outside") for sentence in found["notes"])


def test_evaluate_says_how_many_answers_are_repeats(model: Path, tmp_path: Path) -> None:
    walks = {"again": "12341", "never": "1234", "later": "12324"}  # the repeat of `later` is not asked for
    rows = [(user, f"i{item}", 100 + at) for user, walk in walks.items() for at, item in enumerate(walk)]
    schema = ["user_id", "item_id", "timestamp"]
    asked = ("evaluate", "--model", model, "--interactions", tmp_path / "e.csv", "--json")
    pl.DataFrame(rows, schema=schema, orient="row").write_csv(tmp_path / "e.csv")
    notes = answered(llm4rec(*asked))["notes"]
    assert any(note.startswith("1 of the 3 right answers repeat an item of their own") for note in notes)
    pl.DataFrame(rows[5:], schema=schema, orient="row").write_csv(tmp_path / "e.csv")
    assert not any("repeat an item" in note for note in answered(llm4rec(*asked))["notes"])


def test_evaluate_sets_bad_rows_aside_in_a_file(model: Path, tmp_path: Path) -> None:
    lines = [f"new,i{i},{100 + i}" for i in range(4)]
    (tmp_path / "e.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines, "new,i5,never", ""]))
    chosen, usual = tmp_path / "aside.parquet", model.with_name("model.evaluate.rejected.parquet")
    asked = ("evaluate", "--model", model, "--interactions", tmp_path / "e.csv", "--json")
    for aside, more in ((chosen, ("--rejected", chosen)), (usual, ())):
        found = answered(llm4rec(*asked, *more))
        assert any(str(aside) in sentence for sentence in found["notes"])
        assert pl.read_parquet(aside).select("row", "column").rows() == [(6, "timestamp")]
    (tmp_path / "e.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines, ""]))
    assert llm4rec(*asked).exit_code == 0
    assert not usual.exists()


@pytest.mark.slow
def test_bench_measures_and_reuses(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "source_hash", lambda: "unchanged")  # also while somebody edits the sources
    kept = tmp_path / "kept"
    asked = (
        "bench",
        "--data",
        data,
        "--models",
        "ours,popularity",
        *SETTINGS,
        "--out",
        tmp_path,
        "--keep",
        kept,
    )
    first = llm4rec(*asked)
    assert first.exit_code == 0, first.stderr
    assert "Accuracy, whole catalogue ranked" in first.stdout
    assert (tmp_path / "report.html").exists() and (tmp_path / "tables.md").exists()
    (tmp_path / "runs" / "popularity-0.json").unlink()  # as if its worker had been killed
    before = (tmp_path / "runs" / "ours-0.json").stat().st_mtime_ns
    again = llm4rec(*asked, "--json")
    found = answered(again)
    assert "ours, seed 0 (1 of 2): reused." in again.stderr
    assert "popularity, seed 0 (2 of 2): running." in again.stderr
    assert (tmp_path / "runs" / "ours-0.json").stat().st_mtime_ns == before
    assert [row["model"] for row in found["rows"]] == ["ours", "popularity"]
    assert found["comparisons"][0]["other"] == "popularity"
    ours = found["rows"][0]
    assert ours["fit_seconds"] > 0 and ours["peak_mib"] > 50 and ours["size_mib"] > 0
    assert len(found["curves"]["ours"]) >= 1
    assert {"command", "commit", "machine", "protocol", "policy", "seeds", "intervals"} <= set(found["facts"])
    assert not list((tmp_path / "runs").glob("*.checkpoint")) + list((tmp_path / "runs").glob("*.model"))
    assert Recommender.load(kept).meta["n_events"] == N_USERS * (N_EVENTS - 2)  # of its training part
    idle = llm4rec("bench", "--data", data, "--models", "popularity", "--out", tmp_path, "--keep", kept)
    assert idle.exit_code == 2 and "--keep is for the model ours, which is not among" in idle.stderr
    inside = llm4rec(*asked[:-1], tmp_path)
    assert inside.exit_code == 2 and "give the model a directory of its own" in inside.stderr
    Recommender.load(kept).save(kept)  # another, for all that anybody knows
    assert f"ours, seed 0 (1 of 2): its model is not in {kept}, running again." in llm4rec(*asked).stderr
    (kept / "notes.txt").write_text("mine")
    blocked = llm4rec(*asked)
    assert blocked.exit_code != 0 and "'notes.txt' lies in the directory" in blocked.stderr


@pytest.mark.slow
def test_bench_on_a_given_split_beside_peers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "source_hash", lambda: "unchanged")
    write_splits(data, tmp_path / "splits.parquet")
    ranks = pl.DataFrame({"user_id": [f"u{u}" for u in range(N_USERS)], "first\x1b[2J": [1] * N_USERS})
    ranks.write_parquet(tmp_path / "ranks.parquet")
    asked = ("bench", "--splits", tmp_path / "splits.parquet", "--items", data / "items.parquet",
             "--models", "ours", *SETTINGS, "--peer-ranks", tmp_path / "ranks.parquet",
             "--out", tmp_path / "out")  # fmt: skip
    found = answered(llm4rec(*asked, "--json"))
    assert found["facts"]["protocol"].startswith(f"given, {N_USERS} questions")
    (peer,) = found["peers"]
    assert peer["ndcg"]["mean"] == 1.0 and peer["people"] == N_USERS
    ours = found["rows"][0]["accuracy"]["ndcg@10"]["mean"]
    assert peer["ndcg_difference"]["difference"]["mean"] == pytest.approx(ours - 1)
    assert peer["name"] == "first\x1b[2J"
    shown = llm4rec(*asked).stdout
    assert "first [2J" in shown and "\x1b" not in shown


def test_bench_sets_aside_in_a_file_of_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm4rec.bench import run as runs

    monkeypatch.setattr(runs, "_start", lambda task, _: runs.Failure(task.model, 0, "It broke.", tmp_path))
    publishers = tmp_path / "rejected.parquet"  # OUT is the folder that `data get` has filled
    pl.DataFrame({"file": ["f"], "row": [1], "column": ["c"], "reason": ["r"]}).write_parquet(publishers)
    written = publishers.read_bytes()
    clean = pl.read_parquet(data / "interactions.parquet")
    for events, left in ((pl.concat([clean, clean[:1].with_columns(item_id=None)]), True), (clean, False)):
        events.write_parquet(tmp_path / "interactions.parquet")
        result = llm4rec("bench", "--data", tmp_path, "--models", "ease", "--out", tmp_path)
        assert result.exit_code == 1 and "It broke." in result.stderr
        assert (tmp_path / "bench.rejected.parquet").exists() is left
        assert publishers.read_bytes() == written


FIT = ["fit", "--interactions", "{d}/events.csv", "--out", "{t}/m"]


@pytest.mark.slow
def test_demo_leaves_a_model_and_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm4rec.data import sources

    monkeypatch.setattr(facts, "source_hash", lambda: "unchanged")

    def get(name: str, out: Path, **_: object) -> list[str]:
        assert name == "ml-100k"
        out.mkdir(parents=True)
        write_data(out)
        titled = pl.read_parquet(out / "items.parquet").with_columns(pl.col("title") + "\x1b[2J!")
        titled.write_parquet(out / "items.parquet")
        return ["It came from here."]

    monkeypatch.setattr(sources, "get", get)
    monkeypatch.setattr(sys.modules["llm4rec.cli.demo"], "MODELS", ("ours", "popularity"))
    first = llm4rec("demo", "--out", tmp_path / "demo", *SETTINGS)
    assert first.exit_code == 0, first.stderr
    assert "It came from here." in first.stderr
    assert " 10  Tale " in first.stdout and " [2J!" in first.stdout and "\x1b" not in first.stdout
    assert "      You chose “Tale " in first.stdout or "      “Tale " in first.stdout
    assert "Tale " in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    again = llm4rec("demo", "--out", tmp_path / "demo", *SETTINGS, "--json")
    person = answered(again)["person"]
    assert len(person["recommended"]) == len(person["reasons"]) == 10
    assert again.stderr.count("reused") == 2
    served = llm4rec("recommend", "--model", tmp_path / "demo" / "model", "--user", "u3")
    assert served.exit_code == 0


BAD: list[tuple[str, list[str], str]] = [
    ("no such events", ["fit", "--interactions", "{t}/nowhere.csv", "--out", "{t}/m"], "nowhere.csv"),
    ("unknown key", [*FIT, "--set", "train.epoch=2"],
     "Did you mean train.epochs"),
    ("bad value", [*FIT, "--set", "train.epochs=x"],
     "train.epochs"),
    ("size that heads can't share", [*FIT, "--set", "model.embedding_size=50"],
     "model.embedding_size must be a multiple of twice model.heads"),
    ("out is in the way", ["fit", "--interactions", "{d}/events.csv", "--out", "{d}"],
     "isn't a model written by llm4rec"),
    ("out can't be made", ["fit", "--interactions", "{d}/events.csv", "--out", "{d}/events.csv/m"],
     "events.csv"),
    ("rejected is a directory", [*FIT, "--rejected", "{t}"], "is a directory"),
    ("rejected in the new model", ["fit", "--interactions", "{d}/events.csv", "--out", "{t}/m", "--rejected",
     "{t}/m/r.parquet"], "which holds the model alone"),
    ("rejected as CSV", [*FIT, "--rejected", "{t}/r.csv"], "is written as Parquet"),
    ("out takes no file", ["fit", "--interactions", "{d}/events.csv", "--out", "/proc/m"],
     "/proc takes no file"),
    ("bench into a file", ["bench", "--data", "{d}", "--models", "ease", "--out", "{d}/events.csv"],
     "is a file"),
    ("bench of no model", ["bench", "--data", "{d}", "--models", "", "--out", "{t}/b"],
     "--models names no model"),
    ("bench of a misspelt model", ["bench", "--data", "{d}", "--models", "our", "--out", "{t}/b"],
     "Did you mean ours?"),
    ("no list", [*FIT, "--set", "data.rating_range=1,5"], "written in square brackets"),
    ("an address of the web", ["fit", "--interactions", "https://host/x.csv", "--out", "{t}/m"],
     "download the file"),
    ("bench out can't be made", ["bench", "--data", "{d}", "--models", "ease", "--out", "{d}/events.csv/b"],
     "events.csv"),
    ("bad setting", [*FIT, "--set", "epochs"],
     "section.key=value"),
    ("no such config", [*FIT, "--config", "{t}/c.toml"],
     "c.toml"),
    ("bad map", [*FIT, "--map", "user"], "role=column"),
    ("mapped column missing", [*FIT, "--map", "user=who"],
     "who"),
    ("bad modality", [*FIT, "--modality", "title=smell"],
     "'smell' is no kind"),
    ("missing option", ["fit", "--interactions", "{d}/events.csv"], "--out"),
    ("unknown option", ["fit", "--colour", "red"], "--colour"),
    ("unknown command", ["cook"], "cook"),
    ("no such model", ["recommend", "--model", "{t}/nowhere", "--history", "a"], "nowhere"),
    ("nobody named", ["recommend", "--model", "{t}/nowhere"], "Say for whom"),
    ("two people", ["recommend", "--model", "{t}", "--user", "a", "--history", "b"], "not both"),
    ("batch without out", ["recommend", "--model", "{t}", "--requests", "{t}/r.parquet"], "--out"),
    ("batch with exclude", ["recommend", "--model", "{t}", "--requests", "{t}/r.parquet", "--out", "{t}/o",
     "--exclude", "a"], "--exclude"),
    ("batch with where", ["recommend", "--model", "{t}", "--requests", "{t}/r.parquet", "--out", "{t}/o",
     "--where", "a=b"], "--where"),
    ("nothing to correct", ["correct", "--model", "{t}", "--user", "a"], "Say what to correct"),
    ("half a correction", ["correct", "--model", "{t}", "--user", "a", "--less", "genre"], "--less takes"),
    ("batch with less", ["recommend", "--model", "{t}", "--requests", "{t}/r.parquet", "--out", "{t}/o",
     "--less", "a=b"], "--less."),
    ("half a condition", ["recommend", "--model", "{t}", "--user", "a", "--where", "genre"], "FIELD=VALUE"),
    ("nothing allowed", ["recommend", "--model", "{m}", "--history", "a", "--allow", ","],
     "--allow names no item: give ids"),
    ("a backbone without a name", ["fit", "--interactions", "{d}/events.csv", "--out", "{t}/m",
     "--set", "model.backbone="], "model.backbone"),
    ("batch into a directory", ["recommend", "--model", "{t}", "--requests", "{t}/r.parquet", "--out", "{t}"],
     "is a directory"),
    ("out without batch", ["recommend", "--model", "{t}", "--user", "a", "--out", "{t}/o"], "--requests"),
    ("no time", ["recommend", "--model", "{t}", "--user", "a", "--at", "noon"], "'noon' is no time"),
    ("an empty time", ["recommend", "--model", "{t}", "--user", "a", "--at", ""], "'' is no time"),
    ("a time before all", ["recommend", "--model", "{t}", "--user", "a", "--at", "-5"], "outside 1970"),
    ("milliseconds", ["recommend", "--model", "{t}", "--user", "a", "--at", "1790000000000"],
     "outside 1970 to 2100"),
    ("a date as a number", ["recommend", "--model", "{t}", "--user", "a", "--at", "20261124"],
     "write 2026-11-24"),
    ("a time of nobody", ["recommend", "--model", "{t}", "--at", "2026-11-24T18:00"], "Say for whom"),
    ("batch with a time", ["recommend", "--model", "{t}", "--requests", "{t}/r.parquet", "--out", "{t}/o",
     "--at", "5"], "--at"),
    ("zero items", ["recommend", "--model", "{t}", "--user", "a", "-n", "0"], "-n"),
    ("no such data set", ["data", "get", "ml-99", "--out", "{t}"], "ml-100k"),
    ("bench without data", ["bench", "--out", "{t}"], "--data"),
    ("bench of an empty directory", ["bench", "--data", "{t}", "--out", "{t}/b"], "interactions.parquet"),
    ("bench of an unknown model", ["bench", "--data", "{d}", "--models", "magic", "--out", "{t}/b"], "magic"),
    ("splits without items", ["bench", "--splits", "{d}/events.csv", "--out", "{t}/b"], "--items"),
    ("splits without the column",
     ["bench", "--splits", "{d}/events.csv", "--items", "{d}/items.parquet", "--out", "{t}/b"], "split"),
    ("protocol with splits", ["bench", "--splits", "{d}/events.csv", "--items", "{d}/items.parquet",
     "--protocol", "global-time", "--out", "{t}/b"], "--protocol"),
    ("bench into a model", ["bench", "--data", "{d}", "--models", "ease", "--out", "{m}"], "holds a model"),
    ("demo into a model", ["demo", "--out", "{m}"], "holds a model"),
    ("an open quote", ["recommend", "--model", "{m}", "--history", '"i1,i2'],
     "--history '\"i1,i2' can't be taken apart"),
    ("an open quote among the retired", ["items", "--model", "{m}", "--retire", '"i1,i2'], "--retire"),
    ("an item to explain that nobody knows", ["explain", "--model", "{m}", "--user", "u1", "--item", "ghost"],
     "The model knows no item 'ghost'."),
    ("another item that nobody knows", ["explain", "--model", "{m}", "--user", "u1", "--item", "i20",
     "--than", "ghost"], "The model knows no item 'ghost'."),
    ("an item compared with itself", ["explain", "--model", "{m}", "--user", "u1", "--item", "i20", "--than",
     "i20"], "can't be compared with itself"),
    ("a language of no reasons", ["recommend", "--model", "{m}", "--user", "u1", "--language", "de"],
     "give --explain too"),
    ("another item than none", ["explain", "--model", "{m}", "--user", "u1", "--than", "i20"],
     "--than needs --item"),
    ("reasons in no language", ["explain", "--model", "{m}", "--user", "u1", "--item", "i1",
     "--language", "xx"], "The languages are en, de"),
    ("other words for no reasons", ["recommend", "--model", "{m}", "--user", "u1", "--llm", "smollm2"],
     "--llm puts reasons into other words: give --explain too."),
    ("other words for a profile", ["explain", "--model", "{m}", "--user", "u1", "--llm", "smollm2"],
     "--llm puts a reason into other words: give --item too."),
    ("other words of another language", ["explain", "--model", "{m}", "--user", "u1", "--item", "i20",
     "--language", "de", "--llm", "smollm2"], "in English only"),
    ("words of a compact backbone", ["explain", "--model", "{m}", "--user", "u1", "--item", "i20", "--llm",
     "backbone"], "backbone is compact, which has no words"),
    ("words of nothing", ["recommend", "--model", "{m}", "--user", "u1", "--explain", "--llm",
     "nowhere.gguf"], "The language model 'nowhere.gguf' (--llm) is neither smollm2 nor"),
    ("nobody to explain to", ["explain", "--model", "{m}", "--item", "i1"], "Say for whom"),
    ("two to explain to", ["explain", "--model", "{m}", "--item", "i1", "--user", "u1", "--history", "i2"],
     "not both"),
    ("explain at no time", ["explain", "--model", "{m}", "--item", "i1", "--user", "u1", "--at", "noon"],
     "'noon' is no time"),
    ("no such ranks", ["bench", "--data", "{d}", "--peer-ranks", "{t}/r.parquet", "--out", "{t}/b"],
     "r.parquet does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], says: str, data: Path, model: Path, tmp_path: Path
) -> None:
    result = llm4rec(*(part.format(t=tmp_path, d=data, m=model) for part in arguments))
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr and "Unexpected" not in result.stderr
    assert result.stdout == ""


def test_data_get_reads_a_category_from_the_publishers_own_files(tmp_path: Path) -> None:
    review = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1_369_699_200}
    (tmp_path / "reviews_Beauty.json").write_text(json.dumps(review) + "\n")
    (tmp_path / "meta_Beauty.json").write_text(json.dumps({"asin": "B1", "title": "Soap"}) + "\n")
    found = answered(
        llm4rec("data", "get", "amazon-2014/Beauty", "--from", tmp_path, "--out", tmp_path / "out", "--json")
    )
    assert found["files"] == ["interactions.parquet", "items.parquet", "reviews.parquet", "users.parquet"]
    assert pl.read_parquet(tmp_path / "out" / "items.parquet")["title"].to_list() == ["Soap"]


def test_evaluate_without_a_split_column(model: Path, data: Path) -> None:
    result = llm4rec(
        "evaluate", "--model", model, "--interactions", data / "events.csv", "--protocol", "given"
    )
    assert result.exit_code == 2
    assert "split" in result.stderr


def test_a_model_that_was_tampered_with_is_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    table = next(copy.glob("*.parquet"))
    table.write_bytes(table.read_bytes()[:-8])
    result = llm4rec("recommend", "--model", copy, "--history", "i1")
    assert result.exit_code == 2
    assert str(copy) in result.stderr


def test_the_unforeseen_is_one_sentence_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm4rec.data import sources

    def broken(*_: object, **__: object) -> list[str]:
        raise TypeError("nobody thought of this")

    monkeypatch.setattr(sources, "get", broken)
    result = llm4rec("data", "get", "ml-100k", "--out", "x")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Unexpected TypeError: nobody thought of this.")
    assert "LLM4REC_DEBUG=1" in result.stderr


def test_debug_lets_the_traceback_through() -> None:
    quiet = process("data", "get", "nothing", "--out", "x")
    assert (quiet.returncode, quiet.stdout) == (2, "")
    assert quiet.stderr.startswith("Error: There is no data set named 'nothing'")
    loud = process("data", "get", "nothing", "--out", "x", LLM4REC_DEBUG="1")
    assert loud.returncode != 0
    assert "Traceback" in loud.stderr


def test_interrupted_training_tells_how_to_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm4rec.recommender import Recommender

    def interrupted(*_: object, checkpoints: Path, **__: object) -> None:
        checkpoints.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(Recommender, "fit", interrupted)
    result = llm4rec("fit", "--interactions", data / "events.csv", "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert "--resume" in result.stderr and "model.checkpoint" in result.stderr


def test_an_interrupted_fit_resumed_ends_like_an_undisturbed_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    @contextmanager
    def stops_after_one_epoch() -> Any:
        def report(stage: str, done: int, total: int, **figures: float) -> None:
            if stage == "floor" and done == 1:
                raise KeyboardInterrupt

        yield report

    def fit(name: str, *more: str) -> Result:
        files = ("--interactions", data / "events.csv", "--items", data / "items.parquet")
        return llm4rec("fit", *files, "--out", tmp_path / name, *SETTINGS, "--json", *more)

    with monkeypatch.context() as patched:
        patched.setattr(console, "progress", stops_after_one_epoch)
        assert fit("broken").exit_code == 1
    assert (tmp_path / "broken.checkpoint").is_dir()
    resumed, whole = answered(fit("broken", "--resume")), answered(fit("whole"))
    for part in ("losses", "metrics"):
        assert resumed["training"]["floor"][part] == whole["training"]["floor"][part]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["broken", "whole"]


def test_without_resume_a_fit_starts_anew_and_says_so(data: Path, tmp_path: Path) -> None:
    (tmp_path / "model.checkpoint").mkdir()
    files = ("--interactions", data / "events.csv", "--items", data / "items.parquet")
    result = llm4rec("fit", *files, "--out", tmp_path / "model", *SETTINGS)
    assert result.exit_code == 0
    assert "started anew" in result.stderr
    assert not (tmp_path / "model.checkpoint").exists()


def test_a_warning_is_a_sentence_without_the_code_that_gave_it() -> None:
    code = (
        "import warnings; from llm4rec import cli; "
        "cli.app = lambda **_: warnings.warn('Mind\\n this.'); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "Mind this.\n"


def test_a_bench_refuses_a_folder_with_a_report_of_somebody_elses(data: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    result = llm4rec("bench", "--data", data, "--models", "popularity", "--out", tmp_path)
    assert result.exit_code == 2 and "report.html" in result.stderr
    assert (tmp_path / "report.html").read_text() == "mine"


def test_items_come_and_go(model: Path, tmp_path: Path) -> None:
    rows = pl.DataFrame({
        "id": ["new", "i1", None],
        "title": ["Tale of the sea", "Another tale", "Nobody's"],
        "genres": [["wet"], ["calm"], ["wet"]],
    })
    rows.write_parquet(tmp_path / "new.parquet")
    out = tmp_path / "changed"
    asked = ("items", "--model", model, "--add", tmp_path / "new.parquet", "--retire", "i3,i4", "--out", out)
    assert answered(llm4rec(*asked, "--json")) == {
        "model": str(out), "items": N_ITEMS + 1, "new": 1, "retired": 2, "rejected": 1,
    }  # fmt: skip
    assert pl.read_parquet(f"{out}.items.rejected.parquet").height == 1
    listed = llm4rec("recommend", "--model", out, "--history", "i0,i3", "-n", N_ITEMS + 1, "--json")
    ids = [row["item_id"] for row in answered(listed)["recommendations"]]
    assert len(ids) == N_ITEMS + 1 - 3
    assert "new" in ids and not {"i0", "i3", "i4"} & set(ids)
    known = llm4rec("recommend", "--model", out, "--user", "u3", "--json")
    assert "no history" not in known.stderr  # what people did is kept
    lines = [f"p{n},{'new' if n % 2 else 'i1'},{1_700_000_000 + n}" for n in range(40)]
    lines = ["who,item_id,timestamp", *lines, "p1,ghost,1700000099", "p1,i1,never"]
    (tmp_path / "since.csv").write_text("\n".join(lines))
    counted = llm4rec("items", "--model", out, "--events", tmp_path / "since.csv", "--map", "user=who")
    assert counted.exit_code == 0, counted.stderr
    assert "New items that were taken in these events: 1." in counted.stderr
    assert "1 events on items the model does not know were left out." in counted.stderr
    assert pl.read_parquet(f"{out}.events.rejected.parquet").height == 1
    after = llm4rec("recommend", "--model", out, "--history", "i0,i3", "-n", N_ITEMS + 1, "--json")
    first, then = (
        {row["item_id"]: row["score"] for row in answered(found)["recommendations"]}
        for found in (listed, after)
    )
    assert then["new"] > first["new"] and then["i1"] < first["i1"]
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("user_id,item_id,timestamp\nu,ghost,1700000000\n")
    refused = llm4rec("items", "--model", out, "--events", foreign)
    assert refused.exit_code == 2 and "foreign.csv is on an item the model knows" in refused.stderr
    still = answered(llm4rec("recommend", "--model", out, "--history", "i0,i3", "-n", N_ITEMS + 1, "--json"))
    assert still["recommendations"] == answered(after)["recommendations"]  # what was counted is kept
    undated = tmp_path / "undated.csv"
    undated.write_text("user_id,item_id\nu,new\n")
    refused = llm4rec("items", "--model", out, "--events", undated)
    assert refused.exit_code == 2 and "undated.csv has no times" in refused.stderr
    again = llm4rec("items", "--model", out, "--retire", "new,i4")
    assert f"0 new items; the model in {out} knows {N_ITEMS + 1}, 3 of them retired." in again.stdout
    nothing = llm4rec("items", "--model", out)
    assert nothing.exit_code == 2 and "Say what changes" in nothing.stderr
    unknown = llm4rec("items", "--model", out, "--retire", "ghost")
    assert unknown.exit_code == 2 and "knows no item 'ghost'" in unknown.stderr


def test_items_are_added_from_a_mapped_column_and_what_became_of_events_is_told(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_text("sku,id,title\nfirst,1,A tale\nsecond,2,Another\nthird,3,A third\n")
    lines = [f"p{n},{'first' if n % 2 else 'i1'},{1_700_000_000 + n}" for n in range(40)]
    lines += ["p1,second,1700000050", "p1,ghost,1700000099", "p1,i1,never"]
    (tmp_path / "since.csv").write_text("\n".join(["user_id,sku,timestamp", *lines]))
    out = tmp_path / "out"
    kept = tmp_path / "out.rejected.parquet"  # what fit has set aside
    kept.write_bytes(b"fit's")
    asked = ("items", "--model", model, "--out", out, "--add", tmp_path / "new.csv", "--map", "item=sku")
    assert answered(llm4rec(*asked, "--events", tmp_path / "since.csv", "--json")) == {
        "model": str(out), "items": N_ITEMS + 3, "new": 3, "retired": 0, "rejected": 0,
        "new_taken": 2, "events": 41, "events_left_out": 1, "events_rejected": 1,
    }  # fmt: skip
    assert kept.read_bytes() == b"fit's"
    listed = llm4rec("recommend", "--model", out, "--history", "i0", "-n", N_ITEMS + 3, "--json")
    names = {row["item_id"] for row in answered(listed)["recommendations"]}
    assert {"first", "second", "third"} <= names
    idle = llm4rec(*asked, "--map", "user=who")
    assert idle.exit_code == 2 and "--map user=… names a column of --events, and there is none" in idle.stderr
    failed = llm4rec(*asked, "--retire", "ghost")
    assert failed.exit_code == 2 and "knows no item 'ghost': nothing was changed" in failed.stderr


def test_a_role_that_nothing_given_has_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("sku,title\nfirst,A tale\n")
    add = ("--add", tmp_path / "new.csv")
    for given, mapped, says in (
        (add, "item=skew", "new.csv has no column 'skew' to take as item"),
        (
            add,
            "item=sku,user=who,time=at",
            "--map user=…,time=… names columns of --events, and there is none",
        ),
        (
            ("--retire", "i1"),
            "item=sku",
            "--map item=… names a column of --add or --events, and there is none",
        ),
    ):
        refused = llm4rec("items", "--model", model, "--out", tmp_path / "out", *given, "--map", mapped)
        assert refused.exit_code == 2 and says in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_fitted_with_min_rating_says_that_it_holds(model: Path, tmp_path: Path) -> None:
    """There is no --set here to change it with."""
    fitted = Recommender.load(model).fitted
    strict = fitted.config.data.model_copy(update={"min_rating": 3.0})
    config = fitted.config.model_copy(update={"data": strict})
    Recommender(replace(fitted, config=config)).save(tmp_path / "strict")
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp,rating\nu,i1,1,2\nu,i2,2,1\n")
    asked = ("--model", tmp_path / "strict")
    for result in (
        llm4rec("evaluate", *asked, "--interactions", tmp_path / "e.csv"),
        llm4rec("items", *asked, "--events", tmp_path / "e.csv"),
    ):
        assert result.exit_code == 2 and "No rating of" in result.stderr
        assert "The model was fitted with data.min_rating = 3, which holds here too" in result.stderr


def test_evaluate_tells_what_was_done_again_from_what_the_model_has_seen(model: Path, tmp_path: Path) -> None:
    """u3 took i3 to i8, one after the other."""
    asked = ("evaluate", "--model", model, "--interactions", tmp_path / "e.csv", "--json")
    taken = [f"i{(3 + step) % N_ITEMS}" for step in range(N_EVENTS)]

    def notes(items: list[str], times: bool) -> list[str]:
        rows = [{"user_id": "u3", "item_id": item, "timestamp": 9_000 + at} for at, item in enumerate(items)]
        frame = pl.DataFrame(rows) if times else pl.DataFrame(rows).drop("timestamp")
        frame.write_csv(tmp_path / "e.csv")
        return [note for note in answered(llm4rec(*asked))["notes"] if "too good" in note]

    assert not notes([*taken, taken[0]], times=True)  # later than the model's own
    assert not notes([*taken, taken[0]], times=False)  # a second time, and the model knows of one
    assert notes(taken, times=False)


def test_what_the_model_has_seen_is_told_by_its_time(model: Path, tmp_path: Path) -> None:
    """u3 took i11 last, at 1_600_691_203."""
    for moment, seen in ((1_600_691_203, True), (1_600_691_204, False)):
        (tmp_path / "e.csv").write_text(f"user_id,item_id,timestamp\nu3,i1,1\nu3,i2,2\nu3,i11,{moment}\n")
        found = answered(
            llm4rec("evaluate", "--model", model, "--interactions", tmp_path / "e.csv", "--json")
        )
        assert any("too good" in note for note in found["notes"]) == seen


def test_evaluate_says_where_it_has_nothing_to_ask(model: Path, tmp_path: Path) -> None:
    asked = ("evaluate", "--model", model, "--interactions", tmp_path / "e.csv")
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\nu,x,1\nu,y,2\nu,z,3\n")
    foreign = llm4rec(*asked)
    assert foreign.exit_code == 2
    assert "None of the 3 events of" in foreign.stderr and "Are they the same ids?" in foreign.stderr
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\nu,i1,1\nu,y,2\nu,i2,3\n")
    short = llm4rec(*asked)
    assert short.exit_code == 2
    assert "The 2 events hold nothing to ask about" in short.stderr
    assert "1 more are on items the model does not know" in short.stderr


def test_nothing_is_written_into_a_model(model: Path, data: Path, tmp_path: Path) -> None:
    """Its directory could not be replaced any more."""
    (tmp_path / "r.jsonl").write_text('{"request_id": "a", "history": ["i1"]}\n')
    place = model / "answers" / "a.parquet"
    batch = llm4rec("recommend", "--model", model, "--requests", tmp_path / "r.jsonl", "--out", place)
    bench = llm4rec("bench", "--data", data, "--models", "popularity", "--out", model / "bench")
    for result in (batch, bench):
        assert result.exit_code == 2 and f"lies in {model}, which holds a model" in result.stderr
    assert not (model / "answers").exists() and not (model / "bench").exists()


def test_neither_rejected_rows_nor_another_model_are_written_into_a_model(
    model: Path, data: Path, tmp_path: Path
) -> None:
    before = sorted(model.iterdir())
    (tmp_path / "new.csv").write_text("item_id,title\nnew,A tale\n,Nobody's\n")
    files = ("--interactions", data / "events.csv")
    for result in (
        llm4rec("evaluate", "--model", model, *files, "--rejected", model / "r.parquet"),
        llm4rec("items", "--model", model, "--add", tmp_path / "new.csv", "--out", model / "changed"),
        llm4rec("fit", *files, "--out", model / "again"),
        llm4rec("bench", "--data", data, "--out", tmp_path / "bench", "--keep", model / "kept"),
    ):
        assert result.exit_code == 2 and f"lies in {model}, which holds a model" in result.stderr
    assert sorted(model.iterdir()) == before


def test_pairs_say_one_thing_each() -> None:
    assert console.pairs(["item=sku,user=who", "item=sku"], "--map", "role=column") == {
        "item": "sku",
        "user": "who",
    }
    assert console.pairs(['"item=sku, id"'], "--map", "role=column") == {"item": "sku, id"}
    with pytest.raises(InputError, match="--map says both item=a and item=b: leave one out"):
        console.pairs(["item=a", "item=b"], "--map", "role=column")
    with pytest.raises(InputError, match=r"""in double quotes as a whole: --map '"role=column"'"""):
        console.pairs(['item="sku, id"'], "--map", "role=column")


def test_a_blank_behind_the_last_quote_is_no_mistake() -> None:
    assert console.names(' sku010, "tea, loose" ', "--history") == ["sku010", "tea, loose"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('sku010, "tea, loose" ', ["sku010", "tea, loose"]),
        (' "tea, loose" ,sku010', ["tea, loose", "sku010"]),
        ('"a,b"\t,\t"c,d" \n "e" ', ["a,b", "c,d", "e"]),
        ('"say ""a , b"" , c" , d', ['say "a , b" , c', "d"]),  # within quotes nothing is touched
        ('5" disk , "a" , 3" disk', ['5" disk', "a", '3" disk']),
    ],
)
def test_blanks_around_a_quoted_part_are_dropped(text: str, expected: list[str]) -> None:
    assert console.names(text, "--history") == expected


def test_a_column_is_mapped_once_and_may_hold_a_comma(data: Path, tmp_path: Path) -> None:
    fit = ("fit", "--interactions", data / "events.csv", "--out", tmp_path / "m")
    twice = llm4rec(*fit, "--map", "item=item_id", "--map", "item=user_id")
    assert twice.exit_code == 2
    assert "--map says both item=item_id and item=user_id: leave one out" in twice.stderr
    (tmp_path / "e.csv").write_text('user_id,"sku, id",timestamp\na,x,1\na,y,2\na,z,3\n')
    fit = ("fit", "--interactions", tmp_path / "e.csv", "--out", tmp_path / "m", *SETTINGS)
    unquoted = llm4rec(*fit, "--map", 'item="sku, id"')
    assert unquoted.exit_code == 2 and """as a whole: --map '"role=column"'""" in unquoted.stderr
    assert llm4rec(*fit, "--map", '"item=sku, id"').exit_code == 0


def test_what_is_not_seen_is_not_printed() -> None:
    """Of Unicode's format characters those stay that spell words, join emoji or are seen themselves."""
    kept = {0xAD, 0x200C, 0x200D, *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    kept |= {*range(0x13430, 0x13440)}  # of hieroglyphs
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Zl", "Zp"}:
            assert (console.printable(f"a{chr(code)}b") == "a b") == (code not in kept), f"U+{code:04X}"
    family = "\U0001f468\u200d\U0001f469 \u2764\ufe0f \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert console.printable(family) == family


def test_two_runs_do_not_write_to_one_model(data: Path, tmp_path: Path) -> None:
    from llm4rec.store.alone import alone

    asked = ["fit", "--interactions", data / "events.csv", "--out", tmp_path / "model", *SETTINGS]
    with alone(tmp_path / "model"):
        second = process(*asked)
    assert second.returncode == 2 and "Another run is writing to" in second.stderr
    assert not list(tmp_path.iterdir())  # and nothing is left behind
    assert llm4rec("fit", "--interactions", "missing.csv", "--out", tmp_path / "a" / "b" / "m").exit_code == 2
    assert not list(tmp_path.iterdir())
    with alone(tmp_path / "a" / "m"):
        (tmp_path / "a" / "m").write_text("kept")
    assert (tmp_path / "a" / "m").read_text() == "kept"
    shutil.rmtree(tmp_path / "a")
    assert llm4rec(*asked).exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_all_files_of_a_model_are_for_those_who_may_read_its_folder(model: Path) -> None:
    modes = {file.stat().st_mode for file in model.iterdir() if file.is_file()}
    assert modes == {(model / "manifest.json").stat().st_mode}


def test_a_person_is_told_what_became_of_retrieval(data: Path, tmp_path: Path) -> None:
    tags = pl.DataFrame({"user_id": ["u1", "u2"], "item_id": ["i1", "i2"], "tag": ["wet", "calm"]})
    tags.write_csv(tmp_path / "tags.csv")
    asked = ["fit", "--interactions", data / "events.csv", "--items", data / "items.parquet", *SETTINGS]
    told = llm4rec(*asked, "--tags", tmp_path / "tags.csv", "--out", tmp_path / "model").stdout
    assert "Read 2 tags." in told
    assert "etrieved" in told and "NDCG@10" in told and "standard error" in told
    off = llm4rec(*asked, "--set", "retrieve.enabled=false", "--out", tmp_path / "off").stdout
    assert "etrieved" not in off and "Read" not in off


def test_a_column_that_is_taken_already_is_said_to_be(data: Path, tmp_path: Path) -> None:
    asked = ["fit", "--interactions", data / "events.csv", "--out", tmp_path / "model"]
    found = llm4rec(*asked, "--map", "user=item_id")
    assert found.exit_code == 2
    assert (
        "The column 'item_id'" in found.stderr
        and "is taken as user, so none is left for item" in found.stderr
    )


def test_an_empty_wish_is_said_to_be_passed_over(model: Path) -> None:
    found = llm4rec("recommend", "--model", model, "--user", "u1", "--text", " ")
    assert found.exit_code == 0 and "The wish is empty and is passed over." in found.stderr


def test_recommend_says_why_where_that_is_asked(model: Path) -> None:
    asked = ("recommend", "--model", model, "--history", "i1,i2,i3", "-n", 4)
    rows = answered(llm4rec(*asked, "--explain", "--json"))["recommendations"]
    plain = answered(llm4rec(*asked, "--json"))["recommendations"]
    assert [{key: row[key] for key in row if key != "explanation"} for row in rows] == plain
    for row in rows:
        assert [*row] == ["rank", "item_id", "title", "score", "explanation"]
        told = row["explanation"]
        assert {*told} == {"kind", "text", "weights", "evidence"}
        assert {*told["weights"]} == {"preference", "similarity", "context"}
        assert sum(told["weights"].values()) == pytest.approx(1)
        assert told["weights"][told["kind"]] == max(told["weights"].values())
        assert row["title"] in told["text"]
        for piece in told["evidence"]:
            assert {*piece} == {"type", "id", "label", "contribution"}
            assert piece["type"] in ("history_item", "aspect", "retrieved", "context")
            assert piece["contribution"] > 0
        chosen = {each["id"] for each in told["evidence"] if each["type"] == "history_item"}
        assert chosen <= {"i1", "i2", "i3"}
    lines = llm4rec(*asked, "--explain").stdout.splitlines()
    assert [line.strip() for line in lines[1::2]] == [row["explanation"]["text"] for row in rows]


def test_a_file_of_requests_is_answered_with_reasons(model: Path, tmp_path: Path) -> None:
    rows = {"request_id": ["b", "a", "c"], "history": [["i1", "i2"], [], []], "user_id": ["x", "u3", "y"]}
    pl.DataFrame(rows, schema_overrides={"history": pl.List(pl.String)}).write_parquet(tmp_path / "r.parquet")
    asked = ("recommend", "--model", model, "--requests", tmp_path / "r.parquet", "-n", 3)
    plain, told = tmp_path / "plain.parquet", tmp_path / "told.parquet"
    answered(llm4rec(*asked, "--out", plain, "--json"))
    assert answered(llm4rec(*asked, "--out", told, "--explain", "--json"))["rows"] == 9
    found = pl.read_parquet(told)
    assert found.columns[4:] == ["kind", "text", "weights", "evidence"]
    assert found.select(found.columns[:4]).equals(pl.read_parquet(plain))
    assert found["request_id"].unique(maintain_order=True).to_list() == ["b", "a", "c"]
    for request, whom in (("b", ["--history", "i1,i2"]), ("a", ["--user", "u3"]), ("c", ["--history", ""])):
        single = answered(llm4rec("recommend", "--model", model, *whom, "-n", 3, "--explain", "--json"))
        some = found.filter(pl.col("request_id") == request)
        for row, one in zip(some.to_dicts(), single["recommendations"], strict=True):
            assert (row["item_id"], row["text"]) == (one["item_id"], one["explanation"]["text"])
            assert row["weights"] == pytest.approx(one["explanation"]["weights"], abs=1e-4)
            assert [each["id"] for each in row["evidence"]] == [
                each["id"] for each in one["explanation"]["evidence"]
            ]
    german = answered(llm4rec(*asked, "--out", told, "--explain", "--language", "de", "--json"))
    assert german["rows"] == 9 and not (pl.read_parquet(told)["text"] == found["text"]).any()


class Speaker:
    """Says what can be vouched for of any reason that the network gives, and of no other."""

    name = "speaker"

    def write(self, conversation: Sequence[Message], most: int) -> Generator[str, None, None]:
        yield from ("You chose ", "“P”, and", " “X” may suit you. You chose “X”.")


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> Speaker:
    found = Speaker()
    monkeypatch.setattr("llm4rec.recommender.open_language_model", lambda name, backbone: found)
    return found


@pytest.mark.usefixtures("speaker")
def test_reasons_are_put_into_other_words(model: Path, tmp_path: Path) -> None:
    asked = ("recommend", "--model", model, "--history", "i1,i2,i3", "-n", 6, "--explain")
    plain = answered(llm4rec(*asked, "--json"))["recommendations"]
    rows = answered(llm4rec(*asked, "--llm", "speaker", "--json"))["recommendations"]
    reworded = 0
    for row, before in zip(rows, plain, strict=True):
        told, was = row["explanation"], before["explanation"]
        assert told["plain"] == was["text"]
        assert {**told, "text": told["plain"], "plain": ""} == {**was, "plain": ""}
        if told["text"] != told["plain"]:
            reworded += 1
            chosen = re.findall("“([^”]*)”", told["text"])[0]
            assert chosen in {piece["label"] for piece in told["evidence"]}
            assert told["text"] == f"You chose “{chosen}”, and “{row['title']}” may suit you."
    assert reworded
    lines = llm4rec(*asked, "--llm", "speaker").stdout.splitlines()
    assert [line.strip() for line in lines[1::2]] == [row["explanation"]["text"] for row in rows]

    requests, out = tmp_path / "r.parquet", tmp_path / "told.parquet"
    pl.DataFrame({"request_id": ["a"], "history": [["i1", "i2", "i3"]]}).write_parquet(requests)
    llm4rec(*asked[:3], "--requests", requests, "--out", out, "-n", 6, "--explain", "--llm", "speaker")
    told = pl.read_parquet(out)
    assert told.columns[4:] == ["kind", "text", "plain", "weights", "evidence"]
    assert told["text"].to_list() == [row["explanation"]["text"] for row in rows]
    assert told["plain"].to_list() == [row["explanation"]["text"] for row in plain]


@pytest.mark.usefixtures("speaker")
def test_explain_says_the_words_as_they_come(model: Path) -> None:
    asked = ("explain", "--model", model, "--history", "i1,i2,i3", "--item", "i4")
    told = answered(llm4rec(*asked, "--llm", "speaker", "--json"))["explanation"]
    assert told["plain"] == answered(llm4rec(*asked, "--json"))["explanation"]["text"]
    said = llm4rec(*asked, "--llm", "speaker").stdout.splitlines()
    assert said[:2] == [told["text"], ""]
    assert said[1:] == llm4rec(*asked).stdout.splitlines()[1:]


def test_explain_tells_why_and_what_if(model: Path) -> None:
    asked = ("--model", model, "--history", "i1,i2,i3")
    found = answered(llm4rec("explain", *asked, "--item", "i4", "--json"))
    listed = answered(llm4rec("recommend", *asked, "-n", N_ITEMS, "--explain", "--json"))["recommendations"]
    (row,) = (row for row in listed if row["item_id"] == "i4")
    assert {*found} == {"item_id", "title", "rank", "score", "explanation", "without", "fusion", "model"}
    assert (found["item_id"], found["title"], found["rank"]) == ("i4", row["title"], row["rank"])
    assert found["score"] == pytest.approx(row["score"], abs=1e-4)
    assert found["explanation"]["text"] == row["explanation"]["text"]
    chosen = [each["id"] for each in found["explanation"]["evidence"] if each["type"] == "history_item"]
    assert [each["item_id"] for each in found["without"]] == chosen
    for each in found["without"]:
        left = ",".join(item for item in ("i1", "i2", "i3") if item != each["item_id"])
        again = llm4rec("recommend", "--model", model, "--history", left, "-n", N_ITEMS, "--json")
        scores = {row["item_id"]: row["score"] for row in answered(again)["recommendations"]}
        assert each["score"] == pytest.approx(scores["i4"], abs=1e-4)
    text = llm4rec("explain", *asked, "--item", "i4").stdout
    assert text.splitlines()[0] == found["explanation"]["text"]
    assert f"{found['title']} stands at {found['rank']} (log-probability {found['score']:.2f})." in text


def test_explain_tells_how_much_each_modality_weighs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = len(Recommender.load(model).modalities)
    weights = torch.arange(1, n + 1) / sum(range(1, n + 1))
    for told in (None, weights[None].numpy()):
        monkeypatch.setattr(Recommender, "modality_weights", lambda self, items, told=told: told)
        asked = ("explain", "--model", model, "--history", "i1,i2,i3", "--item", "i4")
        found, text = answered(llm4rec(*asked, "--json"))["fusion"], llm4rec(*asked).stdout
        if told is None:  # validation kept the plain sum
            assert found is None and "What is known of it weighs" not in text
        else:
            names = Recommender.load(model).modalities
            assert found == pytest.approx(dict(zip(names, weights.tolist(), strict=True)))
            assert f"What is known of it weighs: {names[-1]} {weights[-1]:.0%}, " in text


def test_explain_without_an_item_tells_what_somebody_is_taken_to_like(model: Path) -> None:
    found = answered(llm4rec("explain", "--model", model, "--user", "u1", "--json"))["preferences"]
    told = Recommender.load(model).profile(Query(user="u1"))
    assert [(each["field"], each["value"]) for each in found] == [(each.field, each.value) for each in told]
    lines = llm4rec("explain", "--model", model, "--user", "u1").stdout.splitlines()
    assert sum("(genres)" in line for line in lines) == len(found)


def test_a_correction_is_kept_shown_and_taken_back(model: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(model, place)
    asked = ("recommend", "--model", place, "--user", "u1", "-n", N_ITEMS, "--json")
    before = answered(llm4rec(*asked))["recommendations"]
    said = llm4rec(
        "correct", "--model", place, "--user", "u1", "--less", "genres=calm", "--more", "genres=wet"
    )
    assert said.exit_code == 0 and not said.stderr
    lines = said.stdout.splitlines()
    assert sum(line.endswith("calm (genres), less wanted") for line in lines) == 1
    assert sum(line.endswith("wet (genres), more wanted") for line in lines) == 1
    assert llm4rec("explain", "--model", place, "--user", "u1").stdout.splitlines() == lines
    told = answered(llm4rec("explain", "--model", place, "--user", "u1", "--json"))["preferences"]
    assert {each["value"]: each["corrected"] for each in told} == {"calm": "less", "wet": "more"}
    after = answered(llm4rec(*asked))["recommendations"]

    was, now = ({row["item_id"]: row["score"] for row in rows} for rows in (before, after))
    moved = {name: now[name] - score for name, score in was.items()}
    calm = [name for name in moved if int(name[1:]) % 2 == 0]  # all are wet
    assert max(moved[name] for name in calm) < min(moved[name] for name in moved if name not in calm)
    back = ("--undo", "genres=calm", "--undo", "genres=wet")
    found = llm4rec("correct", "--model", place, "--user", "u1", *back, "--json")
    assert {*answered(found)} == {"user", "preferences", "model"} and not found.stderr
    assert answered(llm4rec(*asked))["recommendations"] == before
    again = llm4rec("correct", "--model", place, "--user", "u1", *back[:2])
    assert "Nothing was said of genres = calm" in again.stderr and again.exit_code == 0


def test_a_correction_for_once_and_in_another_place(model: Path, tmp_path: Path) -> None:
    asked = ("--model", model, "--user", "nobody-knows")
    said = ("--less", "genres=calm")
    kept = tmp_path / "other"
    result = llm4rec("correct", *asked, *said, "--out", kept)
    assert "no history of 'nobody-knows'" in result.stderr and result.exit_code == 0
    once = answered(llm4rec("recommend", *asked, *said, "--json"))["recommendations"]
    stored = llm4rec("recommend", "--model", kept, "--user", "nobody-knows", "--json")
    assert once == answered(stored)["recommendations"]
    assert once != answered(llm4rec("recommend", *asked, "--json"))["recommendations"]
    (first, *_), item = once, once[0]["item_id"]
    found = answered(llm4rec("explain", *asked, *said, "--item", item, "--json"))
    assert (found["rank"], found["score"]) == (1, pytest.approx(first["score"], abs=1e-4))
    assert "calm (genres), less wanted" in llm4rec("explain", *asked, *said).stdout


def test_requests_of_people_who_corrected_are_answered_so(model: Path, tmp_path: Path) -> None:
    kept, requests, out = tmp_path / "m", tmp_path / "requests.parquet", tmp_path / "answers.parquet"
    assert (
        llm4rec("correct", "--model", model, "--user", "u1", "--less", "genres=calm", "--out", kept).exit_code
        == 0
    )
    pl.DataFrame({
        "request_id": ["a", "b"],
        "history": pl.Series([[], []], dtype=pl.List(pl.String)),
        "user_id": ["u1", "u2"],
    }).write_parquet(requests)
    assert llm4rec("recommend", "--model", kept, "--requests", requests, "--out", out, "-n", 5).exit_code == 0
    answers = pl.read_parquet(out)
    for request, user in (("a", "u1"), ("b", "u2")):
        rows = answers.filter(pl.col("request_id") == request)
        alone = answered(llm4rec("recommend", "--model", kept, "--user", user, "-n", 5, "--json"))
        assert rows["item_id"].to_list() == [row["item_id"] for row in alone["recommendations"]]


def test_newcomers_are_told_apart(model: Path) -> None:
    said = llm4rec("explain", "--model", model, "--history", "").stdout
    assert said.startswith(("Nothing is known of what they chose.", "Nothing is expected"))


def test_a_wish_alone_is_explained(model: Path) -> None:
    wished = answered(llm4rec("explain", "--model", model, "--text", "the sea", "--item", "i3", "--json"))
    listed = answered(llm4rec("recommend", "--model", model, "--text", "the sea", "-n", N_ITEMS, "--json"))
    places = {each["item_id"]: each["rank"] for each in listed["recommendations"]}
    assert wished["rank"] == places["i3"]
    assert "wish" in {piece["id"] for piece in wished["explanation"]["evidence"]}


def test_reasons_are_given_in_german(model: Path) -> None:
    asked = ("--model", model, "--history", "i1,i2,i3", "--language", "de")
    text = answered(llm4rec("explain", *asked, "--item", "i20", "--json"))["explanation"]["text"]
    listed = answered(llm4rec("recommend", *asked, "-n", N_ITEMS, "--explain", "--json"))["recommendations"]
    assert "gewählt" in text
    assert text == next(each["explanation"]["text"] for each in listed if each["item_id"] == "i20")


def test_explain_tells_why_not_another(model: Path) -> None:
    asked = ("explain", "--model", model, "--user", "u1", "--item", "i12", "--than", "i20")
    found = answered(llm4rec(*asked, "--json"))
    other = found["than"]
    assert {*other} == {"item_id", "title", "rank", "score", "text", "evidence"}
    assert (other["item_id"], other["title"]) == ("i20", "Tale 20 of a town")
    assert "“Tale 20 of a town”" in other["text"] and f"“{found['title']}”" in other["text"]
    labels = {each["label"] for each in other["evidence"]}
    named = {part.split("”")[0] for part in other["text"].split("“")[1:]}
    assert named - {found["title"], other["title"]} <= labels
    assert other["text"] in llm4rec(*asked).stdout.splitlines()


@pytest.mark.parametrize(
    ("whom", "kind"),
    [
        (["--history", ""], "context"),
        (["--user", "nobody-knows"], "context"),
        (["--user", "u1", "--text", "a tale of the sea"], None),
        (["--user", "u1", "--at", "2020-11-24T18:00"], None),
    ],
    ids=["an empty history", "a person unknown", "a wish", "a time"],
)
def test_explain_for_all_who_ask(model: Path, whom: list[str], kind: str | None) -> None:
    asked = ("explain", "--model", model, *whom, "--item", "i20")
    result = llm4rec(*asked, "--json")
    found = answered(result)
    assert found["rank"] >= 1 and kind in (None, found["explanation"]["kind"])
    if kind is not None:
        assert found["without"] == []
    assert ("no history of 'nobody-knows'" in result.stderr) is ("nobody-knows" in whom)
    assert llm4rec(*asked).stdout.startswith(
        found["explanation"]["text"] + "\n\nTale 20 of a town stands at "
    )


def test_an_item_of_the_history_is_not_explained_by_itself(model: Path) -> None:
    asked = ("explain", "--model", model, "--history", "i1,i2", "--item", "i1")
    found = answered(llm4rec(*asked, "--json"))
    assert found["rank"] is None
    assert all(each["id"].split(":")[-1] != "i1" for each in found["explanation"]["evidence"])
    assert "can't be recommended here: it was chosen before" in llm4rec(*asked).stdout


def test_what_explain_passes_over_is_told(model: Path) -> None:
    asked = ("explain", "--model", model, "--item", "i4")
    assert "passed over: ghost" in llm4rec(*asked, "--history", "i1,ghost").stderr
    assert "The wish is empty and is passed over." in llm4rec(*asked, "--user", "u1", "--text", " ").stderr
