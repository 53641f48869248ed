"""`llm4rec refit`: a model fitted anew on everything that it remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm4rec.cli import console
from llm4rec.cli.fit import checkpointed


def refit(
    model: Annotated[Path, typer.Option(help="Model directory, as written by fit.")],
    warm: Annotated[
        bool,
        typer.Option(
            "--warm/--cold", help="Begin with the weights of the last fit, or with random ones as fit does."
        ),
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from MODEL.checkpoint, if there is one.")
    ] = False,
    json: console.Json = False,
) -> None:
    """Fit a model anew on everything that it remembers, and put the new one in its place.

    Run it when the day is over: what learn does within seconds is done over with the whole log at hand, and
    the linear part, popularity, retrieval and all that validation chooses are renewed. The place in the event
    log goes with the new model, so that the next learn goes on from there; until it is written, the old one
    answers, and learn, items and correct are refused. The old one is kept as a version (rollback).

    Reviews and tags that the first fit had no use for are not kept, so they are not tried again. Begun warm,
    the fit needs fewer epochs, and reads items as the model did: a category, a tag or a range of numbers that
    only newer items have is learnt by a cold one.
    """
    from llm4rec.recommender import Recommender
    from llm4rec.store.alone import alone
    from llm4rec.train.checkpoint import discard

    with alone(model), console.progress() as report:
        before = Recommender.load(model)
        with checkpointed(model, resume) as checkpoints:
            after = before.refit(warm=warm, checkpoints=checkpoints, resume=resume, progress=report)
        for sentence in after.meta["notes"]:
            console.note(sentence)
        after.save(model, by="refit", keep=after.config.online.versions)
        discard(checkpoints)
    meta = after.meta
    told = {
        "model": str(model),
        "warm": warm,
        "people": meta["n_users"],
        "items": len(after.catalog),
        "events": meta["n_events"],
        "held_out": after.fitted.untrained.height,
        "seconds": meta["seconds"],
        "training": meta["training"],
    }
    if json:
        console.answer(told)
        return
    floor = meta["training"]["floor"]
    best = "none of them was better than what it began with"
    if floor["best_epoch"] >= 0:
        best = f"the best was number {floor['best_epoch'] + 1}"
    typer.echo(
        f"Fitted anew on {told['people']} people, {told['items']} items and {told['events']} events; "
        f"{told['held_out']} events were held out. Of {len(floor['metrics'])} epochs {best}, with validation "
        f"NDCG@10 {floor['best_metric']:.4f}. The model is in {model}."
    )
