"""Attention in which an event counts for more or less as a key."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def weighed(keys: Tensor, dtype: torch.dtype, before: int = 0) -> Tensor:
    """What is added to the logits of causal attention [b, 1, t, t] where event j counts exp(`keys`[j]) times.

    At 0 attention is what it was; towards −∞ no other event reads this one. The derivative at 0 is, to first
    order, what is lost where the others don't read it.

    Args:
        keys: log-weights [b, t].
        dtype: of the attention's numbers.
        before: positions in front of the events, which keep their weight; t counts them.
    """
    keys = F.pad(keys, (before, 0))
    size = keys.shape[1]
    later = torch.full((size, size), torch.finfo(dtype).min, dtype=dtype).triu(1)
    return later + keys.to(dtype)[:, None, None, :]
