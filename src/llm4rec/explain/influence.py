"""What moved the score of an item: each item of the history, recent popularity, the time of asking.

The score is log p(i) with p = (1 − s) q + s p_recent and q ∝ exp(τ log p_network + lifts). What it loses
without an item j of the history is to first order

    (1 − ρ) · (d_j y_i + l_ji − Σ_k q_k l_jk)
    y_i = τ log p_network(i) − log Σ_k exp(τ log p_network(k) + lift_k)

with ρ the share of p(i) that is recent popularity's, and l_ji what j adds to the lift of i in the linear part
and in what is retrieved for it. d_j y_i is the derivative for what j's events count as keys of attention; for
the last event it is the difference to the state before it, which a causal decoder has at hand. So nothing is
read again for it. Deletion, which reads everything again, judges it (`benchmarks/faithfulness.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from llm4rec.data.events import EventLog
from llm4rec.generate.generator import Generator
from llm4rec.model.arrivals import Arrivals
from llm4rec.model.leaning import lean
from llm4rec.model.lifts import log_sum
from llm4rec.model.linear import Linear
from llm4rec.model.prior import Prior, classes
from llm4rec.model.scorer import Attend, Scorer
from llm4rec.retrieve.entries import KINDS
from llm4rec.retrieve.relevance import Grounding
from llm4rec.types import Array, Floats, Ints


@dataclass(frozen=True)
class Parts:
    """What scores are made of; see `fitted.Fitted` for each."""

    scorer: Scorer
    linear: Linear
    arrivals: Arrivals
    grounding: Grounding
    prior: Prior
    attend: Attend | None = None
    generator: Generator | None = None


@dataclass(frozen=True)
class Influence:
    """What moved the scores of n items for one history, to first order (nats).

    Attributes:
        history: the different items of the history, ascending [u].
        network: what the score owes to each by the network [n, u].
        linear: by the linear part [n, u].
        retrieved: by what is retrieved for it, by kind [n, u, kinds].
        trend: the share of the item's probability that is recent popularity's, 0 to 1 [n].
        time: what the time of asking adds [n].
        wish: what a wish adds [n].
    """

    history: Ints
    network: Floats
    linear: Floats
    retrieved: Floats
    trend: Floats
    time: Floats
    wish: Floats

    @property
    def owed(self) -> Floats:
        """What the score owes to each item of the history [n, u]."""
        return self.network + self.linear + self.retrieved.sum(axis=2)


def influence(
    parts: Parts, history: EventLog, people: Ints, items: Ints, wish: Floats | None = None
) -> Influence:
    """What moved the scores of `items` [n ≥ 1] for a history of one row.

    Args:
        parts: of the model.
        history: one row.
        people: row of its owner in the people's table [1], -1 for a stranger.
        items: dense numbers.
        wish: log p(i | wish) [1, i], which all probabilities are multiplied by; None without a wish.
    """
    events = history.history(0)
    known, place = np.unique(events, return_inverse=True)
    leaning = lean(parts.scorer, history, people)
    plain = _Said.after(parts, history, leaning.state.detach(), items)
    said = plain if wish is None else replace(plain, wish=torch.from_numpy(wish[0]))
    state = leaning.state.detach().requires_grad_()
    now = said.scores(state)
    network = np.zeros((len(items), len(known)), dtype=np.float32)
    if leaning.before is not None:
        slopes = [torch.autograd.grad(each, state, retain_graph=True)[0][0] for each in now]
        read = leaning.of(torch.stack(slopes)).numpy()
        with torch.no_grad():
            read[:, -1] = (now - said.scores(leaning.before)).numpy()
        np.add.at(network.T, place[len(events) - read.shape[1] :], read.T)
    with torch.no_grad():
        time = (now - said.scores(state - leaning.asked)).numpy()
        q = said.probabilities(state).numpy().astype(np.float64)
        log_q = (plain.scores(state) + plain.lifts[plain.items]).numpy()
        unasked = plain.probabilities(state).log().numpy()
    trend = _trend(parts.prior, len(events), items, log_q)
    wished = np.zeros(len(items), dtype=np.float32)
    if wish is not None:
        wished = wish[0, items] - np.float32(
            log_sum(wish[0] + parts.prior.mix(unasked[None], history.lengths)[0])
        )
    left = 1 - trend[:, None]
    return Influence(
        history=known,
        network=network * left,
        linear=_linear(parts.linear, events, known, items, q) * left,
        retrieved=_retrieved(parts.grounding, history, known, items, q) * left[..., None],
        trend=trend,
        time=time * left[:, 0],
        wish=wished,
    )


@dataclass(frozen=True)
class _Said:
    """What the network's states say of n items beside all that is added to its scores.

    Attributes:
        parts: of the model.
        items: their numbers [n].
        exponent: τ.
        lifts: all that is added to the network's log-scores [i].
        shift: what attention to what is retrieved adds to a state [1, d]; it is held still.
        wish: log p(i | wish) [i], 0 without a wish.
    """

    parts: Parts
    items: Tensor
    exponent: float
    lifts: Tensor
    shift: Tensor
    wish: Tensor

    @classmethod
    def after(cls, parts: Parts, history: EventLog, state: Tensor, items: Ints) -> _Said:
        """That of `state` [1, d] after a history of one row."""
        lifts = np.zeros(len(parts.scorer.vectors), dtype=np.float32)
        lifts[parts.linear.known] += parts.linear.lifts(history.history(0))
        lifts[parts.arrivals.items] += parts.arrivals.lifts
        spoken_for, added = parts.grounding.lifts(history, 0)
        lifts[spoken_for] += added
        shift = torch.zeros_like(state)
        if parts.attend is not None:
            shift = parts.attend(state, history) - state
        exponent = parts.linear.exponent(history.n_events)
        nothing = torch.zeros(len(lifts))
        return cls(parts, torch.from_numpy(items), exponent, torch.from_numpy(lifts), shift, nothing)

    def probabilities(self, state: Tensor) -> Tensor:
        """The probability q of every item [i], where the network speaks by its dense head alone."""
        return (self.exponent * self._logits(state) + self.lifts + self.wish).softmax(dim=0)

    def scores(self, state: Tensor) -> Tensor:
        """The y_i of the items [n]; what a code head changes in the sum over all items is left out of it."""
        logits = self._logits(state)
        beyond = (self.exponent * logits + self.lifts + self.wish).logsumexp(dim=0)
        generator = self.parts.generator
        if generator is None:
            return self.exponent * logits[self.items] - beyond
        coded = generator.log_probability(state + self.shift, self.items[None])[0]
        if generator.share == 1:
            return self.exponent * coded
        total = logits.logsumexp(dim=0)
        dense = logits[self.items] - total + math.log1p(-generator.share)
        mixed = torch.logaddexp(dense, coded + math.log(generator.share))
        return self.exponent * (mixed + total) - beyond

    def _logits(self, state: Tensor) -> Tensor:
        """The dense head's [i]."""
        scorer = self.parts.scorer
        return (scorer.prepared_states(state + self.shift) @ scorer.prepared.clone().T)[0]


