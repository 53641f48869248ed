"""Retrieved items told to a text backbone in words, equation (12) with [u; R_u] as a prompt.

h' = h + g(h) · W (h_p − h),   g(h) = tanh(w · h/‖h‖ + b)

h_p is the state after the same history with the names of the items that the entries speak for most in front
of it. The gate g is closed at the start (w = 0, b = 0) and W is the identity: an untrained prompt changes
nothing, nor does one for a history without entries. The decoder reads names as it came to know words; only
gate and W are trained. A name can do no more than move a state: nothing is generated from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from llm4rec.data.events import EventLog
from llm4rec.model.scorer import Attend, Scorer
from llm4rec.model.words import Words
from llm4rec.retrieve.condition import Gated
from llm4rec.retrieve.fusion import fused
from llm4rec.retrieve.relevance import Grounding
from llm4rec.retrieve.repository import Repository
from llm4rec.types import Bools, Ints


@dataclass(frozen=True)
class Read:
    """States after names and history, of b histories.

    Attributes:
        states: h_p [b, d].
        there: whether there was a name to read [b].
    """

    states: Tensor
    there: Bools

    @classmethod
    def none(cls, size: int, b: int) -> Read:
        """Nothing, for b histories and states of `size`."""
        return cls(torch.zeros(b, size), np.zeros(b, dtype=bool))

    def take(self, rows: Ints) -> Read:
        """Those of some histories."""
        return Read(self.states[rows], self.there[rows])

    def put(self, rows: Ints, some: Read) -> None:
        """Fill in those of some histories."""
        self.states[rows], self.there[rows] = some.states, some.there


class Reader:
    """Reads histories with the names of what is retrieved for them in front.

    Args:
        scorer: its backbone is a text decoder.
        words: names of the items.
        repository: what is retrieved.
        most: names in front of a history.
        rows_of: rows of the histories' owners in the people's table [b].
    """

    def __init__(
        self,
        scorer: Scorer,
        words: Words,
        repository: Repository,
        most: int,
        rows_of: Callable[[EventLog], Ints],
    ) -> None:
        self.scorer, self.words, self.repository = scorer, words, repository
        self.most, self.rows_of = most, rows_of

    def read(self, histories: EventLog) -> Read:
        """States of b histories, each read by itself."""
        found = Read.none(self.scorer.vectors.shape[1], histories.n_users)
        people = self.rows_of(histories)
        for row in range(histories.n_users):
            names = self.words.told(fused(self.repository.retrieve(histories, row), self.most))
            if len(names):
                rows = np.array([row])
                one = histories.histories(rows, histories.lengths[rows])
                states = self.scorer.states(one, people[rows], names)
                found.put(rows, Read(states, np.ones(1, dtype=bool)))
        return found


class Prompt(Gated):
    """What the states after names change.

    Args:
        size: of states d.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.mix = nn.Linear(size, size, bias=False)
        nn.init.eye_(self.mix.weight)

    def forward(self, states: Tensor, vectors: Tensor, told: Read) -> Tensor:
        """States h' [b, d] of states h [b, d]; item vectors are not read."""
        moved = self.mix(told.states - states) * torch.from_numpy(told.there)[:, None]
        return states + self.openness(states)[:, None] * moved


def prompting(
    prompt: Prompt | None,
    words: Words | None,
    grounding: Grounding,
    scorer: Scorer,
    most: int,
    rows_of: Callable[[EventLog], Ints],
) -> Attend | None:
    """What turns states [b, d] into those after a prompt; None where there is nothing to tell."""
    if prompt is None or words is None or grounding.repository is None:
        return None
    reader = Reader(scorer, words, grounding.repository, most, rows_of)

    def attend(states: Tensor, histories: EventLog) -> Tensor:
        with torch.inference_mode():
            return prompt(states, scorer.vectors, reader.read(histories))

    return attend
