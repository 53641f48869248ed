"""Reasons in a language model's words, where somebody asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm4rec.errors import InputError

if TYPE_CHECKING:
    from llm4rec.explain.rewording import Rewriter
    from llm4rec.recommender import Recommender
    from llm4rec.types import Explanation

Llm = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Put reasons into a language model's words, where they can be vouched for: smollm2, a GGUF "
        "file, a model directory, backbone for the model's own, or the URL of an OpenAI-compatible endpoint "
        "with the name of its model after #.",
    ),
]


def rewriter(recommender: Recommender, name: str | None, language: str | None) -> Rewriter | None:
    """What puts reasons into the words of a language model; None where none is named.

    Raises:
        InputError: where reasons are not in English, or as `Recommender.rewriter`.
    """
    if name is None:
        return None
    if language not in {None, "en"}:
        raise InputError("--llm puts reasons into other words in English only: leave --language out.")
    return recommender.rewriter(name)


def as_json(explanation: Explanation, text: str | None = None) -> dict[str, Any]:
    """An explanation in values JSON can hold; where it was put into other words, with the plain ones."""
    from dataclasses import asdict

    return {
        "kind": explanation.kind,
        "text": explanation.text if text is None else text,
        **({} if text is None else {"plain": explanation.text}),
        "weights": dict(explanation.weights),
        "evidence": [asdict(piece) for piece in explanation.evidence],
    }
