"""How far texts agree with XRec's reference explanations, each beside the reference of another case.

    python benchmarks/xrec.py --data xrec-google --model google --fit --set train.epochs=4 --out google.json
    python benchmarks/xrec.py --data xrec-google --model google --texts other.parquet --out google.json

--data is a folder with XRec's cases (explanations.parquet), interactions.parquet and items.parquet. Every
event of a (person, item) pair among the cases is taken out; the model is fitted on all others of every split
part, without times (most events have none) and without people's features (their summaries were written from
their reviews, perhaps of what is asked about). Of the items it reads title and summary. --fit makes that
model, with --config and --set KEY=VALUE; else the one in --model is read, which must not know any of the
pairs.

Each pair is explained from the person's other events. Scored beside these plain forms are XRec's own
outputs, the items' summaries and titles as they stand in the data, which say nothing of a person, and with
--texts the texts of a Parquet file (user_id, item_id, text; its stem is the name of the system). Where a
system has no text for some cases, all are compared on those where each has one, and the others are told on
all cases as well. Items without a title are named by their ids: where the plain form names something and all
of it by title is told by itself.

BLEU-4 is sacrebleu's (13a tokens, case kept, exponential smoothing), of the corpus, and the mean of
sentences (by effective order); ROUGE-L is the F1 of rouge-score without stemming; similarity is the cosine
of all-MiniLM-L6-v2 vectors. The control scores each text against the reference of another case, drawn so
that it is of another title: what is left above it is what a text says of its own case. Sentence figures are
means over people of their cases' means. Intervals are 95% percentile bootstraps over people, who are the
same in both terms of a difference.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from llm4rec.encode.text import TextEncoder
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config

Array = npt.NDArray[Any]
PAIR = ("user_id", "item_id")
OURS, XREC, SUMMARY, TITLE = "plain forms", "XRec", "item summary", "item title"
DRAWS = 2000
ORDERS = 4
"""Longest n-grams of BLEU."""


class Scored(NamedTuple):
    """Texts against as many references.

    Attributes:
        cases: metric → value of each case [c].
        counts: n-grams of each order that match, n-grams of each order, tokens of text and of reference
            [c, 2 · ORDERS + 2], of which BLEU is made.
    """

    cases: dict[str, Array]
    counts: Array


def read_cases(folder: Path) -> pl.DataFrame:
    """XRec's cases.

    Raises:
        InputError: where a pair is there twice, for which text is whose would be unknown.
    """
    from llm4rec.errors import InputError

    file = folder / "explanations.parquet"
    cases = pl.read_parquet(file)
    twice = cases.filter(cases.select(PAIR).is_duplicated())
    if len(twice):
        user, item = twice.select(PAIR).row(0)
        raise InputError(f"{file} has the pair ({user}, {item}) more than once: keep one row of each.")
    return cases


def other_events(folder: Path, cases: pl.DataFrame) -> pl.DataFrame:
    """Person and item of every event but those of the cases, in the order of the file."""
    events = pl.read_parquet(folder / "interactions.parquet", columns=list(PAIR))
    return events.join(cases, on=PAIR, how="anti", maintain_order="left")


def fitted(folder: Path, cases: pl.DataFrame, config: Config) -> Recommender:
    """A model of all events but those of the cases."""
    from llm4rec.data.entities import read_entities
    from llm4rec.data.events import build_log
    from llm4rec.recommender import Recommender

    kinds: dict[str, Any] = {"title": "text", "item_summary": "text"}
    catalog, _, _ = read_entities(str(folder / "items.parquet"), "item", {}, kinds)
    events = other_events(folder, cases)
    return Recommender.fit(build_log(events["user_id"], catalog.numbers(events["item_id"])), catalog, config)


def explained(model: Recommender, cases: pl.DataFrame) -> pl.DataFrame:
    """The plain form of each case and ids of what it names of the history; columns text, cited.

    Raises:
        InputError: where the model has a case's item in the person's history, or knows nothing of the person.
    """
    from llm4rec.errors import InputError
    from llm4rec.types import Query

    texts, cited = [""] * len(cases), [list[str]()] * len(cases)
    rows = cases.select(PAIR).with_row_index()
    for (user,), own in rows.group_by("user_id", maintain_order=True):
        known, items = model.known_history(str(user)), own["item_id"].to_list()
        if known is None:
            raise InputError(f"The model has no history of the person {user}: fit it with --fit.")
        seen = set(model.catalog.ids[known.items].to_list())
        if not seen.isdisjoint(items):
            raise InputError(
                f"The model was fitted on events of the cases, one of them of the person {user}: make it "
                "with --fit, which leaves them out."
            )
        reasons = model.explain_each(Query(user=str(user)), items)
        for row, item, reason in zip(own["index"], items, reasons, strict=True):
            title = model.catalog.titles[int(model.catalog.numbers(pl.Series([item]))[0])]
            labels = {each.label: each.id for each in reason.evidence if each.type == "history_item"}
            texts[row], cited[row] = reason.text, named(reason.text, title, labels)
    return pl.DataFrame({"text": texts, "cited": cited}, schema_overrides={"cited": pl.List(pl.String)})


def named(text: str, title: str, labels: Mapping[str, str]) -> list[str]:
    """Ids of the items of the history that a plain form names, in its order, out of label → id.

    The recommended item's own title is one of the names of every form and counts as that once.
    """
    from llm4rec.explain.verify import QUOTED
    from llm4rec.explain.writer import shown

    names, ids = QUOTED.findall(text), {shown(label): id for label, id in labels.items()}
    names.remove(shown(title))
    return [ids[name] for name in names if name in ids]


def read_texts(file: Path, cases: pl.DataFrame) -> list[str | None]:
    """The text of a file for each case, None where it has none.

    Raises:
        InputError: where the file has a pair twice, or one that is no case.
    """
    from llm4rec.errors import InputError

    given = pl.read_parquet(file, columns=[*PAIR, "text"])
    if given.select(PAIR).is_duplicated().any():
        raise InputError(f"{file} has two texts for one pair: keep one row of each user_id and item_id.")
    strange = given.join(cases, on=PAIR, how="anti")
    if len(strange):
        raise InputError(
            f"{file} has a text for {strange.select(PAIR).row(0)}, which is no case of the data."
        )
    return cases.join(given, on=PAIR, how="left", maintain_order="left")["text"].to_list()


def deranged(titles: Sequence[str], rng: np.random.Generator) -> Array:
    """For each case another one [c] of another title, each taken once.

    Cases of a title stand together, titles and the cases of each in random order, and everybody takes the
    one that is as far on as the most common title has cases.

    Raises:
        InputError: where more than half of the cases are of one title, for then there is no such choice.
    """
    from llm4rec.errors import InputError

    _, groups, sizes = np.unique(
        [each.casefold() for each in titles], return_inverse=True, return_counts=True
    )
    most = int(sizes.max(initial=0))
    if 2 * most > len(groups):
        raise InputError(
            f"{most} of {len(groups)} cases have one title: no control can be drawn. Give more cases."
        )
    order = np.lexsort((rng.random(len(groups)), rng.permutation(len(sizes))[groups]))
    found = np.empty(len(groups), dtype=np.int64)
    found[order] = np.roll(order, -most)
    return found


def scored(texts: Sequence[str], references: Sequence[str], similarity: Array) -> Scored:
    """Each text against the reference of the same place, whose similarity [c] is known."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    bleu, rouge = BLEU(smooth_method="exp", effective_order=True), RougeScorer(["rougeL"])
    sentences, overlap, counts = [], [], []
    for text, reference in zip(texts, references, strict=True):
        found = bleu.sentence_score(text, [reference])
        sentences.append(found.score)
        counts.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
        overlap.append(rouge.score(reference, text)["rougeL"].fmeasure)
    cases = {"sentence BLEU-4": np.array(sentences), "ROUGE-L": np.array(overlap), "similarity": similarity}
    return Scored(cases, np.array(counts))


