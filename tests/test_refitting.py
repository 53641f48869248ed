"""A model fitted anew on what it remembers goes on where the old one stood."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from llm4rec import fitting, refitting
from llm4rec.cli import app
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import build_log
from llm4rec.errors import ArtefactError, InputError
from llm4rec.online.progressed import Progressed, trained
from llm4rec.online.reservoir import events_at
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.types import Feedback

N_ITEMS, START = 20, 1_700_000_000
TINY: dict[str, Any] = {
    "encode": {"text": {"encoder": "hash"}},
    "train": {"epochs": 3, "attention_epochs": 1, "context_epochs": 1, "batch_size": 64, "fewest_steps": 1},
    "model": {"embedding_size": 8, "layers": 1, "heads": 1, "dropout": 0.0},
    "online": {"batch_size": 8, "replay": 3, "judges": 8, "period": 2, "fisher_examples": 5},
}


@pytest.fixture(scope="module")
def model() -> Recommender:
    users, steps = np.repeat(np.arange(30), 6), np.tile(np.arange(6), 30)
    log = build_log(
        pl.Series([f"u{user}" for user in users]),
        (users + steps) % (N_ITEMS - 1),
        times=START - 100_000 + 3_600 * steps,
    )
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "title": [f"Tale {item}" for item in range(N_ITEMS)],
        "genre": [["old" if item % 2 else "new"] for item in range(N_ITEMS)],
    })
    fields = (Field("title", "text"), Field("genre", "categorical"))
    return Recommender.fit(log, Catalog(table, fields), Config.model_validate(TINY))


def told(n: int, first: int = 0) -> list[Feedback]:
    return [
        Feedback(f"e{number}", f"u{number % 37}", f"i{number * 7 % N_ITEMS}", "click", None, START + number)
        for number in range(first, first + n)
    ]


@pytest.fixture(scope="module")
def learnt(model: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """After 64 events, on which it was trained."""
    with FeedbackLog.open(tmp_path_factory.mktemp("log") / "events.db") as log:
        log.append(told(64))
        return model.learn(log)[0]


@pytest.fixture(scope="module")
def night(learnt: Recommender) -> Recommender:
    return learnt.refit()


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    values = config.model_dump()
    for name, options in sections.items():
        values[name] |= options
    return Config.model_validate(values)


def weights(found: Recommender) -> dict[str, torch.Tensor]:
    return dict(found.fitted.scorer.network.named_parameters())


def test_it_is_fitted_on_everything_and_knows_what_it_held_out(
    learnt: Recommender, night: Recommender
) -> None:
    known, fitted = learnt.fitted.histories, night.fitted
    assert known is not None and fitted.histories is not None
    assert fitted.histories.n_events == known.n_events == 180 + 64
    assert fitted.about["n_events"] + fitted.untrained.height == known.n_events
    assert fitted.online is None and fitted.learnt == learnt.fitted.learnt
    assert not len(fitted.new_items)  # the one that nobody had taken was among them
    assert fitted.about["training"]["begun"] and fitted.spaces == learnt.fitted.spaces


def test_only_what_the_first_weights_have_not_seen_chooses_the_epoch(
    learnt: Recommender, night: Recommender
) -> None:
    fitted = learnt.fitted
    assert fitted.histories is not None
    assert fitted.untrained.height == 30 + 64  # the last of everybody, and what came
    held = night.fitted.untrained
    assert held.height and held.join(fitted.untrained, on=held.columns[:3], how="anti").height == 0
    assert not held["came"].any()
    # somebody whose last event was trained on is asked nothing
    others = pl.col("user_id") != "u3"
    seen = Recommender(replace(fitted, untrained=fitted.untrained.filter(others)))
    assert (
        "u3" in held["user_id"].to_list() and "u3" not in seen.refit().fitted.untrained["user_id"].to_list()
    )


def test_where_enough_people_did_something_since_they_alone_are_asked(
    model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["u3", "u5", "u7"]
    fitted = model.remember(build_log(pl.Series(names), np.arange(3), times=np.full(3, START)))
    newcomers = build_log(pl.Series(["new", "newer"]), np.arange(2), times=np.full(2, START))
    fitted = fitted.remember(newcomers).fitted  # nothing can be asked of them yet
    assert fitted.untrained.filter("came")["user_id"].to_list() == [*names, "new", "newer"]
    assert fitted.histories is not None
    assert fitting._unseen(fitted.histories, fitted.untrained).sum() == 30  # of all the last was held out
    monkeypatch.setattr(fitting, "ENOUGH", 3)
    some = fitting._unseen(fitted.histories, fitted.untrained)
    assert fitted.histories.user_ids.filter(some).to_list() == names


def test_it_begins_with_the_weights_of_the_last_fit(
    model: Recommender, learnt: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with those of the learner, which have seen what is to choose the epoch."""
    started: list[dict[str, torch.Tensor]] = []
    actual = fitting.train_in_stages

    def noted(network: Any, *given: Any, **options: Any) -> Any:
        started.append({name: each.detach().clone() for name, each in network.named_parameters()})
        return actual(network, *given, **options)

    monkeypatch.setattr(fitting, "train_in_stages", noted)
    learnt.refit()
    before, after = weights(model), weights(learnt)
    moved = [
        name for name in trained(model.fitted.scorer.network) if not torch.equal(before[name], after[name])
    ]
    assert moved
    table = "fusion.encoders.behaviour.table"
    for name, tensor in started[0].items():
        was = before[name]
        if name == table:  # nobody had taken the last item
            tensor, was = tensor[:-1], was[:-1]
        assert torch.equal(tensor, was), name
    learnt.refit(warm=False)
    assert not torch.equal(started[1][table], started[0][table])


