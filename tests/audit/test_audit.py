"""A fitted model held to account, from the command line and piece by piece."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from llm4rec.audit import fairness, report, selection, strengths
from llm4rec.cli import app
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.split import Cases, leave_last_out
from llm4rec.debias.popularity import Popularity
from llm4rec.errors import InputError
from llm4rec.evaluate.groups import Groups, ItemGroups
from llm4rec.evaluate.protocol import Evaluation
from llm4rec.recommender import Recommender
from llm4rec.types import Ints, Query, Rankings

N_PEOPLE, N_ITEMS, N_EVENTS = 120, 60, 8
SETTINGS = [
    "train.epochs=10", "train.learning_rate=0.02", "train.attention_epochs=0", "train.batch_size=128",
    "model.embedding_size=8", "model.layers=1", "model.heads=1", "encode.text.encoder=hash",
    "retrieve.enabled=false",
]  # fmt: skip


def llm4rec(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answered(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Women take items of the first half, men of the second, a few of them far more often than others."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, int]] = []
    half = N_ITEMS // 2
    chances = 1 / np.arange(1, half + 1)
    for person in range(N_PEOPLE):
        taken = rng.choice(half, N_EVENTS, replace=False, p=chances / chances.sum()) + half * (person % 2)
        rows += [(f"u{person}", f"i{item}", 1_600_000_000 + step) for step, item in enumerate(taken)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(folder / "interactions.parquet")
    pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "shelf": [["left"] if item < half else ["right"] for item in range(N_ITEMS)],
    }).write_parquet(folder / "items.parquet")
    pl.DataFrame({
        "user_id": [f"u{person}" for person in range(N_PEOPLE)],
        "gender": ["F" if person % 2 == 0 else "M" for person in range(N_PEOPLE)],
        "town": ["a", "b", "c"] * (N_PEOPLE // 3),
    }).write_parquet(folder / "users.parquet")
    return folder


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    files = [
        part
        for name in ("interactions", "items", "users")
        for part in (f"--{name}", data / f"{name}.parquet")
    ]
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    result = llm4rec("fit", *files, "--out", data / "model", *settings)
    assert result.exit_code == 0, result.stderr
    return data / "model"


def test_an_audit_tells_who_is_shown_what(model: Path, data: Path, tmp_path: Path) -> None:
    asked = ("audit", "--model", model, "--interactions", data / "interactions.parquet")
    found = answered(llm4rec(*asked, "--out", tmp_path / "audit", "--json"))
    assert sorted(each.name for each in (tmp_path / "audit").iterdir()) == [
        "audit.html", "audit.json", "audit.md",
    ]  # fmt: skip
    kept = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert kept["facts"] == found["facts"]
    (people,) = found["fairness"]["as it is"]["people"]  # what is protected, and no other column
    assert people["attribute"] == "gender"
    assert people["exposure"]["shelf"]["largest"]["value"] > 0.5
    assert people["exposure"]["shelf"]["p"] < 0.05
    assert people["attack"]["accuracy"]["value"] > 0.9
    (held,) = found["fairness"]["shelf held at 0.02"]["people"]
    assert held["exposure"]["shelf"]["largest"]["value"] < 0.1
    assert held["cost"][0] < 0  # people want what is on their shelf
    assert {each["metric"] for each in people["accuracy"]} == {"hr@10", "ndcg@10", fairness.CALIBRATION}
    for name, points in found["curves"].items():
        assert points[0]["strength"] == 0 and points[0]["difference"] == [0, 0, 0]
        assert [point["strength"] for point in points] == list(strengths.STRENGTHS[name])
    popular = found["curves"]["popularity"]
    assert popular[-1]["seen"]["popularity_lift@10"] < popular[0]["seen"]["popularity_lift@10"]
    varied = found["curves"]["diversity"]
    assert varied[-1]["seen"]["ild@10"] > varied[0]["seen"]["ild@10"]
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert page.count("<figure>") == 3 and "http" not in page
    again = llm4rec(*asked, "--by", "town,gender", "--out", tmp_path / "audit")  # over an earlier one
    assert again.exit_code == 0, again.stderr
    assert "Fairness by town" in again.stdout and "Fairness by gender" in again.stdout


def test_attributes_may_come_from_another_table(model: Path, data: Path, tmp_path: Path) -> None:
    users = pl.DataFrame({"user_id": ["u0", "u1", "u2"], "club": ["x", "y", "x"]})
    users.write_csv(tmp_path / "users.csv")
    asked = ("audit", "--model", model, "--interactions", data / "interactions.parquet", "--users")
    found = llm4rec(*asked, tmp_path / "users.csv", "--by", "club", "--out", tmp_path / "audit")
    assert found.exit_code == 0, found.stderr
    assert "'x' has 2 people, fewer than 20" in found.stdout
    wrong = llm4rec(*asked, tmp_path / "users.csv", "--by", "height", "--out", tmp_path / "audit")
    assert wrong.exit_code == 2
    assert "can't be grouped by height: known of them are club" in wrong.stderr


def test_an_earlier_model_is_audited_too(model: Path, data: Path, tmp_path: Path) -> None:
    earlier = Recommender.load(model)
    Recommender(replace(earlier.fitted, popularity=Popularity())).save(tmp_path / "model")
    asked = ("audit", "--model", tmp_path / "model", "--interactions", data / "interactions.parquet")
    found = llm4rec(*asked, "--protocol", "global-time", "--cases", 50, "--out", tmp_path / "audit", "--json")
    assert "50 of" in answered(found)["facts"]["questions"]
    assert any("no counts of its items" in note for note in json.loads(found.stdout)["notes"])


def test_an_audit_needs_events_before_those_it_asks_about(model: Path, data: Path, tmp_path: Path) -> None:
    events = pl.read_parquet(data / "interactions.parquet").with_columns(split=pl.lit("test"))
    events.write_parquet(tmp_path / "e.parquet")
    asked = ("audit", "--model", model, "--interactions", tmp_path / "e.parquet", "--protocol", "given")
    found = llm4rec(*asked, "--out", tmp_path / "audit")
    assert found.exit_code == 2
    assert "no events before those that are asked about" in found.stderr


def test_a_column_of_any_name_groups_people(model: Path, data: Path, tmp_path: Path) -> None:
    users = pl.read_parquet(data / "users.parquet").rename({"town": "row"})
    users.write_parquet(tmp_path / "users.parquet")
    asked = ("audit", "--model", model, "--interactions", data / "interactions.parquet")
    found = llm4rec(*asked, "--users", tmp_path / "users.parquet", "--by", "row", "--out", tmp_path / "audit")
    assert found.exit_code == 0, found.stderr
    assert "Fairness by row" in found.stdout


def test_offsets_are_those_of_other_people(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[int], Ints]] = []

    class Spy:
        def __init__(self, items: Ints) -> None:
            self.learnt = set(items[:, 0].tolist())

        def reordered(self, candidates: Rankings, groups: Ints) -> Rankings:
            seen.append((self.learnt, candidates.items[:, 0]))
            return candidates

    monkeypatch.setattr(fairness, "fit_parity", lambda items, *_: Spy(items))
    pool = Rankings(np.tile(np.arange(40)[:, None], (1, 3)), np.zeros((40, 3), dtype=np.float32))
    groups = Groups("g", ("a",), np.zeros(40, dtype=np.int64))
    people = np.repeat(np.arange(20), 2)  # two lists each, which stay together
    fairness._cross_fitted(pool, groups, people, ItemGroups("kind", (), None), 0.1)
    assert len(seen) == 2
    for learnt, asked in seen:
        assert not learnt & set(asked.tolist())
        assert {item // 2 for item in learnt}.isdisjoint({item // 2 for item in asked.tolist()})


def test_an_audit_replaces_nobodys_file(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "audit.html").write_text("mine")
    asked = ("audit", "--model", model, "--interactions", data / "interactions.parquet", "--out", tmp_path)
    found = llm4rec(*asked)
    assert found.exit_code == 2
    assert "audit.html exists" in found.stderr
    assert (tmp_path / "audit.html").read_text() == "mine"
    inside = llm4rec(*asked[:-1], model)
    assert inside.exit_code == 2 and "Traceback" not in inside.stderr


def test_names_of_groups_are_escaped(model: Path, data: Path, tmp_path: Path) -> None:
    users = pl.read_parquet(data / "users.parquet").with_columns(
        gender=pl.col("gender").replace({"F": "<script>alert(1)</script>", "M": "\x1b[31mred"})
    )
    users.write_parquet(tmp_path / "users.parquet")
    asked = ("audit", "--model", model, "--interactions", data / "interactions.parquet")
    found = llm4rec(*asked, "--users", tmp_path / "users.parquet", "--out", tmp_path / "audit")
    assert found.exit_code == 0, found.stderr
    assert "<script>" not in (tmp_path / "audit" / "audit.html").read_text()
    assert "\x1b" not in found.stdout


NONE = Rankings(np.zeros((3, 1), dtype=np.int64), np.zeros((3, 1), dtype=np.float32))


def _asked() -> tuple[Cases, EventLog]:
    """Item 0 taken sixteen times in training, item 1 four times and item 2 once; each asked for once."""
    train = build_log(
        pl.Series([f"p{event}" for event in range(21)]), np.array([0] * 16 + [1] * 4 + [2]), times=None
    )
    log = build_log(pl.Series(["a", "a", "b", "b", "c", "c"]), np.array([3, 0, 3, 1, 3, 2]), times=None)
    cases = Cases(log, np.arange(3), log.offsets[:-1] + 1, np.array([0, 1, 2]), np.arange(4))
    return cases, train


def test_answers_are_weighed_by_how_rarely_they_were_seen() -> None:
    cases, train = _asked()
    ndcg = np.array([1.0, 0.5, 0.0], dtype=np.float32)
    found = Evaluation({"ndcg@10": ndcg}, cases.rows, {}, NONE)
    exact, clipped, plain = selection.measure(found, cases, train, (0.0, 0.5, 1.0))
    # propensities √(16/16), √(4/16), √(1/16): weights 1, 2, 4
    assert exact.value.mean == pytest.approx((1 + 2 * 0.5) / 7)
    assert exact.effective == pytest.approx(49 / 21)
    assert exact.largest == pytest.approx(4 / (7 / 3))
    assert exact.clipped == 0
    assert clipped.value.mean == pytest.approx(2 / 5)  # weights 1, 2, 2
    assert clipped.clipped == pytest.approx(1 / 3)
    assert plain.value.mean == pytest.approx(0.5)
    assert plain.effective == pytest.approx(3)


def test_propensities_that_were_logged_are_taken_as_they_are() -> None:
    cases, train = _asked()
    told = np.array([np.nan, 0.5, np.nan, 0.25, np.nan, 0.125], dtype=np.float32)  # of the answers alone
    given = replace(cases, log=replace(cases.log, propensities=told))
    found = Evaluation({"ndcg@10": np.array([1.0, 0.5, 0.0], dtype=np.float32)}, cases.rows, {}, NONE)
    (exact,) = selection.measure(found, given, train, (0.0,))
    assert exact.value.mean == pytest.approx((2 * 1 + 4 * 0.5) / 14)  # weights 2, 4, 8
    assert exact.largest == pytest.approx(8 / (14 / 3))
    assert selection.logged(cases) is None
    lacking = replace(cases, log=replace(cases.log, propensities=np.where(told == 0.25, np.nan, told)))
    assert selection.logged(lacking) is None
    assert selection.measure(found, lacking, train) == selection.measure(found, cases, train)


@pytest.mark.parametrize("logged", [False, True])
def test_the_report_says_where_propensities_come_from(logged: bool) -> None:
    cases, train = _asked()
    found = Evaluation({"ndcg@10": np.array([1.0, 0.5, 0.0], dtype=np.float32)}, cases.rows, {}, NONE)
    told = report.Audit(
        tuple(selection.measure(found, cases, train)),
        {},
        {"as it is": fairness.Fairness((), {}, {})},
        {},
        (),
        logged=logged,
    )
    assert ("those logged" in next(report.grids(told)).note) is logged


def test_what_is_not_finite_is_null_in_json() -> None:
    told = report.plain({"a": np.array([1.0, np.nan]), "b": (np.float32(2), float("inf")), 3: None})
    assert told == {"a": [1.0, None], "b": [2.0, None], "3": None}


def test_people_are_grouped_by_what_is_protected_unless_columns_are_named(data: Path) -> None:
    people = Catalog(pl.read_parquet(data / "users.parquet"), (), "user_id")
    assert fairness.attributes(people, [], ("gender", "age")) == ["gender"]
    assert fairness.attributes(people, ["town"], ("gender",)) == ["town"]
    assert fairness.attributes(None, [], ("gender",)) == []
    with pytest.raises(InputError, match="known of them are no columns; give a table with --users"):
        fairness.attributes(None, ["town"], ())


def test_differences_are_from_the_first_strength(model: Path, data: Path) -> None:
    fitted = Recommender.load(model)
    events = pl.read_parquet(data / "interactions.parquet")
    log = build_log(
        events["user_id"], fitted.catalog.numbers(events["item_id"]), times=events["timestamp"].to_numpy()
    )
    split = leave_last_out(log)
    first, other = strengths.curve(fitted, split.test, split.train, "popularity", (0.5, 0.0))
    assert first.difference == (0, 0, 0)
    assert other.difference[0] == pytest.approx(other.ndcg - first.ndcg, abs=1e-7)
    assert other.relative is not None
    assert other.relative[0] == pytest.approx(other.ndcg / first.ndcg - 1, abs=1e-6)


def test_a_model_can_be_fitted_to_show_groups_alike(model: Path, data: Path, tmp_path: Path) -> None:
    names = ("interactions", "items", "users")
    files = [part for name in names for part in (f"--{name}", data / f"{name}.parquet")]
    wanted = [*SETTINGS, "debias.parity.attribute=gender", "debias.parity.epsilon=0.05"]
    settings = [part for setting in wanted for part in ("--set", setting)]
    place = tmp_path / "model"
    result = llm4rec("fit", *files, "--out", place, *settings)
    assert result.exit_code == 0, result.stderr
    fair, plain = Recommender.load(place), Recommender.load(model)
    told = fair.meta["parity"]
    assert told["before"] > 0.5 and told["gap"] < 0.1
    histories = plain.known_histories(pl.Series([f"u{person}" for person in range(N_PEOPLE)]))
    left = np.array([int(name[1:]) < N_ITEMS // 2 for name in plain.catalog.ids])
    women = np.arange(N_PEOPLE) % 2 == 0

    def gap(asked: Recommender) -> float:
        shown = left[asked.rank(histories, 10).items].mean(axis=1)
        return float(abs(shown[women].mean() - shown[~women].mean()))

    assert gap(plain) > 0.5
    assert gap(fair) < 0.3
    generate = fair.config.generate.model_copy(update={"exact_up_to": 1})
    large = Recommender(replace(fair.fitted, config=fair.config.model_copy(update={"generate": generate})))
    np.testing.assert_array_equal(large.rank(histories, 10).items, fair.rank(histories, 10).items)
    # who is not known is answered as by the plain model, and so is who is forgotten
    query = Query(("i1", "i2"))
    assert fair.recommend(query, 5) == plain.recommend(query, 5)
    gone = fair.forget_user("u0")
    assert gone.recommend(Query(("i1", "i2"), user="u0"), 5) == plain.recommend(query, 5)
    named = Query(("i1", "i2"), user="u2")
    assert gone.recommend(named, 5) == fair.recommend(named, 5)
    grown = fair.upsert_items(pl.DataFrame({"item_id": ["new"], "shelf": [["left"]]}))
    balance = grown.fitted.balance
    assert balance is not None
    assert balance.parity.by_item[0, N_ITEMS] == balance.parity.by_item[0, int(np.argmax(left))]
    wrong = llm4rec("fit", *files, "--out", place, "--set", "debias.parity.attribute=height")
    assert wrong.exit_code == 2
    assert "is no column of the people, who have gender, town" in wrong.stderr


def test_what_states_should_not_tell_is_no_feature_and_is_trained_against(data: Path, tmp_path: Path) -> None:
    names = ("interactions", "items", "users")
    files = [part for name in names for part in (f"--{name}", data / f"{name}.parquet")]
    brief = [*SETTINGS, "train.epochs=2"]
    wanted = [*brief, 'debias.adversary.attributes=["town"]', "debias.adversary.weight=1"]
    settings = [part for setting in wanted for part in ("--set", setting)]
    result = llm4rec("fit", *files, "--out", tmp_path / "model", *settings)
    assert result.exit_code == 0, result.stderr
    found = Recommender.load(tmp_path / "model")
    people = found.fitted.people
    assert people is not None
    assert "town" in people.table.columns
    assert not [field for field in people.fields if field.name == "town"]
    plain = [part for setting in brief for part in ("--set", setting)]
    same = llm4rec(
        "fit", *files, "--out", tmp_path / "other", *plain, "--set", 'data.protected=["gender","town"]'
    )
    assert same.exit_code == 0, same.stderr
    other = Recommender.load(tmp_path / "other")
    assert np.abs(found.item_vectors - other.item_vectors).max() > 1e-3
    strange = llm4rec(
        "fit", *files, "--out", tmp_path / "m", *settings, "--set", 'debias.adversary.attributes=["x"]'
    )
    assert strange.exit_code == 2
    assert "no column of the people" in strange.stderr
