"""What speaks against an item trains the rating head, after what its person had done by then, no softmax."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec import learning, observing
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import build_log
from llm4rec.model.events import EventSpace
from llm4rec.online.cases import cases
from llm4rec.online.learner import Learner, of_people
from llm4rec.online.opposed import DISLIKE, LOW, SKIP, opposed, ratings, together
from llm4rec.online.reliability import KIND_PRIOR
from llm4rec.online.reservoir import SCHEMA
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.train.loop import _without
from llm4rec.types import Feedback

N_ITEMS = 20
TINY: dict[str, Any] = {
    "encode": {"text": {"encoder": "hash"}},
    "train": {"epochs": 2, "attention_epochs": 1, "batch_size": 64, "context_epochs": 1},
    "model": {"embedding_size": 8, "layers": 1, "heads": 1, "dropout": 0.0, "pointwise": 1.0},
    "data": {"min_rating": 3},
    "online": {
        "batch_size": 8, "replay": 0, "judges": 8, "period": 10_000, "fisher_examples": 2, "holdout": 0.0,
        "averaging": 0.0, "fraction": 1.0, "consolidation": 0.0,
    },
}  # fmt: skip
LOG = build_log(
    pl.Series(["a"] * 5 + ["b"] * 2),
    np.array([3, 1, 4, 1, 5, 2, 6]),
    times=np.array([0, 1, 2, 3, 4, 0, 1]),
    ratings=np.array([5, 4, 3, 5, 4, 3, 5], dtype=np.float32),
    event_types=pl.Series(["click", "like"] * 3 + ["click"]),
)
TOLD = {**SCHEMA, "position": pl.Int64}


@pytest.fixture(scope="module")
def model() -> Recommender:
    users, steps = np.repeat(np.arange(30), 6), np.tile(np.arange(6), 30)
    log = build_log(
        pl.Series([f"u{user}" for user in users]),
        (users + steps) % N_ITEMS,
        times=3_600 * steps,
        ratings=(3 + (users + steps) % 3).astype(np.float32),
    )
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "title": [f"Tale {item}" for item in range(N_ITEMS)],
    })
    return Recommender.fit(log, Catalog(table, (Field("title", "text"),)), Config.model_validate(TINY))


def told(*rows: tuple[str, int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TOLD, orient="row")


def test_what_is_said_of_an_item_by_hand() -> None:
    space = EventSpace((1.0, 2.0, 3.0, 4.0), 3.5, 1.0, ())
    found = ratings([LOW, DISLIKE, SKIP], np.array([2.5, np.nan, 9.0]), space)
    assert found.tolist() == [2.5, 1.0, 2.25]  # a skip: halfway from 1 to 3.5
    good = EventSpace((4.0,), 4.5, 0.5, ())
    assert ratings([DISLIKE, SKIP], np.full(2, np.nan), good).tolist() == [3.5, 4.0]
    none = EventSpace((), 0.0, 1.0, ())
    assert ratings([DISLIKE, SKIP], np.full(2, np.nan), none).tolist() == [-2.0, -1.0]


def test_it_is_asked_after_what_its_person_had_done_by_then() -> None:
    events = told(("a", 9, 2, 7), ("new", 8, 2, 8), ("b", 7, 1, 9))
    came = told(("a", 4, 2, 6), ("b", 6, 1, 10))  # b did that after the third, in the same second
    found = opposed(LOG, events, np.array([1, 2, 3], np.float32), np.array([0.5, 1, 1], np.float32), came, 2)
    assert found.log.items.tolist() == [1, 4, 9, 8, 2, 7]
    assert found.log.offsets.tolist() == [0, 3, 4, 6] and found.first.tolist() == [False, True, True]
    assert found.index.tolist() == [2, 3, 5] and found.log.items[found.index].tolist() == [9, 8, 7]
    assert found.weights.tolist() == [0, 0, 0.5, 1, 0, 1]
    assert found.against.tolist() == [False, False, True, True, False, True]
    assert found.log.times is not None and found.log.times.tolist() == [1, 2, 2, 2, 0, 1]
    assert found.log.ratings is not None and found.log.ratings.tolist() == [4, 3, 1, 2, 3, 3]


def test_without_times_it_is_after_what_came_before_it() -> None:
    bare = replace(LOG, times=None)
    found = opposed(
        bare, told(("a", 9, -1, 7)), np.ones(1, np.float32), np.ones(1, np.float32),
        told(("a", 1, -1, 6), ("a", 5, -1, 8)), 9,
    )  # fmt: skip
    assert found.log.items.tolist() == [3, 1, 4, 1, 9]
    empty = of_people(LOG, pl.Series(["nobody"], dtype=pl.String))
    one = np.ones(1, np.float32)
    alone = opposed(empty, told(("nobody", 9, 5, 1)), one, one, told(), 9)
    assert alone.log.items.tolist() == [9] and alone.first.tolist() == [True]


def test_both_kinds_of_cases_are_one() -> None:
    one = np.ones(1, np.float32)
    taken = cases(LOG, told(("a", 4, 2, 1)).select(*SCHEMA), one, 9, 1)
    other = opposed(LOG, told(("b", 9, 5, 2)), one, one, told(), 9)
    found = together(taken, other, 1)
    assert found.log.user_ids.to_list() == ["a", "b"] and found.log.items.tolist() == [3, 1, 4, 2, 6, 9]
    assert found.log.offsets.tolist() == [0, 3, 6] and found.index.tolist() == [2, 5]
    assert found.asked.tolist() == [0, 1] and np.flatnonzero(found.against).tolist() == [5]


def test_what_is_not_taken_weighs_nothing_in_a_softmax() -> None:
    share, against = torch.tensor([0.1, 0.4, 0.5]), torch.tensor([False, True, False])
    torch.testing.assert_close(_without(share, against), torch.tensor([1 / 6, 0, 5 / 6]))
    assert not _without(share, torch.ones(3, dtype=torch.bool)).any()


def feedback(number: int, kind: str, value: float | None = None, item: int | None = None) -> Feedback:
    at = number % N_ITEMS if item is None else item
    return Feedback(f"e{number}", f"u{number % 33}", f"i{at}", kind, value, 50_000 + number)


def begun(model: Recommender, **options: Any) -> Learner:
    config = model.config.model_dump()
    config["online"] |= options
    fitted = copy.copy(model.fitted)
    object.__setattr__(fitted, "config", Config.model_validate(config))
    return learning.begun(fitted, 0)


def heard(model: Recommender, events: list[Feedback]) -> tuple[pl.DataFrame, pl.DataFrame, Any]:
    frame = observing._sorted_out(model.fitted, observing.checked(events))
    frame = frame.with_columns(position=pl.Series(np.arange(len(events)) + 1))
    taught = observing._taught(frame)
    came = frame.filter("positive")
    assert model.fitted.histories is not None
    since = learning.Since(model.fitted.histories, came, lambda some: observing._as_log(model.fitted, some))
    return taught.filter(~pl.col("against")), taught.filter("against"), since.known(len(events))


def test_it_teaches_the_rating_head_and_no_softmax(model: Recommender) -> None:
    learner = begun(model, reliability=False)
    head = learner.network.pointwise
    assert head is not None and any(name.startswith("pointwise.") for name in learner.trained)
    _, against, known = heard(model, [feedback(number, "dislike") for number in range(8)])
    assert against["kind"].to_list() == [DISLIKE] * 8
    asked = _asked(learner, against, known)
    with torch.no_grad():
        before = float(learner._loss(asked, learner._foresight(asked, 0)))
        errors = 0.0
        space = model.fitted.spaces.events
        for row in range(8):  # each by the path that answers
            alone = of_people(known(against["user_id"]), against["user_id"][[row]])
            item = against["item"][[row]].to_numpy().copy()
            served = model.fitted.scorer.ratings(alone, model.fitted.person_rows(alone), item)[0, 0]
            y = ratings([DISLIKE], np.array([np.nan]), space)[0]
            errors += ((served - y) / space.rating_std) ** 2 / 8
    assert before == pytest.approx(errors, rel=1e-3)  # the squared error alone
    learner.take(against.clear(), 8, known, against)
    with torch.no_grad():
        again = _asked(learner, against, known)
        assert float(learner._loss(again, learner._foresight(again, 0))) < before
    assert "dislike" in learner.state.reliability.kinds and learner.state.taught_by("u3")
    assert not learner.state.reservoir.events["time"].is_in(against["time"].implode()).any()


def _asked(learner: Learner, against: pl.DataFrame, known: Any) -> Any:
    said = ratings(against["kind"].to_list(), against["value"].to_numpy(), learner.around.space)
    ones = np.ones(against.height, np.float32)
    return opposed(known(against["user_id"]), against, said, ones, against.clear(), 32)


def test_beside_it_what_is_taken_teaches_the_softmax_what_it_teaches_alone(model: Recommender) -> None:
    events = [feedback(number, "dislike" if number % 2 else "click") for number in range(8)]
    taken, against, known = heard(model, events)
    beside, alone = begun(model, reliability=False), begun(model, reliability=False)
    for learner in (beside, alone):
        learner.network.pointwise_weight = 0.0
    beside.take(taken, 8, known, against)
    alone.take(taken, 8, known)
    for name, tensor in beside.trained.items():
        torch.testing.assert_close(tensor.detach(), alone.trained[name].detach(), rtol=1e-4, atol=1e-7)
    deaf = begun(model, reliability=False)
    deaf._rates = False
    deaf.network.pointwise_weight = 0.0
    deaf.take(taken, 8, known, against)
    assert all(torch.equal(tensor, alone.trained[name]) for name, tensor in deaf.trained.items())
    assert "dislike" not in deaf.state.reliability.kinds


def _states(learner: Learner, asked: Any) -> torch.Tensor:
    """The states that the events are asked of [p, d]."""
    found: list[torch.Tensor] = []

    def noted(network: Any, states: torch.Tensor, offer: Any, items: torch.Tensor) -> torch.Tensor:
        found.append(states.detach())
        return torch.ones(len(items))

    learner._loss(asked, noted)
    return found[0]


def test_its_reliability_is_how_low_the_rating_head_had_seen_it(model: Recommender) -> None:
    learner = begun(model)
    usual = learner.state.reliability.every
    _, against, known = heard(model, [feedback(0, "skip")])
    asked = _asked(learner, against, known)
    foresight = learner._gradients(asked, 0)[0]
    states = _states(learner, asked)
    vectors = learner._vectors()[torch.from_numpy(asked.log.items[asked.index])]
    assert learner.network.pointwise is not None
    low = -np.tanh(float(learner.network.pointwise(states, vectors).detach()))
    assert float(foresight.low[0]) == pytest.approx(low, rel=1e-4)
    learner.take(against.clear(), 8, known, against)
    mean = learner.state.reliability.kinds["skip"]
    assert mean.value == pytest.approx((KIND_PRIOR * usual.value + low) / (KIND_PRIOR + 1), rel=1e-4)
    assert learner.state.reliability.every == usual  # of all else it says nothing


def test_in_however_many_parts_the_weights_are_the_same(model: Recommender, tmp_path: Any) -> None:
    kinds = ("click", "dislike", "rating", "skip", "view")
    events = [feedback(n, kinds[n % 5], float(1 + n % 4), n * 7 % N_ITEMS) for n in range(40)]
    with FeedbackLog.open(tmp_path / "a.db") as log:
        log.append(events)
        whole, said = model.learn(log)
    assert {"click", "dislike", "low rating", "skip", "view"} <= said.kinds.keys()
    assert said.others.keys() == {"dislike", "rating", "skip"}
    with FeedbackLog.open(tmp_path / "b.db") as log:
        log.append(events[:21])
        parted = model.learn(log)[0]
        parted.save(tmp_path / "m")
        log.append(events[21:])
        parted = Recommender.load(tmp_path / "m").learn(log)[0]
    one, two = whole.fitted.online, parted.fitted.online
    assert one is not None and two is not None
    theirs = parted.fitted.scorer.network.state_dict()
    for name, tensor in whole.fitted.scorer.network.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert one.reliability == two.reliability  # pyright: ignore[reportAttributeAccessIssue]


def test_who_disliked_and_is_forgotten_takes_that_along(model: Recommender, tmp_path: Any) -> None:
    kinds = ("click", "dislike", "view", "skip", "like")
    events = [replace(feedback(n, kinds[n % 5]), user=f"u{n % 3}") for n in range(40)]
    events = [replace(each, user="only") if n in (6, 11) else each for n, each in enumerate(events)]
    with FeedbackLog.open(tmp_path / "a.db") as log:
        log.append(events)
        met = model.learn(log)[0]
        assert "only" in met.fitted.refusals.said
        log.erase("only")
        forgot = met.forget_user("only").learn(log)[0]
        never = model.learn(log)[0]
    assert forgot.fitted.refusals == never.fitted.refusals
    theirs, moved = never.fitted.scorer.network.state_dict(), met.fitted.scorer.network.state_dict()
    for name, tensor in forgot.fitted.scorer.network.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert any(not torch.equal(tensor, moved[name]) for name, tensor in theirs.items())
