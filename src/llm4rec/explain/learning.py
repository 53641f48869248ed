"""How W_p of equation (19) is trained: to predict the aspects of the next item from a state.

It is a multinomial logistic regression with soft targets: −Σ_k q_k log p_k, with q of the next item. The
network is held still. W_p starts at 0 and its bias at the logarithms of base rates, and training stops where
that suits held-out people best. Where it does not beat base rates by more than a standard error there, the
start is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.evaluate.protocol import person_means
from llm4rec.evaluate.significance import Gain
from llm4rec.explain.aspects import Aspects, Vocabulary
from llm4rec.model.events import event_arrays
from llm4rec.model.prior import FEWEST
from llm4rec.model.scorer import Scorer
from llm4rec.train.windows import Windows, batches, cut_windows
from llm4rec.types import Array, Floats, Ints

MOST = 20_000
"""States that are trained on."""
READ = 100_000
"""Events that are read for them at most: less than an epoch of training."""
AT_ONCE = 8192
"""Events read in one batch."""
STEPS, EVERY, BATCH = 2000, 20, 512
"""The most steps, how many lie between two looks at the held-out people, and positions a step is of."""
PATIENCE = 5
"""Looks without a better one before it stops."""
LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Positions:
    """States and what came next.

    Attributes:
        states: h [n, d], asked at no time.
        items: what came next [n].
        people: a number of each one's owner [n].
    """

    states: Tensor
    items: Ints
    people: Ints

    def take(self, chosen: Ints) -> Positions:
        """Some of them."""
        return Positions(self.states[torch.from_numpy(chosen)], self.items[chosen], self.people[chosen])


def learn(
    scorer: Scorer,
    vocabulary: Vocabulary,
    events: EventLog,
    rows: Ints,
    cases: Cases,
    people: Ints,
    seed: int,
) -> tuple[Aspects | None, dict[str, Any] | None]:
    """`train` on what `scorer` reads.

    Args:
        scorer: of a network that is trained.
        vocabulary: the aspects.
        events: what people did, without what is asked in `cases`.
        rows: of those people's tokens [u], or -1.
        cases: what was held out.
        people: rows of the tokens of those they are about [c], or -1.
        seed: of what is drawn.
    """
    if not len(vocabulary):
        return None, None
    return train(along(scorer, events, rows, seed), of_cases(scorer, cases, people), vocabulary, seed)


def along(scorer: Scorer, log: EventLog, people: Ints, seed: int) -> Positions:
    """States before `MOST` events of `log` at most, each stretch of a history that was drawn read once.

    Args:
        scorer: what reads.
        log: what people did.
        people: rows of their tokens [u], or -1.
        seed: of the draw.
    """
    rng = np.random.default_rng([seed, 6])
    arrays = event_arrays(log, scorer.events, people)
    cut = cut_windows(log.offsets, scorer.network.max_history, rng)
    drawn = rng.permutation(len(cut.rows))
    drawn = drawn[np.cumsum(cut.lengths[drawn]) - cut.lengths[drawn] < READ]
    cut = Windows(cut.rows[drawn], cut.starts[drawn], cut.lengths[drawn], cut.first[drawn])
    size = scorer.vectors.shape[1]
    states, items, owners = [torch.zeros(0, size)], [log.items[:0]], [log.items[:0]]
    with torch.inference_mode():
        for chosen in batches(cut, AT_ONCE, rng):
            rows, starts, lengths = cut.rows[chosen], cut.starts[chosen], cut.lengths[chosen]
            told = scorer.network.told(arrays.batch(rows, starts, lengths - 1), scorer.vectors, scorer.people)
            read = scorer.network.erased(scorer.backbone(told))
            place = np.arange(read.shape[1])
            # in a window from mid-history the first event is a target of the window before
            wanted = (place < lengths[:, None]) & (cut.first[chosen][:, None] | (place > 0))
            states.append(read[torch.from_numpy(wanted)].float())
            items.append(log.items[(starts[:, None] + place)[wanted]])
            owners.append(np.repeat(rows, wanted.sum(axis=1)))
    found = Positions(torch.cat(states), np.concatenate(items), np.concatenate(owners))
    return found.take(np.sort(rng.permutation(len(found.items))[:MOST]))


def of_cases(scorer: Scorer, cases: Cases, people: Ints) -> Positions:
    """States after the histories of cases, and their first answers.

    Args:
        scorer: what reads.
        cases: c of them.
        people: rows of the people's tokens [c], or -1.
    """
    histories, states = cases.histories(), torch.zeros(len(cases), scorer.vectors.shape[1])
    for rows, chosen in scorer.chunks(histories):
        states[rows] = scorer.states(chosen, people[rows]).float()
    return Positions(states, cases.targets[cases.target_offsets[:-1]], cases.rows)


def train(
    taught: Positions, held_out: Positions, vocabulary: Vocabulary, seed: int
) -> tuple[Aspects | None, dict[str, Any] | None]:
    """Train W_p, and say what it is worth: mean cross-entropies over held-out people (nats).

    What is told with states is of people whose cases did not choose when to stop: each half of them is judged
    where it suits the other half. `least` is what nobody could go below, the mean entropy of q.

    Args:
        taught: what is trained on.
        held_out: what chooses when to stop.
        vocabulary: the aspects.
        seed: of the order of training.

    Returns:
        W_p, and what there is to say of it; None and None where there are no aspects, or fewer than `FEWEST`
        next items or people to judge by that have any.
    """
    taught, held_out = (_with_aspects(each, vocabulary) for each in (taught, held_out))
    if min(len(taught.items), len(np.unique(held_out.people))) < FEWEST:
        return None, None
    path = _walk(taught, held_out, vocabulary, np.random.default_rng([seed, 7]))
    half = np.arange(path.losses.shape[1]) % 2 == 0
    judged = np.empty(len(half))
    for mine, others in ((half, ~half), (~half, half)):
        judged[mine] = path.losses[path.losses[:, others].mean(axis=1).argmin()][mine]
    start = path.losses[0]
    gain = Gain.of(start - judged)
    steps = int(path.losses.mean(axis=1).argmin()) * EVERY
    kept = steps > 0 and gain.exceeds()
    sure = np.log(np.diff(vocabulary.offsets)[held_out.items])
    return path.best if kept else path.start, {
        "aspects": len(vocabulary),
        "positions": len(taught.items),
        "people": len(half),
        "steps": steps if kept else 0,
        "base_rates": float(start.mean()),
        "cross_entropy": float((judged if kept else start).mean()),
        "least": float(person_means(sure, held_out.people).mean()),
        "gain": asdict(gain),
    }


def cross_entropy(weights: Tensor, bias: Tensor, states: Tensor, q: Tensor) -> Tensor:
    """−Σ_k q_k log p_k [n] for states [n, d] and q [n, k], with weights [k, d] and bias [k] (nats)."""
    return -(q * F.log_softmax(states @ weights.T + bias, dim=1)).sum(dim=1)


def base_rates(vocabulary: Vocabulary, items: Ints) -> Floats:
    """The mean of q over `items` [n] and one more, which has every aspect [k]; it sums to 1."""
    different, times = np.unique(items, return_counts=True)
    counts = np.diff(vocabulary.offsets)[different]
    summed = np.full(len(vocabulary), 1 / len(vocabulary))
    held = [vocabulary.of_item(item) for item in different.tolist()]
    each = np.repeat(times / np.maximum(counts, 1), counts)
    np.add.at(summed, np.concatenate([*held, vocabulary.aspects[:0]]), each)
    return (summed / summed.sum()).astype(np.float32)


@dataclass(frozen=True)
class _Path:
    """What came of training.

    Attributes:
        start: base rates, whatever the state.
        best: what suited all held-out people best.
        losses: the mean cross-entropy of each person's cases, at the start and after every `EVERY` steps
            [1 + checks, p].
    """

    start: Aspects
    best: Aspects
    losses: Array


def _walk(taught: Positions, held_out: Positions, vocabulary: Vocabulary, rng: np.random.Generator) -> _Path:
    """Steps until `PATIENCE` checks are no better, or `STEPS` are done."""
    rates = base_rates(vocabulary, taught.items)
    # steps along coordinates of one scale; W_p is kept for the states as they are
    mean, scale = taught.states.mean(dim=0), taught.states.std(dim=0, unbiased=False).clamp(min=1e-6)
    states = (taught.states - mean) / scale
    weights = torch.zeros(len(vocabulary), states.shape[1], requires_grad=True)
    bias = torch.from_numpy(np.log(rates)).requires_grad_()
    optimizer = torch.optim.Adam([weights, bias], lr=LEARNING_RATE)

    def now() -> Aspects:
        own = weights.detach() / scale
        beside = bias.detach() - own @ mean
        return Aspects(vocabulary.fields, vocabulary.values, own.numpy(), beside.numpy(), rates)

    start = best = now()
    losses = [_by_person(start, held_out, vocabulary)]
    order, lowest = _orders(len(taught.items), rng), 0
    while len(losses) <= STEPS // EVERY and len(losses) - lowest <= PATIENCE:
        for rows in islice(order, EVERY):
            optimizer.zero_grad()
            q = torch.from_numpy(vocabulary.q(taught.items[rows]))
            cross_entropy(weights, bias, states[torch.from_numpy(rows)], q).mean().backward()
            optimizer.step()
        here = now()
        losses.append(_by_person(here, held_out, vocabulary))
        if losses[-1].mean() < losses[lowest].mean():
            best, lowest = here, len(losses) - 1
    return _Path(start, best, np.stack(losses))


def _orders(n: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Batches of n rows in random order, again and again."""
    while True:
        yield from np.array_split(rng.permutation(n), -(-n // BATCH))


def _by_person(aspects: Aspects, held_out: Positions, vocabulary: Vocabulary) -> Array:
    """The mean cross-entropy of each person's cases [p]."""
    weights, bias = torch.from_numpy(aspects.weights), torch.from_numpy(aspects.bias)
    found = np.empty(len(held_out.items))
    for rows in np.array_split(np.arange(len(found)), -(-len(found) // BATCH)):
        q = torch.from_numpy(vocabulary.q(held_out.items[rows]))
        found[rows] = cross_entropy(weights, bias, held_out.states[torch.from_numpy(rows)], q).numpy()
    return person_means(found, held_out.people)


def _with_aspects(positions: Positions, vocabulary: Vocabulary) -> Positions:
    """Those whose next item has any."""
    return positions.take(np.flatnonzero(np.diff(vocabulary.offsets)[positions.items]))
