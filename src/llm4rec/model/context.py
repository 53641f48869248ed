"""When a request is asked: the time since its last event, the hour and the weekday, a vector for each.

Query time is context: it is added to what the backbone has read, so the history is read alike at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

N_GAPS = 24
N_HOURS = 24
N_WEEKDAYS = 7
HOUR, DAY = 3_600, 86_400
THURSDAY = 3
"""The weekday of 1 January 1970, Monday being 0."""


@dataclass(frozen=True)
class Moments:
    """Query times as classes, all of one shape [...]; 0 is unknown.

    Attributes:
        gaps: time since the last event that was read (see `gap_classes`).
        hours: hour of the day in UTC, 1 for 00:00–00:59 to 24.
        weekdays: weekday in UTC, 1 Monday to 7 Sunday.
    """

    gaps: Tensor
    hours: Tensor
    weekdays: Tensor

    def at(self, places: tuple[Tensor, ...]) -> Moments:
        """Those of some places."""
        return Moments(self.gaps[places], self.hours[places], self.weekdays[places])


def moments(asked_at: Tensor, last: Tensor) -> Moments:
    """Classes of query times.

    Args:
        asked_at: UTC seconds, -1 unknown.
        last: UTC seconds of the last event read, -1 unknown or none; broadcast against `asked_at`. An event
            later than the asking leaves the gap unknown.
    """
    told = asked_at >= 0
    gaps = gap_classes(torch.where(told & (last >= 0), asked_at - last, -1))
    hours = torch.where(told, asked_at // HOUR % N_HOURS + 1, 0)
    weekdays = torch.where(told, (asked_at // DAY + THURSDAY) % N_WEEKDAYS + 1, 0)
    return Moments(gaps, hours.expand_as(gaps), weekdays.expand_as(gaps))


def gap_classes(seconds: Tensor) -> Tensor:
    """Classes of gaps in seconds: 0 unknown (negative in), 1 none, then one per doubling, to about a year."""
    doubled = torch.log2(seconds.clamp(min=0).to(torch.float64) + 1).ceil().long() + 1
    return torch.where(seconds < 0, torch.zeros_like(doubled), doubled.clamp(max=N_GAPS - 1))


class QueryContext(nn.Module):
    """What is added to a state for the time it is asked at; an unknown time adds exactly nothing."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.gap = _silent(N_GAPS, embedding_size)
        self.hour = _silent(N_HOURS + 1, embedding_size)
        self.weekday = _silent(N_WEEKDAYS + 1, embedding_size)

    def forward(self, asked: Moments) -> Tensor:
        """Vectors [..., d]."""
        return self.gap(asked.gaps) + self.hour(asked.hours) + self.weekday(asked.weekdays)


def _silent(n_classes: int, embedding_size: int) -> nn.Embedding:
    """Vectors of classes that say nothing until they are trained, class 0 never; draws no random number."""
    zeros = torch.zeros(n_classes, embedding_size)
    return nn.Embedding.from_pretrained(zeros, freeze=False, padding_idx=0)
