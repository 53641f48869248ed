"""`import llm4rec` is free and changes nothing; what is heavy is loaded when it is first used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

import llm4rec

OBSERVE = """
import builtins, json, logging, os, random, signal, sys, threading, warnings

class Arguments(list):
    touched = False
    def __getitem__(self, index):
        Arguments.touched = True
        return super().__getitem__(index)
    def __iter__(self):
        Arguments.touched = True
        return super().__iter__()
    def __len__(self):
        Arguments.touched = True
        return super().__len__()

random.seed(7)
{first}
def state():
    return dict(
        seed=repr(random.getstate()),
        environment=dict(os.environ),
        root=[repr(handler) for handler in logging.root.handlers],
        level=logging.root.level,
        loggers=sorted(name for name in logging.root.manager.loggerDict if name.startswith("llm4rec")),
        filters=repr(warnings.filters),
        interrupt=repr(signal.getsignal(signal.SIGINT)),
        threads=threading.active_count(),
        hook=repr(sys.excepthook),
        folder=os.getcwd(),
        {more}
    )

before = state()
sys.argv = Arguments(sys.argv)
import llm4rec
{then}
print(json.dumps(dict(
    changed=[name for name, value in state().items() if value != before[name]],
    arguments=Arguments.touched,
    modules=sorted(sys.modules),
)))
"""


def observe(first: str = "", more: str = "", then: str = "") -> dict[str, object]:
    """What changes in a fresh process while `llm4rec` is imported and `then` is run."""
    script = OBSERVE.format(first=first, more=more, then=then)
    command = [sys.executable, "-W", "ignore", "-c", script, "--seed", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "3"}  # so that a number set by the code would be another
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_importing_changes_nothing_and_loads_nothing_heavy() -> None:
    seen = observe()
    assert seen["changed"] == []
    assert seen["arguments"] is False
    heavy = {
        "torch",
        "transformers",
        "polars",
        "numpy",
        "pyarrow",
        "pydantic",
        "typer",
        "scipy",
    }
    assert heavy & set(seen["modules"]) == set()


def test_seeds_and_threads_of_the_libraries_stay_as_they_were() -> None:
    """Also where the recommender itself is loaded, which brings torch along."""
    seen = observe(
        first="import numpy, torch\nnumpy.random.seed(3)\ntorch.manual_seed(5)",
        more="""
        numpy=repr(numpy.random.get_state()),
        torch=torch.get_rng_state().tolist(),
        threads_in=torch.get_num_threads(),
        threads_between=torch.get_num_interop_threads(),
        precision=torch.get_float32_matmul_precision(),
        determinism=torch.are_deterministic_algorithms_enabled(),
        dtype=repr(torch.get_default_dtype()),
        gpu=torch.cuda.is_initialized(),
        gradient=torch.is_grad_enabled(),
        """,
        then="llm4rec.Recommender",
    )
    # the libraries below may set their own logging and environment; ours may not touch the numbers
    numbers = {"seed", "numpy", "torch", "threads_in", "threads_between", "precision", "determinism", "dtype"}
    assert (numbers | {"gpu", "gradient", "root", "level", "interrupt", "hook"}) & set(
        seen["changed"]
    ) == set()
    assert seen["arguments"] is False


def test_values_and_errors_need_no_torch() -> None:
    seen = observe(
        then="llm4rec.Query, llm4rec.Ranking, llm4rec.LLM4RecError, llm4rec.EventLog, llm4rec.Catalog"
    )
    assert "torch" not in seen["modules"]
    assert "polars" in seen["modules"]


def test_the_public_names_are_what_they_say() -> None:
    from llm4rec.recommender import Config, Recommender

    assert llm4rec.Recommender is Recommender
    assert llm4rec.Config is Config
    assert llm4rec.__version__ == metadata.version("llm4rec")
    assert set(llm4rec.__all__) <= set(dir(llm4rec))
    for name in llm4rec.__all__:
        assert getattr(llm4rec, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        _ = llm4rec.Recomender
    assert not hasattr(llm4rec, "utils")
