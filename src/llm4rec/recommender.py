"""The recommender: composes the rooms; reads as the architecture.

events, items → tokens → fused vectors → backbone → dense head → prior → top n
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from llm4rec.config import Section
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.ingest import DataConfig
from llm4rec.data.split import Cases, next_event_cases
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR, FusionConfig
from llm4rec.encode.text import TextConfig, reopen_encoder
from llm4rec.encode.tokens import Tokens, TokenSpace, fit_tokens
from llm4rec.encode.vectors import frozen_vectors
from llm4rec.errors import InputError
from llm4rec.evaluate.metrics import per_case
from llm4rec.model.backbone import BackboneConfig
from llm4rec.model.events import EventSpace, event_arrays, fit_events
from llm4rec.model.network import Network
from llm4rec.model.prior import Prior, fit_prior
from llm4rec.model.scorer import Scorer
from llm4rec.store import artefact
from llm4rec.topn import top_n
from llm4rec.train.loop import Material, TrainConfig
from llm4rec.train.stages import train_in_stages
from llm4rec.types import Array, Floats, Ints, Progress, Query, Ranking, Rankings, silent

KIND = "model"
WISH_TEMPERATURE = 0.05
"""Divides the cosine of a wish and an item's text: .05 makes a difference of .1 worth a factor of e²."""


class EncodeConfig(FusionConfig):
    """How items become vectors (section `encode`)."""

    text: TextConfig = TextConfig()


class Config(Section):
    """The whole configuration tree."""

    data: DataConfig = DataConfig()
    encode: EncodeConfig = EncodeConfig()
    model: BackboneConfig = BackboneConfig()
    train: TrainConfig = TrainConfig()


def sasrec_config(config: Config) -> Config:
    """SASRec with softmax in this code: ids alone, learnt positions, plain dot products.

    Ratings and times must be taken from the events as well.
    Source: Kang & McAuley, Self-Attentive Sequential Recommendation, 2018, with the full softmax.
    """
    model = config.model.model_copy(update={"positions": "learned", "cosine": False})
    return config.model_copy(update={"model": model})


