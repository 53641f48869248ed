"""What a history left in a pretrained decoder, so that one more event costs one position.

An entry is found by the decoder's own inputs, never by a name: whatever has changed in the events, the items
or the person has other inputs, and so does a history whose oldest events have slid out of its window.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING

from pydantic import Field as Option
from torch import Tensor, nn

from llm4rec.config import Section
from llm4rec.model.eight_bits import in_eight_bits
from llm4rec.model.pretrained import PretrainedBackbone

if TYPE_CHECKING:
    from transformers import Cache

ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers whose past is keys and values, one for each position."""
FEW = 4
"""New events that are read faster with 8-bit projections; of more, the sums cost more than the weights."""


class ServeConfig(Section):
    """How a fitted model answers (section `serve`); nothing here is trained."""

    past_mib: int = Option(
        default=256,
        ge=0,
        description="Memory for what single histories left in a pretrained decoder [MiB], so that one more "
        "event costs one position; the least recently used goes first. 0 keeps nothing.",
    )
    int8: bool = Option(
        default=True,
        description="Read histories with the decoder's projections rounded to 8 bits, where its numbers are "
        "bfloat16; up to four new events of a history that was kept are then read from the 8 bits "
        "themselves, which is quicker. The artefact keeps the exact ones; false reads with them.",
    )
    reasons: int = Option(
        default=1000,
        ge=0,
        description="Reasons that are kept in memory, one an item, to be given again where all that they "
        "depend on is the same; the least recently used go first. 0 keeps none.",
    )


@dataclass(frozen=True)
class Read:
    """A history that was read.

    Attributes:
        past: the decoder's keys and values.
        state: after the last event [1, d].
        n_bytes: what they take.
    """

    past: Cache
    state: Tensor
    n_bytes: int


class Past:
    """Reads single histories, and of one that continues another read before only what is new.

    Requests may come from several threads: an entry that is to be continued belongs to the thread that took
    it, and comes back as the longer history's. Weights must not change while one is in use.

    Args:
        backbone: in evaluation mode.
        config: how much is kept.
        exact: the same before its projections were rounded; None where they are as they are.
    """

    def __init__(
        self, backbone: PretrainedBackbone, config: ServeConfig, exact: PretrainedBackbone | None = None
    ) -> None:
        self.most_bytes = config.past_mib * 2**20
        self.n_bytes = 0
        self._backbone = backbone
        self._exact = exact
        self._kept: OrderedDict[bytes, Read] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @cached_property
    def _quick(self) -> PretrainedBackbone:
        """What reads a few events; made when the first history is continued, which batches never are."""
        return self._backbone if self._exact is None else in_eight_bits(self._exact)

    def newest(self, events: Tensor) -> Tensor:
        """State after the last of a history's `events` [1, t, d], as the backbone reads them: [1, d]."""
        from transformers import DynamicCache

        keys = _keys(events)
        known, found = self._find(keys)
        if found is not None and known == len(keys):
            return found.state
        past = DynamicCache() if found is None else found.past
        few = found is not None and len(keys) - known <= FEW
        state = (self._quick if few else self._backbone)(events[:, known:], past)[:, -1]
        # a copy, or the states of all events would stay with it
        self._keep(keys[-1], Read(past, state.clone(), _n_bytes(past)))
        return state

    def _find(self, keys: list[bytes]) -> tuple[int, Read | None]:
        """The longest beginning that is kept, and how many events it has; it is taken out to be continued."""
        with self._lock:
            for known in range(len(keys), 0, -1):
                found = self._kept.get(keys[known - 1])
                if found is None:
                    continue
                if known == len(keys):
                    self._kept.move_to_end(keys[-1])
                else:
                    self._drop(keys[known - 1])
                return known, found
        return 0, None

    def _keep(self, key: bytes, read: Read) -> None:
        with self._lock:
            if key in self._kept:  # another thread read the same
                self._drop(key)
            self._kept[key] = read
            self.n_bytes += read.n_bytes
            while self.n_bytes > self.most_bytes:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        self.n_bytes -= self._kept.pop(key).n_bytes


def can_keep(backbone: nn.Module) -> bool:
    """Whether a backbone takes keys and values back: `compact` and decoders with recurrent layers do not."""
    if not isinstance(backbone, PretrainedBackbone) or getattr(backbone.model, "_is_stateful", False):
        return False
    return set(getattr(backbone.model.config, "layer_types", None) or ()) <= ATTENTION


def _keys(events: Tensor) -> list[bytes]:
    """A digest of the first, the first two, … of `events` [1, t, d]."""
    digest, keys = blake2b(digest_size=16), list[bytes]()
    for event in events[0].contiguous().numpy():
        digest.update(event)
        keys.append(digest.digest())
    return keys


def _n_bytes(past: Cache) -> int:
    tensors = (value for layer in past.layers for value in vars(layer).values() if isinstance(value, Tensor))
    return sum(tensor.nbytes for tensor in tensors)
