"""Items come and go without training: those that are new or change, and those that are withdrawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import torch

from llm4rec.data.catalog import Catalog
from llm4rec.data.upsert import upserted
from llm4rec.encode.fusion import BEHAVIOUR
from llm4rec.encode.vectors import frozen_vectors
from llm4rec.errors import InputError
from llm4rec.fitted import Fitted, code_head
from llm4rec.generate.generator import Generator
from llm4rec.model.scorer import Scorer
from llm4rec.train.stages import id_vectors
from llm4rec.types import Floats, Ints


def quiet(sentence: str) -> None:
    """Say nothing."""


def upsert(fitted: Fitted, items: pl.DataFrame | Catalog, note: Callable[[str], None] = quiet) -> Fitted:
    """The model with further or changed items; see `Recommender.upsert_items`.

    Raises:
        InputError: where a value or a column can't be read, or an encoder is not on this machine.
    """
    table = items.table if isinstance(items, Catalog) else items
    catalog, rows = upserted(fitted.catalog, table, note)
    if not len(rows):
        return fitted
    n_new = len(catalog) - len(fitted.catalog)
    vectors = _vectors(fitted, catalog, rows, note)
    seen = torch.cat([fitted.scorer.items[BEHAVIOUR].mask[:, 0], torch.zeros(n_new, dtype=torch.bool)])
    tokens, _ = fitted.spaces.tokens(catalog, vectors, seen, None)
    network = fitted.scorer.network.extended(len(catalog))
    network.eval()
    scorer = Scorer(network, tokens, fitted.scorer.people, fitted.spaces.events)
    generator = _generator(fitted, scorer, n_new)
    if generator is not None:
        scorer = replace(scorer, join=generator.joined)
    return replace(
        fitted,
        catalog=catalog,
        vectors=vectors,
        scorer=scorer,
        prior=fitted.prior.extended(n_new),
        generator=generator,
    )


def retire(fitted: Fitted, item_ids: Sequence[str]) -> Fitted:
    """The model with items that come back to nobody; see `Recommender.retire_items`.

    Raises:
        InputError: where the catalogue has no item of a name.
    """
    if isinstance(item_ids, str):
        raise InputError(f"Items are retired by a list of ids, not by the text {item_ids!r}.")
    numbers = fitted.catalog.numbers(pl.Series(item_ids, dtype=pl.String))
    if (numbers < 0).any():
        unknown = [name for name, number in zip(item_ids, numbers, strict=True) if number < 0]
        raise InputError(
            f"The model knows no item {unknown[0]!r}"
            + (f" ({len(unknown)} of the {len(numbers)} named are unknown)" if len(unknown) > 1 else "")
            + ": nothing was retired."
        )
    return replace(
        fitted, catalog=replace(fitted.catalog, retired=np.union1d(fitted.catalog.retired, numbers))
    )


def _vectors(fitted: Fitted, catalog: Catalog, rows: Ints, note: Callable[[str], None]) -> dict[str, Floats]:
    """The frozen vectors of the whole catalogue, those of `rows` [n] made anew."""
    part = catalog.take(rows)
    fields = tuple(field for field in part.fields if field.name in fitted.vectors)
    config, about = fitted.config.encode, fitted.about
    made = frozen_vectors(
        replace(part, fields=fields),
        config.text,
        config.image,
        text_encoder=about["text_encoder"],
        image_encoder=about.get("image_encoder"),
    )
    for sentence in made.notes:
        note(sentence)
    found: dict[str, Floats] = {}
    for name, old in fitted.vectors.items():
        width = old.shape[1]
        fresh = made.by_field.get(name, np.zeros((len(rows), width), dtype=np.float32))
        if fresh.shape[1] != width:
            raise InputError(
                f"The vectors of the column {name!r} have {fresh.shape[1]} values, but the model was fitted "
                f"with {width}: give vectors of the same kind."
            )
        found[name] = np.concatenate([old, np.zeros((len(catalog) - len(old), width), dtype=old.dtype)])
        found[name][rows] = fresh
    return found


def _generator(fitted: Fitted, scorer: Scorer, n_new: int) -> Generator | None:
    """The generator with an id for each of the last `n_new` items; no other id changes."""
    if fitted.generator is None:
        return None
    config, n_items = fitted.config.generate, len(scorer.items[BEHAVIOUR].mask)
    last = torch.arange(n_items - n_new, n_items)
    new = {modality: tokens.take(last) for modality, tokens in scorer.items.items()}
    source = "content" if config.mode == "only" else config.source
    vectors = id_vectors(scorer.network, new, source)
    ids = fitted.generator.ids.extended(vectors) if n_new else fitted.generator.ids
    return replace(fitted.generator, head=code_head(scorer.network), ids=ids)