class Recommender:
    """A fitted model: everything `recommend` needs, and nothing else.

    Made by `fit` or `load`; satisfies the `Recommends` protocol.
    """

    def __init__(  # noqa: PLR0913  # the parts that `fit` and `load` have made
        self,
        config: Config,
        catalog: Catalog,
        vectors: Mapping[str, Floats],
        scorer: Scorer,
        prior: Prior,
        spaces: tuple[TokenSpace, TokenSpace | None],
        *,
        people: Catalog | None,
        histories: EventLog | None,
        meta: Mapping[str, Any],
    ) -> None:
        self.config = config
        self.catalog = catalog
        self.people = people
        self.histories = histories
        self.meta = dict(meta)
        self._vectors = dict(vectors)
        self._scorer = scorer
        self._prior = prior
        self._spaces = spaces

    @classmethod
    def fit(
        cls,
        events: EventLog,
        catalog: Catalog,
        config: Config | None = None,
        *,
        people: Catalog | None = None,
        valid: Cases | None = None,
        checkpoints: Path | None = None,
        resume: bool = False,
        progress: Progress = silent,
    ) -> Self:
        """Train on `events`.

        Args:
            events: what people did; its items are dense numbers of `catalog`.
            catalog: the items.
            config: options, the defaults where None.
            people: features of the people, rows as in `events`; no protected column may be among its fields.
            valid: cases that choose the epoch. Where None, the last event of up to
                `train.validation_people` people is kept from training for it.
            checkpoints: a directory for unfinished work; None keeps none.
            resume: take up the unfinished work in `checkpoints` instead of starting anew.
            progress: told of every step.

        Raises:
            InputError: where there is nothing to learn from.
            TrainingError: where the loss stops being finite.
        """
        began = time.perf_counter()
        config = config or Config()
        if checkpoints is not None and not resume:
            shutil.rmtree(checkpoints, ignore_errors=True)
        histories = events
        if valid is None:
            events, valid = hold_out(events, config.train.validation_people, config.train.seed)
        if events.n_events == 0 or len(valid) == 0:
            raise InputError(
                "There is too little to learn from: at least one person needs three events or more. "
                "Check the column mapping and data.min_rating."
            )
        frozen = frozen_vectors(catalog, config.encode.text, progress=progress)
        space = _space(catalog, frozen.by_field)
        items = space.transform(catalog, frozen.by_field)
        items[BEHAVIOUR] = behaviour_tokens(torch.from_numpy(events.item_counts(len(catalog)) > 0))
        people_space = None if people is None or not people.fields else _space(people, {})
        if people_space is not None and not people_space.fields:
            people_space = None
        known = None if people_space is None or people is None else people_space.transform(people, {})
        spaces = (space, people_space)
        event_space = fit_events(events)
        network = _network(config, spaces, event_space, len(catalog))
        log = train_in_stages(
            network,
            _material(events, event_space, items, known),
            validate=_validation(valid, Scorer(network, items, known, event_space), people, config.train),
            config=config.train,
            attention=config.encode.attention and len(space.fields) > 0,
            checkpoints=checkpoints,
            progress=progress,
        )
        scorer = Scorer(network, items, known, event_space)
        return cls(
            config,
            catalog,
            frozen.by_field,
            scorer,
            _prior(events, len(catalog), valid, scorer, people, config.train),
            spaces,
            people=people,
            histories=histories,
            meta={
                "training": log,
                "seconds": time.perf_counter() - began,
                "text_encoder": frozen.encoder,
                "notes": frozen.notes,
                "n_events": events.n_events,
                "n_users": events.n_users,
            },
        )

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        """The best n items for each history [b]; rows are known people where `user_ids` names them."""
        return self.recommend_many(histories, None, n, keep_seen=keep_seen)

    def recommend_many(
        self, histories: EventLog, exclude: EventLog | None, n: int, *, keep_seen: bool = False
    ) -> Rankings:
        """As `rank`, leaving out also the items of the same row of `exclude`."""
        items = np.full((histories.n_users, n), -1, dtype=np.int64)
        scores = np.full((histories.n_users, n), -np.inf, dtype=np.float32)
        unwanted = [log for log in (None if keep_seen else histories, exclude) if log is not None]
        for rows, chosen, log_scores in self._scorer.chunks(histories, _numbers(self.people, histories)):
            mixed = self._prior.mix(log_scores, chosen.lengths)
            for log in unwanted:
                left_out = log.histories(rows, log.lengths[rows])
                mixed[left_out.rows, left_out.items] = -np.inf
            best = top_n(mixed, n, None)
            items[rows], scores[rows] = best.items, best.scores
        return Rankings(items, scores)

    def recommend(self, query: Query, n: int = 10) -> Ranking:
        """The best n items for one query; fewer where fewer are legal.

        A history that is not given is looked up by the user's name; what the catalogue does not know is
        passed over. An empty history is answered from popularity and the person's features. A wish
        multiplies p(i | history) by p(i | wish) ∝ exp(cos(wish, text of i) / 0.05).

        Raises:
            InputError: where a wish is made and the items have no text.
        """
        history = self._history(query)
        log_scores = self._scorer.log_scores(history, _numbers(self.people, history))
        log_scores = self._prior.mix(log_scores, history.lengths)
        if query.text is not None and query.text.strip():
            log_scores = log_scores + self._wish(query.text)
            log_scores = log_scores - np.logaddexp.reduce(log_scores, axis=1, keepdims=True)
        named = self.catalog.numbers(pl.Series(query.exclude, dtype=pl.String))
        left_out = np.union1d(named[named >= 0], [] if query.keep_seen else history.items).astype(np.int64)
        exclude = EventLog(history.user_ids, np.array([0, len(left_out)]), left_out)
        best = top_n(log_scores, n, exclude)
        legal = best.items[0] >= 0
        ids = self.catalog.ids[best.items[0][legal]].to_list()
        return Ranking(tuple(ids), tuple(best.scores[0][legal].tolist()))

    @property
    def item_vectors(self) -> Floats:
        """Fused item vectors z [i, d]."""
        return self._scorer.vectors.numpy()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities fused, in the order of `modality_weights`."""
        return self._scorer.network.fusion.modalities

    def modality_weights(self, items: Ints) -> Floats:
        """α [i, m] of equation (6): how much each modality of an item weighs; rows sum to 1."""
        index = torch.from_numpy(items)
        with torch.inference_mode():
            fused = self._scorer.network.fuse(
                {m: t.take(index) for m, t in self._scorer.items.items()}, weights=True
            )
        assert fused.weights is not None  # asked for above
        return fused.weights.numpy()

    def known_history(self, user: str) -> EventLog | None:
        """What a person known from training did, or None for anyone else."""
        if self.histories is None:
            return None
        rows = np.flatnonzero((self.histories.user_ids == user).to_numpy())
        return None if not len(rows) else self.histories.histories(rows, self.histories.lengths[rows])

    def save(self, path: Path, *, histories: bool = True) -> None:
        """Write the artefact: network, frozen vectors, tables and spaces (see `llm4rec.store.artefact`).

        Args:
            path: the directory to make, or to replace where it holds a model.
            histories: whether known people's histories go with it, so that they can be asked for by name.

        Raises:
            ArtefactError: where something else is in the way, or the disk refuses.
        """
        tables = {"items": self.catalog.table}
        if self.people is not None:
            tables["people"] = self.people.table
        if histories and self.histories is not None:
            tables["histories"] = self.histories.to_frame(self.catalog.ids)
        network = {
            name: tensor.detach().numpy() for name, tensor in self._scorer.network.state_dict().items()
        }
        artefact.write(
            path,
            kind=KIND,
            meta={
                "config": self.config.model_dump(mode="json"),
                "item_fields": [asdict(field) for field in self.catalog.fields],
                "people_fields": []
                if self.people is None
                else [asdict(field) for field in self.people.fields],
                "spaces": [None if space is None else asdict(space) for space in self._spaces],
                "events": asdict(self._scorer.events),
                "attend": self._scorer.network.fusion.attend,
                "prior": {"shares": self._prior.shares, "window": self._prior.window},
                "about": self.meta,
            },
            tensors={
                "network": network,
                "vectors": self._vectors,
                "items": {
                    "seen": self._scorer.items[BEHAVIOUR].mask[:, 0].numpy(),
                    "log_popularity": self._prior.log_popularity,
                },
            },
            tables=tables,
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an artefact; needs neither training data nor a network.

        Raises:
            ArtefactError: where it is missing, incomplete, altered or of a newer format.
        """
        kept = artefact.read(path, KIND)
        meta = kept.meta
        config = Config.model_validate(meta["config"])
        catalog = Catalog(kept.table("items"), tuple(Field(**field) for field in meta["item_fields"]))
        people = None
        if "people.parquet" in kept:
            fields = tuple(Field(**field) for field in meta["people_fields"])
            people = Catalog(kept.table("people"), fields, "user_id")
        space, people_space = (None if one is None else TokenSpace(**one) for one in meta["spaces"])
        assert space is not None  # `save` always writes the items' space
        vectors, stored = kept.tensors("vectors"), kept.tensors("items")
        tokens = space.transform(catalog, vectors)
        tokens[BEHAVIOUR] = behaviour_tokens(torch.from_numpy(stored["seen"]))
        event_space = EventSpace(**meta["events"])
        network = _network(config, (space, people_space), event_space, len(catalog))
        network.fusion.attend = bool(meta["attend"])
        network.load_state_dict({
            name: torch.from_numpy(array) for name, array in kept.tensors("network").items()
        })
        known = None if people is None or people_space is None else people_space.transform(people, {})
        histories = None
        if "histories.parquet" in kept:
            histories = _log_of(kept.table("histories"), catalog)
        prior = Prior(stored["log_popularity"], tuple(meta["prior"]["shares"]), meta["prior"]["window"])
        scorer = Scorer(network, tokens, known, event_space)
        spaces = (space, people_space)
        return cls(
            config,
            catalog,
            vectors,
            scorer,
            prior,
            spaces,
            people=people,
            histories=histories,
            meta=meta["about"],
        )

    def _history(self, query: Query) -> EventLog:
        """The query's history as a log of one row."""
        if not query.history and query.user is not None:
            known = self.known_history(query.user)
            if known is not None:
                return known
        items = self.catalog.numbers(pl.Series(query.history, dtype=pl.String))
        known_items = items >= 0
        for name, values in (("timestamps", query.timestamps), ("ratings", query.ratings)):
            if values is not None and len(values) != len(items):
                raise InputError(
                    f"The query has {len(items)} items of history and {len(values)} {name}; "
                    "give one for each item, or none at all."
                )
        return EventLog(
            user_ids=pl.Series([query.user or ""], dtype=pl.String),
            offsets=np.array([0, int(known_items.sum())]),
            items=items[known_items],
            times=None
            if query.timestamps is None
            else np.array(query.timestamps, dtype=np.int64)[known_items],
            ratings=None if query.ratings is None else np.array(query.ratings, dtype=np.float32)[known_items],
        )

    def _wish(self, text: str) -> Floats:
        """The wish as log p(i | wish) [1, i] up to a constant: the item's closest text field decides."""
        tokens = self._scorer.items.get("text")
        if tokens is None:
            raise InputError("This model can't read a wish: its items have no text fields.")
        encoder = reopen_encoder(self.config.encode.text, self.meta["text_encoder"])
        wish = torch.from_numpy(encoder.encode([text])[0])
        # an item without text says nothing of the wish: it stands where an unrelated text would
        close = (tokens.values @ wish).masked_fill(~tokens.mask, 0.0).amax(dim=1)
        return (close / WISH_TEMPERATURE).log_softmax(dim=0).unsqueeze(0).numpy()


