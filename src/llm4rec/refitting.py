"""A model fitted anew on everything it remembers: what a night is for, between two days of learning.

What the learner did within seconds is done over with the whole log at hand, by the same fit; the linear part,
what is popular, retrieval and all that validation chooses are renewed with it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
from torch import Tensor

from llm4rec import fitting
from llm4rec.encode.vectors import FrozenVectors
from llm4rec.errors import InputError
from llm4rec.explain.corrections import Corrections
from llm4rec.fitted import Fitted, as_indexed
from llm4rec.model.backbone import COMPACT
from llm4rec.online.progressed import Progressed
from llm4rec.settings import Config
from llm4rec.types import Progress, silent

REMARKS = ("review", "tag")


def refit(
    fitted: Fitted,
    *,
    warm: bool = True,
    checkpoints: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Fitted:
    """The model of everything that is remembered; see `Recommender.refit`.

    Raises:
        InputError: where the model keeps no histories, or can't go on from its weights.
        ArtefactError: where `checkpoints` belong to other data or another configuration.
        TrainingError: where the loss stops being finite.
    """
    if fitted.histories is None:
        raise InputError(
            "This model keeps no histories (it was fitted or saved without them), so there is nothing to fit "
            "it on: llm4rec fit makes a new one from the events."
        )
    if fitted.config.debias.selection.of == "logged":
        raise InputError(
            "This model weighs events by logged propensities, which it does not keep: llm4rec fit makes a "
            "new one from the events."
        )
    found = fitting.fit(
        fitted.histories,
        fitted.catalog,
        _possible(fitted),
        people=fitted.people,
        remarks=fitted.remarks,
        start=_start(fitted) if warm else None,
        checkpoints=checkpoints,
        resume=resume,
        progress=progress,
    )
    # it knows of every event up to there; the learner begins from the new weights
    place, said = fitted.learnt, _still_possible(fitted, found)
    kept = replace(
        found,
        config=fitted.config,
        learnt=place,
        corrections=said,
        refusals=fitted.refusals,
        # where they gain nothing now, they may another time
        remarks={**fitted.remarks, **found.remarks},
        remark_vectors={**fitted.remark_vectors, **found.remark_vectors},
    )
    return as_indexed(found, kept)


def _possible(fitted: Fitted) -> Config:
    """The model's options, without kinds of entries that it has none of: an earlier fit kept none."""
    options = fitted.config.retrieve
    if options.kinds is None:
        return fitted.config
    lost = set(REMARKS) - fitted.remarks.keys()
    kinds = tuple(kind for kind in options.kinds if kind not in lost)
    changed = {"kinds": kinds} if kinds else {"enabled": False, "kinds": None}
    return fitted.config.model_copy(update={"retrieve": options.model_copy(update=changed)})


def _start(fitted: Fitted) -> fitting.Start:
    """The weights of the last fit: who learnt since has seen the events that are to choose the epoch."""
    if fitted.config.model.backbone != COMPACT:
        raise InputError(
            "A fit that goes on from earlier weights is there for the compact backbone: this model begins "
            "with those of its pretrained decoder each time. Ask for a cold one (--cold)."
        )
    weights: dict[str, Tensor] = dict(fitted.scorer.network.named_parameters())
    weights = {name: tensor.detach() for name, tensor in weights.items()}
    if fitted.online is not None:
        origin = fitted.online.origin if isinstance(fitted.online, Progressed) else fitted.online
        weights |= origin.weights
    about = fitted.about
    vectors = FrozenVectors(dict(fitted.vectors), about["text_encoder"], about.get("image_encoder"))
    return fitting.Start(fitted.spaces, vectors, weights, fitted.untrained)


def _still_possible(fitted: Fitted, found: Fitted) -> Corrections:
    """What people said of aspects, as far as the new model has these."""
    if fitted.aspects is None or found.aspects is None or not len(fitted.corrections):
        return Corrections()
    there = pl.DataFrame(list(found.aspects.places), schema=["field", "value"], orient="row")
    said = fitted.corrections.to_frame(fitted.aspects)
    return Corrections.from_frame(said.join(there, on=["field", "value"], how="semi"), found.aspects)