def _trend(prior: Prior, length: int, items: Ints, log_q: Floats) -> Floats:
    """The share ρ of the items' probability [n] that is recent popularity's, given log q [n] of the rest."""
    lengths = np.array([length])
    of_class = int(classes(lengths)[0])
    mixed = prior.mix(log_q[None], lengths, items)[0]
    share = np.float32(prior.shares[of_class])
    return (share * np.exp(prior.log_popularity[of_class][items] - mixed)).astype(np.float32)


def _linear(linear: Linear, events: Ints, known: Ints, items: Ints, q: Array) -> Floats:
    """l_ji − Σ_k q_k l_jk of the linear part, for each item j of the history [n, u]."""
    found = np.zeros((len(items), len(known)), dtype=np.float32)
    rows, said_by, others, weights = linear.said(events)
    if not len(rows):
        return found
    by_item = np.full(len(linear.known), -1)  # which of `items` an entry speaks for
    places = np.searchsorted(linear.known, items).clip(max=len(linear.known) - 1)
    there = linear.known[places] == items
    by_item[places[there]] = np.flatnonzero(there)
    within = np.isin(others, rows)  # items of the history get nothing
    weights = np.where(within, 0, weights.astype(np.float64)) * linear.strength(len(events))
    expected = np.bincount(said_by, weights * q[linear.known[others]], minlength=len(rows))
    spoken = np.flatnonzero(by_item[others] >= 0)
    column = np.searchsorted(known, linear.known[rows])
    found[by_item[others[spoken]], column[said_by[spoken]]] = weights[spoken]
    found[:, column] -= expected
    return found


def _retrieved(grounding: Grounding, history: EventLog, known: Ints, items: Ints, q: Array) -> Floats:
    """l_ji − Σ_k q_k l_jk of what is retrieved for each item j of the history, by kind [n, u, kinds]."""
    found = np.zeros((len(items), len(known), len(KINDS)), dtype=np.float32)
    if grounding.repository is None:
        return found
    entries = grounding.repository.retrieve(history, 0)
    added = grounding.relevance.contributions(entries).sum(axis=1).astype(np.float64)
    anchors = np.searchsorted(known, entries.anchors)
    expected = np.zeros((len(known), len(KINDS)))
    np.add.at(expected, (anchors, entries.kinds), added * q[entries.items])
    order = np.argsort(items, kind="stable")
    place = np.searchsorted(items[order], entries.items).clip(max=max(len(items) - 1, 0))
    spoken = np.flatnonzero(items[order][place] == entries.items)
    np.add.at(found, (order[place[spoken]], anchors[spoken], entries.kinds[spoken]), added[spoken])
    return found - expected.astype(np.float32)
