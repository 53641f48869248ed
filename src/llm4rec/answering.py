"""How a fitted model answers: a small catalogue is scored whole, of a large one candidates are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from llm4rec import correcting
from llm4rec.data.events import EventLog
from llm4rec.data.legal import Legal, Listed
from llm4rec.diversity import POOL, diversified
from llm4rec.encode.text import TextEncoder
from llm4rec.errors import InputError
from llm4rec.fitted import Fitted
from llm4rec.generate.beam import search
from llm4rec.generate.index import CANDIDATES, WHOLE
from llm4rec.model.lifts import lift_of, log_sum, most_lifted
from llm4rec.topn import top_n
from llm4rec.types import Bools, Floats, Ints, Rankings

ADJUSTED = 4
"""Times as many candidates where popularity is taken out of scores: the best may have been far behind."""
WISH_TEMPERATURE = 0.05
"""Divides the cosine of a wish and an item's text: a difference of .1 is worth a factor of e²."""


def answer(fitted: Fitted, histories: EventLog, legal: Legal, n: int, wish: Floats | None = None) -> Rankings:
    """The best n legal items for each history [b], varied as `rerank.diversity` says.

    Up to `generate.exact_up_to` items, with a `wish` (log p(i | wish) [1, i], to be joined in), and where
    somebody said what they want more or less of, every item is scored. Above, the score of a candidate is
    worked out as exactly, but for the sum over the catalogue that makes it a log-probability, which is
    estimated.
    """
    strength = fitted.config.rerank.diversity
    pool = max(n, min(POOL, len(fitted.catalog))) if strength else n
    if wish is not None or is_small(fitted) or correcting.spoken(fitted, histories):
        found = exact(fitted, histories, legal, pool, wish)
    else:
        found = shortlisted(fitted, histories, legal, pool)
    return found if not strength else diversified(found, fitted.scorer.vectors.numpy(), n, strength)


def is_small(fitted: Fitted) -> bool:
    """Whether the catalogue is small enough to have every item scored."""
    return len(fitted.catalog) <= fitted.config.generate.exact_up_to


def chunks(fitted: Fitted, histories: EventLog) -> Iterator[tuple[Ints, EventLog]]:
    """(rows [c], their histories) to be answered together.

    People who said what they want more or less of are among themselves, so that nobody else's answer is made
    otherwise for it; and alone where the catalogue is large, for every item is scored for them.
    """
    spoke = np.isin(np.arange(histories.n_users), [*correcting.spoken(fitted, histories)])
    if not spoke.any():
        yield from fitted.scorer.chunks(histories)
        return
    for chosen in (np.flatnonzero(~spoke), np.flatnonzero(spoke)):
        for rows, some in fitted.scorer.chunks(histories.histories(chosen, histories.lengths[chosen])):
            alone = bool(spoke[chosen].all()) and not is_small(fitted)
            for part in np.array_split(np.arange(len(rows)), len(rows) if alone else 1):
                yield chosen[rows[part]], some.histories(part, some.lengths[part])


def exact(fitted: Fitted, histories: EventLog, legal: Legal, n: int, wish: Floats | None = None) -> Rankings:
    """The best n with every item scored."""
    mask = None if fitted.scorer.join is None else legal.mask()
    found = scores(fitted, histories, wish, n, mask)
    legal.blank(found)
    return top_n(found, n, None)


def scores(
    fitted: Fitted,
    histories: EventLog,
    wish: Floats | None = None,
    n: int | None = None,
    legal: Bools | None = None,
) -> Floats:
    """Log-probability of every item [b, i] (nats), those of the history too.

    What the owners of the histories said they want more or less of takes part, see `explain.corrections`.

    Args:
        fitted: the model.
        histories: b rows.
        wish: log p(i | wish) [1, i] to be joined in; None for none.
        n: length of the lists that are wanted; the whole catalogue where None.
        legal: [b, i], the items that may be in them; None for all.
    """
    said = correcting.factors(fitted, histories)
    if n is None or wish is not None or said is not None:  # they may lift what no search would have reached
        n = len(fitted.catalog)
    people = fitted.person_rows(histories)
    log_scores = fitted.scorer.log_scores(histories, people, n, legal, added=True, attend=fitted.attend)
    log_scores = fitted.arrivals.add(fitted.linear.add(log_scores, histories))
    log_scores = fitted.grounding.add(log_scores, histories)
    mixed = fitted.adjust(fitted.prior.mix(log_scores, histories.lengths), people)
    joined = [each for each in (wish, said) if each is not None]
    if joined:
        mixed = sum(joined, mixed)
        mixed = mixed - np.logaddexp.reduce(mixed, axis=1, keepdims=True)
    return mixed


def log_wish(fitted: Fitted, text: str, reader: Callable[[], TextEncoder]) -> Floats:
    """Log p(i | wish) [1, i]: the item's closest text field decides.

    Args:
        fitted: the model.
        text: the wish in plain words.
        reader: opens the encoder that made the items' vectors.

    Raises:
        InputError: where the items have no text.
    """
    tokens = fitted.scorer.items.get("text")
    if tokens is None:
        raise InputError("This model can't read a wish: its items have no text fields.")
    wish = torch.from_numpy(reader().encode([text])[0])
    close = (tokens.values @ wish).masked_fill(~tokens.mask, -torch.inf).amax(dim=1)
    # an item without text says nothing of the wish: it stands where an unrelated text would
    close = close.masked_fill(~tokens.mask.any(dim=1), 0.0)
    return (close / WISH_TEMPERATURE).log_softmax(dim=0).unsqueeze(0).numpy()