def hold_out(log: EventLog, most: int, seed: int) -> tuple[EventLog, Cases]:
    """Keep the last event of up to `most` people with three events or more from training, as validation."""
    able = np.flatnonzero(log.lengths >= 3)
    rows = np.sort(np.random.default_rng([seed, 1]).permutation(able)[:most])
    kept = log.lengths.copy()
    kept[rows] -= 1
    return log.heads(kept), next_event_cases(log, rows, log.lengths[rows] - 1)


def _space(catalog: Catalog, vectors: Mapping[str, Array]) -> TokenSpace:
    return fit_tokens(catalog, vectors, max_values=16, max_vocabulary=50_000, min_count=2)


def _network(
    config: Config, spaces: tuple[TokenSpace, TokenSpace | None], events: EventSpace, n_items: int
) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return Network(
            *spaces,
            n_items=n_items,
            n_ratings=events.n_ratings,
            n_kinds=len(events.kind_names),
            max_history=config.data.max_history,
            backbone=config.model,
            fusion=config.encode,
        )


def _material(
    events: EventLog, space: EventSpace, items: Mapping[str, Tokens], people: Mapping[str, Tokens] | None
) -> Material:
    rows = np.arange(events.n_users) if people is not None else np.full(events.n_users, -1)
    ratings = np.full(events.n_events + 1, np.nan, dtype=np.float32)
    if events.ratings is not None:
        ratings[:-1] = (events.ratings - space.rating_mean) / space.rating_std
    return Material(event_arrays(events, space, rows), items, people, torch.from_numpy(ratings))


