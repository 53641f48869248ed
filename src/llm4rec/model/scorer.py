"""A trained network together with what it knows of items and people: histories in, log-probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from llm4rec.data.events import EventLog
from llm4rec.encode.tokens import Tokens
from llm4rec.errors import InputError
from llm4rec.model.eight_bits import rounded
from llm4rec.model.events import EventSpace, event_arrays
from llm4rec.model.network import Network
from llm4rec.model.offset import Carried
from llm4rec.model.past import Past, ServeConfig, can_keep
from llm4rec.model.pretrained import PretrainedBackbone
from llm4rec.types import Bools, Floats, Ints

CHUNK = 256
"""Requests read at once: bounds the [b, i] scores held in memory."""


class Join(Protocol):
    """What makes one score of the dense head's and another's."""

    def __call__(
        self, states: Tensor, log_p: Tensor, n: int, legal: Tensor | None = None, *, added: bool = False
    ) -> Tensor:
        """Log-probabilities [b, i] of states [b, d] and the dense head's `log_p` [b, i]."""
        ...


Attend = Callable[[Tensor, EventLog], Tensor]
"""States h' [b, d] of states h [b, d] after the histories of b rows, equation (12)."""


@dataclass(frozen=True)
class Scorer:
    """Scores of every item for batches of histories; weights must not change while one is in use.

    Attributes:
        network: in evaluation mode.
        items: modality → tokens of every item.
        people: modality → tokens of every known person, None without features.
        events: meaning of ratings and kinds.
        join: joins the dense scores with generated ones; None leaves them as they are.
        serve: what is kept of histories that were read; None keeps nothing.
        carried: popularity that the dense head's logits carry beside what it learnt; None for none.
    """

    network: Network
    items: Mapping[str, Tokens]
    people: Mapping[str, Tokens] | None
    events: EventSpace
    join: Join | None = None
    serve: ServeConfig | None = None
    carried: Carried | None = None

    @cached_property
    def past(self) -> Past | None:
        """What single histories left in the backbone; None where none of it is kept."""
        own = self.network.backbone.eval()
        if self.serve is None or not self.serve.past_mib or not can_keep(own):
            return None
        exact = None if self.backbone is own else cast(PretrainedBackbone, own)
        return Past(cast(PretrainedBackbone, self.backbone), self.serve, exact)

    @cached_property
    def backbone(self) -> nn.Module:
        """What reads histories: the network's, or that with its projections rounded."""
        own = self.network.backbone.eval()
        wanted = self.serve is not None and self.serve.int8
        if wanted and isinstance(own, PretrainedBackbone) and own.dtype == torch.bfloat16:
            return rounded(own)
        return own

    def carrying(self, carried: Carried | None) -> Scorer:
        """The same with other popularity, and what it has made of items and keeps of histories."""
        found = replace(self, carried=carried)
        held = {name: value for name, value in vars(self).items() if name in ("past", "backbone", "vectors")}
        vars(found).update(held)
        return found

    @cached_property
    def vectors(self) -> Tensor:
        """Item vectors z [i, d]."""
        self.network.eval()
        with torch.inference_mode():
            return self.network.fuse(self.items).vectors

    @cached_property
    def prepared(self) -> Tensor:
        """Item vectors in the form whose dot products with prepared states are logits [i, d].

        They may take part in derivatives of states, whoever asked for them first.
        """
        with torch.inference_mode(mode=False), torch.no_grad():
            made = self.prepare(slice(None))
            return made.clone() if made.is_inference() else made

    def prepare(self, items: Tensor | slice) -> Tensor:
        """Vectors of some items [n, d] in that form; what their logits carry is in their biases."""
        vectors = self.vectors[items]
        made = self.network.head.prepared(vectors[:0], vectors)[1]
        return made if self.carried is None else self.network.head.carrying(made, self.carried.logits[items])

    def prepared_states(self, states: Tensor) -> Tensor:
        """States [b, d] in the form whose dot products with prepared item vectors are logits."""
        return self.network.head.prepared(states, self.vectors[:0])[0]

    def states(self, histories: EventLog, people: Ints, names: Tensor | None = None) -> Tensor:
        """States after the newest events of each row [b, d], asked at the time the row says.

        Args:
            histories: b rows.
            people: rows of their tokens [b], or -1.
            names: embeddings of words [p, h] that a pretrained backbone reads before them; None for none.
        """
        lengths = np.minimum(histories.lengths, self.network.max_history)
        starts = histories.offsets[1:] - lengths
        arrays = event_arrays(histories, self.events, people)
        with torch.inference_mode():
            asked_at = histories.asked_at
            when = None if asked_at is None else torch.from_numpy(asked_at).unsqueeze(1)
            batch = arrays.batch(np.arange(histories.n_users), starts, lengths, when)
            newest = torch.arange(len(lengths)), torch.from_numpy(lengths)
            told = self.network.told(batch, self.vectors, self.people)
            if names is not None:
                states = cast(PretrainedBackbone, self.backbone)(told, names=names)[newest]
            elif self.past is not None and len(told) == 1:
                states = self.past.newest(told)
            else:
                states = self.backbone(told)[newest]
            states = self.network.erased(states)
            return states if batch.asked is None else states + self.network.context(batch.asked.at(newest))

    def logits(self, state: Tensor, items: Ints) -> Floats:
        """The dense head's logits [c] of `items` [c] for one state [1, d]."""
        return (self.prepared_states(state) @ self.prepare(torch.from_numpy(items)).T)[0].numpy()

    def dense(self, states: Tensor) -> Tensor:
        """The dense head's log-probabilities [b, i] for states [b, d] (nats)."""
        # as `network.score`, but what it makes of the items is made once
        return (self.prepared_states(states) @ self.prepared.T).log_softmax(dim=-1)

    def log_scores(
        self,
        histories: EventLog,
        people: Ints,
        n: int = 1,
        legal: Bools | None = None,
        *,
        added: bool = False,
        attend: Attend | None = None,
    ) -> Floats:
        """Log-probability of every item as the next event [b, i] (nats).

        Args:
            histories: b rows.
            people: rows of their tokens [b], or -1.
            n: length of the lists that are wanted: at least so many legal items have a finite score.
            legal: [b, i], the items among which those are sought; None for all.
            added: whether something is added to the scores, so that each item's must be finite.
            attend: what turns the states into those that are scored; None leaves them.
        """
        with torch.inference_mode():
            states = self.states(histories, people)
            if attend is not None:
                states = attend(states, histories)
            log_p = self.dense(states)
            if self.join is not None:
                log_p = self.join(
                    states, log_p, n, None if legal is None else torch.from_numpy(legal), added=added
                )
            return log_p.numpy()

    def ratings(self, histories: EventLog, people: Ints, items: Ints) -> Floats:
        """r̂ [b, n] of `items` [n] for each history, in the units of the training ratings.

        Raises:
            InputError: where the model was trained without the rating head.
        """
        head = self.network.pointwise
        if head is None:
            raise InputError("This model predicts no ratings: fit it with model.pointwise above 0.")
        with torch.inference_mode():
            states = self.states(histories, people).unsqueeze(1).expand(-1, len(items), -1)
            vectors = self.vectors[torch.from_numpy(items)].expand(len(states), -1, -1)
            found = head(states, vectors) * self.events.rating_std + self.events.rating_mean
        return found.numpy()

    def chunks(self, histories: EventLog) -> Iterator[tuple[Ints, EventLog]]:
        """(rows [c], their histories), sorted by length so that little is padded."""
        order = np.argsort(np.minimum(histories.lengths, self.network.max_history), kind="stable")
        # of even size: a last one of a single history would be read as a request by itself is
        for rows in np.array_split(order, -(-len(order) // CHUNK)) if len(order) else ():
            yield rows, histories.histories(rows, histories.lengths[rows])
