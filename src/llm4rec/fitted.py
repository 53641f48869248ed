"""What a fitted model is made of, and how it is kept as an artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import ValidationError
from torch import Tensor

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR
from llm4rec.encode.tokens import Tokens, TokenSpace
from llm4rec.errors import ArtefactError
from llm4rec.generate.generator import Generator
from llm4rec.generate.index import ItemIndex, build_index
from llm4rec.generate.semantic_id import SemanticIds
from llm4rec.model.arrivals import Arrivals
from llm4rec.model.events import EventSpace
from llm4rec.model.heads import CodeHead
from llm4rec.model.linear import Linear
from llm4rec.model.network import Network
from llm4rec.model.past import ServeConfig
from llm4rec.model.pretrained import Decoder, restored
from llm4rec.model.prior import Prior
from llm4rec.model.scorer import Scorer
from llm4rec.settings import Config
from llm4rec.store import artefact
from llm4rec.types import Array, Floats, Ints

KIND = "model"
WEIGHTS, HALF_WEIGHTS = "network", "network_bfloat16"


@dataclass(frozen=True)
class Spaces:
    """What fixes the meaning of tokens and events; `people` is None where they have no features."""

    items: TokenSpace
    people: TokenSpace | None
    events: EventSpace

    def tokens(
        self, catalog: Catalog, vectors: Mapping[str, Floats], seen: Tensor, people: Catalog | None
    ) -> tuple[dict[str, Tokens], dict[str, Tokens] | None]:
        """Tokens of the items, `seen` [i] saying which had events in training, and of the people."""
        items = self.items.transform(catalog, vectors)
        items[BEHAVIOUR] = behaviour_tokens(seen)
        return items, None if people is None or self.people is None else self.people.transform(people, {})


@dataclass(frozen=True)
class Fitted:
    """A fitted model: everything an answer needs, and nothing else.

    Attributes:
        config: what it was fitted with.
        catalog: the items.
        people: the people's table, None without one.
        histories: what known people did, None where they were left out.
        vectors: frozen vectors [i, w] of each text and image field.
        spaces: the meaning of tokens and events.
        scorer: the network with its tokens.
        linear: what was taken with what, beside the network.
        prior: recent popularity and its shares.
        generator: semantic ids and their head; None for a model with the dense head alone.
        about: how it came about; values JSON can hold.
        arrivals: what is known of items that came after training.
    """

    config: Config
    catalog: Catalog
    people: Catalog | None
    histories: EventLog | None
    vectors: Mapping[str, Floats]
    spaces: Spaces
    scorer: Scorer
    linear: Linear
    prior: Prior
    generator: Generator | None
    about: Mapping[str, Any]
    arrivals: Arrivals = field(default_factory=Arrivals)

    @cached_property
    def index(self) -> ItemIndex:
        """The dense head's index of the items; made of their vectors when it is first asked for."""
        scorer = self.scorer

        def prepared(items: Ints) -> Floats:
            with torch.inference_mode():
                return scorer.prepare(scorer.vectors[torch.from_numpy(items)]).numpy()

        reach = scorer.network.head.reach(scorer.vectors.shape[1]).numpy()
        return build_index(len(self.catalog), prepared, reach, self.config.train.seed)

    def person_rows(self, histories: EventLog) -> Ints:
        """Row of each history's owner in the people's table [b]; -1 for strangers."""
        return person_rows(self.people, histories)


def person_rows(people: Catalog | None, histories: EventLog) -> Ints:
    """Row of each history's owner in the people's table [b]; -1 for strangers."""
    if people is None:
        return np.full(histories.n_users, -1, dtype=np.int64)
    return people.numbers(histories.user_ids)


