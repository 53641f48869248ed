"""What a fitted model is made of."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.refusals import Refusals
from llm4rec.data.remarks import Manner, Remarks
from llm4rec.debias.balance import Balance
from llm4rec.debias.popularity import Popularity
from llm4rec.encode.encoders import behaviour_tokens
from llm4rec.encode.fusion import BEHAVIOUR
from llm4rec.encode.tokens import Tokens, TokenSpace
from llm4rec.explain.aspects import Aspects, Vocabulary
from llm4rec.explain.corrections import Corrections
from llm4rec.generate.generator import Generator
from llm4rec.generate.index import ItemIndex, build_index
from llm4rec.model.arrivals import Arrivals
from llm4rec.model.events import EventSpace
from llm4rec.model.heads import CodeHead
from llm4rec.model.linear import Linear
from llm4rec.model.network import Network
from llm4rec.model.pretrained import Decoder
from llm4rec.model.prior import Prior
from llm4rec.model.scorer import Attend, Scorer
from llm4rec.model.words import Words
from llm4rec.online.progressed import Origin, Progressed
from llm4rec.online.reservoir import SCHEMA
from llm4rec.retrieve.condition import Condition, attending
from llm4rec.retrieve.entries import KINDS, Kind, Retriever
from llm4rec.retrieve.index import Cells, VectorIndex
from llm4rec.retrieve.memories import Memories
from llm4rec.retrieve.neighbours import Neighbours, item_texts, similar_items
from llm4rec.retrieve.prompt import Prompt, prompting
from llm4rec.retrieve.relevance import Grounding, Relevance
from llm4rec.retrieve.repository import Repository
from llm4rec.retrieve.sayings import Sayings
from llm4rec.settings import Config
from llm4rec.types import Floats, Ints, Place

UNTRAINED = {**SCHEMA, "came": pl.Boolean}


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
        popularity: what is taken out of the scores at the end.
        balance: what is added to them after that, to show groups of people alike; None where nothing is.
        memories: what people did, as it is remembered to others; None where that weighs nothing.
        remarks: reviews and tags, where they weigh anything.
        remark_vectors: what each of them means [r, w].
        condition: attention to what is retrieved; None where validation does not gain by it.
        prompt: what names of what is retrieved change, read before a history; None as above.
        words: names of the items for it.
        aspects: what a state says of the aspects of the next item; None where it is not known.
        corrections: what people said they want more or less of.
        refusals: items that people do not want.
        cells: what was kept of the index of a large kind's vectors; it is made anew for the others.
        relevance: what retrieved entries weigh.
        untrained: events of the histories that the fit did not train on: those it held out to choose by, and
            what `came` since; with that and the columns of `reservoir.SCHEMA` [n].
        learnt: up to where it has learnt from which event log; None where from none.
        online: what training on that log needs to go on, or to begin anew where somebody was forgotten who
            had taught it; None before it begins.
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
    popularity: Popularity = field(default_factory=Popularity)
    balance: Balance | None = None
    memories: EventLog | None = None
    remarks: Mapping[Manner, Remarks] = field(default_factory=dict[Manner, Remarks])
    remark_vectors: Mapping[Manner, Floats] = field(default_factory=dict[Manner, Floats])
    relevance: Relevance = field(default_factory=Relevance)
    condition: Condition | None = None
    prompt: Prompt | None = None
    words: Words | None = None
    aspects: Aspects | None = None
    corrections: Corrections = field(default_factory=Corrections)
    refusals: Refusals = field(default_factory=Refusals)
    cells: Mapping[Kind, Cells] = field(default_factory=dict[Kind, Cells])
    untrained: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=UNTRAINED))
    learnt: Place | None = None
    online: Progressed | Origin | None = None

    @property
    def new_items(self) -> Ints:
        """Numbers of the items that training has not seen [n], ascending."""
        return np.flatnonzero(~self.scorer.items[BEHAVIOUR].mask[:, 0].numpy())

    @cached_property
    def index(self) -> ItemIndex:
        """The dense head's index of the items; made of their vectors when it is first asked for."""
        scorer = self.scorer

        def prepared(items: Ints) -> Floats:
            with torch.inference_mode():
                return scorer.prepare(torch.from_numpy(items)).numpy()

        reach = scorer.network.head.reach(scorer.vectors.shape[1]).numpy()
        return build_index(len(self.catalog), prepared, reach, self.config.train.seed)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Which items have which aspects; there are none in a model without."""
        if self.aspects is None:
            return Vocabulary.over(self.catalog, (), ())
        return self.aspects.vocabulary(self.catalog)

    @cached_property
    def grounding(self) -> Grounding:
        """What retrieval adds; the repository is made when it is first asked for."""
        if not self.relevance.any:
            return Grounding()
        return Grounding(self.repository(self.memories, self.relevance.kinds), self.relevance)

    @cached_property
    def attend(self) -> Attend | None:
        """What states become by what is retrieved for their histories; None where they stay as they are."""
        attention = attending(self.condition, self.grounding, self.scorer.vectors)
        prompt, most = self.prompt, self.config.retrieve.prompt
        told = prompting(prompt, self.words, self.grounding, self.scorer, most, self.person_rows)
        if attention is None or told is None:
            return attention or told
        return lambda states, histories: told(attention(states, histories), histories)

    @cached_property
    def retrievers(self) -> dict[Kind, Retriever]:
        """What finds entries of each kind but memories, as far as it was asked for before."""
        return {}

    @property
    def inverted(self) -> dict[Kind, Cells]:
        """The inverted files of large kinds that entries are retrieved from, as far as they were made."""
        found: dict[Kind, Cells] = {}
        for kind in self.relevance.kinds:
            if kind in self.cells:
                found[kind] = self.cells[kind]
            made = self.retrievers.get(kind)
            meant = made.documents.meant if isinstance(made, Neighbours | Sayings) else None
            if meant is not None and meant.cells is not None:
                found[kind] = meant.cells
        return found

    def repository(self, memories: EventLog | None, kinds: Container[Kind]) -> Repository:
        """What entries of some kinds are retrieved from.

        Args:
            memories: what people did; None where it is not remembered.
            kinds: those wanted; one that there are no entries of is left out.
        """
        found: dict[Kind, Retriever] = {}
        for kind in KINDS:
            if kind not in kinds:
                continue
            if kind not in self.retrievers and (made := self._retriever(kind)) is not None:
                self.retrievers[kind] = made
            if kind in self.retrievers:
                found[kind] = self.retrievers[kind]
        options = self.config.retrieve
        if "memory" in kinds and memories is not None:
            found["memory"] = Memories(memories, len(self.catalog), options.memories)
        return Repository(found, options)

    def _retriever(self, kind: Kind) -> Retriever | None:
        neighbours = self.config.retrieve.neighbours
        cells, seed = self.cells.get(kind), self.config.train.seed

        def indexed(vectors: Floats) -> VectorIndex:
            return VectorIndex.of(vectors, seed=seed) if cells is None else VectorIndex.over(vectors, cells)

        if kind == "similar_item":
            directions = self.scorer.network.head.directions(self.scorer.vectors)
            return similar_items(directions.numpy(), neighbours, indexed)
        if kind == "item_text":
            return (
                item_texts(self.catalog, self.vectors, neighbours, indexed) if self.catalog.fields else None
            )
        if kind == "memory" or kind not in self.remarks:
            return None
        said, vectors = self.remarks[kind], self.remark_vectors.get(kind)
        return Sayings(KINDS.index(kind), said, vectors, neighbours, indexed)

    def adjust(self, log_scores: Floats, people: Ints, items: Ints | None = None) -> Floats:
        """Log-probabilities [b, i], or [b, c] of some `items` [c], corrected for bias.

        `people` are rows of the people's table [b], -1 for strangers.
        """
        adjusted = self.popularity.adjust(log_scores, items)
        return adjusted if self.balance is None else self.balance.adjust(adjusted, people, items)

    def person_rows(self, histories: EventLog) -> Ints:
        """Row of each history's owner in the people's table [b]; -1 for strangers."""
        return person_rows(self.people, histories)


def as_indexed(fitted: Fitted, changed: Fitted) -> Fitted:
    """`changed` with the indexes of `fitted`, whose items it has: making them anew takes seconds."""
    held = {name: value for name, value in vars(fitted).items() if name in ("index", "vocabulary")}
    vars(changed).update(held)
    changed.retrievers.update(fitted.retrievers)
    return changed


def beside(fitted: Fitted, **changed: Any) -> Fitted:
    """The model with other values of fields that nothing it has made depends on, and all that it has made."""
    found = replace(fitted, **changed)
    given = {each.name for each in fields(fitted)}
    vars(found).update({name: made for name, made in vars(fitted).items() if name not in given})
    return found


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
            erasing=config.debias.adversary.erase,
        )


def code_head(network: Network) -> CodeHead:
    """The code head of a network that was made with one."""
    assert network.codes is not None
    return network.codes