def _numbers(people: Catalog | None, histories: EventLog) -> Ints:
    """Row of each history's owner in the people's table, -1 for strangers."""
    if people is None:
        return np.full(histories.n_users, -1, dtype=np.int64)
    return people.numbers(histories.user_ids)


def _sample(cases: Cases, most: int, seed: int) -> Cases:
    if len(cases) <= most:
        return cases
    return cases.take(np.sort(np.random.default_rng([seed, 2]).permutation(len(cases))[:most]))


def _log_of(table: pl.DataFrame, catalog: Catalog) -> EventLog:
    columns = table.columns
    return build_log(
        table["user_id"],
        catalog.numbers(table["item_id"]),
        times=table["timestamp"].to_numpy() if "timestamp" in columns else None,
        ratings=table["rating"].fill_null(float("nan")).to_numpy() if "rating" in columns else None,
        event_types=table["event_type"] if "event_type" in columns else None,
    )


def _validation(
    valid: Cases, scorer: Scorer, people: Catalog | None, config: TrainConfig
) -> Callable[[Network], float]:
    """NDCG@10 on (a sample of) the validation cases, as a function of the network in training."""
    cases = _sample(valid, config.validation_people, config.seed)
    histories = cases.histories()
    numbers = _numbers(people, histories)

    def validate(network: Network) -> float:
        now = replace(scorer, network=network)  # item vectors are computed anew
        items = np.empty((len(cases), 10), dtype=np.int64)
        scores = np.empty((len(cases), 10), dtype=np.float32)
        for rows, chosen, log_scores in now.chunks(histories, numbers):
            best = top_n(log_scores, 10, chosen)
            items[rows], scores[rows] = best.items, best.scores
        return float(per_case(Rankings(items, scores), cases, ks=(10,))["ndcg@10"].mean())

    return validate


def _prior(
    events: EventLog, n_items: int, valid: Cases, scorer: Scorer, people: Catalog | None, config: TrainConfig
) -> Prior:
    cases = _sample(valid, config.validation_people, config.seed)
    first = cases.target_offsets[:-1]
    histories = cases.histories()
    likely = np.empty(len(cases), dtype=np.float32)
    for rows, _, log_scores in scorer.chunks(histories, _numbers(people, histories)):
        likely[rows] = log_scores[np.arange(len(rows)), cases.targets[first[rows]]]
    return fit_prior(events, n_items, cases.targets[first], histories.lengths, likely)
