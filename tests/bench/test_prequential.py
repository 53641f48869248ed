"""The measurement of learning while serving: what each strategy is told, and what is kept and reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.test_grounding import TINY

from llm4rec import choosing
from llm4rec.config import load
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog, build_log
from llm4rec.evaluate.prequential import Stream, stream
from llm4rec.fitting import hold_out
from llm4rec.settings import Config

N_ITEMS = 30
CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(N_ITEMS)]}), ())
CONFIG = Config.model_validate(TINY | {"linear": {"items": N_ITEMS}, "retrieve": {"enabled": False}})


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("prequential")


def changing(n_people: int = 40, each: int = 20) -> EventLog:
    """Items of the first half are taken in the first 80% of the time, those of the second in what follows."""
    draw = np.random.default_rng(0)
    times = np.sort(draw.permutation(n_people * each).reshape(n_people, each), axis=1)
    late = times >= 0.8 * times.size
    items = draw.integers(N_ITEMS // 2, size=times.shape) + N_ITEMS // 2 * late
    people = pl.Series(np.repeat([f"u{u}" for u in range(n_people)], each))
    return build_log(people, items.ravel(), times=times.ravel())


@pytest.fixture(scope="module")
def told() -> Stream:
    return stream(changing(), N_ITEMS, every=30, period=60)


@pytest.fixture(scope="module")
def kept(script: ModuleType, told: Stream, tmp_path_factory: pytest.TempPathFactory) -> Any:
    data = script.Data(changing(), CATALOG, None)
    return script.Kept(tmp_path_factory.mktemp("kept"), data, told, lambda options: CONFIG, {"run": 1})


@pytest.fixture(scope="module")
def results(script: ModuleType, kept: Any) -> dict[str, Any]:
    return {name: kept.result(name) for name in ("frozen", "still", "refit", "counting", "linear", "network")}


def test_who_is_told_answers_better(results: dict[str, Any]) -> None:
    mean = {name: np.mean(found["ndcg@10"]) for name, found in results.items()}
    # nothing of what the stream brings was there before: only counts and refits can know of it
    assert mean["still"] < mean["frozen"] < mean["refit"]
    assert results["refit"]["learning"]["times"] == 2 == results["linear"]["learning"]["times"]
    assert results["frozen"]["learning"]["times"] == 0 and results["counting"]["learning"]["times"] == 6
    assert results["still"]["remembering"]["times"] == 0 and results["frozen"]["remembering"]["times"] == 6
    # before the first round is over, all are the same model
    assert len({tuple(found["ndcg@10"][:30]) for found in results.values()}) == 1


def test_parts_of_a_refit_are_taken_into_the_frozen_model(
    script: ModuleType, told: Stream, kept: Any
) -> None:
    given = script.Setting(kept.fitted(0)[0], told, CONFIG, kept.fitted)
    due = next(number for number, each in enumerate(told.rounds) if each.due)

    def after(way: Any) -> Any:
        for number in range(due + 2):
            model = way.after(number)
        return model.fitted

    frozen, refit = after(script.Frozen(given)), after(script.Refit(given))
    alike = {
        "linear": lambda one, other: one.linear.weights.tolist() == other.linear.weights.tolist(),
        "prior": lambda one, other: one.prior.shares == other.prior.shares,
        "network": lambda one, other: (one.scorer.vectors == other.scorer.vectors).all(),
    }
    assert not any(same(frozen, refit) for name, same in alike.items() if name != "prior")
    for parts in ({"linear"}, {"prior"}, {"network"}, {"linear", "network"}):
        found = after(script.Parts(given, parts))
        for name, same in alike.items():
            assert same(found, refit if name in parts else frozen)
        # whatever is taken, the same is remembered and counted
        for other in (found, refit):
            assert other.histories.n_events == frozen.histories.n_events
        if "prior" not in parts:
            assert (found.prior.log_popularity == frozen.prior.log_popularity).all()


def test_what_parts_weigh_is_chosen_on_events_that_training_has_not_seen(
    script: ModuleType, told: Stream, kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = script.Setting(kept.fitted(0)[0], told, CONFIG, kept.fitted)
    found = script.follow(script.Reweighed(given, always=False), given)
    assert found["learning"]["times"] == sum(each.due for each in told.rounds)

    asked: list[Any] = []
    whole = choosing.Questions.linear

    def listening(self: choosing.Questions, scorer: Any, part: Any) -> Any:
        asked.append((self.cases, part))
        return whole(self, scorer, part)

    monkeypatch.setattr(choosing.Questions, "linear", listening)
    fitted = given.model.fitted
    stop = told.rounds[-1].stop
    made = script.reweighed(given.model, told, stop).fitted
    ((cases, part),) = asked
    # what came in the stream alone is known to it, and was not before
    assert (part.known >= N_ITEMS // 2).any() and made.scorer is fitted.scorer
    places = told.log.offsets[cases.rows] + cases.ends
    assert (cases.ends == told.log.lengths[cases.rows] - 1).all()
    newest = set(np.flatnonzero(told.told(0, stop).lengths))
    held = set(hold_out(told.past, CONFIG.train.validation_people, CONFIG.train.seed)[1].rows)
    assert set(cases.rows) == newest | held
    # no event of the past that the network was trained on is asked for
    trained = hold_out(told.past, CONFIG.train.validation_people, CONFIG.train.seed)[0]
    assert all(place in told.order or told.past.lengths[row] > trained.lengths[row]
               for place, row in zip(places, cases.rows, strict=True))  # fmt: skip


def test_the_report_sets_each_beside_the_frozen_one(
    script: ModuleType, told: Stream, results: dict[str, Any]
) -> None:
    data = script.Data(changing(), CATALOG, None, np.arange(N_ITEMS) < 20)
    found = script.report(data, told, results)
    every, parts = found["parts"]["all"], found["parts"]
    assert every["cases"] == len(told.cases()) == sum(each["cases"] for each in found["rounds"])
    for pair in (
        ("known people", "new people"),
        ("seen items", "new items"),
        ("exchanged items", "other items"),
    ):
        assert sum(parts[name]["cases"] for name in pair) == every["cases"]
    assert parts["new items"]["cases"] > 0 == parts["seen items"]["cases"]
    assert every["frozen"]["minus frozen"]["difference"] == 0 and every["refit"]["of the refit's gain"] == 1
    assert every["linear"]["of the refit's gain"] == pytest.approx(
        every["linear"]["minus frozen"]["difference"] / every["refit"]["minus frozen"]["difference"]
    )
    over = found["over time"]["refit"]
    counts = np.array([each["cases"] for each in found["rounds"]])
    assert over["cumulative"][-1] == pytest.approx(np.mean(results["refit"]["ndcg@10"]))
    assert over["cumulative"] == pytest.approx(np.cumsum(counts * over["round"]) / np.cumsum(counts))
    assert [each["refit after"] for each in found["rounds"]] == [each.due for each in told.rounds]
    old = found["strategies"]["refit"]["old holdout"]["all"]
    assert old["cases"] == len(told.holdout) and old["ndcg@10"] == pytest.approx(
        np.mean(results["refit"]["old holdout"])
    )
    frozen = np.mean(results["frozen"]["old holdout"])
    assert old["loss"] == pytest.approx(1 - old["ndcg@10"] / frozen)
    assert found["strategies"]["refit"]["of the refit's cost"] == 1


def test_a_run_goes_on_where_it_was_stopped(
    script: ModuleType, kept: Any, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("It was measured before.")

    monkeypatch.setattr(script, "follow", refuse)
    again = script.Kept(kept.folder, kept.data, kept.stream, kept.configured, {"run": 1})
    assert again.result("refit") == results["refit"]
    with pytest.raises(SystemExit, match="other data or settings"):
        script.Kept(kept.folder, kept.data, kept.stream, kept.configured, {"run": 2})


def test_a_strategy_that_was_not_finished_uses_the_refits_there_are(
    script: ModuleType, kept: Any, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("It was fitted before.")

    monkeypatch.setattr("llm4rec.recommender.Recommender.fit", refuse)
    (kept.folder / "refit.json").unlink()
    again = kept.result("refit")
    for key in ("ndcg@10", "hr@10", "old holdout", "learning"):
        assert again[key] == results["refit"][key]


def test_the_learner_reads_every_event_once_from_a_log(script: ModuleType, told: Stream, kept: Any) -> None:
    online = {"batch_size": 16, "replay": 4, "judges": 8, "fisher_examples": 4, "learning_rate": 0.5}
    config = Config.model_validate(CONFIG.model_dump() | {"online": online})
    way = script.Learning(script.Setting(kept.fitted(0)[0], told, config, kept.fitted))
    given = way.given
    for number in range(len(told.rounds)):
        model = way.after(number)
    fitted, before = model.fitted, given.model.fitted
    frozen = script.Frozen(given)
    for number in range(len(told.rounds)):
        remembered = frozen.after(number)
    tables = [each.fitted.histories.to_frame(CATALOG.ids) for each in (model, remembered)]
    assert (
        tables[0]
        .select("user_id", "item_id", "timestamp")
        .equals(tables[1].select("user_id", "item_id", "timestamp"))
    )
    assert fitted.online.position == told.rounds[-1].stop // 16 * 16
    assert not (fitted.scorer.vectors == before.scorer.vectors).all()
    assert way.learning.times == len(told.rounds)
    assert set(script.WAYS) >= {"ours", "finetune", "replay"}
    plain = load(Config, settings=list(script.WAYS["finetune"].options)).online
    assert (plain.consolidation, plain.fraction, plain.replay, plain.holdout) == (0, 1, 0, 0)


def test_other_options_are_measured_anew(script: ModuleType, kept: Any) -> None:
    asked: list[tuple[str, ...]] = []

    def configured(options: tuple[str, ...]) -> Config:
        asked.append(options)
        return load(Config, settings=["rerank.diversity=0.5", *options]) if options else CONFIG

    again = script.Kept(kept.folder, kept.data, kept.stream, configured, {"run": 1})
    before = again.result("still")
    script.WAYS["still"] = script.Way(script.Still, ("train.epochs=1",))
    after = again.result("still")
    script.WAYS["still"] = script.Way(script.Still)
    assert asked == [(), ("train.epochs=1",)] and before["options"] != after["options"]
    assert again.result("still")["options"] == before["options"]


def test_items_exchange_what_they_are_after_the_past(script: ModuleType) -> None:
    log = changing()
    other, moved = script.exchanged(log, N_ITEMS, 0.8, 0.5, seed=1)
    before = log.clock < 0.8 * log.n_events
    assert (other.items[before] == log.items[before]).all() and moved.sum() == 15
    assert ((other.items != log.items) == (~before & moved[log.items])).all()
    # one to one: as many events as before, under other names
    assert sorted(np.bincount(other.items[~before], minlength=N_ITEMS)) == sorted(
        np.bincount(log.items[~before], minlength=N_ITEMS)
    )


def test_the_command_writes_figures_and_a_plot(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "world.json"
    train = ["train.epochs=1", "train.attention_epochs=0", "train.context_epochs=0", "linear.items=0"]
    size = ["model.embedding_size=16", "model.layers=1", "model.heads=1", "encode.text.encoder=hash"]
    options = [part for each in [*train, *size, "retrieve.enabled=false"] for part in ("--set", each)]
    world = ["--data", "world", "--events", "600", "--round", "40", "--strategies", "frozen", "still"]
    monkeypatch.setattr("sys.argv", ["prequential.py", *world, *options, "--out", str(out)])
    script.main()
    found = json.loads(out.read_text())
    assert list(found["strategies"]) == ["frozen", "still"] and found["seeds"]["data"] == 0
    assert "NDCG@10" in (tmp_path / "world.svg").read_text() and found["protocol"]["round"] == 40
