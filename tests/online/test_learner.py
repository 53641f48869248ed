"""The learner is the one training step and momentum, and stands where its log does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec import learning, observing
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.model.events import event_arrays
from llm4rec.online.cases import cases
from llm4rec.online.learner import Learner, held_out
from llm4rec.online.progressed import trained
from llm4rec.online.reservoir import SCHEMA
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.train.loop import step
from llm4rec.train.material import Material
from llm4rec.train.windows import Windows

N_ITEMS = 20
TINY: dict[str, Any] = {
    "encode": {"text": {"encoder": "hash"}},
    "train": {"epochs": 2, "attention_epochs": 1, "batch_size": 64, "context_epochs": 1},
    "model": {"embedding_size": 8, "layers": 1, "heads": 1, "dropout": 0.1},
    "online": {"batch_size": 4, "replay": 3, "judges": 8, "period": 3, "fisher_examples": 5},
}
PLAIN = {
    "consolidation": 0.0, "fraction": 1.0, "replay": 0, "reliability": False, "holdout": 0.0,
    "period": 10_000, "averaging": 0.0, "independence": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Recommender:
    users, steps = np.repeat(np.arange(30), 6), np.tile(np.arange(6), 30)
    log = build_log(
        pl.Series([f"u{user}" for user in users]), (users + steps) % (N_ITEMS - 1), times=3_600 * steps
    )
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "title": [f"Tale {item}" for item in range(N_ITEMS)],
    })
    return Recommender.fit(log, Catalog(table, (Field("title", "text"),)), Config.model_validate(TINY))


def with_options(model: Recommender, **options: Any) -> Recommender:
    config = model.config.model_dump()
    config["online"] |= options
    fitted = copy.copy(model.fitted)
    object.__setattr__(fitted, "config", Config.model_validate(config))
    return Recommender(fitted)


def events(n: int, first: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    numbers = np.arange(first, first + n)
    users, items = rng.integers(0, 40, 500)[numbers], rng.integers(0, N_ITEMS, 500)[numbers]
    return pl.DataFrame({
        "position": numbers + 1,
        "event_id": [f"e{number}" for number in numbers],
        "user_id": [f"u{user}" for user in users],
        "item": items,
        "kind": np.where(numbers % 3, "click", "like"),
        "time": 100_000 + numbers,
    }).with_columns(event_type="kind", value=pl.lit(None, dtype=pl.Float64), timestamp="time")


def batches(model: Recommender, told: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, int, Any]]:
    assert model.fitted.histories is not None
    as_log = lambda some: observing._as_log(model.fitted, some)  # noqa: E731
    since = learning.Since(model.fitted.histories, told, as_log)
    size = model.config.online.batch_size
    for end in range(size, told.height + 1, size):
        yield told.filter(pl.col("position").is_between(end - size + 1, end)), end, since.known(end)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.trained.items()}


def test_without_its_own_parts_it_is_plain_momentum_of_the_training_step_to_the_bit(
    model: Recommender,
) -> None:
    plain = with_options(model, **PLAIN)
    learner = learning.begun(plain.fitted, 0)
    options = plain.config.online
    network = copy.deepcopy(plain.fitted.scorer.network).eval()
    theirs = trained(network)
    mask = plain.fitted.scorer.items["behaviour"].mask
    table = "fusion.encoders.behaviour.table"
    content = plain.fitted.scorer.vectors.clone() - theirs[table].detach() * mask
    network.requires_grad_(False)
    for parameter in theirs.values():
        parameter.requires_grad_(True)
    optimiser = torch.optim.SGD(theirs.values(), lr=options.learning_rate, momentum=options.momentum)
    before = weights(learner)
    seen = events(24).filter(pl.col("item") < N_ITEMS - 1)  # no item that nobody had touched
    seen = seen.with_columns(position=pl.Series(np.arange(seen.height) + 1))[:16]
    for batch, end, known in batches(plain, seen):
        learner.take(batch, end, known)
        log: EventLog = known(batch["user_id"])
        ones = np.ones(batch.height, dtype=np.float32)
        asked = cases(log, batch.select(*SCHEMA), ones, network.max_history, batch.height)
        arrays = event_arrays(asked.log, plain.fitted.spaces.events, plain.fitted.person_rows(asked.log))
        no_ratings = torch.full((asked.log.n_events + 1,), float("nan"))
        material = Material(
            arrays, plain.fitted.scorer.items, None, no_ratings,
            timed=bool(plain.fitted.about["training"]["context_kept"]),
            vectors=content + theirs[table] * mask,
        )  # fmt: skip
        rows = np.arange(asked.log.n_users)
        windows = Windows(rows, asked.log.offsets[:-1], asked.log.lengths, asked.first)
        config = plain.config.train.model_copy(update={"hide": 0.0})
        marked = torch.from_numpy(np.append(asked.weights, 0).astype(np.float32))
        optimiser.zero_grad()
        step(network, material, windows, rows, config, marked, (), normalised=True).backward()
        optimiser.step()
    after = weights(learner)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, parameter in theirs.items():
        assert torch.equal(after[name], parameter.detach()), name
    untouched = dict(learner.network.named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.equal(untouched[name].detach(), parameter.detach()), name


def test_what_is_trained_is_the_vectors_of_items_and_what_reads_a_history(model: Recommender) -> None:
    learner = learning.begun(model.fitted, 0)
    names = set(learner.trained)
    assert "fusion.encoders.behaviour.table" in names and any("q_proj" in name for name in names)
    assert not any("text" in name or name.startswith("context.") for name in names)
    before = {n: t.clone() for n, t in model.fitted.scorer.network.state_dict().items()}
    for batch in batches(model, events(12)):
        learner.take(*batch)
    now = model.fitted.scorer.network.state_dict()
    assert all(torch.equal(before[name], now[name]) for name in before)  # it has a network of its own
    mine = learner.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], mine[name])}
    assert changed and changed <= names


def test_the_weights_are_a_function_of_the_log(model: Recommender) -> None:
    told = events(40)
    whole, again = (learning.begun(model.fitted, 0) for _ in range(2))
    for batch in batches(model, told):
        whole.take(*batch)
    for batch in batches(model, told):
        again.take(*batch)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(again)[name])
    other = learning.begun(model.fitted, 0)
    for batch in batches(model, told.with_columns(item=(pl.col("item") + 1) % N_ITEMS)):
        other.take(*batch)
    assert any(not torch.equal(tensor, weights(other)[name]) for name, tensor in weights(whole).items())


def test_consolidation_holds_what_mattered(model: Recommender) -> None:
    def moved(strength: float) -> float:
        free = with_options(model, **{**PLAIN, "consolidation": strength, "learning_rate": 0.5})
        learner = learning.begun(free.fitted, 0)
        before = weights(learner)
        for batch in batches(free, events(40)):
            learner.take(*batch)
        fisher = learner.state.consolidation.fisher
        return sum(float((fisher[n] * (t - before[n]).square()).sum()) for n, t in weights(learner).items())

    first = learning.begun(with_options(model, consolidation=1.0).fitted, 0)
    assert all((tensor >= 0).all() for tensor in first.state.consolidation.fisher.values())
    assert moved(300.0) < 0.8 * moved(1e-6)


def test_an_item_that_nobody_had_touched_gets_a_vector_of_its_own(model: Recommender) -> None:
    learner = learning.begun(model.fitted, 0)
    new = N_ITEMS - 1
    assert not learner.items["behaviour"].mask[new]
    before = learner._vectors().detach().clone()
    torch.testing.assert_close(before, model.fitted.scorer.vectors.clone())
    told = events(4).with_columns(item=pl.lit(new, dtype=pl.Int64))
    learner._meet(told["item"].to_numpy())
    torch.testing.assert_close(learner._vectors().detach(), before)
    for batch in batches(model, told):
        learner.take(*batch)
    assert learner.items["behaviour"].mask[new] and not model.fitted.scorer.items["behaviour"].mask[new]
    assert learner._vectors()[new].ne(before[new]).any()
    assert learner.state.met.tolist() == [new]
    served = Recommender(learning.published(model.fitted, learner)).fitted.scorer.vectors
    assert served[new].ne(before[new]).any()


def test_a_bad_update_is_undone(model: Recommender) -> None:
    wild = with_options(model, **{**PLAIN, "learning_rate": 80.0, "period": 3})
    learner = learning.begun(wild.fitted, 0)
    before = weights(learner)
    told = list(batches(wild, events(12)))
    for batch in told[:2]:
        learner.take(*batch)
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(learner).items())
    learner.take(*told[2])
    assert learner.state.guard.undone == 1 and learner.state.position == 12
    for name, tensor in weights(learner).items():
        assert torch.equal(before[name], tensor)
        assert not learner.state.velocity[name].any()


def test_what_was_undone_is_learnt_again_without_what_broke_it(model: Recommender) -> None:
    """The same events from the same weights give what they give where nothing broke."""
    options = {"learning_rate": 1e-3, "reliability": False, "consolidation": 0.0}
    calm = with_options(model, **options)
    whole, broken = learning.begun(calm.fitted, 0), learning.begun(calm.fitted, 0)
    generator = torch.Generator().manual_seed(0)
    for number, batch in enumerate(batches(calm, events(12))):
        if number == 2:
            with torch.no_grad():
                for theta, mean in zip(broken.trained.values(), broken.average.values(), strict=True):
                    noise = torch.randn(theta.shape, generator=generator)
                    theta += 5 * noise
                    mean += 5 * noise
        whole.take(*batch)
        broken.take(*batch)
    assert (whole.state.guard.undone, whole.state.guard.mended) == (0, 0)
    assert (broken.state.guard.undone, broken.state.guard.mended) == (1, 1)
    start = trained(calm.fitted.scorer.network)
    for name, tensor in whole.average.items():
        # earlier events of the reservoir are drawn from what there is by then, so not to the bit
        torch.testing.assert_close(broken.average[name], tensor, rtol=0, atol=5e-3)
    assert any(not torch.equal(start[name], tensor) for name, tensor in broken.average.items())
    assert broken.state.unjudged.height == 0


def test_an_event_that_is_hardly_likely_moves_little(model: Recommender) -> None:
    """The same event, wholly believed and doubted, and one that may not be doubted."""
    alone = {**PLAIN, "reliability": True}
    moved: dict[float, float] = {}
    for doubt in (0.0, 2.0):
        learner = learning.begun(with_options(model, **alone, doubt=doubt).fitted, 0)
        before = weights(learner)
        (batch, end, known), *_ = batches(model, events(4))
        one = batch[:1]
        _, (lead,) = learner.foreseen(one.select(*SCHEMA), known)
        learner.take(one, end, known)
        moved[doubt] = sum(
            float((tensor - before[name]).square().sum()) for name, tensor in weights(learner).items()
        )
        if doubt:
            believed = max((1 + lead) / doubt, 0.01)
            assert 0.01 < believed < 1
            # alone in its step its loss is the whole loss: only the step is shorter
            assert moved[doubt] == pytest.approx(believed**2 * moved[0.0], rel=1e-3)
    assert moved[0.0] > moved[2.0] > 0


def test_events_the_fit_held_out_judge_and_are_not_learnt_again(model: Recommender) -> None:
    fitted = model.fitted
    assert fitted.untrained.height == 30 and fitted.histories is not None  # the last of everybody
    lasts = fitted.histories.offsets[1:] - 1
    assert fitted.untrained["item"].to_list() == fitted.histories.items[lasts].tolist()
    origin = learning.begun(with_options(model, judges=12).fitted, 0).state.origin
    assert origin.judges.height == 12
    assert origin.judges.join(fitted.untrained, on=list(SCHEMA), how="semi").height == 12
    assert origin.sample.events.join(origin.judges, on=list(SCHEMA), how="semi").height == 0
    assert origin.sample.events.height == fitted.histories.n_events - 12
    assert fitted.histories.n_events > len(lasts)


def test_a_model_that_held_nothing_out_is_judged_by_a_sample(model: Recommender) -> None:
    without = copy.copy(model.fitted)
    object.__setattr__(without, "untrained", model.fitted.untrained.clear())
    origin = learning.begun(without, 0).state.origin
    assert origin.judges.height == model.config.online.judges
    assert origin.sample.events.join(origin.judges, on=list(SCHEMA), how="semi").height == 0


def test_weights_beyond_all_numbers_are_undone_at_once_and_leave_nothing_behind(model: Recommender) -> None:
    learner = learning.begun(model.fitted, 0)
    steps = batches(model, events(16))
    learner.take(*next(steps))
    good = {name: tensor.clone() for name, tensor in learner.state.guard.good.items()}
    with torch.no_grad():
        for tensor in (*learner.trained.values(), *learner.average.values()):
            tensor.fill_(float("nan"))
    learner.take(*next(steps))
    assert learner.state.guard.undone == 1
    assert all(torch.equal(tensor, good[name]) for name, tensor in weights(learner).items())
    for step_told in steps:
        learner.take(*step_told)
    told = (
        *learner.trained.values(),
        *learner.average.values(),
        *learner.state.consolidation.fisher.values(),
    )
    assert all(bool(tensor.isfinite().all()) for tensor in told)
    assert np.isfinite(learner.state.drift.losses).all()


def test_a_model_that_can_draw_nothing_gives_no_example(model: Recommender) -> None:
    learner = learning.begun(with_options(model, fisher_every=1, holdout=0.0).fitted, 0)
    for tensor in learner.state.velocity.values():
        tensor.fill_(1e38)  # the step itself overflows
    fisher = {name: tensor.clone() for name, tensor in learner.state.consolidation.fisher.items()}
    learner.take(*next(batches(model, events(4))))
    assert all(
        torch.equal(tensor, fisher[name]) for name, tensor in learner.state.consolidation.fisher.items()
    )


def test_a_good_update_is_kept_and_becomes_what_is_held(model: Recommender) -> None:
    calm = with_options(model, learning_rate=1e-4, period=3, tolerance=0.5, averaging=0.0)
    learner = learning.begun(calm.fitted, 0)
    for batch in batches(calm, events(12)):
        learner.take(*batch)
    assert (learner.state.guard.judged, learner.state.guard.undone) == (1, 0)
    for name, tensor in weights(learner).items():
        assert torch.equal(learner.state.guard.good[name], tensor)
        assert torch.equal(learner.state.consolidation.anchor[name], tensor)


def test_the_same_events_are_held_out_everywhere() -> None:
    ids = [f"e{number}" for number in range(4_000)]
    found = held_out(ids, 0.05)
    assert 150 < found.sum() < 250  # 200, with a standard deviation of 14
    assert (held_out(ids[::-1], 0.05)[::-1] == found).all()
    assert not held_out(ids, 0.0).any()


def test_published_answers_with_the_new_weights_and_the_old_model_as_before(model: Recommender) -> None:
    learner = learning.begun(model.fitted, 0)
    for batch in batches(model, events(40)):
        learner.take(*batch)
    log = model.fitted.histories
    assert log is not None
    before = model.rank(log, 5)
    found = Recommender(learning.published(model.fitted, learner))
    after = found.rank(log, 5)
    assert not np.array_equal(before.scores, after.scores)
    again = model.rank(log, 5)
    np.testing.assert_array_equal(before.scores, again.scores)
    for batch in batches(model, events(8, 40)):  # going on does not reach what was published
        learner.take(batch[0], 44, batch[2])
    np.testing.assert_array_equal(found.rank(log, 5).scores, after.scores)