@torch.inference_mode()
def shortlisted(fitted: Fitted, histories: EventLog, legal: Legal, n: int) -> Rankings:
    """The best n of the candidates of each history; nothing as long as the catalogue is made."""
    people = fitted.person_rows(histories)
    states = fitted.scorer.states(histories, people)
    if fitted.attend is not None:
        states = fitted.attend(states, histories)
    items = np.full((len(states), n), -1, dtype=np.int64)
    scores = np.full((len(states), n), -np.inf, dtype=np.float32)
    for row, state in enumerate(states.unsqueeze(1)):
        found, log_scores = _candidates(fitted, state, histories, row, legal.row(row), n)
        mixed = fitted.prior.mix(log_scores[None], histories.lengths[row : row + 1], found)
        mixed = fitted.adjust(mixed, people[row : row + 1], found)
        best = top_n(mixed, n, None)
        items[row] = np.append(found, -1)[best.items[0]]  # place -1 is the one appended
        scores[row] = best.scores[0]
    return Rankings(items, scores)


def _candidates(
    fitted: Fitted, state: Tensor, histories: EventLog, row: int, listed: Listed, n: int
) -> tuple[Ints, Floats]:
    """Legal items [c], ascending, and log p(item | history) [c] of a state [1, d] after one history (nats).

    They are the dense head's nearest, the most popular of late, what the linear part and what was retrieved
    say most of, the most taken of the new and what the search along semantic ids reaches: at least n, if so
    many are legal. Where the legal items are few, they are all of those.
    """
    history = histories.history(row)
    scorer, index = fitted.scorer, fitted.index
    generator = None if scorer.join is None else fitted.generator
    query = scorer.prepared_states(state)[0].numpy()
    lifts = [
        (fitted.linear.known, fitted.linear.lifts(history)),
        (fitted.arrivals.items, fitted.arrivals.lifts),
        fitted.grounding.lifts(histories, row),
    ]

    def lifted(items: Ints) -> Floats:
        return sum((lift_of(*part, items) for part in lifts), np.zeros(len(items), dtype=np.float32))

    wanted = max(n, CANDIDATES) * (ADJUSTED if fitted.popularity.strength else 1)
    head = index.head(query, max(wanted, index.reserve(wanted, listed)))
    # summed exactly, whatever may come back, so that scores of a history are comparable
    summed = np.unique(
        np.concatenate([head[:CANDIDATES], *(most_lifted(*part, CANDIDATES) for part in lifts)])
    )
    if listed.only and len(listed) <= WHOLE:
        found = listed.items
    else:
        popular = _first_legal(fitted.prior.commonest(len(history)), listed, wanted)
        parts = [index.nearest(query, wanted, listed, head), popular]
        parts += [most_lifted(*part, wanted, listed.among(part[0])) for part in lifts]
        if generator is not None:
            generated, _ = search(generator.head, generator.trie, state, max(n, generator.beam), listed)
            parts.append(generated[generated >= 0].numpy())
        found = np.unique(np.concatenate(parts))
    logits = scorer.logits(state, summed)
    beyond = index.log_rest(query, summed)
    log_total = float(np.logaddexp(log_sum(logits), beyond))
    log_p, of_summed = scorer.logits(state, found) - np.float32(log_total), logits - np.float32(log_total)
    rest = beyond - log_total
    if generator is not None:
        coded, coded_summed = (
            generator.log_probability(state, torch.from_numpy(items)[None])[0].numpy()
            for items in (found, summed)
        )
        with np.errstate(divide="ignore"):
            shares = np.log1p(-np.float32(generator.share)), np.log(np.float32(generator.share))
            coded_rest = np.log1p(-min(np.exp(coded_summed).sum(dtype=np.float64), 1.0))
        log_p, of_summed, rest = (
            np.logaddexp(shares[0] + dense, shares[1] + code)
            for dense, code in ((log_p, coded), (of_summed, coded_summed), (rest, coded_rest))
        )
    exponent = np.float32(fitted.linear.exponent(len(history)))
    if np.isfinite(beyond):  # the code head's rest is taken to lie as the dense head's does
        rest = index.log_rest(exponent * query, summed, lifted(index.sample)) + exponent * (rest - beyond)
    total = np.logaddexp(log_sum(exponent * of_summed + lifted(summed)), rest)
    return found, exponent * log_p + lifted(found) - np.float32(total)


def _first_legal(items: Ints, listed: Listed, n: int) -> Ints:
    """The first n of `items` [i] that may come back; a longer part is looked at only where many may not."""
    reach = n
    while True:
        reach *= 4
        legal = items[:reach][listed.among(items[:reach])][:n]
        if len(legal) == n or reach >= len(items):
            return legal
