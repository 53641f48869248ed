"""How a fitted model is kept on disk as an artefact, and read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import Module

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.refusals import Refusals
from llm4rec.data.remarks import Manner, Remarks, build_remarks
from llm4rec.debias.balance import Balance
from llm4rec.debias.popularity import Popularity
from llm4rec.encode.fusion import BEHAVIOUR
from llm4rec.encode.tokens import TokenSpace
from llm4rec.errors import ArtefactError
from llm4rec.explain.aspects import Aspects
from llm4rec.explain.corrections import Corrections
from llm4rec.fitted import UNTRAINED, Fitted, Spaces, code_head, new_network
from llm4rec.generate.generator import Generator
from llm4rec.generate.semantic_id import SemanticIds
from llm4rec.model.arrivals import Arrivals
from llm4rec.model.events import EventSpace
from llm4rec.model.linear import Linear
from llm4rec.model.network import Network
from llm4rec.model.offset import Carried
from llm4rec.model.past import ServeConfig
from llm4rec.model.pretrained import restored
from llm4rec.model.prior import Prior
from llm4rec.model.scorer import Scorer
from llm4rec.model.words import Words
from llm4rec.online import kept as kept_online
from llm4rec.online.progressed import Origin, Progressed, trained
from llm4rec.retrieve.condition import Condition
from llm4rec.retrieve.entries import FACTORS, KINDS, MEMORY
from llm4rec.retrieve.index import Cells
from llm4rec.retrieve.prompt import Prompt
from llm4rec.retrieve.relevance import Relevance
from llm4rec.settings import Config
from llm4rec.store import artefact, versions
from llm4rec.store.manifest import META
from llm4rec.store.steady import steady
from llm4rec.types import Array, Floats, Place

KIND = "model"
REMARKS: dict[Manner, str] = {"review": "reviews", "tag": "tags"}
WEIGHTS, HALF_WEIGHTS = "network", "network_bfloat16"


def write(
    fitted: Fitted,
    path: Path,
    *,
    histories: bool,
    by: str = "save",
    keep: int = 0,
    unfinished: bool = False,
) -> None:
    """Write the artefact at `path`.

    Args:
        fitted: the model.
        path: the directory to make, or to replace where it holds a model.
        histories: whether known people's histories go with it, what is remembered of them to others, who
            said what of an item, and what people said they want more or less of, or not at all.
        by: what made the model as it is.
        keep: how many of the states that are there are kept as earlier versions.
        unfinished: whether that is still at work: what it writes next replaces this state.

    Raises:
        ArtefactError: where something else is in the way, or the disk refuses.
    """
    network = fitted.scorer.network
    tables = {"items": fitted.catalog.table}
    if fitted.people is not None:
        tables["people"] = fitted.people.table
    if histories and fitted.histories is not None:
        tables["histories"] = _table(fitted.histories, fitted.catalog)
    relevance = fitted.relevance if histories else fitted.relevance.without(MEMORY)
    if histories and fitted.memories is not None:
        tables["memories"] = _table(fitted.memories, fitted.catalog)
    if histories and fitted.aspects is not None and len(fitted.corrections):
        tables["corrections"] = fitted.corrections.to_frame(fitted.aspects)
    if histories and len(fitted.refusals):
        tables["refusals"] = fitted.refusals.to_frame()
    for manner, said in fitted.remarks.items():
        unsigned = said if histories else replace(said, user_ids=pl.repeat("", len(said), eager=True))
        tables[REMARKS[manner]] = unsigned.to_frame(fitted.catalog.ids)
    if histories and fitted.untrained.height:
        tables["untrained"] = fitted.untrained
    online = fitted.online if histories else None
    if online is not None:
        tables |= kept_online.tables(online)
    people_fields = () if fitted.people is None else fitted.people.fields
    artefact.write(
        path,
        kind=KIND,
        meta={
            "config": fitted.config.model_dump(mode="json"),
            "item_fields": [asdict(each) for each in fitted.catalog.fields],
            "people_fields": [asdict(each) for each in people_fields],
            "spaces": asdict(fitted.spaces),
            "attend": network.fusion.attend,
            "backbone": network.backbone.shape,
            "linear": {"strengths": fitted.linear.strengths, "exponents": fitted.linear.exponents},
            "prior": {
                "shares": fitted.prior.shares,
                "windows": fitted.prior.windows,
                "floors": fitted.prior.floors,
            },
            "generator": None if fitted.generator is None else {"share": fitted.generator.share},
            "popularity": fitted.popularity.strength,
            "balance": None if fitted.balance is None else fitted.balance.told(),
            "relevance": relevance.told(),
            "aspects": None if fitted.aspects is None else fitted.aspects.named,
            "about": fitted.about,
            "learnt": None if fitted.learnt is None else asdict(fitted.learnt),
            "online": None if online is None else kept_online.told(online),
        },
        tensors={
            **_weight_arrays(network),
            "vectors": fitted.vectors,
            "linear": fitted.linear.tensors(),
            **_remark_tensors(fitted),
            **({} if fitted.condition is None else {"condition": _arrays(fitted.condition)}),
            **({} if fitted.prompt is None else {"prompt": _arrays(fitted.prompt)}),
            **({} if fitted.words is None else {"words": fitted.words.tensors()}),
            "arrivals": fitted.arrivals.tensors(),
            **({} if fitted.aspects is None else {"aspects": fitted.aspects.tensors()}),
            **({"popularity": fitted.popularity.tensors()} if fitted.popularity.known else {}),
            **({} if fitted.scorer.carried is None else {"carried": fitted.scorer.carried.tensors()}),
            **({} if fitted.balance is None else {"balance": fitted.balance.tensors()}),
            "items": {
                "seen": fitted.scorer.items[BEHAVIOUR].mask[:, 0].numpy(),
                "log_popularity": fitted.prior.log_popularity,
                "retired": fitted.catalog.retired,
            },
            **_id_tensors(fitted.generator),
            **({} if online is None else kept_online.tensors(online)),
        },
        tables=tables,
        indexes={kind: cells.write for kind, cells in fitted.inverted.items()},
        by=by,
        keep=keep,
        unfinished=unfinished,
    )


def unread(path: Path) -> Place | None:
    """After which position a model has still to read its event log: what comes before is not needed any more.

    That is its place there, or one before it, where events wait for a whole step or are trained on anew. None
    where it has learnt from no log.

    Raises:
        ArtefactError: where there is no model, or it is damaged.
    """
    return _unread(path, steady(path, lambda: artefact.read(path, KIND)).meta)


def _unread(path: Path, meta: Mapping[str, Any]) -> Place | None:
    place, online = stored_place(path, meta.get("learnt")), meta.get("online")
    if place is None or online is None:
        return place
    trained = online.get("position", online["origin"]["position"])
    return replace(place, position=min(place.position, int(trained)))


def roll_back(
    path: Path,
    number: int | None,
    *,
    keep: int,
    keep_position: bool,
    tell: Callable[[Place], None] | None = None,
) -> versions.Version:
    """Make an earlier state of a model the current one again, as a new version of it.

    Args:
        path: the model's directory.
        number: that of the state; the parent of the current one where None.
        keep: how many earlier states are kept.
        keep_position: whether the place in the event log stays the newer one, so that what was learnt since
            is never learnt again; else that of the earlier state comes back; it is the beginning of the log
            where that state had learnt from none.
        tell: told, before anything is changed, after which position the log will be read.

    Returns:
        The state that it is now.

    Raises:
        ArtefactError: where it has no such version, or one is damaged.
    """
    artefact.read(path, KIND)  # says what is wrong with it
    now = versions.of(path, KIND)[-1]
    wanted = versions.at(path, KIND, now.parent if number is None else number)
    kept = artefact.read(wanted.path, KIND)
    meta = {name: value for name, value in kept.meta.items() if name != versions.RECORD}
    if now.meta.get("learnt") is not None and meta.get("learnt") is None:
        # the log knows the reader by its name, and keeps for it what is read again
        meta["learnt"] = {**now.meta["learnt"], "position": 0}
    if keep_position and now.meta.get("learnt") is not None:
        meta["learnt"] = now.meta["learnt"]
        there, online = int(meta["learnt"]["position"]), meta.get("online")
        if online is not None and "position" in online:
            meta["online"] = {**online, "position": there}
        elif online is not None:  # learning was to begin anew
            meta["online"] = {**online, "origin": {**online["origin"], "position": there}}
    place = _unread(path, meta)
    if tell is not None and place is not None:
        tell(place)
    files = [name for name in kept.manifest.files if name != META and (wanted.path / name).is_file()]
    artefact.write(
        path,
        kind=KIND,
        meta=meta,
        linked={name: wanted.path / name for name in files},
        by=f"rollback to {wanted.number}",
        keep=keep,
    )
    return versions.of(path, KIND)[-1]


def read(path: Path, serve: ServeConfig | None = None) -> Fitted:
    """Read an artefact; needs neither training data nor a network connection.

    Where it is replaced meanwhile, it is read from the beginning again.

    Args:
        path: its directory.
        serve: how it is to answer; as it was fitted to where None.

    Raises:
        ArtefactError: where it is missing, incomplete, altered, of a newer format or replaced time and again.
    """
    return steady(path, lambda: _read(path, serve))


def _read(path: Path, serve: ServeConfig | None) -> Fitted:
    kept = artefact.read(path, KIND)
    meta = kept.meta
    try:
        config = Config.model_validate(meta["config"])
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        known = problem["type"] != "extra_forbidden"
        what = f"does not take its value for {key}" if known else f"does not know its setting {key}"
        raise ArtefactError(
            f"The model in {path} was made by another version of llm4rec: this one {what}. "
            f"Install the version that made it ({kept.manifest.package_version}), or fit it again."
        ) from None
    catalog = Catalog(kept.table("items"), tuple(Field(**told) for told in meta["item_fields"]))
    people: Catalog | None = None
    if "people.parquet" in kept:
        people_fields = tuple(Field(**told) for told in meta["people_fields"])
        people = Catalog(kept.table("people"), people_fields, "user_id")
    told = meta["spaces"]
    spaces = Spaces(
        TokenSpace(**told["items"]),
        None if told["people"] is None else TokenSpace(**told["people"]),
        EventSpace(**told["events"]),
    )
    vectors, stored = kept.tensors("vectors"), kept.tensors("items")
    catalog = replace(catalog, retired=stored.get("retired", catalog.retired))  # absent in earlier models
    items, known = spaces.tokens(catalog, vectors, torch.from_numpy(stored["seen"]), people)
    try:
        shape = meta.get("backbone")
        decoder = None if shape is None else restored(shape)
        network = new_network(config, spaces, len(catalog), decoder)
        network.load_state_dict(_weights(kept))
    except (RuntimeError, KeyError, TypeError, ValueError):
        raise ArtefactError(
            f"The weights of the model in {path} do not fit its configuration: it was made by another "
            "version of llm4rec. Install the version that made it, or fit it again."
        ) from None
    network.fusion.attend = bool(meta["attend"])
    network.eval()
    carried = _carried(kept, config.debias.popularity.training, len(catalog))
    scorer = Scorer(network, items, known, spaces.events, serve=serve or config.serve, carried=carried)
    generator = None
    if meta.get("generator") is not None:
        ids = SemanticIds(**kept.tensors("ids"))
        generator = Generator(code_head(network), ids, config.generate.beam, meta["generator"]["share"])
        scorer = replace(scorer, join=generator.join)
    remarks: dict[Manner, Remarks] = {
        manner: _remarks(kept.table(name), catalog)
        for manner, name in REMARKS.items()
        if f"{name}.parquet" in kept
    }
    aspects = stored_aspects(kept, catalog, config.model.embedding_size)
    return Fitted(
        config=config,
        catalog=catalog,
        people=people,
        histories=_log(kept.table("histories"), catalog) if "histories.parquet" in kept else None,
        vectors=vectors,
        spaces=spaces,
        scorer=scorer,
        linear=stored_linear(kept, len(catalog)),
        prior=_prior(meta["prior"], stored["log_popularity"]),
        generator=generator,
        about=meta["about"],
        arrivals=_arrivals(kept, len(catalog)),
        popularity=_popularity(kept, len(catalog)),
        balance=_balance(kept, catalog, people),
        memories=_log(kept.table("memories"), catalog) if "memories.parquet" in kept else None,
        remarks=remarks,
        remark_vectors=_meant(kept.tensors("remarks")) if remarks else {},
        relevance=stored_relevance(meta.get("relevance")),
        condition=_module(kept, "condition", lambda: Condition(config.model.embedding_size)),
        prompt=_module(kept, "prompt", lambda: Prompt(config.model.embedding_size)),
        words=_words(kept, len(catalog)),
        aspects=aspects,
        corrections=stored_corrections(kept, aspects),
        refusals=stored_refusals(kept),
        cells={kind: cells for kind in KINDS if (cells := kept.index(kind, Cells.read)) is not None},
        untrained=kept.table("untrained") if "untrained.parquet" in kept else pl.DataFrame(schema=UNTRAINED),
        learnt=stored_place(path, meta.get("learnt")),  # earlier models had none
        online=_online(kept, config, network),
    )


def stored_linear(kept: artefact.Artefact, n_items: int) -> Linear:
    """The linear part of an artefact, checked against the size of the catalogue."""
    if "linear.safetensors" not in kept:  # earlier models had none
        return Linear()

    def made(arrays: dict[str, Array]) -> Linear:
        told = dict(kept.meta.get("linear", {}))
        exponents = told.get("exponents", Linear().exponents)  # earlier models had none
        return Linear.from_tensors(arrays, told.get("strengths", ()), exponents).checked(n_items)

    return kept.built("linear", made)


def stored_aspects(kept: artefact.Artefact, catalog: Catalog, size: int) -> Aspects | None:
    """The preferences of an artefact, checked against its catalogue and states of `size` d; None without."""
    if "aspects.safetensors" not in kept:  # as above
        return None
    named = kept.meta.get("aspects") or {}
    return kept.built("aspects", lambda arrays: Aspects.from_tensors(arrays, named, catalog, size))


def stored_corrections(kept: artefact.Artefact, aspects: Aspects | None) -> Corrections:
    """What people said of the aspects of an artefact, checked against them; nothing in most."""
    if "corrections.parquet" not in kept:
        return Corrections()
    return kept.listed("corrections", lambda table: Corrections.from_frame(table, aspects))


def stored_refusals(kept: artefact.Artefact) -> Refusals:
    """What people do not want of the items of an artefact; nothing in most."""
    if "refusals.parquet" not in kept:
        return Refusals()
    return kept.listed("refusals", Refusals.from_frame)


def stored_place(path: Path, told: Any) -> Place | None:
    """Up to where a model has learnt from an event log.

    Raises:
        ArtefactError: where it is no such place.
    """
    if told is None:
        return None
    match told:
        case {"log": str(log), "position": int(position), "reader": str(reader), **other} if (
            log and reader and position >= 0 and not isinstance(position, bool) and not other
        ):
            return Place(log, position, reader)
        case _:
            raise ArtefactError(
                f"What the model in {path} says of the event log it has learnt from can't be understood: it "
                "was made by another version of llm4rec. Install the version that made it, or fit it again."
            )


def _online(kept: artefact.Artefact, config: Config, network: Network) -> Progressed | Origin | None:
    values = kept.meta.get("online")
    if values is None:
        return None
    names = (*kept_online.BEGUN, *(kept_online.TABLES if "position" in values else ()))
    frames = {name: kept.table(name) for name in names}

    def made(arrays: dict[str, Array]) -> Progressed | Origin:
        try:
            return kept_online.restored(values, arrays, frames, trained(network), config.online)
        except (KeyError, TypeError) as error:
            raise ValueError(f"it does not say {error}") from None

    return kept.built("online", made)


def _arrivals(kept: artefact.Artefact, n_items: int) -> Arrivals:
    if "arrivals.safetensors" not in kept:  # as above
        return Arrivals()
    return kept.built("arrivals", lambda arrays: Arrivals.from_tensors(arrays, n_items))


def _popularity(kept: artefact.Artefact, n_items: int) -> Popularity:
    if "popularity.safetensors" not in kept:  # as above
        return Popularity()
    strength = kept.meta.get("popularity", 0.0)
    return kept.built("popularity", lambda arrays: Popularity.from_tensors(arrays, strength, n_items))


def _carried(kept: artefact.Artefact, power: float, n_items: int) -> Carried | None:
    if not power:
        return None
    return kept.built("carried", lambda arrays: Carried.from_tensors(arrays, power, n_items))


def _balance(kept: artefact.Artefact, catalog: Catalog, people: Catalog | None) -> Balance | None:
    told, n_people = kept.meta.get("balance"), 0 if people is None else len(people)
    if told is None:
        return None
    return kept.built("balance", lambda arrays: Balance.from_tensors(arrays, told, catalog, n_people))


def stored_relevance(told: Mapping[str, Any] | None) -> Relevance:
    """What retrieved entries weigh in a model of whatever age."""
    if told is None:  # as above
        return Relevance()
    if isinstance(told["weights"], list):  # earlier models had two kinds, by place
        rows = zip(("item_text", "memory"), told["weights"], strict=True)
        told = {**told, "weights": {kind: dict(zip(FACTORS, row, strict=True)) for kind, row in rows}}
    return Relevance.of(told)


def _arrays(module: Module) -> dict[str, Array]:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def _words(kept: artefact.Artefact, n_items: int) -> Words | None:
    if "words.safetensors" not in kept:
        return None
    return kept.built("words", lambda arrays: Words.from_tensors(arrays, n_items))


M = TypeVar("M", bound=Module)


def _module(kept: artefact.Artefact, name: str, new: Callable[[], M]) -> M | None:
    if f"{name}.safetensors" not in kept:
        return None

    def made(arrays: dict[str, Array]) -> M:
        found = new()
        try:
            found.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        return found.eval()

    return kept.built(name, made)


def _remark_tensors(fitted: Fitted) -> dict[str, dict[str, Array]]:
    if not fitted.remarks:
        return {}
    return {"remarks": {manner: vectors for manner, vectors in fitted.remark_vectors.items()}}


def _remarks(table: pl.DataFrame, catalog: Catalog) -> Remarks:
    return build_remarks(table, catalog.numbers(table["item_id"]))


def _meant(arrays: Mapping[str, Array]) -> dict[Manner, Floats]:
    return {manner: arrays[manner] for manner in REMARKS if manner in arrays}


def _prior(told: Mapping[str, Any], log_popularity: Floats) -> Prior:
    shares = tuple(told["shares"])
    if "window" in told:  # earlier models had one for histories of every length
        every = [log_popularity] * len(shares)
        floors = None if told.get("floor") is None else (told["floor"],) * len(shares)
        return Prior(np.stack(every), shares, (told["window"],) * len(shares), floors)
    return Prior(log_popularity, shares, tuple(told["windows"]), tuple(told["floors"] or ()) or None)


def _weight_arrays(network: Network) -> dict[str, dict[str, Array]]:
    """The weights as sets of arrays; bfloat16, which NumPy doesn't have, as its bits in a set of its own."""
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    half = {name for name, tensor in weights.items() if tensor.dtype == torch.bfloat16}
    sets = {WEIGHTS: {name: tensor.numpy() for name, tensor in weights.items() if name not in half}}
    if half:
        sets[HALF_WEIGHTS] = {name: weights[name].view(torch.uint16).numpy() for name in sorted(half)}
    return sets


