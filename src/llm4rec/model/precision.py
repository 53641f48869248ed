"""Which numbers are multiplied: float32, or bfloat16 where that is fast."""

from __future__ import annotations

from typing import Any, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def dtype_of(precision: Precision) -> torch.dtype:
    """What `precision` means on this machine: auto is bfloat16 where the processor multiplies it natively."""
    half = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16())
    return torch.bfloat16 if half else torch.float32


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16; without, they are slower."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # of torch from 2.9 on
    found: dict[str, Any] = ask() if ask is not None else {}
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16"))
