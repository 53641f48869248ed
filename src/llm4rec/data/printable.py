"""Text of a file as it may be shown."""

from __future__ import annotations

import re

# C0 and C1 controls, line and paragraph separators, and what is not seen but changes how the rest is read
UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]+"
)


def printable(text: str) -> str:
    """Text of a file on one line that no terminal takes for a command: a blank for what it must not get.

    Marks of direction and other invisible characters go too, for two ids may look the same by them. What
    words are spelt with stays: joiners, as of emoji and Persian, the soft hyphen and Arabic number signs.
    """
    return UNSAFE.sub(" ", text)