def _weights(kept: artefact.Artefact) -> dict[str, Tensor]:
    weights = {name: torch.from_numpy(array) for name, array in kept.tensors(WEIGHTS).items()}
    if f"{HALF_WEIGHTS}.safetensors" in kept:
        bits = kept.tensors(HALF_WEIGHTS)
        weights |= {name: torch.from_numpy(array).view(torch.bfloat16) for name, array in bits.items()}
    return weights


def _id_tensors(generator: Generator | None) -> dict[str, dict[str, Array]]:
    if generator is None:
        return {}
    return {"ids": {"codes": generator.ids.codes, "centres": generator.ids.centres}}


def _table(log: EventLog, catalog: Catalog) -> pl.DataFrame:
    """Events as they are kept: without propensities, which training and audits read from the data."""
    return replace(log, propensities=None).to_frame(catalog.ids)


def _log(table: pl.DataFrame, catalog: Catalog) -> EventLog:
    columns = table.columns
    return build_log(
        table["user_id"],
        catalog.numbers(table["item_id"]),
        times=table["timestamp"].to_numpy() if "timestamp" in columns else None,
        ratings=table["rating"].fill_null(float("nan")).to_numpy() if "rating" in columns else None,
        event_types=table["event_type"] if "event_type" in columns else None,
    )
