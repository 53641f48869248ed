"""Names of items as tokens: kept, told in order, and gone where they have changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm4rec.model.words import Words

VOCABULARY = torch.nn.Embedding(9, 2)
NAMES = Words.of([[3, 5], [], [5, 5, 8], [1]], VOCABULARY)


def told(words: Words, *items: int) -> torch.Tensor:
    return words.told(np.array(items, dtype=np.int64))


def embedded(*tokens: int) -> torch.Tensor:
    return VOCABULARY(torch.tensor(tokens, dtype=torch.long)).detach()


def test_names_come_one_after_the_other() -> None:
    assert torch.equal(told(NAMES, 2, 0), embedded(5, 5, 8, 3, 5))
    assert told(NAMES, 1).shape == told(NAMES).shape == (0, 2)
    assert len(NAMES.table) == 4  # of the nine, what occurs


def test_a_changed_item_and_a_new_one_have_no_name() -> None:
    grown = NAMES.renamed(np.array([2, 4]), 5)
    assert torch.equal(told(grown, 0, 2, 4, 3), embedded(3, 5, 1))


def test_what_is_kept_is_read_again_and_what_makes_no_sense_refused() -> None:
    again = Words.from_tensors(NAMES.tensors(), 4)
    assert torch.equal(told(again, 3, 2), told(NAMES, 3, 2))
    with pytest.raises(ValueError, match="names of 4 items, not of 5"):
        Words.from_tensors(NAMES.tensors(), 5)
    with pytest.raises(ValueError, match="tokens that are not there"):
        Words.from_tensors(NAMES.tensors() | {"table": NAMES.table[:2]}, 4)
