"""Reasons that were given, found again by what they depend on.

They are kept of one fitted model and go with it: one that remembers, forgets or is changed is another, and
begins with none. A key is a digest of all else: of the history with its owner, times, ratings, kinds and the
time of asking, of the wish, the language and the item. So nothing has to be told when one of them changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from threading import Lock

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.types import Explanation, Ints


class Kept:
    """Up to `most` explanations, of which the least recently used go first; 0 keeps none.

    Requests may come from several threads; two that ask for the same at once may both make it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: OrderedDict[bytes, Explanation] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def of(
        self, asked: bytes, items: Ints, explain: Callable[[Ints], list[Explanation]]
    ) -> list[Explanation]:
        """Explanations of items [n]: those that are kept, and the others made by one call of `explain`.

        Args:
            asked: `digest` of what they depend on beside the item.
            items: dense numbers.
            explain: explains some of them.
        """
        if not self.most:
            return explain(items)
        keys = [asked + item.tobytes() for item in items]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        lacking = {key: place for place, key in enumerate(keys) if key not in found}
        if lacking:
            made = explain(items[[*lacking.values()]])
            found |= zip(lacking, made, strict=True)
            with self._lock:
                self._kept |= zip(lacking, map(_copy, made), strict=True)
                while len(self._kept) > self.most:
                    self._kept.popitem(last=False)
        return [_copy(found[key]) for key in keys]


def digest(history: EventLog, *said: str | None) -> bytes:
    """Of all that is read of a history of one row, and of what was said beside it [16 bytes]."""
    names = (*history.user_ids.to_list(), *history.kind_names, *said)
    arrays = (history.items, history.times, history.ratings, history.kinds, history.asked_at)
    parts = [None if name is None else name.encode(errors="surrogatepass") for name in names]
    parts += [None if array is None else np.ascontiguousarray(array).tobytes() for array in arrays]
    found = blake2b(digest_size=16)
    for part in parts:  # each with its length, so that no two lists of them run together to the same
        found.update(b"-" if part is None else b"%d:" % len(part))
        found.update(part or b"")
    return found.digest()


def _copy(explanation: Explanation) -> Explanation:
    """One whose weights are its own: whoever gets it may change them."""
    return replace(explanation, weights=dict(explanation.weights))