def test_where_no_epoch_is_better_it_stays_as_it_was(
    learnt: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm4rec.choosing.Questions.dense_metric", lambda *_: 0.5)
    found = learnt.refit()
    floor = found.fitted.about["training"]["floor"]
    assert floor["best_epoch"] == -1 and len(floor["metrics"]) == 3
    online = learnt.fitted.online
    assert isinstance(online, Progressed)
    for name, tensor in online.origin.weights.items():
        assert torch.equal(weights(found)[name], tensor)


def test_learning_goes_on_from_there(learnt: Recommender, tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "events.db") as log:
        log.append(told(70))
        place = learnt.fitted.learnt
        assert place is not None
        moved = replace(learnt.fitted, learnt=replace(place, log=log.identity))
        refitted = Recommender(moved).refit()
        day, said = refitted.learn(log)
        assert (said.read, said.start) == (6, 64)
        log.append(told(10, 70))
        later, said = day.learn(log)
    assert isinstance(later.fitted.online, Progressed) and later.fitted.online.position == 80
    assert later.fitted.online.origin.position == 64
    assert later.fitted.untrained.height == refitted.fitted.untrained.height + 16


def test_what_people_corrected_and_who_is_forgotten_go_with_it(learnt: Recommender) -> None:
    said = learnt.correct("u1", less=[("genre", "old")])
    found = said.refit().fitted
    assert found.aspects is not None and said.fitted.aspects is not None
    assert found.corrections.to_frame(found.aspects).equals(
        said.fitted.corrections.to_frame(said.fitted.aspects)
    )
    assert found.corrections.to_frame(found.aspects).height == 1
    without = learnt.forget_user("u3").refit()
    assert without.known_history("u3") is None
    assert "u3" not in without.fitted.untrained["user_id"].to_list()


def test_what_is_not_trained_on_is_kept_with_the_histories(
    learnt: Recommender, night: Recommender, tmp_path: Path
) -> None:
    learnt.save(tmp_path / "model")
    read = Recommender.load(tmp_path / "model")
    assert read.fitted.untrained.equals(learnt.fitted.untrained)
    again = read.refit()
    for name, tensor in weights(night).items():
        assert torch.equal(weights(again)[name], tensor)
    learnt.save(tmp_path / "silent", histories=False)
    assert Recommender.load(tmp_path / "silent").fitted.untrained.height == 0
    with pytest.raises(InputError, match="keeps no histories"):
        Recommender.load(tmp_path / "silent").refit()


def test_without_times_events_are_known_by_person_and_item() -> None:
    log = build_log(pl.Series(["a", "a", "b"]), np.array([1, 2, 3]))
    assert events_at(log, np.array([1, 2])).rows() == [("a", 2, -1), ("b", 3, -1)]


def test_kinds_of_entries_that_an_earlier_fit_did_not_keep_are_left_out(learnt: Recommender) -> None:
    asked = changed(learnt.config, retrieve={"kinds": ["review", "memory"]})
    possible = refitting._possible(replace(learnt.fitted, config=asked)).retrieve
    assert possible.enabled and possible.kinds == ("memory",)
    only = replace(learnt.fitted, config=changed(learnt.config, retrieve={"kinds": ["tag"]}))
    assert not refitting._possible(only).retrieve.enabled
    found = Recommender(only).refit()
    assert found.config.retrieve.kinds == ("tag",) and found.config.retrieve.enabled


def test_what_can_not_begin_warm_says_so(learnt: Recommender) -> None:
    unknown = Recommender(replace(learnt.fitted, untrained=learnt.fitted.untrained.clear()))
    with pytest.raises(InputError, match=r"0 people alone.*--cold"):
        unknown.refit()
    few = replace(learnt.fitted, untrained=learnt.fitted.untrained[:5])
    with pytest.raises(InputError, match="--cold"):
        Recommender(few).refit()
    config = changed(learnt.config, debias={"selection": {"of": "logged"}})
    with pytest.raises(InputError, match="logged propensities"):
        Recommender(replace(learnt.fitted, config=config)).refit()
    assert unknown.refit(warm=False).fitted.untrained.height > 0


def test_the_command_puts_the_new_model_in_the_place_of_the_old(
    learnt: Recommender, night: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "model"
    learnt.save(place)

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("llm4rec.fitting.ground", interrupted)
        stopped = CliRunner().invoke(app, ["refit", "--model", str(place)])
    assert stopped.exit_code == 1 and "is kept: the same command with --resume" in stopped.output
    assert Recommender.load(place).fitted.online is not None
    done = CliRunner().invoke(app, ["refit", "--model", str(place), "--resume"])
    assert done.exit_code == 0 and "Fitted anew on 37 people, 20 items" in done.output
    assert not (tmp_path / "model.checkpoint").exists()
    assert weights(Recommender.load(place)).keys() == weights(learnt).keys()
    for name, tensor in weights(night).items():
        assert torch.equal(weights(Recommender.load(place))[name], tensor)
    listed = CliRunner().invoke(app, ["versions", "--model", str(place)])
    assert "refit" in listed.output and "of 1" in listed.output


def test_unfinished_work_of_other_weights_is_not_taken_up(
    learnt: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("llm4rec.fitting.ground", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learnt.refit(checkpoints=tmp_path / "work")
    with pytest.raises(ArtefactError):
        learnt.refit(warm=False, checkpoints=tmp_path / "work", resume=True)
    learnt.refit(checkpoints=tmp_path / "work", resume=True)
