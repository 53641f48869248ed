"""A multimodal recommender on a language-model backbone.

The public face. Names are looked up when they are first used, so `import llm4rec` costs nothing and
loads neither torch nor polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm4rec.data.catalog import Catalog
    from llm4rec.data.events import EventLog
    from llm4rec.errors import LLM4RecError
    from llm4rec.recommender import Config, Recommender, ServeConfig
    from llm4rec.store.eventlog import FeedbackLog
    from llm4rec.types import Context, Feedback, Query, Ranking

    __version__: str

__all__ = [
    "Catalog",
    "Config",
    "Context",
    "EventLog",
    "Feedback",
    "FeedbackLog",
    "LLM4RecError",
    "Query",
    "Ranking",
    "Recommender",
    "ServeConfig",
    "__version__",
]

_HOMES = {
    "Catalog": "llm4rec.data.catalog",
    "Config": "llm4rec.recommender",
    "Context": "llm4rec.types",
    "EventLog": "llm4rec.data.events",
    "Feedback": "llm4rec.types",
    "FeedbackLog": "llm4rec.store.eventlog",
    "LLM4RecError": "llm4rec.errors",
    "Query": "llm4rec.types",
    "Ranking": "llm4rec.types",
    "Recommender": "llm4rec.recommender",
    "ServeConfig": "llm4rec.recommender",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("llm4rec")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next look-up finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