def new_network(config: Config, spaces: Spaces, n_items: int, decoder: Decoder | None = None) -> Network:
    """A network with the random weights of `train.seed`, around `decoder` where one is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return Network(
            spaces.items,
            spaces.people,
            n_items=n_items,
            n_ratings=spaces.events.n_ratings,
            n_kinds=len(spaces.events.kind_names),
            max_history=config.data.max_history,
            backbone=config.model,
            fusion=config.encode,
            code_shape=None
            if config.generate.mode == "off"
            else (config.generate.n_levels + 1, config.generate.codebook_size),
            decoder=decoder,
        )


def write(fitted: Fitted, path: Path, *, histories: bool) -> None:
    """Write the artefact at `path`.

    Args:
        fitted: the model.
        path: the directory to make, or to replace where it holds a model.
        histories: whether known people's histories go with it.

    Raises:
        ArtefactError: where something else is in the way, or the disk refuses.
    """
    network = fitted.scorer.network
    tables = {"items": fitted.catalog.table}
    if fitted.people is not None:
        tables["people"] = fitted.people.table
    if histories and fitted.histories is not None:
        tables["histories"] = fitted.histories.to_frame(fitted.catalog.ids)
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
            "linear": {"strengths": fitted.linear.strengths},
            "prior": {
                "shares": fitted.prior.shares,
                "windows": fitted.prior.windows,
                "floors": fitted.prior.floors,
            },
            "generator": None if fitted.generator is None else {"share": fitted.generator.share},
            "about": fitted.about,
        },
        tensors={
            **_weight_arrays(network),
            "vectors": fitted.vectors,
            "linear": fitted.linear.tensors(),
            "arrivals": fitted.arrivals.tensors(),
            "items": {
                "seen": fitted.scorer.items[BEHAVIOUR].mask[:, 0].numpy(),
                "log_popularity": fitted.prior.log_popularity,
                "retired": fitted.catalog.retired,
            },
            **_id_tensors(fitted.generator),
        },
        tables=tables,
    )


def read(path: Path, serve: ServeConfig | None = None) -> Fitted:
    """Read an artefact; needs neither training data nor a network connection.

    Args:
        path: its directory.
        serve: how it is to answer; as it was fitted to where None.

    Raises:
        ArtefactError: where it is missing, incomplete, altered or of a newer format.
    """
    kept = artefact.read(path, KIND)
    meta = kept.meta
    try:
        config = Config.model_validate(meta["config"])
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtefactError(
            f"The model in {path} was made by another version of llm4rec: this one does not know its setting "
            f"{key}. Install the version that made it ({meta.get('version', 'unknown')}), or fit it again."
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
    scorer = Scorer(network, items, known, spaces.events, serve=serve or config.serve)
    generator = None
    if meta.get("generator") is not None:
        ids = SemanticIds(**kept.tensors("ids"))
        generator = Generator(code_head(network), ids, config.generate.beam, meta["generator"]["share"])
        scorer = replace(scorer, join=generator.joined)
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
    )


def stored_linear(kept: artefact.Artefact, n_items: int) -> Linear:
    """The linear part of an artefact, checked against the size of the catalogue."""
    if "linear.safetensors" not in kept:  # earlier models had none
        return Linear()

    def made(arrays: dict[str, Array]) -> Linear:
        return Linear.from_tensors(arrays, dict(kept.meta.get("linear", {})).get("strengths", ())).checked(
            n_items
        )

    return kept.built("linear", made)


def _arrivals(kept: artefact.Artefact, n_items: int) -> Arrivals:
    if "arrivals.safetensors" not in kept:  # as above
        return Arrivals()
    return kept.built("arrivals", lambda arrays: Arrivals.from_tensors(arrays, n_items))


def _prior(told: Mapping[str, Any], log_popularity: Floats) -> Prior:
    shares = tuple(told["shares"])
    if "window" in told:  # earlier models had one for histories of every length
        every = [log_popularity] * len(shares)
        floors = None if told.get("floor") is None else (told["floor"],) * len(shares)
        return Prior(np.stack(every), shares, (told["window"],) * len(shares), floors)
    return Prior(log_popularity, shares, tuple(told["windows"]), tuple(told["floors"] or ()) or None)


def code_head(network: Network) -> CodeHead:
    """The code head of a network that was made with one."""
    assert network.codes is not None
    return network.codes


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


def _log(table: pl.DataFrame, catalog: Catalog) -> EventLog:
    columns = table.columns
    return build_log(
        table["user_id"],
        catalog.numbers(table["item_id"]),
        times=table["timestamp"].to_numpy() if "timestamp" in columns else None,
        ratings=table["rating"].fill_null(float("nan")).to_numpy() if "rating" in columns else None,
        event_types=table["event_type"] if "event_type" in columns else None,
    )
