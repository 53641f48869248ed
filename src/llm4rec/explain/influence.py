"""What moved the score of an item: each item of the history, recent popularity, the time of asking.

The score is log r(i) with r ∝ p exp(a), p = (1 − s) q + s p_recent and q ∝ exp(τ log p_network + lifts); a is
a wish, what the person said they want more or less of, and what is corrected for bias, all held still. What
it loses without an item j of the history is to first order

    d_j log r(i)  +  Σ_k M_ik l_jk,   M_ik = (1 − ρ_i) (δ_ik − q_k) − Σ_m r_m (1 − ρ_m) (δ_mk − q_k)

with ρ the share of p(i) that is recent popularity's, and l_jk what j adds to the lift of k in the linear part
and in what is retrieved for it. d_j is the derivative for what j's events count as keys of attention; for the
last event it is the difference to the state before it, which a causal decoder has at hand. So nothing is read
again for it. Deletion, which reads everything again, judges it (`benchmarks/faithfulness.py`). It also counts
what is not told here: that an item which is taken out may come next itself, that another may find entries in
its place, and that a shorter history may have another s, τ and strength.
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
from llm4rec.model.leaning import lean, slopes
from llm4rec.model.linear import Linear
from llm4rec.model.prior import Prior, classes
from llm4rec.model.scorer import Attend, Scorer
from llm4rec.retrieve.entries import KINDS
from llm4rec.retrieve.relevance import Grounding
from llm4rec.types import Array, Floats, Ints


@dataclass(frozen=True)
class Parts:
    """What scores are made of; see `fitted.Fitted` for each.

    Attributes:
        added: what is added to log-probabilities at the end to correct for bias [i]; None for nothing.
        whole: whether a code head is asked of every item. Where not, the dense head alone stands for it in
            sums over the catalogue.
    """

    scorer: Scorer
    linear: Linear
    arrivals: Arrivals
    grounding: Grounding
    prior: Prior
    attend: Attend | None = None
    generator: Generator | None = None
    added: Floats | None = None
    whole: bool = True


@dataclass(frozen=True)
class Influence:
    """What moved the scores of n items for one history, to first order (nats).

    Attributes:
        history: the different items of the history, ascending [u].
        network: what the score owes to each by the network [n, u].
        linear: by the linear part [n, u].
        retrieved: by what is retrieved for it, by kind [n, u, kinds].
        trend: what recent popularity adds, at most 0 for what is no more popular than the average item [n].
        time: what the time of asking adds [n].
        wish: what a wish adds [n].
        correction: what is added by what the person said they want more or less of [n].
    """

    history: Ints
    network: Floats
    linear: Floats
    retrieved: Floats
    trend: Floats
    time: Floats
    wish: Floats
    correction: Floats

    @property
    def owed(self) -> Floats:
        """What the score owes to each item of the history [n, u]."""
        return self.network + self.linear + self.retrieved.sum(axis=2)

    def of(self, rows: Ints) -> Influence:
        """That of some of the n items."""
        scored = (self.network, self.linear, self.retrieved, self.trend, self.time, self.wish)
        return Influence(self.history, *(values[rows] for values in (*scored, self.correction)))


def influence(
    parts: Parts,
    history: EventLog,
    people: Ints,
    items: Ints,
    wish: Floats | None = None,
    correction: Floats | None = None,
) -> Influence:
    """What moved the scores of `items` [n ≥ 1] for a history of one row.

    Args:
        parts: of the model.
        history: one row.
        people: row of its owner in the people's table [1], -1 for a stranger.
        items: dense numbers.
        wish: log p(i | wish) [1, i], which all probabilities are multiplied by; None without a wish.
        correction: the same of what the person said they want more or less of [1, i]; None for nothing.
    """
    different, copies = np.unique(items, return_inverse=True)
    events = history.history(0)
    known, place = np.unique(events, return_inverse=True)
    leaning = lean(parts.scorer, history, people)
    plain = _Said.after(parts, history, leaning.state.detach(), different)
    said = plain.adding(wish, correction)
    state = leaning.state.detach().requires_grad_()
    log_q = said.log_q(state)
    now = said.scores(log_q)
    network = np.zeros((len(different), len(known)), dtype=np.float32)
    time = np.zeros(len(different), dtype=np.float32)
    if leaning.before is not None:
        each = torch.eye(len(now))
        read = leaning.of(slopes(now, state, each, len(parts.scorer.vectors))[:, 0]).numpy()
        with torch.no_grad():
            read[:, -1] = (now - said.scores(said.log_q(leaning.before))).numpy()
        np.add.at(network.T, place[len(events) - read.shape[1] :], read.T)
    with torch.no_grad():
        if leaning.asked.any():
            time = (now - said.scores(said.log_q(state - leaning.asked))).numpy()
        wished = (now - plain.adding(correction).scores(log_q)).numpy()
        corrected = (now - plain.adding(wish).scores(log_q)).numpy()
        trend = said.trend(log_q).numpy()
        moved = said.moved(log_q)
    found = Influence(
        history=known,
        network=network,
        linear=_linear(parts.linear, events, known, different, moved),
        retrieved=_retrieved(parts.grounding, history, known, different, moved),
        trend=trend,
        time=time,
        wish=wished,
        correction=corrected,
    )
    return found.of(copies)


@dataclass(frozen=True)
class _Moved:
    """How scores of n items move with what is added to the lifts of all: by M of the module's first lines.

    Attributes:
        own: 1 − ρ of each [n].
        q: probabilities before recent popularity [i].
        shared: what moves all n scores alike [i]; 0 where nothing is added at the end.
    """

    own: Array
    q: Array
    shared: Array

    def by(self, lifts: Array, of_q: Array, of_shared: Array) -> Floats:
        """Σ_k M_ik l_jk [n, u, ...] of l_ji [n, u, ...] and its sums over k in q and in `shared` [u, ...]."""
        own = self.own.reshape(-1, *[1] * (lifts.ndim - 1))
        return (own * (lifts - of_q) - of_shared).astype(np.float32)


@dataclass(frozen=True)
class _Said:
    """What the network's states say of n items, with all that is added to its scores.

    Attributes:
        parts: of the model.
        items: their numbers [n].
        vectors: of all items, as the dense head takes them [i, d].
        exponent: τ.
        lifts: all that is added to the network's log-scores [i].
        shift: what attention to what is retrieved adds to a state [1, d]; it is held still.
        popular: log-probabilities of recent popularity [i].
        share: of recent popularity in the mixture.
        added: what is added at the end [i].
    """

    parts: Parts
    items: Tensor
    vectors: Tensor
    exponent: float
    lifts: Tensor
    shift: Tensor
    popular: Tensor
    share: float
    added: Tensor

    @classmethod
    def after(cls, parts: Parts, history: EventLog, state: Tensor, items: Ints) -> _Said:
        """That of `state` [1, d] after a history of one row."""
        lifts = np.zeros(len(parts.scorer.vectors), dtype=np.float32)
        lifts[parts.linear.known] += parts.linear.lifts(history.history(0))
        lifts[parts.arrivals.items] += parts.arrivals.lifts
        spoken_for, lifted = parts.grounding.lifts(history, 0)
        lifts[spoken_for] += lifted
        shift = torch.zeros_like(state)
        if parts.attend is not None:
            shift = parts.attend(state, history) - state
        of_class = int(classes(history.lengths)[0])
        return cls(
            parts,
            torch.from_numpy(items),
            parts.scorer.prepared,
            parts.linear.exponent(history.n_events),
            torch.from_numpy(lifts),
            shift,
            torch.from_numpy(parts.prior.log_popularity[of_class]),
            float(parts.prior.shares[of_class]),
            torch.from_numpy(np.zeros_like(lifts) if parts.added is None else parts.added),
        )

    def adding(self, *more: Floats | None) -> _Said:
        """The same with more added at the end, each [1, i] (nats) or None, such as a wish."""
        return replace(
            self, added=sum((torch.from_numpy(each[0]) for each in more if each is not None), self.added)
        )

    def scores(self, log_q: Tensor) -> Tensor:
        """Log r of the items [n], given log q [i] (nats)."""
        ends = self._mixed(log_q) + self.added
        return ends[self.items] - ends.logsumexp(dim=0)

    def trend(self, log_q: Tensor) -> Tensor:
        """What recent popularity adds to the scores of the items [n] (nats).

        An item that the network holds even less of than its few events gains by it as well; that nobody chose
        it is no reason, so it gets at most 0.
        """
        added = self.scores(log_q) - replace(self, share=0.0).scores(log_q)
        common = self.popular[self.items] > -math.log(len(self.popular))
        return torch.where(common, added, added.clamp(max=0))

    def moved(self, log_q: Tensor) -> _Moved:
        """How the scores of the items move with what is added to the lifts."""
        mixed = self._mixed(log_q)
        rho = torch.zeros_like(log_q)
        if self.share:
            rho = (self.popular + math.log(self.share) - mixed).exp().clamp(max=1)
        q = log_q.exp().double()
        left = (mixed + self.added).softmax(dim=0).double() * (1 - rho)
        return _Moved((1 - rho[self.items]).numpy(), q.numpy(), (left - left.sum() * q).numpy())

    def log_q(self, state: Tensor) -> Tensor:
        """Log q of every item [i]."""
        shifted, generator = state + self.shift, self.parts.generator
        log_p = (self.parts.scorer.prepared_states(shifted) @ self.vectors.T)[0].log_softmax(dim=0)
        if generator is not None and self.parts.whole:
            log_p = generator.mixed(log_p, generator.every(shifted)[0])
        elif generator is not None:
            coded = generator.log_probability(shifted, self.items[None])[0]
            log_p = log_p.index_put((self.items,), generator.mixed(log_p[self.items], coded))
        return (self.exponent * log_p + self.lifts).log_softmax(dim=0)

    def _mixed(self, log_q: Tensor) -> Tensor:
        """Log p of every item [i], given log q [i]."""
        if not self.share:
            return log_q
        keep = math.log1p(-self.share) if self.share < 1 else -math.inf
        return torch.logaddexp(log_q + keep, self.popular + math.log(self.share))


def _linear(linear: Linear, events: Ints, known: Ints, items: Ints, moved: _Moved) -> Floats:
    """Σ_k M_ik l_jk of the linear part, for each item j of the history [n, u]; `items` ascend."""
    found = np.zeros((len(items), len(known)))
    rows, said_by, others, weights = linear.said(events)
    if not len(rows):
        return found.astype(np.float32)
    by_item = np.full(len(linear.known), -1)  # which of `items` an entry speaks for
    places = np.searchsorted(linear.known, items).clip(max=len(linear.known) - 1)
    there = linear.known[places] == items
    by_item[places[there]] = np.flatnonzero(there)
    within = np.isin(others, rows)  # items of the history get nothing
    weights = np.where(within, 0, weights.astype(np.float64)) * linear.strength(len(events))
    spoken = np.flatnonzero(by_item[others] >= 0)
    column = np.searchsorted(known, linear.known[rows])
    found[by_item[others[spoken]], column[said_by[spoken]]] = weights[spoken]
    sums = np.zeros((2, len(known)))
    for total, over in zip(sums, (moved.q, moved.shared), strict=True):
        total[column] = np.bincount(said_by, weights * over[linear.known[others]], minlength=len(rows))
    return moved.by(found, *sums)


def _retrieved(grounding: Grounding, history: EventLog, known: Ints, items: Ints, moved: _Moved) -> Floats:
    """Σ_k M_ik l_jk of what is retrieved, for each item j of the history, by kind [n, u, kinds]."""
    found = np.zeros((len(items), len(known), len(KINDS)))
    if grounding.repository is None:
        return found.astype(np.float32)
    entries = grounding.repository.retrieve(history, 0)
    added = grounding.relevance.contributions(entries).sum(axis=1).astype(np.float64)
    anchors = np.searchsorted(known, entries.anchors)
    sums = np.zeros((2, len(known), len(KINDS)))
    for total, over in zip(sums, (moved.q, moved.shared), strict=True):
        np.add.at(total, (anchors, entries.kinds), added * over[entries.items])
    place = np.searchsorted(items, entries.items).clip(max=len(items) - 1)
    spoken = np.flatnonzero(items[place] == entries.items)
    np.add.at(found, (place[spoken], anchors[spoken], entries.kinds[spoken]), added[spoken])
    return moved.by(found, *sums)
