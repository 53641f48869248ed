"""The loss of a batch: softmax over the catalogue at every position, and squared error on ratings."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from llm4rec.generate.teaching import Teaching
from llm4rec.model.heads import DenseHead, PointwiseHead
from llm4rec.model.offset import Offsets

BLOCK = 2**21
"""Logits held at once: 8 MiB."""


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy of `states @ vectors.T` without ever holding [p, i] logits or their gradient.

    Both gradients are computed in the forward pass, a block of rows at a time, in a block small enough
    for the processor's cache; on a large catalogue this is a third faster than autograd's own way and
    takes a fraction of its memory. The three products are made of numbers of type `dtype`; sums,
    exponentials and logarithms stay in the type of `states`. With `table` [k, i] and `rows` [p], the row of
    each target's stretch is added to its logits, block by block; no gradient flows to it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        vectors: Tensor,
        targets: Tensor,
        weights: Tensor,
        dtype: torch.dtype,
        table: Tensor | None,
        rows_of: Tensor | None,
    ) -> Tensor:
        rows = max(1, min(len(states), BLOCK // len(vectors)))
        left, right = states.to(dtype), vectors.to(dtype)
        block, products = states.new_empty(rows, len(vectors)), left.new_empty(rows, len(vectors))
        losses = torch.empty_like(weights)
        to_states = torch.empty_like(states)
        to_vectors = torch.zeros_like(vectors) if ctx.needs_input_grad[1] else None
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            product = torch.mm(left[part], right.T, out=products[: len(left[part])])
            logits = block[: len(product)]
            if table is None or rows_of is None:
                torch.sub(product, product.amax(dim=1, keepdim=True), out=logits)
            else:
                torch.index_select(table, 0, rows_of[part], out=logits)
                logits += product
                logits -= logits.amax(dim=1, keepdim=True)
            wanted = logits.gather(1, targets[part].unsqueeze(1))
            total = logits.exp_().sum(dim=1, keepdim=True)
            losses[part] = (total.log() - wanted).squeeze(1)
            # softmax − one-hot, weighted: the gradient of the logits
            logits *= weights[part].unsqueeze(1) / total
            logits.scatter_add_(1, targets[part].unsqueeze(1), -weights[part].unsqueeze(1))
            product.copy_(logits)
            to_states[part] = torch.mm(product, right)
            if to_vectors is not None:
                to_vectors += torch.mm(product.T, left[part])
        ctx.save_for_backward(to_states, to_vectors)
        return (losses * weights).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_vectors = ctx.saved_tensors
        of_vectors = None if to_vectors is None else gradients[0] * to_vectors
        return gradients[0] * to_states, of_vectors, None, None, None, None, None


def softmax_loss(
    head: DenseHead,
    states: Tensor,
    vectors: Tensor,
    targets: Tensor,
    weights: Tensor,
    dtype: torch.dtype | None = None,
    offsets: Offsets | None = None,
) -> Tensor:
    """Σ_p w_p · −log p(target_p) under the softmax over all items (nats).

    With `offsets`, p(i) ∝ exp(s(h, i) + γ · log z_i), z being that of the target's stretch: equation (15).

    Args:
        head: gives states and vectors the form whose dot products are logits.
        states: [p, d].
        vectors: [i, d].
        targets: dense item numbers [p].
        weights: [p]; no gradient flows to them.
        dtype: type of the numbers that are multiplied, that of `states` where None. bfloat16 errs in
            gradients by about 0.3% of their length, without a direction of its own.
        offsets: what is added to the logits of each target [p]; None adds nothing.
    """
    added = (None, None) if offsets is None else (offsets.table.to(states.dtype), offsets.rows)
    prepared = head.prepared(states, vectors)
    loss = _FullSoftmax.apply(*prepared, targets, weights, dtype or states.dtype, *added)
    return cast(Tensor, loss)


def sampled_softmax_loss(
    head: DenseHead,
    states: Tensor,
    target_vectors: Tensor,
    negative_vectors: Tensor,
    targets: Tensor,
    negatives: Tensor,
    log_counts: Tensor,
    offsets: Offsets | None = None,
) -> Tensor:
    """−log p(target) [p] estimated with shared negatives and the logQ correction.

    Args:
        head: gives logits.
        states: [p, d].
        target_vectors: [p, d], vectors of `targets` [p].
        negative_vectors: [s, d], vectors of `negatives` [s], drawn with replacement.
        targets: dense numbers.
        negatives: dense numbers.
        log_counts: log of the expected number of draws of each negative [s].
        offsets: what is added to the logits of each target [p], its own and those of the negatives.

    Popularity is never corrected twice: `log_counts` tell how negatives were drawn. They are drawn uniformly
    here, so that it is one constant, and popularity comes in by `offsets` alone.

    Source: Bengio & Senécal, Adaptive Importance Sampling to Accelerate Training of a Neural
    Probabilistic Language Model, 2008. The target is scored as it is and left out of the negatives.
    """
    prepared, wanted = head.prepared(states, target_vectors)
    positive = (prepared * wanted).sum(dim=-1)
    logits = head(states, negative_vectors) - log_counts
    if offsets is not None:
        positive = positive + offsets.own(targets)
        logits = logits + offsets.at(negatives)
    logits = logits.masked_fill(targets.unsqueeze(1) == negatives.unsqueeze(0), -torch.inf)
    return torch.logsumexp(torch.cat([positive.unsqueeze(1), logits], dim=1), dim=1) - positive


@torch.no_grad()
def soft_codes(
    head: DenseHead,
    states: Tensor,
    vectors: Tensor,
    targets: Tensor,
    teaching: Teaching,
    offsets: Offsets | None = None,
) -> list[Tensor]:
    """What the dense head would say of the codes of `targets` [p]: distributions [p, v] by place.

    Args:
        head: the teacher.
        states: [p, d].
        vectors: [i, d].
        targets: item numbers [p].
        teaching: turns log-probabilities of items into those of codes.
        offsets: what is added to the logits of each target [p]; None adds nothing. The codes are of what was
            taken, popular or not, and so the teacher speaks of that too.
    """
    rows = max(1, BLOCK // len(vectors))
    parts: list[list[Tensor]] = []
    for start in range(0, len(states), rows):
        logits = head(states[start : start + rows], vectors)
        if offsets is not None:
            logits += offsets.table[offsets.rows[start : start + rows]]
        parts.append(teaching.targets(logits.log_softmax(dim=-1), targets[start : start + rows]))
    return [torch.cat(place) for place in zip(*parts, strict=True)]


def rating_loss(head: PointwiseHead, states: Tensor, vectors: Tensor, ratings: Tensor) -> Tensor:
    """Squared error [p] of standardised ratings; 0 where `ratings` [p] is NaN."""
    known = ~ratings.isnan()
    error = head(states, vectors) - torch.where(known, ratings, torch.zeros_like(ratings))
    return error.square() * known
