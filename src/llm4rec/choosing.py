"""What validation chooses: the epoch, and what generation, linear part and prior weigh in the score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases
from llm4rec.debias.balance import POOL, Balance, balanced
from llm4rec.debias.popularity import STRENGTHS, Popularity
from llm4rec.evaluate.groups import Groups
from llm4rec.evaluate.protocol import case_ndcg, mean_ndcg, person_means
from llm4rec.evaluate.significance import Gain
from llm4rec.explain.aspects import Aspects, Vocabulary
from llm4rec.explain.learning import learn
from llm4rec.fitted import Fitted, code_head, person_rows
from llm4rec.generate.generator import Generator, choose_share
from llm4rec.generate.semantic_id import GenerateConfig, SemanticIds
from llm4rec.model import prior, weighing
from llm4rec.model.linear import Linear
from llm4rec.model.network import Network
from llm4rec.model.prior import TOP, Prior
from llm4rec.model.scorer import Attend, Scorer
from llm4rec.retrieve import trial as retrieval
from llm4rec.retrieve.condition import Gated
from llm4rec.retrieve.conditioning import Held, Stage, T, Telling
from llm4rec.retrieve.relevance import Grounding, Relevance
from llm4rec.retrieve.repository import Repository
from llm4rec.topn import top_n
from llm4rec.train.stages import PersonMetric
from llm4rec.types import Array, Bools, Floats, Ints, Progress, Rankings, silent

AT_ONCE = 60_000_000
"""Scores of cases × items that attention is trained beside: 240 MB; of a larger catalogue fewer cases are."""

INTERVAL = 1.96
"""Standard errors on either side of a mean that make a 95% interval."""


def sample(cases: Cases, most: int, seed: int) -> Cases:
    """At most `most` of the cases, drawn at random, in their order."""
    if len(cases) <= most:
        return cases
    return cases.take(np.sort(np.random.default_rng([seed, 2]).permutation(len(cases))[:most]))


@dataclass(frozen=True)
class Questions:
    """The validation cases, and how to ask a network that is still in training.

    Attributes:
        cases: their answers are never trained on.
        people: the people's table, None without one.
        n_items: size of the catalogue.
        scorer: knows items and people; its network is the one that is trained.
    """

    cases: Cases
    people: Catalog | None
    n_items: int
    scorer: Scorer

    def dense_metric(self, network: Network) -> float:
        """NDCG@10 of the dense head with the weights of the moment; `network` is in evaluation mode."""
        now = replace(self.scorer, network=network)  # item vectors are computed anew
        return mean_ndcg(_Answers(now, self.people), self.cases, self.n_items)

    def code_metric(self, ids: SemanticIds) -> Callable[[Network], float]:
        """NDCG@10 of the code head alone, as a function of the network."""

        def metric(network: Network) -> float:
            alone = Generator(code_head(network), ids, beam=20, share=1.0)
            now = replace(self.scorer, network=network, join=alone.joined)
            return mean_ndcg(_Answers(now, self.people), self.cases, self.n_items)

        return metric

    def served_metric(
        self, network: Network, ids: SemanticIds | None, part: Linear, config: GenerateConfig
    ) -> PersonMetric:
        """NDCG@10 of each person's cases [p] by the heads with the linear part, weighed as suits `network`.

        Args:
            network: left in evaluation mode.
            ids: of the items; None for the dense head without the code head.
            part: the linear part; its strengths and exponents are not read.
            config: how the heads are joined.
        """
        network.eval()
        scorer = replace(self.scorer, network=network)
        found = None if ids is None else self._likeliest(scorer, ids, config)
        linear = self.linear(scorer if found is None else replace(scorer, join=found.join), part)

        def metric(network: Network, *, timed: bool = False) -> Array:
            join = None if found is None else replace(found, head=code_head(network)).join
            now = replace(self.scorer, network=network, join=join)
            answers = _Answers(now, self.people, linear)
            return person_means(case_ndcg(answers, self.cases, self.n_items, timed=timed), self.cases.rows)

        return metric

    def generator(self, scorer: Scorer, ids: SemanticIds, part: Linear, config: GenerateConfig) -> Generator:
        """The generator, its share the one that is best on the cases unless it is given.

        It is 0 unless, each beside its own weights of the linear part, both heads rank the cases higher than
        the dense one by more than a standard error: the linear part may say the same as the code head.
        """
        found = self._likeliest(scorer, ids, config)
        if config.mode == "only" or config.share is not None or not found.share:
            return found
        both, alone = (self._ndcg(replace(scorer, join=join), part) for join in (found.join, None))
        return found if Gain.of(both - alone).exceeds() else replace(found, share=0.0)

    def _ndcg(self, scorer: Scorer, part: Linear) -> Array:
        """NDCG@10 of each person's cases [p] with the linear part, as it suits the scorer."""
        answers = _Answers(scorer, self.people, self.linear(scorer, part))
        return person_means(case_ndcg(answers, self.cases, self.n_items), self.cases.rows)

    def _likeliest(self, scorer: Scorer, ids: SemanticIds, config: GenerateConfig) -> Generator:
        """The generator at the share that makes the answers most likely, unless it is given."""
        found = Generator(code_head(scorer.network), ids, config.beam, share=1.0)
        if config.mode == "only" or config.share is not None:
            return replace(found, share=1.0 if config.share is None else config.share)
        first = self.cases.target_offsets[:-1]
        dense, code = np.empty((2, len(self.cases)), dtype=np.float32)
        histories = self.cases.histories()
        people = person_rows(self.people, histories)
        with torch.inference_mode():
            for rows, chosen in scorer.chunks(histories):
                states = scorer.states(chosen, people[rows])
                wanted = torch.from_numpy(self.cases.targets[first[rows]]).unsqueeze(1)
                log_p = scorer.dense(states)
                dense[rows] = log_p.gather(1, wanted).squeeze(1).numpy()
                code[rows] = found.log_probability(states, wanted).squeeze(1).numpy()
        return replace(found, share=choose_share(dense, code))

    def linear(self, scorer: Scorer, part: Linear) -> Linear:
        """The linear part with the strengths and exponents that suit the answers beside `scorer`."""
        if not len(part.known):
            return part
        trial = weighing.Trial(part, self._answers, self.cases.histories().lengths, self.cases.rows)
        for rows, chosen, log_scores in self._asked(scorer):
            trial.ask(rows, log_scores, chosen)
            del log_scores  # before the next ones are made: a large catalogue's fill the memory
        return trial.chosen()

    def relevance(
        self, scorer: Scorer, beside: Linear, repository: Repository, tried: Bools
    ) -> tuple[Relevance, Gain | None]:
        """What retrieved entries weigh beside `scorer` and the linear part, and what is gained by them.

        Factors [kind, factor] that are not `tried` weigh nothing.
        """
        trial = retrieval.Trial(repository, self._answers, self.cases.rows, tried)
        for rows, chosen, log_scores in self._asked(scorer):
            trial.ask(rows, beside.add(log_scores, chosen), chosen)
            del log_scores
        return trial.chosen()

    def telling(
        self,
        scorer: Scorer,
        beside: Linear,
        grounding: Grounding,
        kind: Telling[T],
        attend: Attend | None = None,
        progress: Progress = silent,
    ) -> tuple[Gated | None, dict[str, Any] | None]:
        """A module of some kind beside all that is added to the scores, where it is kept.

        Also what there is to say of it: mean and standard error of its gain of NDCG@10, and how open its gate
        is in the mean, 0 where it is not kept; None where there was too little to tell.

        Args:
            scorer: gives the states.
            beside: the linear part.
            grounding: what is retrieved.
            kind: what is trained, and what it is told.
            attend: what the states become before they come to it; None leaves them.
            progress: told how many cases have been read.
        """
        history = self.cases.histories()
        again = [target in history.history(case) for case, target in enumerate(self._answers.tolist())]
        rows = np.flatnonzero(~np.array(again, dtype=bool))
        most = min(len(rows), retrieval.MOST, AT_ONCE // self.n_items)
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        if not len(rows):
            return None, None
        asked, logits = history.histories(rows, history.lengths[rows]), _logits(scorer)
        people = person_rows(self.people, asked)
        exponents = np.array([beside.exponent(length) for length in asked.lengths], dtype=np.float32)
        states, done = torch.empty(len(rows), scorer.vectors.shape[1]), 0
        told, added = kind.none(len(rows)), np.empty((len(rows), self.n_items), dtype=np.float32)
        for part, some in scorer.chunks(asked):
            read = scorer.states(some, people[part])
            states[part] = read if attend is None else attend(read, some)
            dense = logits(states[part]).log_softmax(dim=-1).numpy()
            added[part] = grounding.add(beside.add(dense, some), some) - exponents[part, None] * dense
            added[part[some.rows], some.items] = -np.inf
            told.put(part, kind.of(some))
            done += len(part)
            progress(f"retrieved, {kind.name}", done, len(rows))
        held = Held(
            states, told, torch.from_numpy(exponents), added, self._answers[rows], self.cases.rows[rows]
        )
        found, gain = Stage(held, scorer.vectors.clone(), logits, kind.new, kind.seed).chosen()
        with torch.no_grad():
            open_by = 0.0 if found is None else float(found.openness(held.states).abs().mean())
        return found, None if gain is None else {**asdict(gain), "openness": open_by}

    def prior(
        self,
        scorer: Scorer,
        beside: Linear,
        grounding: Grounding,
        events: EventLog,
        attend: Attend | None = None,
    ) -> Prior:
        """Recent popularity in `events`, its windows and shares those that suit the answers."""
        lengths = self.cases.histories().lengths
        trial = prior.Trial(events, self.n_items, self._answers, lengths, self.cases.rows)
        for rows, chosen, log_scores in self._asked(scorer, attend):
            log_scores = grounding.add(beside.add(log_scores, chosen), chosen)
            trial.ask(rows, log_scores, unseen(chosen, self.n_items))
            del log_scores
        return trial.prior()

    def aspects(
        self, scorer: Scorer, vocabulary: Vocabulary, events: EventLog, rows: Ints, seed: int
    ) -> tuple[Aspects | None, dict[str, Any] | None]:
        """What states say of the aspects of the next item, trained on `events`, and what that is worth here.

        `rows` are those of the people's table [u] who did the events; `seed` is of what is drawn.
        """
        people = person_rows(self.people, self.cases.histories())
        return learn(scorer, vocabulary, events, rows, self.cases, people, seed)

    def popularity(self, fitted: Fitted, found: Popularity) -> tuple[Popularity, dict[str, Any] | None]:
        """Popularity with its strength, and what that costs here where it is to be chosen.

        The largest is taken up to which no strength costs more than the share of NDCG@10 that may be spent:
        the 95% interval of the difference has to lie above it.
        """
        options = fitted.config.debias.popularity
        if not options.choose:
            return found, None
        tried = [found.at(strength) for strength in STRENGTHS]
        ndcg = np.empty((len(tried), len(self.cases)), dtype=np.float32)
        for rows, chosen, log_scores in self._asked(fitted.scorer, fitted.attend):
            log_scores = fitted.grounding.add(fitted.linear.add(log_scores, chosen), chosen)
            mixed = fitted.prior.mix(log_scores, chosen.lengths)
            legal, answers = unseen(chosen, self.n_items), self._answers[rows]
            for place, each in enumerate(tried):
                ndcg[place, rows] = _ndcg(each.adjust(mixed), answers, legal)
            del log_scores, mixed
        plain = person_means(ndcg[0], self.cases.rows)
        best, told = found.at(0.0), {"strength": 0.0, "cost": 0.0, "error": 0.0}
        for each, values in zip(tried[1:], ndcg[1:], strict=True):
            gain = Gain.of(person_means(values, self.cases.rows) - plain)
            if gain.mean - INTERVAL * gain.error <= -options.cost * plain.mean():
                break
            best = each
            told = {"strength": each.strength, "cost": -gain.mean, "error": gain.error}
        return best, told

    def balance(self, fitted: Fitted, groups: Groups) -> Balance:
        """What holds exposure equal between groups of people in the lists that are made for the cases.

        The lists are those before `rerank.diversity`, which may move them apart again.
        """
        items = np.empty((len(self.cases), min(POOL, self.n_items)), dtype=np.int64)
        scores = np.empty(items.shape, dtype=np.float32)
        for rows, chosen, log_scores in self._asked(fitted.scorer, fitted.attend):
            log_scores = fitted.grounding.add(fitted.linear.add(log_scores, chosen), chosen)
            adjusted = fitted.popularity.adjust(fitted.prior.mix(log_scores, chosen.lengths))
            best = top_n(adjusted, items.shape[1], chosen)
            items[rows], scores[rows] = best.items, best.scores
            del log_scores, adjusted
        of_cases = person_rows(self.people, self.cases.histories())
        options = fitted.config.debias.parity
        return balanced(Rankings(items, scores), of_cases, groups, fitted.catalog, options)

    @property
    def _answers(self) -> Ints:
        """The first answer of each case [c]."""
        return self.cases.targets[self.cases.target_offsets[:-1]]

    def _asked(self, scorer: Scorer, attend: Attend | None = None) -> Iterator[tuple[Ints, EventLog, Floats]]:
        """(cases [b], their histories, log-probability of every item [b, i]), chunk by chunk."""
        histories = self.cases.histories()
        people = person_rows(self.people, histories)
        for rows, chosen in scorer.chunks(histories):
            yield rows, chosen, scorer.log_scores(chosen, people[rows], added=True, attend=attend)


@dataclass(frozen=True)
class _Answers:
    """What the weights of the moment answer, without the prior."""

    scorer: Scorer
    people: Catalog | None
    linear: Linear = field(default_factory=Linear)

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        items = np.empty((histories.n_users, n), dtype=np.int64)
        scores = np.empty((histories.n_users, n), dtype=np.float32)
        people = person_rows(self.people, histories)
        for rows, chosen in self.scorer.chunks(histories):
            legal = None if keep_seen else unseen(chosen, len(self.scorer.vectors))
            own = self.scorer.log_scores(chosen, people[rows], n, legal, added=len(self.linear.known) > 0)
            log_scores = self.linear.add(own, chosen)
            best = top_n(log_scores, n, None if keep_seen else chosen)
            items[rows], scores[rows] = best.items, best.scores
        return Rankings(items, scores)


def _ndcg(scores: Floats, answers: Ints, legal: Bools) -> Floats:
    """NDCG@10 [b] of one answer each [b], of the `legal` [b, i] items ranked by `scores` [b, i]."""
    rows = np.arange(len(answers))
    level = ((scores >= scores[rows, answers][:, None]) & legal).sum(axis=1)  # of ties it is the last
    gain = 1 / np.log2(np.maximum(level, 1) + 1)  # an answer that may not come back has no place
    return np.where(legal[rows, answers] & (level <= TOP), gain, 0).astype(np.float32)


def _logits(scorer: Scorer) -> Callable[[Tensor], Tensor]:
    """The dense head's logits [b, i] of states [b, d], through which gradients reach the states."""
    head, none, prepared = scorer.network.head, scorer.vectors[:0].clone(), scorer.prepared.clone()
    return lambda states: head.prepared(states, none)[0] @ prepared.T


def unseen(histories: EventLog, n_items: int) -> Bools:
    """Which items are not in each history [b, i]."""
    legal = np.ones((histories.n_users, n_items), dtype=bool)
    legal[histories.rows, histories.items] = False
    return legal
