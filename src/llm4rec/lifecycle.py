"""What comes and goes without training: items, what is remembered of people, and people themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch

from llm4rec import config as configuration
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.queries import are_texts
from llm4rec.data.upsert import upserted
from llm4rec.debias.popularity import Popularity
from llm4rec.encode.fusion import BEHAVIOUR
from llm4rec.encode.tokens import Tokens
from llm4rec.encode.vectors import frozen_vectors
from llm4rec.errors import ConfigError, InputError
from llm4rec.fitted import Fitted, as_indexed, code_head
from llm4rec.generate.generator import Generator
from llm4rec.model import arrivals
from llm4rec.model.arrivals import Arrivals
from llm4rec.model.network import Network
from llm4rec.model.scorer import Scorer
from llm4rec.online.progressed import Origin, Progressed, trained
from llm4rec.online.reservoir import events_at
from llm4rec.retrieve.entries import KINDS
from llm4rec.settings import Config
from llm4rec.train.stages import id_vectors
from llm4rec.types import Floats, Ints

ASKED = 256
"""Histories whose answers tell what the content of a new item promises."""


def quiet(sentence: str) -> None:
    """Say nothing."""


def upsert(fitted: Fitted, items: pl.DataFrame | Catalog, note: Callable[[str], None] = quiet) -> Fitted:
    """The model with further or changed items; see `Recommender.upsert_items`.

    Raises:
        InputError: where a value or a column can't be read, or an encoder is not on this machine.
    """
    table = items.table if isinstance(items, Catalog) else items
    catalog, rows = upserted(fitted.catalog, table, note)
    if not len(rows):
        return fitted
    n_new = len(catalog) - len(fitted.catalog)
    vectors = _vectors(fitted, catalog, rows, note)
    seen = torch.cat([fitted.scorer.items[BEHAVIOUR].mask[:, 0], torch.zeros(n_new, dtype=torch.bool)])
    tokens, _ = fitted.spaces.tokens(catalog, vectors, seen, None)
    network = fitted.scorer.network.extended(len(catalog))
    network.eval()
    scorer = Scorer(
        network, tokens, fitted.scorer.people, fitted.spaces.events, serve=fitted.scorer.serve,
        carried=None if fitted.scorer.carried is None else fitted.scorer.carried.extended(n_new),
    )  # fmt: skip  # with nothing kept of what it read
    generator = _generator(fitted, scorer, n_new)
    if generator is not None:
        scorer = replace(scorer, join=generator.join)
    found = replace(
        fitted,
        catalog=catalog,
        vectors=vectors,
        scorer=scorer,
        prior=fitted.prior.extended(n_new),
        popularity=fitted.popularity.extended(n_new),
        balance=None if fitted.balance is None else fitted.balance.of_items(catalog),
        generator=generator,
        online=None if fitted.online is None else fitted.online.extended(n_new),
        words=None if fitted.words is None else fitted.words.renamed(rows, len(catalog)),
        cells={kind: cells for kind, cells in fitted.cells.items() if kind in fitted.remarks},
    )
    for kind, each in fitted.retrievers.items():
        if kind in fitted.remarks:  # what was said of items is as it was
            found.retrievers[kind] = each
    return found


def retire(fitted: Fitted, item_ids: Sequence[str]) -> Fitted:
    """The model with items that come back to nobody; see `Recommender.retire_items`.

    Raises:
        InputError: where the catalogue has no item of a name.
    """
    if not are_texts(item_ids):
        raise InputError(f"Items are retired by a list of ids, each a text: ['50', '181'], not {item_ids!r}.")
    numbers = fitted.catalog.numbers(pl.Series(item_ids, dtype=pl.String))
    if (numbers < 0).any():
        unknown = [name for name, number in zip(item_ids, numbers, strict=True) if number < 0]
        raise InputError(
            f"The model knows no item {unknown[0]!r}"
            + (f" ({len(unknown)} of the {len(numbers)} named are unknown)" if len(unknown) > 1 else "")
            + ": nothing was changed."
        )
    retired = np.union1d(fitted.catalog.retired, numbers)
    return as_indexed(fitted, replace(fitted, catalog=replace(fitted.catalog, retired=retired)))


def count(fitted: Fitted, events: EventLog) -> Fitted:
    """The model that knows how often new items were taken; see `Recommender.count_new_items`.

    Raises:
        InputError: where they are no events of this catalogue, or have no times.
    """
    _check(fitted, events, "New items are counted in an EventLog, not in")
    new = fitted.new_items
    if not len(new) or not events.n_events:
        popularity = fitted.popularity.counted(events.items, new)
        return as_indexed(fitted, replace(fitted, arrivals=Arrivals(), popularity=popularity))
    asked = np.flatnonzero(events.lengths > 0)
    asked = asked[np.linspace(0, len(asked) - 1, min(len(asked), ASKED)).astype(np.int64)]
    promised = np.zeros(len(new))
    for rows in np.array_split(asked, -(-len(asked) // 16)):  # a large catalogue's scores fill the memory
        histories = events.histories(rows, events.lengths[rows])
        people = fitted.person_rows(histories)
        log_scores = fitted.scorer.log_scores(histories, people, added=True, attend=fitted.attend)
        log_scores = fitted.grounding.add(fitted.linear.add(log_scores, histories), histories)
        promised += np.exp(log_scores[:, new]).sum(axis=0)
    counted = arrivals.count(events, new, promised / len(asked))
    popularity = fitted.popularity.counted(events.items, new)
    return as_indexed(fitted, replace(fitted, arrivals=counted, popularity=popularity))


def remember(fitted: Fitted, events: EventLog) -> Fitted:
    """The model with further events in what it remembers; see `Recommender.remember`.

    Raises:
        InputError: where they are no events of this catalogue, or have times and those known have none, or
            the other way round.
    """
    _check(fitted, events, "What people did is remembered from an EventLog, not from")
    if not events.n_events:
        return fitted
    known = {name: log for name, log in _remembered(fitted).items() if log is not None}
    grown = {id(log): log.joined(events) for log in {id(log): log for log in known.values()}.values()}
    kept: dict[str, Any] = {name: grown[id(log)] for name, log in known.items()}  # of one log stays one
    if "histories" in kept:
        told, options = kept["histories"], fitted.config.debias.popularity
        kept["prior"] = fitted.prior.counted(told)
        kept["popularity"] = Popularity.of(told, len(fitted.catalog), options).at(fitted.popularity.strength)
        if fitted.scorer.carried is not None:
            seen = fitted.scorer.items[BEHAVIOUR].mask[:, 0].numpy()
            kept["scorer"] = fitted.scorer.carrying(fitted.scorer.carried.renewed(told, seen))
        came = events_at(events, np.arange(events.n_events)).with_columns(came=pl.lit(True))
        if told.times is None:
            came = came.with_columns(time=pl.lit(-1, dtype=pl.Int64))
        kept["untrained"] = pl.concat([fitted.untrained, came], rechunk=True)
    found = as_indexed(fitted, replace(fitted, **kept))
    if "scorer" in kept:
        vars(found).pop("index", None)  # popularity is part of what it holds
    return found


def forget_user(fitted: Fitted, user: str) -> Fitted:
    """The model that keeps nothing of a person by name; see `Recommender.forget_user`.

    Raises:
        InputError: where the name is no text.
    """
    given: Any = user  # whatever its type promises
    if not isinstance(given, str):
        raise InputError(f"A person is forgotten by their user_id, a text, not by {given!r}.")
    changed: dict[str, Any] = {
        name: None if log is None else log.without(user) for name, log in _remembered(fitted).items()
    }
    for manner, said in fitted.remarks.items():
        others = (said.user_ids != user).to_numpy()
        changed["remarks"] = {**changed.get("remarks", fitted.remarks), manner: said.select(others)}
        vectors = changed.get("remark_vectors", fitted.remark_vectors)
        changed["remark_vectors"] = {**vectors, manner: vectors[manner][others]}
    scorer = replace(fitted.scorer)  # with nothing kept of what it read
    if fitted.people is not None:
        others = np.flatnonzero((fitted.people.ids != user).to_numpy())
        if scorer.people is not None:
            tokens = {name: each.take(torch.from_numpy(others)) for name, each in scorer.people.items()}
            scorer = replace(scorer, people=tokens)
        changed["people"] = fitted.people.take(others)
        changed["balance"] = None if fitted.balance is None else fitted.balance.of_people(others)
    fewer = {m for m, said in fitted.remarks.items() if len(changed["remarks"][m]) < len(said)}
    changed["cells"] = {kind: cells for kind, cells in fitted.cells.items() if kind not in fewer}
    changed["corrections"] = fitted.corrections.without(user)
    changed["untrained"] = fitted.untrained.filter(pl.col("user_id") != user)
    changed["refusals"] = fitted.refusals.without(user)
    found = as_indexed(fitted, replace(fitted, scorer=scorer, **changed))
    for kind in KINDS:
        if kind in fewer:
            found.retrievers.pop(kind, None)
    return found if fitted.online is None else _unlearnt(found, fitted.online, user)


def _unlearnt(fitted: Fitted, online: Progressed | Origin, user: str) -> Fitted:
    """The model without what a person taught it: with the weights of before, to be trained anew."""
    if isinstance(online, Origin) or not online.taught_by(user):
        return as_indexed(fitted, replace(fitted, online=online.without(user)))
    network = copy.deepcopy(fitted.scorer.network)
    with torch.no_grad():
        for name, tensor in trained(network).items():
            tensor.copy_(online.origin.weights[name])
    behaviour = fitted.scorer.items[BEHAVIOUR]
    seen = behaviour.mask.clone()
    seen[torch.from_numpy(online.met)] = False
    items = {**fitted.scorer.items, BEHAVIOUR: Tokens(behaviour.values, seen)}
    return replace(rewired(fitted, network, items), online=online.origin.without(user))


def rewired(fitted: Fitted, network: Network, items: Mapping[str, Tokens]) -> Fitted:
    """The model with other weights, and with nothing kept that was made of the former.

    Args:
        fitted: the model.
        network: of the same shape.
        items: modality → tokens of its items; some may have been touched since, or no longer.
    """
    scorer = replace(fitted.scorer, network=network, items=items)
    generator = fitted.generator
    if generator is not None:
        generator = replace(generator, head=code_head(network))
        scorer = replace(scorer, join=generator.join)
    cells = {kind: each for kind, each in fitted.cells.items() if kind != "similar_item"}
    found = as_indexed(fitted, replace(fitted, scorer=scorer, generator=generator, cells=cells))
    vars(found).pop("index", None)  # vectors of items have moved
    found.retrievers.pop("similar_item", None)
    return found


def adjust(fitted: Fitted, popularity: float | None, diversity: float | None) -> Fitted:
    """The model with other strengths; see `Recommender.adjusted`.

    Raises:
        ConfigError: where a strength is no number from 0 to 1, or popularity is not known.
    """
    config = fitted.config.model_dump()
    if popularity is not None:
        config["debias"]["popularity"] |= {"strength": popularity, "choose": False}
    if diversity is not None:
        config["rerank"]["diversity"] = diversity
    changed = configuration.made(Config, config)
    if popularity and not fitted.popularity.known:
        raise ConfigError(
            "The model does not know how popular its items are: an earlier version of llm4rec made it. Fit "
            "it again to set debias.popularity.strength."
        )
    popular = fitted.popularity if popularity is None else fitted.popularity.at(popularity)
    return as_indexed(fitted, replace(fitted, config=changed, popularity=popular))


def _remembered(fitted: Fitted) -> dict[str, EventLog | None]:
    """What is kept of people, under its names in `Fitted`."""
    return {"histories": fitted.histories, "memories": fitted.memories}


def _check(fitted: Fitted, events: EventLog, purpose: str) -> None:
    """Refuse what are no events of the model's catalogue."""
    given: Any = events  # whatever its type promises
    if not isinstance(given, EventLog):
        raise InputError(f"{purpose} a {type(given).__name__}.")
    n_items = len(fitted.catalog)
    if ((events.items < 0) | (events.items >= n_items)).any():
        raise InputError(
            f"Events name items by their numbers in the catalogue, 0 to {n_items - 1}: Ingested.numbered_by "
            "makes them so."
        )


