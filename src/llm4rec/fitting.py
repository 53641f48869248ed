"""From events and items to a fitted model: the order of the work, room by room."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from llm4rec.choosing import Questions, sample
from llm4rec.data.catalog import Catalog
from llm4rec.data.columns import is_protected
from llm4rec.data.events import EventLog
from llm4rec.data.remarks import Manner, Remarks
from llm4rec.data.split import Cases, next_event_cases
from llm4rec.debias import corrections
from llm4rec.debias.balance import grouped
from llm4rec.debias.corrections import Corrections
from llm4rec.debias.popularity import Popularity
from llm4rec.encode.tokens import TokenConfig, Tokens, TokenSpace, cut_notes, fit_tokens
from llm4rec.encode.vectors import FrozenVectors, frozen_vectors, read_texts
from llm4rec.errors import InputError
from llm4rec.explain.aspects import Vocabulary
from llm4rec.fitted import Fitted, Spaces, as_indexed, new_network, person_rows
from llm4rec.model import origin
from llm4rec.model.backbone import COMPACT
from llm4rec.model.events import EventSpace, event_arrays, fit_events
from llm4rec.model.linear import Linear, fit_linear
from llm4rec.model.network import Network
from llm4rec.model.offset import Carried, Offsets
from llm4rec.model.pretrained import Decoder, prepared
from llm4rec.model.prior import FEWEST
from llm4rec.model.scorer import Attend, Scorer
from llm4rec.model.words import LONGEST
from llm4rec.online.reservoir import SCHEMA, events_at
from llm4rec.retrieve.condition import Condition, Retrieved, attending, retrieved
from llm4rec.retrieve.conditioning import Telling
from llm4rec.retrieve.entries import KINDS
from llm4rec.retrieve.prompt import Prompt, Read, Reader
from llm4rec.retrieve.relevance import Grounding
from llm4rec.settings import Config
from llm4rec.train import checkpoint
from llm4rec.train.material import Material
from llm4rec.train.stages import train_in_stages
from llm4rec.types import Array, Bools, Ints, Progress, silent

AFTERWARDS: Any = {
    "serve": True,
    "retrieve": True,
    "rerank": True,
    "debias": corrections.AFTERWARDS,
    "explain": True,
    "online": True,
}
"""Of the configuration, what no training of the network depends on."""
ENOUGH = 200
"""People who did something since the last fit from whom on they alone are asked by the next."""
ASKED = 3
"""Events of a person from which on one of them can be asked for."""


@dataclass(frozen=True)
class Start:
    """What a fit goes on from: an earlier one, whose weights it begins with.

    Attributes:
        spaces: the meaning of tokens and events, which weights are made for.
        vectors: frozen vectors of the catalogue.
        weights: of the network as it was fitted, by name.
        untrained: the events that they have not seen, as `Fitted` has them [n]; only these can choose the
            epoch.
    """

    spaces: Spaces
    vectors: FrozenVectors
    weights: Mapping[str, Tensor]
    untrained: pl.DataFrame


def fit(  # noqa: PLR0913  # all that a fit can be given
    events: EventLog,
    catalog: Catalog,
    config: Config,
    *,
    people: Catalog | None = None,
    valid: Cases | None = None,
    histories: EventLog | None = None,
    remarks: Mapping[Manner, Remarks] | None = None,
    start: Start | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Fitted:
    """Train on `events`; the arguments are those of `Recommender.fit`, and what it goes on from.

    Raises:
        InputError: where there is nothing to learn from.
        ArtefactError: where `checkpoints` belong to other data or another configuration.
        ConfigError: where popularity is to be taken out twice.
        TrainingError: where the loss stops being finite, or `linear.ridge` is too small.
    """
    began = time.perf_counter()
    config.debias.refuse_twice()
    decoder = _decoder(config, catalog)  # what is wrong with it is said before any work
    if checkpoints is not None and not resume:
        checkpoint.discard(checkpoints)
    histories = histories or events
    remarks = {} if remarks is None or not config.retrieve.enabled else remarks
    tried(config, catalog, events, remarks)
    groups = grouped(config.debias.parity, catalog, people)
    remembered = events
    events, valid = _with_questions(events, valid, config, start)
    untrained = _untrained(remembered, events)
    popularity = Popularity.of(events, len(catalog), config.debias.popularity)
    hidden = (*config.data.protected, *config.debias.adversary.attributes)
    people = None if people is None else _unprotected(people, hidden)
    rows, size = person_rows(people, events), config.model.embedding_size
    attention = config.encode.attention and len(catalog.fields) > 0
    debias = Corrections.of(
        config.debias,
        events,
        catalog,
        people,
        rows,
        groups,
        size=size,
        train=config.train,
        attention=attention,
    )
    encode = config.encode
    if start is None:
        frozen = frozen_vectors(catalog, encode.text, encode.image, progress=progress)
        space = _space(catalog, frozen.by_field, encode)
        spaces = Spaces(space, _people_space(people, events, encode), fit_events(events))
    else:
        frozen, spaces = start.vectors, start.spaces
    seen = torch.from_numpy(events.item_counts(len(catalog)) > 0)
    items, known = spaces.tokens(catalog, frozen.by_field, seen, people)
    network = new_network(config, spaces, len(catalog), decoder)
    if start is not None:
        _begin_with(network, start.weights)
    progress("linear part", 0, 1)  # what may be wrong with it is said before any training
    part = fit_linear(events, len(catalog), config.linear) if len(valid) >= FEWEST else Linear()
    progress("linear part", 1, 1)
    if checkpoints is not None:
        besides = [*debias.arrays(), *([] if start is None else _values(start.weights))]
        owner = _identity(
            config, spaces, frozen.encoder, events, catalog, (items, known or {}), valid, network, besides
        )
        checkpoint.claim(checkpoints, owner)
    power = config.debias.popularity.training
    asked = Scorer(network, items, known, spaces.events, carried=Carried.of(events, len(catalog), power))
    questions = Questions(valid, people, len(catalog), asked)
    trained = train_in_stages(
        network,
        _material(events, spaces.events, items, known, rows, Offsets.of(events, len(catalog), power)),
        validate=questions.dense_metric,
        validate_codes=questions.code_metric,
        validate_served=lambda ids: questions.served_metric(network, ids, part, config.generate),
        timed=events.times is not None and valid.times is not None,
        config=config.train,
        generate=config.generate,
        attention=config.encode.attention and len(spaces.items.fields) > 0,
        weights=debias.weights,
        normalised=debias.normalised,
        penalties=debias.penalties,
        erase=debias.eraser(questions.scorer, events, rows),
        begun=start is not None,
        checkpoints=checkpoints,
        progress=progress,
    )
    # item vectors of the trained weights
    scorer = replace(asked, serve=config.serve)
    generator = None
    if trained.ids is not None:
        generator = questions.generator(scorer, trained.ids, part, config.generate)
        scorer = replace(scorer, join=generator.join)
    linear = questions.linear(scorer, part)
    progress("aspects", 0, 1)
    vocabulary = Vocabulary.of(catalog, config.explain)
    aspects, preferred = questions.aspects(scorer, vocabulary, events, rows, config.train.seed)
    progress("aspects", 1, 1)
    fitted = Fitted(
        config=config,
        catalog=catalog,
        people=people,
        histories=histories,
        vectors=frozen.by_field,
        spaces=spaces,
        scorer=scorer,
        linear=linear,
        prior=questions.prior(scorer, linear, Grounding(), events),
        generator=generator,
        words=None if decoder is None else decoder.words,
        aspects=aspects,
        untrained=untrained,
        about={
            "training": {**trained.told, "aspects": preferred, "begun": start is not None},
            "linear": {
                "items": len(linear.known),
                "strengths": linear.strengths,
                "exponents": linear.exponents,
            },
            "retrieval": None,
            **debias.told(),
            "text_encoder": frozen.encoder,
            "image_encoder": frozen.image_encoder,
            "notes": frozen.notes + _cut_notes(catalog, people, encode) + debias.notes(),
            "n_events": events.n_events,
            "n_users": events.n_users,
        },
    )
    if config.retrieve.enabled:
        fitted = ground(heard(fitted, remarks, events, progress), questions, events, remembered, progress)
    popularity, told = questions.popularity(fitted, popularity)
    fitted = as_indexed(fitted, replace(fitted, popularity=popularity))
    balance = None if groups is None else questions.balance(fitted, groups)
    fitted = as_indexed(fitted, replace(fitted, balance=balance))
    parity = None if balance is None else balance.said()
    notes = [*fitted.about["notes"], *([] if balance is None else balance.notes())]
    seconds = time.perf_counter() - began
    about = {**fitted.about, "popularity": told, "parity": parity, "notes": notes, "seconds": seconds}
    return as_indexed(fitted, replace(fitted, about=about))


def heard(
    fitted: Fitted, remarks: Mapping[Manner, Remarks], events: EventLog, progress: Progress = silent
) -> Fitted:
    """The model with reviews and tags to retrieve from, read with the encoder of its items.

    Where no clock tells what came after a question, only words on what `events` hold are taken.
    """
    timed = events.times is not None
    said = {
        manner: each if timed and each.times is not None else each.select(each.about(events))
        for manner, each in remarks.items()
    }
    config, encoder = fitted.config.encode.text, fitted.about["text_encoder"]
    read = {manner: read_texts(each.texts, config, encoder, progress) for manner, each in said.items()}
    notes = dict.fromkeys([*fitted.about["notes"], *(note for _, told in read.values() for note in told)])
    meant = {manner: vectors for manner, (vectors, _) in read.items()}
    about = {**fitted.about, "notes": list(notes)}
    return replace(fitted, remarks=said, remark_vectors=meant, about=about)


def ground(
    fitted: Fitted, questions: Questions, events: EventLog, known: EventLog, progress: Progress = silent
) -> Fitted:
    """The model with retrieval, as far as the questions are answered better by it.

    It retrieves from its items, from the remarks it is given with, and from what people did.

    Args:
        fitted: the model without.
        questions: the validation cases.
        events: what it was trained on.
        known: those events, and what was held out of them to ask: it is newer than the network, as memories
            are when they are used. What is asked of a person is no memory of theirs, and nothing is
            retrieved that is later than the question.
        progress: told how far the training of attention and prompt has come.
    """
    weighed = tried(fitted.config, fitted.catalog, events, fitted.remarks)
    found = fitted.repository(known, [kind for kind, row in zip(KINDS, weighed, strict=True) if row.any()])
    relevance, gain = questions.relevance(fitted.scorer, fitted.linear, found, weighed)
    about = {"gain": None if gain is None else asdict(gain), **relevance.told()}
    kinds = relevance.kinds
    grounded = replace(
        fitted,
        memories=known if "memory" in kinds else None,
        remarks={manner: each for manner, each in fitted.remarks.items() if manner in kinds},
        remark_vectors={manner: each for manner, each in fitted.remark_vectors.items() if manner in kinds},
        relevance=relevance,
    )
    grounded.retrievers.update({kind: fitted.retrievers[kind] for kind in kinds if kind != "memory"})
    grounded, told = _conditioned(grounded, questions, progress)
    if relevance.any:
        prior = questions.prior(fitted.scorer, fitted.linear, grounded.grounding, events, grounded.attend)
        grounded = as_indexed(grounded, replace(grounded, prior=prior))
    about = {**fitted.about, "retrieval": {**about, **told}}
    return as_indexed(grounded, replace(grounded, about=about))


def _conditioned(
    fitted: Fitted, questions: Questions, progress: Progress
) -> tuple[Fitted, dict[str, dict[str, Any] | None]]:
    """The model with attention and then a prompt, where each is kept, and what there is to say of them."""
    scorer, grounding, options = fitted.scorer, fitted.grounding, fitted.config.retrieve
    repository, seed, size = grounding.repository, fitted.config.train.seed, scorer.vectors.shape[1]
    said: dict[str, dict[str, Any] | None] = {"attention": None, "prompt": None}
    if repository is None or scorer.join is not None:
        return replace(fitted, words=None), said

    def kept(kind: Telling[Any], attend: Attend | None = None) -> Any:
        found, told = questions.telling(scorer, fitted.linear, grounding, kind, attend, progress)
        said[kind.name] = None if told is None else {**told, "kept": found is not None}
        return found

    condition = prompt = None
    if options.attention:
        gamma = grounding.relevance.gamma
        attended = partial(retrieved, repository, gamma)
        condition = kept(Telling("attention", lambda: Condition(size, seed), Retrieved.none, attended, seed))
    if options.prompt and fitted.words is not None:
        reader = Reader(scorer, fitted.words, repository, options.prompt, fitted.person_rows)
        telling = Telling("prompt", lambda: Prompt(size), partial(Read.none, size), reader.read, seed)
        prompt = kept(telling, attending(condition, grounding, scorer.vectors))
    words = None if prompt is None else fitted.words
    return as_indexed(fitted, replace(fitted, condition=condition, prompt=prompt, words=words)), said


def tried(config: Config, catalog: Catalog, events: EventLog, remarks: Mapping[Manner, Remarks]) -> Bools:
    """Which factors of retrieval such data has [kind, factor].

    Raises:
        InputError: where others are asked for.
    """
    kinds = {"memory", "similar_item", *remarks, *(("item_text",) if catalog.fields else ())}
    rated = events.ratings is not None or any(np.isfinite(each.ratings).any() for each in remarks.values())
    return config.retrieve.tried(kinds=kinds, clock=events.times is not None, rated=rated)


def _decoder(config: Config, catalog: Catalog) -> Decoder | None:
    """The pretrained decoder, ready to be trained; None for `compact`."""
    names, prompt = catalog.by_modality("text")[:1], config.retrieve.prompt
    if prompt and (config.model.backbone == COMPACT or not names):
        raise InputError(
            "A prompt of retrieve.prompt items needs words and who reads them: items with a text field, and "
            "a pretrained model.backbone. Set retrieve.prompt=0, or give both."
        )
    if config.model.backbone == COMPACT:
        return None
    options = config.model.pretrained
    path = origin.find(config.model.backbone, options)
    called = catalog.table[names[0].name].to_list() if prompt else []
    longest = config.data.max_history + 1 + prompt * LONGEST
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([config.train.seed, 3]).generate_state(1)[0]))
        return prepared(origin.open_decoder(path, options, longest, called), options)


def _with_questions(
    events: EventLog, valid: Cases | None, config: Config, start: Start | None
) -> tuple[EventLog, Cases]:
    """What is trained on, and the cases that choose the epoch: those given, or held out where none are."""
    if valid is None or not len(valid):
        among = None if start is None else _unseen(events, start.untrained)
        if among is not None and among.sum() < FEWEST:
            raise InputError(
                f"Of {among.sum()} people alone it is known that the model's weights have not seen their "
                f"last event, too few to say which epoch is the best ({FEWEST} at least). Ask for a cold fit "
                "(--cold)."
            )
        events, valid = hold_out(events, config.train.validation_people, config.train.seed, among)
    if events.n_events == 0 or len(valid) == 0:
        raise InputError(
            "There is too little to learn from: at least one person needs three events or more. "
            "Check the column mapping and data.min_rating."
        )
    return events, sample(valid, config.train.validation_people, config.train.seed)


def _untrained(known: EventLog, trained: EventLog) -> pl.DataFrame:
    """Of what is known, what is not trained on: `trained` holds the first events of each of its people."""
    rows = np.repeat(np.arange(known.n_users), known.lengths)
    places = np.arange(known.n_events) - known.offsets[rows]
    found = events_at(known, np.flatnonzero(places >= trained.lengths[rows]))
    return found.with_columns(came=pl.lit(False))


def _unseen(events: EventLog, untrained: pl.DataFrame) -> Bools:
    """Whose last event can be asked of weights that are `untrained` on some [u].

    It is one that came since the last fit where there are enough of these: by what that fit held out, its
    weights were chosen, and people may do other things by now.
    """
    rows = np.flatnonzero(events.lengths >= ASKED)
    lasts = events_at(events, events.offsets[rows + 1] - 1).with_columns(row=rows)
    lasts = lasts.join(untrained, on=list(SCHEMA), how="inner")
    came = lasts.filter("came")
    found = np.zeros(events.n_users, dtype=np.bool_)
    found[(came if came["row"].n_unique() >= ENOUGH else lasts)["row"].to_numpy()] = True
    return found


def _begin_with(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Give a network the weights of another of its shape; what is counted or erased stays as it is."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])


def _values(weights: Mapping[str, Tensor]) -> list[Array]:
    return [tensor.reshape(-1).view(torch.uint8).numpy() for tensor in weights.values()]


def hold_out(log: EventLog, most: int, seed: int, among: Bools | None = None) -> tuple[EventLog, Cases]:
    """Keep the last event of up to `most` people with three events or more from training, as validation.

    They are drawn `among` some people [u]; where it is None among all.
    """
    able = np.flatnonzero((log.lengths >= ASKED) & (True if among is None else among))
    rows = np.sort(np.random.default_rng([seed, 1]).permutation(able)[:most])
    kept = log.lengths.copy()
    kept[rows] -= 1
    return log.heads(kept), next_event_cases(log, rows, log.lengths[rows] - 1)


def _space(catalog: Catalog, vectors: Mapping[str, Array], options: TokenConfig) -> TokenSpace:
    return fit_tokens(catalog, vectors, **options.limits)


def _cut_notes(catalog: Catalog, people: Catalog | None, options: TokenConfig) -> list[str]:
    """Sentences on the columns of items and people that are read in part."""
    tables = [catalog] if people is None else [catalog, people]
    return [note for table in tables for note in cut_notes(table, **options.limits)]


def _unprotected(people: Catalog, protected: Sequence[str]) -> Catalog:
    """The people without protected fields; their columns stay in the table."""
    fields = tuple(field for field in people.fields if not is_protected(field.name, protected))
    return replace(people, fields=fields)


def _identity(  # noqa: PLR0913  # all that a run belongs to
    config: Config,
    spaces: Spaces,
    encoder: str | None,
    events: EventLog,
    catalog: Catalog,
    features: Sequence[Mapping[str, Tokens]],
    valid: Cases,
    network: Network,
    hidden: Sequence[Array],
) -> str:
    """SHA-256 over what a run's checkpoints belong to, and what they leave out: the weights never trained."""
    values = [
        config.model_dump(mode="json", exclude=AFTERWARDS),
        asdict(spaces),
        encoder,
        catalog.ids.to_list(),
    ]
    found = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    arrays: list[Array | None] = [events.offsets, events.items, events.times, events.ratings, events.kinds]
    arrays += [*hidden, valid.rows, valid.ends, valid.targets, valid.target_offsets, valid.times]
    for tokens in (tokens for by_modality in features for tokens in by_modality.values()):
        arrays += [tokens.values.numpy(), tokens.mask.numpy()]
    trained = {name for name, weights in network.named_parameters() if weights.requires_grad}
    untrained = {name: tensor for name, tensor in network.state_dict().items() if name not in trained}
    arrays += _values(untrained)
    for array in arrays:
        found.update(b"none" if array is None else array.tobytes())
    return found.hexdigest()


def _people_space(people: Catalog | None, events: EventLog, options: TokenConfig) -> TokenSpace | None:
    """The token space of the people who are trained on; None where no usable feature is left.

    A value that only others have would get a code that nothing ever trains.
    """
    if people is None:
        return None
    rows = person_rows(people, events)[events.lengths > 0]
    space = _space(people.take(np.sort(rows[rows >= 0])), {}, options)
    return space if space.fields else None


def _material(
    events: EventLog,
    space: EventSpace,
    items: Mapping[str, Tokens],
    people: Mapping[str, Tokens] | None,
    rows: Ints,
    offsets: Offsets | None,
) -> Material:
    ratings = np.full(events.n_events + 1, np.nan, dtype=np.float32)
    if events.ratings is not None:
        ratings[:-1] = (events.ratings - space.rating_mean) / space.rating_std
    told = torch.from_numpy(ratings)
    return Material(event_arrays(events, space, rows), items, people, told, offsets=offsets)
