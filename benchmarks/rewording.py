"""What a language model makes of reasons: how long it takes, and how much of it can be vouched for.

    python benchmarks/rewording.py --model model --llm smollm2 --out rewording.json

`--people` people known to the model are drawn, one of the first `--n` recommendations of each is drawn and
explained in the plain form. Every reason is then asked of the language model with nothing kept, and told are
the medians and 95th percentiles of the time to the first word that is shown (whole sentences that name the
item and some evidence, all vouched for), and to the end; the share of reasons whose words were taken, with a
95% interval (Wilson), and of different reasons in letters; and what was refused first, and how often. The
first `--shown` are written out as they came. Last, all are asked again, keeping answers from one to the next.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from llm4rec.explain.language_model import LanguageModel
    from llm4rec.explain.verify import Names
    from llm4rec.recommender import Recommender
    from llm4rec.types import Explanation


class Asked(NamedTuple):
    """One reason and what became of it.

    Attributes:
        plain: its text in the plain form.
        letters: that with letters in the place of names.
        answer: of the model, in letters.
        text: that is shown.
        taken: whether the words are the model's.
        refused: what was refused first, nothing where all was taken.
        first: seconds to the first word.
        last: seconds to the end.
    """

    plain: str
    letters: str
    answer: str
    text: str
    taken: bool
    refused: str
    first: float
    last: float


def drawn(model: Recommender, people: int, n: int, seed: int) -> list[tuple[Explanation, str]]:
    """One explained recommendation of each of some people, and its title."""
    from llm4rec import Query

    known = model.fitted.histories
    assert known is not None, "the model keeps no histories"
    rng = np.random.default_rng(seed)
    found: list[tuple[Explanation, str]] = []
    for row in rng.permutation(known.n_users)[:people].tolist():
        query = Query(user=known.user_ids[row])
        ranked = model.recommend(query, n).item_ids
        item = ranked[int(rng.integers(len(ranked)))]
        explanation = model.explain(query, item)
        found.append((explanation, dict(zip(model.catalog.ids, model.catalog.titles, strict=True))[item]))
    return found


class Heard:
    """A language model whose last answer is remembered."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.name, self.answer = model, model.name, ""

    def write(self, conversation: Any, most: int) -> Any:
        self.answer = ""
        for piece in self.model.write(conversation, most):
            self.answer += piece
            yield piece


def asked(explanation: Explanation, title: str, names: Names, model: LanguageModel) -> Asked:
    """One reason, asked with nothing kept."""
    from llm4rec.explain.masking import mask
    from llm4rec.explain.rewording import Rewriter
    from llm4rec.explain.vouching import objection, sentences

    masked, heard = mask(explanation, title, names), Heard(model)
    began, times, text = time.perf_counter(), list[float](), ""
    for sentence in Rewriter(heard, names).stream(explanation, title):
        times.append(time.perf_counter() - began)
        text += sentence
    taken, refused = text != explanation.text, ""
    if masked is None:
        refused = "a name that is shown for two things"
    elif masked.text == " ".join(heard.answer.split()):
        refused = "nothing, it is the form again"
    elif not heard.answer:
        refused = "not asked, for nothing speaks for the item"
    elif not taken:
        wrong = (objection(each, masked) for each in sentences(heard.answer, ended=True))
        refused = next((each for each in wrong if each), "no whole reason")
    letters = "" if masked is None else masked.text
    last = time.perf_counter() - began
    return Asked(explanation.text, letters, heard.answer, text, taken, refused, times[0], last)


def wilson(part: int, whole: int) -> tuple[float, float]:
    """95% interval of a share (Wilson, 1927)."""
    z = 1.96
    share, square = part / whole, z * z / whole
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * sqrt(share * (1 - share) / whole + square / (4 * whole))
    return middle - half, middle + half


def summed(found: list[Asked]) -> dict[str, Any]:
    """Times, shares, and what was refused."""
    low, high = wilson(sum(each.taken for each in found), len(found))
    by_letters = {each.letters: each.taken for each in found}
    seconds = {"first word": [each.first for each in found], "end": [each.last for each in found]}
    return {
        "reasons": len(found),
        "taken": {"mean": float(np.mean([each.taken for each in found])), "low": low, "high": high},
        "in letters": {"different": len(by_letters), "taken": float(np.mean(list(by_letters.values())))},
        "refused": dict(Counter(each.refused for each in found if not each.taken).most_common()),
        "seconds": {
            name: {"p50": float(np.median(values)), "p95": float(np.quantile(values, 0.95))}
            for name, values in seconds.items()
        },
    }


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.explain.language_model import open_language_model
    from llm4rec.explain.rewording import Rewriter
    from llm4rec.explain.verify import Names
    from llm4rec.recommender import Recommender
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a fitted model with histories")
    parser.add_argument("--llm", default="smollm2", help="as for `llm4rec recommend`")
    parser.add_argument("--people", type=int, default=200, help="people who are drawn")
    parser.add_argument("--n", type=int, default=10, help="recommendations that one of each is drawn from")
    parser.add_argument("--shown", type=int, default=20, help="examples that are written out, the first ones")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    model = Recommender.load(options.model)
    writes = open_language_model(options.llm, model.config.model.backbone)
    names = Names.of(model.catalog)
    reasons = drawn(model, options.people, options.n, options.seed)
    found = [asked(explanation, title, names, writes) for explanation, title in reasons]
    for each in found[: options.shown]:
        print(f"- {each.plain}\n  {each.text if each.taken else '(the plain form)'}", flush=True)
    kept, began = Rewriter(writes, names), time.perf_counter()
    again = [kept.reword(explanation, title).text for explanation, title in reasons]
    told = summed(found) | {
        "kept": {
            "seconds per reason": (time.perf_counter() - began) / len(reasons),
            "same": float(np.mean([a == each.text for a, each in zip(again, found, strict=True)])),
        },
        "examples": [each._asdict() for each in found[: options.shown]],
    }
    print(json.dumps({name: value for name, value in told.items() if name != "examples"}), flush=True)
    files.write_json(told, options.out)


if __name__ == "__main__":
    main()