def _vectors(fitted: Fitted, catalog: Catalog, rows: Ints, note: Callable[[str], None]) -> dict[str, Floats]:
    """The frozen vectors of the whole catalogue; made anew where `rows` [n] bring another value.

    An encoder is opened only where it has something to read: a change of price needs none.
    """
    n_old, before = len(fitted.catalog), fitted.catalog.table
    new = rows >= n_old
    found: dict[str, Floats] = {}
    unread: dict[str, Ints] = {}
    for name, old in fitted.vectors.items():
        values = catalog.table[name][rows]
        other = new.copy()
        other[~new] = values.filter(~new).ne_missing(before[name][rows[~new]]).to_numpy()
        found[name] = np.concatenate([old, np.zeros((len(catalog) - n_old, old.shape[1]), dtype=old.dtype)])
        found[name][rows[other]] = 0
        if (other & values.is_not_null().to_numpy()).any():
            unread[name] = rows[other]
    if unread:
        every = np.unique(np.concatenate(list(unread.values())))
        made = _made(fitted, catalog.take(every), tuple(unread), note)
        for name, chosen in unread.items():
            if name in made:
                found[name][chosen] = made[name][np.searchsorted(every, chosen)]
    return found


def _made(
    fitted: Fitted, part: Catalog, names: tuple[str, ...], note: Callable[[str], None]
) -> dict[str, Floats]:
    """Vectors of the named fields of some items, as the model's own were made."""
    config, about = fitted.config.encode, fitted.about
    made = frozen_vectors(
        replace(part, fields=tuple(field for field in part.fields if field.name in names)),
        config.text,
        config.image,
        text_encoder=about["text_encoder"],
        image_encoder=about.get("image_encoder"),
    )
    for sentence in made.notes:
        note(sentence)
    for name, vectors in made.by_field.items():
        width = fitted.vectors[name].shape[1]
        if vectors.shape[1] != width:
            raise InputError(
                f"The vectors of the column {name!r} have {vectors.shape[1]} values, but the model was "
                f"fitted with {width}: give vectors of the same kind."
            )
    return made.by_field


def _generator(fitted: Fitted, scorer: Scorer, n_new: int) -> Generator | None:
    """The generator with an id for each of the last `n_new` items; no other id changes."""
    if fitted.generator is None:
        return None
    config, n_items = fitted.config.generate, len(scorer.items[BEHAVIOUR].mask)
    last = torch.arange(n_items - n_new, n_items)
    new = {modality: tokens.take(last) for modality, tokens in scorer.items.items()}
    vectors = id_vectors(scorer.network, new, config.of)
    ids = fitted.generator.ids.extended(vectors) if n_new else fitted.generator.ids
    return replace(fitted.generator, head=code_head(scorer.network), ids=ids)