def corpus_bleu(counts: Array) -> float:
    """BLEU-4 (0 to 100) of counts that are summed over sentences [2 · ORDERS + 2]."""
    from sacrebleu.metrics import BLEU

    each = np.rint(counts).astype(int).tolist()
    return BLEU.compute_bleu(
        each[:ORDERS], each[ORDERS : 2 * ORDERS], each[-2], each[-1], smooth_method="exp"
    ).score


def drawn_people(people: Array, seed: int) -> tuple[Array, Array]:
    """Each case's person [c], and how often each person counts [1 + DRAWS, p]: once, then as drawn."""
    _, person = np.unique(people, return_inverse=True)
    n = int(person.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    return person, np.concatenate([np.ones((1, n), dtype=np.int64), drawn])


def figures(found: Scored, person: Array, weights: Array) -> dict[str, Array]:
    """Metric → its value, then that of each draw of people [1 + DRAWS]."""
    from llm4rec.evaluate.protocol import person_means

    n = weights.shape[1]
    summed = np.stack([np.bincount(person, weights=each, minlength=n) for each in found.counts.T], axis=1)
    told = {"corpus BLEU-4": np.array([corpus_bleu(each) for each in weights @ summed])}
    return told | {name: weights @ person_means(each, person) / n for name, each in found.cases.items()}


def ends(values: Array) -> dict[str, float]:
    """A figure, the first of `values`, with the 95% interval of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def titles_known(folder: Path, cases: pl.DataFrame) -> tuple[set[str], list[list[str]]]:
    """Ids of the items that have a title, and the titles of each case's history as they are shown.

    What is called as the case's own item is left out: a text that has the name may mean that.
    """
    from llm4rec.explain.writer import shown

    items = pl.read_parquet(folder / "items.parquet", columns=["item_id", "title"]).drop_nulls()
    events = other_events(folder, cases).join(items, on="item_id")
    known: dict[str, list[str]] = dict(events.group_by("user_id").agg("title").iter_rows())
    pairs = cases.select("user_id", "title").iter_rows()
    of_cases = [sorted({*map(shown, known.get(user, []))} - {shown(title)}) for user, title in pairs]
    return {*items["item_id"]}, of_cases


def mentions(text: str, titles: Sequence[str]) -> bool:
    """Whether a text has one of some titles as it is shown; one of a single word only in quotation marks."""
    for title in titles:
        quotes = ("", "") if " " in title else ("[“\"']", "[,.]?[”\"']")
        if re.search(rf"(?<!\w){quotes[0]}{re.escape(title)}{quotes[1]}(?!\w)", text):
            return True
    return False


def compared(
    cases: pl.DataFrame,
    texts: Mapping[str, Sequence[str]],
    histories: Sequence[Sequence[str]],
    vectors: Mapping[str, Array],
    seed: int,
) -> dict[str, Any]:
    """All figures of systems on the same cases, in each of which the person's history has some titles.

    `vectors` has a unit vector of every text and reference.
    """
    references = cases["reference_explanation"].to_list()
    other = deranged(cases["title"].to_list(), np.random.default_rng(seed))
    person, weights = drawn_people(cases["user_id"].to_numpy(), seed)
    shuffled, theirs = [references[row] for row in other], np.stack([vectors[each] for each in references])
    values: dict[str, dict[str, dict[str, Array]]] = {}
    systems: dict[str, Any] = {}
    for name, said in texts.items():
        mine = np.stack([vectors[each] for each in said])
        own = scored(said, references, (mine * theirs).sum(axis=1))
        control = scored(said, shuffled, (mine * theirs[other]).sum(axis=1))
        of_own, of_control = (figures(each, person, weights) for each in (own, control))
        values[name] = {
            metric: {"own": each, "control": of_control[metric], "over control": each - of_control[metric]}
            for metric, each in of_own.items()
        }
        systems[name] = {
            "metrics": {metric: mapped(each) for metric, each in values[name].items()},
            "different texts": len(set(said)) / len(said),
            "tokens": float(own.counts[:, -2].mean()),
            "name a title of the history": float(np.mean(list(map(mentions, said, histories)))),
        }
    first, *others = values
    return {
        "cases": len(cases),
        "people": weights.shape[1],
        "tokens of references": float(own.counts[:, -1].mean()),
        "systems": systems,
        "differences": {
            f"{first} - {name}": {
                metric: mapped({part: each[part] - values[name][metric][part] for part in each})
                for metric, each in values[first].items()
            }
            for name in others
        },
    }


def mapped(parts: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """Every part of a figure with its interval."""
    return {part: ends(each) for part, each in parts.items()}


def sets(
    texts: Mapping[str, Sequence[str | None]], clear: npt.NDArray[np.bool_]
) -> dict[str, tuple[Array, list[str]]]:
    """Rows of the cases that are told of, and systems that have a text for each of them.

    Args:
        texts: of each system, None where it has none.
        clear: whether the plain form of a case names items by titles alone [c].

    Raises:
        InputError: where no case has a text of every system.
    """
    from llm4rec.errors import InputError

    has = {name: np.array([text is not None for text in said]) for name, said in texts.items()}
    same = np.logical_and.reduce(list(has.values()))
    if not same.any():
        raise InputError(f"There is no case with a text of each of: {', '.join(texts)}.")
    found = {"same cases": (np.flatnonzero(same), list(texts))}
    if not same.all():
        found["all cases"] = np.arange(len(same)), [name for name, there in has.items() if there.all()]
    if (same & clear).any():
        found["same cases, titles alone"] = np.flatnonzero(same & clear), list(texts)
    return found


def citations(cited: pl.Series, titled: set[str]) -> dict[str, float]:
    """Shares of plain forms by what they name of the history; `titled` are ids of items with a title."""
    lists = cited.to_list()
    return {
        "name an item of the history": float(np.mean([len(ids) > 0 for ids in lists])),
        "name one without a title": float(np.mean([not titled.issuperset(ids) for ids in lists])),
        "name none with a title": float(np.mean([titled.isdisjoint(ids) for ids in lists])),
        "names": float(sum(map(len, lists))),
        "names without a title": float(sum(id not in titled for ids in lists for id in ids)),
    }


def told(found: Mapping[str, Any]) -> None:
    """The figures in lines: each beside its control, and what is over it."""
    for which, each in found["sets"].items():
        print(f"{which}: {each['cases']:,} of {each['people']:,} people")
        for name, system in {**each["systems"], **each["differences"]}.items():
            for metric, parts in system.get("metrics", system).items():
                line = "  ".join(
                    f"{part} {v['value']:.4f} [{v['low']:.4f}, {v['high']:.4f}]" for part, v in parts.items()
                )
                print(f"  {name:32} {metric:16} {line}")
    print(found["plain forms"], flush=True)


def sentence_encoder() -> TextEncoder:
    """all-MiniLM-L6-v2.

    Raises:
        InputError: where it is not installed: similarity by spelling would be another figure.
    """
    from llm4rec.encode.text import TextConfig, open_encoder
    from llm4rec.errors import InputError

    encoder, notes = open_encoder(TextConfig(), n_texts=0)
    if encoder.kind != "minilm":
        raise InputError(" ".join(notes))
    return encoder


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.config import load
    from llm4rec.recommender import Recommender
    from llm4rec.settings import Config
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with XRec's cases, events and items")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--fit", action="store_true", help="fit it first")
    parser.add_argument("--config", type=Path, help="configuration file (TOML) of the fit")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the fit, may be repeated")
    parser.add_argument("--texts", type=Path, action="append", default=[], help="other texts (Parquet)")
    parser.add_argument("--keep", type=Path, help="write the plain forms here (Parquet)")
    parser.add_argument("--seed", type=int, default=0, help="of the control and the intervals")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    encoder, cases = sentence_encoder(), read_cases(options.data)
    texts: dict[str, Sequence[str | None]] = {
        OURS: [],
        XREC: cases["xrec_output"].to_list(),
        SUMMARY: cases["item_summary"].to_list(),
        TITLE: cases["title"].to_list(),
    }
    texts |= {file.stem: read_texts(file, cases) for file in options.texts}
    if options.fit:
        config = load(Config, file=options.config, settings=options.set)
        fitted(options.data, cases, config).save(options.model)
    model = Recommender.load(options.model)
    plain = explained(model, cases)
    texts[OURS] = plain["text"].to_list()
    if options.keep is not None:
        pl.concat([cases.select(PAIR), plain], how="horizontal").write_parquet(options.keep)
    titled, others = titles_known(options.data, cases)
    found: dict[str, Any] = {
        "events": model.meta["n_events"],
        "seed": options.seed,
        "plain forms": citations(plain["cited"], titled),
        "sets": {},
    }
    every = sorted({each for said in texts.values() for each in said if each is not None})
    every += sorted({*cases["reference_explanation"]} - {*every})
    vectors = dict(zip(every, encoder.encode(every), strict=True))
    clear = np.array([len(ids) > 0 and titled.issuperset(ids) for ids in plain["cited"].to_list()])
    for which, (rows, names) in sets(texts, clear).items():
        chosen = {name: [texts[name][row] or "" for row in rows] for name in names}
        some = [others[row] for row in rows]
        found["sets"][which] = compared(cases[rows], chosen, some, vectors, options.seed)
    told(found)
    files.write_json(found, options.out)


if __name__ == "__main__":
    main()
