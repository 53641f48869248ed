"""The measurement of poisoned feedback: what is false, what alone differs, and what the guard undoes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from llm4rec.data.world import WorldConfig, make_world
from llm4rec.evaluate.prequential import stream
from llm4rec.recommender import Recommender
from llm4rec.settings import Config

SIZE: dict[str, Any] = {
    "encode": {"text": {"encoder": "hash"}},
    "train": {"epochs": 4, "attention_epochs": 0, "context_epochs": 0, "batch_size": 64},
    "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.1},
    "linear": {"items": 0},
    "retrieve": {"enabled": False},
    "online": {"batch_size": 8, "period": 6, "judges": 32, "fisher_examples": 4, "replay": 4},
}
LAST = 10
"""Of about ninety items."""


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    found = benchmark_script("poisoned")
    found.LAST = LAST
    return found


@pytest.fixture(scope="module")
def given(script: ModuleType) -> Any:
    world = make_world(WorldConfig(n_events=1_500, n_impressions=0, n_trial=0))
    cut = stream(world.log, len(world.catalog), holdout=0)
    config = Config.model_validate(SIZE)
    return script.setting(Recommender.fit(cut.past, world.catalog, config, people=world.people), cut)


@pytest.fixture(scope="module")
def false(script: ModuleType, given: Any) -> Any:
    return script.inverted(given, 0.2, 0)


@pytest.fixture(scope="module")
def clean(script: ModuleType, given: Any) -> Any:
    return script.outcome(given, given.told, {})


def test_the_holdout_is_what_nobody_is_told_of_after_true_histories(given: Any) -> None:
    log, cut = given.stream.log, len(given.stream.order) * 3 // 4
    assert len(given.told) == cut == 225
    assert given.holdout.log is log
    latest = max(each.time for each in given.told)
    places = log.offsets[given.holdout.rows] + given.holdout.ends
    assert (log.clock[places] >= latest).all() and 0 < len(places) <= len(given.stream.order) - cut
    known = given.clean.fitted.histories
    assert known.n_events == given.model.fitted.histories.n_events + cut


def test_inverted_events_name_what_the_person_would_take_last(
    script: ModuleType, given: Any, false: Any
) -> None:
    likes = [each for each in false if each.kind == "like"]
    assert len(false) == len(given.told) and len(likes) == round(0.2 * 225) // 2
    assert all(each.value is None for each in likes)
    changed = [n for n, (a, b) in enumerate(zip(given.told, false, strict=True)) if a != b]
    assert 40 <= len(changed) <= 45  # an item ranked low may be what was taken
    log, order = given.stream.log, given.stream.order
    for n in changed[:6]:
        place = int(order[n])
        row = np.array([log.rows[place]])
        before = log.histories(row, place - log.offsets[row])
        told = given.model.rank(before, len(given.model.catalog)).items[0]
        last = {str(given.model.catalog.ids[int(item)]) for item in told[told >= 0][-LAST:]}
        assert false[n].item in last
        assert (false[n].event_id, false[n].user) == (given.told[n].event_id, given.told[n].user)
    assert script.inverted(given, 0.2, 0) == false != script.inverted(given, 0.2, 1)


def test_one_new_person_floods_and_the_others_stay_as_they_were(script: ModuleType, given: Any) -> None:
    told = script.flooded(given.told, given, 0)
    flood = [each for each in told if each.user == script.FLOODER]
    assert [each for each in told if each.user != script.FLOODER] == given.told
    assert len(flood) == len(given.stream.order) // 4
    assert len({each.event_id for each in told}) == len(told)
    assert {each.kind for each in flood} == {"rating"}
    times = [each.time for each in told]
    assert times == sorted(times) and script.FLOODER not in set(given.stream.log.user_ids)
    first, second = (np.array([each.user == script.FLOODER for each in part]).mean()
                     for part in (told[: len(told) // 2], told[len(told) // 2 :]))  # fmt: skip
    assert 0.1 < first < 0.4 and 0.1 < second < 0.4


def test_a_flooding_person_is_found_less_reliable_than_others(
    script: ModuleType, given: Any, false: Any, clean: Any
) -> None:
    found = script.trust(script.outcome(given, script.flooded(false, given, 0), {}))
    # so small a model foresees little of anybody, so that reliabilities are near each other, too
    assert found[script.FLOODER]["reliability"] < found["median person"]["reliability"]
    assert found["kinds"]["like"]["weight"] < found["kinds"]["rating"]["weight"] == 1
    before = script.trust(clean)
    assert script.FLOODER not in before and set(before["kinds"]) == {"rating"}
    assert found["kinds"]["rating"]["reliability"] < before["kinds"]["rating"]["reliability"]


def test_beside_clean_memories_only_weights_differ(
    script: ModuleType, given: Any, false: Any, clean: Any
) -> None:
    frozen = script.ndcg(given.clean, given.holdout)
    remembered, _ = script.learn(script.with_online(given.model, {"train": False}), false)
    np.testing.assert_array_equal(script.ndcg(script.beside(remembered, given.clean), given.holdout), frozen)
    np.testing.assert_array_equal(clean.weights, clean.whole)
    learnt = script.beside(script.learn(given.model, false)[0], given.clean)
    assert not (learnt.fitted.scorer.vectors == given.clean.fitted.scorer.vectors).all()
    people = given.holdout.rows
    assert script.difference(frozen, frozen, people)["difference"] == 0
    told = script.difference(frozen + 0.1 * frozen, frozen, people)
    assert told["share"] == pytest.approx(0.1)


def test_a_planted_bad_update_is_undone(script: ModuleType, given: Any, clean: Any) -> None:
    after, judged = script.place(given)
    found = script.planted(given, clean, "noise", 3.0, 0, (after, judged))
    assert found["undone"] == 1 and found["mended"] in (0, 1)
    assert abs(found["at the end"]["difference"]) < abs(found["at once"]["difference"])
    assert judged % 48 == 0 and judged - after == 24


def test_what_changes_nothing_is_not_gone_back_from(script: ModuleType, given: Any, clean: Any) -> None:
    found = script.planted(given, clean, "noise", 0.0, 0, script.place(given))
    assert found["at once"]["difference"] == 0 == found["at the end"]["difference"]
    assert found["undone"] == found["mended"] == 0
    with pytest.raises(ValueError, match="not 'rumour'"):
        script.disturbed(clean.model, "rumour", 1.0, 0)


def test_disturbed_changes_what_is_learnt_and_served_alike(script: ModuleType, clean: Any) -> None:
    before = clean.model.fitted
    for kind in ("noise", "exchanged items"):
        after = script.disturbed(clean.model, kind, 0.5, 0).fitted
        old, new = (dict(each.scorer.network.named_parameters()) for each in (before, after))
        moved = {name: after.online.theta[name] - before.online.theta[name] for name in after.online.theta}
        assert any(bool(each.any()) for each in moved.values())
        if kind == "noise":
            for name, each in moved.items():
                assert (new[name] - old[name]).sub(each).abs().max() < 1e-5
        else:
            table = "fusion.encoders.behaviour.table"
            assert {name for name, each in moved.items() if each.any()} == {table}
            assert new[table].sum(0).sub(old[table].sum(0)).abs().max() < 1e-4  # the same rows, elsewhere
        for name, was in before.online.guard.good.items():
            assert (after.online.guard.good[name] == was).all()


def test_the_command_writes_figures_and_does_not_fit_twice(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "poisoned.json"
    options = [
        f"{section}.{name}={value}"
        for section, values in (SIZE | {"encode": {}}).items()
        for name, value in values.items()
    ]
    options += ["encode.text.encoder=hash", "train.epochs=1"]
    settings = [part for each in options for part in ("--set", each)]
    world = ["--data", "world", "--events", "600", "--draws", "1"]
    monkeypatch.setattr(script, "PLANTS", (("noise", 3.0),))
    monkeypatch.setattr("sys.argv", ["poisoned.py", *world, *settings, "--out", str(out)])
    script.main()
    found = json.loads(out.read_text())
    assert set(found["cases"]) == {"ours", "trusting"} and len(found["planted"]) == 1
    assert found["protocol"]["told"] == 90 and found["seeds"]["data and first draw"] == 0

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("It was fitted before.")

    monkeypatch.setattr(Recommender, "fit", refuse)
    script.main()
    again = json.loads(out.read_text())
    assert again == found
    monkeypatch.setattr("sys.argv", ["poisoned.py", *world, *settings, "--set", "train.epochs=2",
                                     "--out", str(out)])  # fmt: skip
    with pytest.raises(SystemExit, match="other settings"):
        script.main()


def test_what_is_planted_stands_where_the_guard_would_keep_what_was_learnt(
    script: ModuleType, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(self: Any, *_: Any) -> bool:
        self.judged += 1
        return self.judged in undone

    monkeypatch.setattr("llm4rec.online.guard.Guard.worse", worse)
    undone = {3, 4, 5, 6}  # of the four, one every 48 events, two are judged twice
    assert script.place(given) == (72, 96)
    undone = set(range(1, 9))
    with pytest.raises(SystemExit, match="keeps none"):
        script.place(given)
