"""The measurement against references: what is scored, on which cases, and what the control is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_explaining import CATALOG, people

from llm4rec.encode.text_encoders import HashEncoder
from llm4rec.errors import InputError
from llm4rec.recommender import Config, Recommender

SMALL = Config.model_validate({
    "encode": {"text": {"encoder": "hash"}},
    "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.1},
    "train": {"epochs": 2, "batch_size": 128, "learning_rate": 0.01, "attention_epochs": 0},
    "retrieve": {"enabled": False},
})


@pytest.fixture(scope="module")
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("xrec")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everybody's last event is a case; items i20 to i23 have no title."""
    made = tmp_path_factory.mktemp("xrec")
    log = people()
    events = pl.DataFrame({
        "user_id": log.user_ids[log.rows],
        "item_id": CATALOG.ids[log.items],
        "split": "train",
    }).unique(["user_id", "item_id"], maintain_order=True)
    items = CATALOG.table.select(
        "item_id",
        pl.when(pl.int_range(pl.len()) < 20).then("title").alias("title"),
        pl.lit("for readers").alias("item_summary"),
    )
    last = events.unique("user_id", keep="last", maintain_order=True).head(12)
    cases = last.join(items, on="item_id", how="left", maintain_order="left").select(
        "user_id",
        "item_id",
        pl.col("title").fill_null("a tale"),
        "item_summary",
        pl.format("The user would enjoy {} now", "item_id").alias("reference_explanation"),
        pl.when(pl.int_range(pl.len()) < 8).then(pl.lit("The user would enjoy it")).alias("xrec_output"),
    )
    events.write_parquet(made / "interactions.parquet")
    items.write_parquet(made / "items.parquet")
    cases.write_parquet(made / "explanations.parquet")
    return made


@pytest.fixture(scope="module")
def model(script: ModuleType, folder: Path) -> Recommender:
    return script.fitted(folder, script.read_cases(folder), SMALL)


# --- figures


def test_figures_are_those_worked_by_hand(script: ModuleType) -> None:
    texts = ["the cat sat on the mat", "a dog", "a b c d"]
    references = ["the cat sat on a mat", "a dog ran", "a b x y"]
    found = script.scored(texts, references, np.array([0.1, 0.2, 0.3]))
    # n-grams that match, n-grams, tokens of both
    assert found.counts.tolist() == [
        [5, 3, 2, 1, 6, 5, 4, 3, 6, 6],
        [2, 1, 0, 0, 2, 1, 0, 0, 2, 3],
        [2, 1, 0, 0, 4, 3, 2, 1, 4, 4],
    ]
    sentences = [
        100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25,
        100 * np.exp(1 - 3 / 2),  # of two words, orders up to 2, all of them right, and too short
        100 * (2 / 4 * 1 / 3 * 1 / (2 * 2) * 1 / (4 * 1)) ** 0.25,  # orders without a match: ½, then ¼ of one
    ]
    assert found.cases["sentence BLEU-4"] == pytest.approx(sentences)
    # longest common subsequences of 5, 2 and 2 words
    assert found.cases["ROUGE-L"] == pytest.approx([5 / 6, 2 * 2 / (2 + 3), 2 / 4])
    assert found.cases["similarity"].tolist() == [0.1, 0.2, 0.3]
    corpus = 100 * np.exp(1 - 9 / 8) * (7 / 8 * 4 / 6 * 2 / 4 * 1 / 3) ** 0.25
    assert script.corpus_bleu(found.counts[:2].sum(axis=0)) == pytest.approx(corpus)


def test_the_corpus_is_that_of_sacrebleu(script: ModuleType) -> None:
    from sacrebleu.metrics import BLEU

    texts, references = (
        ["It's a book, really.", "one two three four five"],
        ["It's a good book.", "one two three"],
    )
    found = script.scored(texts, references, np.zeros(2))
    assert script.corpus_bleu(found.counts.sum(axis=0)) == pytest.approx(
        BLEU().corpus_score(texts, [references]).score
    )


def test_people_count_alike_and_are_drawn_whole(script: ModuleType) -> None:
    person, weights = script.drawn_people(np.array(["b", "a", "b"]), seed=0)
    assert person.tolist() == [1, 0, 1] and weights.shape == (1 + script.DRAWS, 2)
    assert (
        (weights[0] == 1).all() and (weights.sum(axis=1) == 2).all() and len(np.unique(weights[1:, 0])) == 3
    )
    counts = np.array([
        [1, 1, 1, 1, 4, 3, 2, 1, 4, 4],
        [4, 3, 2, 1, 4, 3, 2, 1, 4, 4],
        [0, 0, 0, 0, 4, 3, 2, 1, 4, 4],
    ])
    found = script.figures(script.Scored({"ROUGE-L": np.array([0.0, 1.0, 0.5])}, counts), person, weights)
    assert found["ROUGE-L"][0] == pytest.approx((1 + 0.25) / 2)
    assert found["corpus BLEU-4"][0] == pytest.approx(script.corpus_bleu(counts.sum(axis=0)))
    only_a = weights[:, 0] == 2
    assert found["ROUGE-L"][only_a] == pytest.approx(1) and found["corpus BLEU-4"][only_a] == pytest.approx(
        100
    )
    told = script.ends(found["ROUGE-L"])
    assert (told["low"], told["value"], told["high"]) == pytest.approx((0.25, 0.625, 1))


# --- the control


@given(st.lists(st.sampled_from(["Emma", "emma", "It", "Dune", "Ulysses"]), max_size=12), st.integers(0, 99))
def test_everybody_gets_the_reference_of_another_title_once(
    script: ModuleType, titles: list[str], seed: int
) -> None:
    called = [title.casefold() for title in titles]
    if 2 * max(Counter(called).values(), default=0) > len(called):
        with pytest.raises(InputError, match="cases have one title: no control can be drawn"):
            script.deranged(titles, np.random.default_rng(seed))
        return
    other = script.deranged(titles, np.random.default_rng(seed))
    assert sorted(other) == list(range(len(titles)))
    assert all(called[mine] != called[row] for mine, row in enumerate(other))


def test_the_control_follows_the_seed_alone(script: ModuleType) -> None:
    titles = [f"book {row % 40}" for row in range(100)]
    first, same, another = (script.deranged(titles, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first == same).all() and (first != another).any()


def test_what_says_nothing_of_its_case_is_not_above_the_control(script: ModuleType) -> None:
    n = 12
    cases = pl.DataFrame({
        "user_id": [f"u{row}" for row in range(n)],
        "title": [f"b{row // 2}" for row in range(n)],
        "reference_explanation": [
            f"You would like number {row} as number {row * row} was liked" for row in range(n)
        ],
    })
    texts = {
        "its own": cases["reference_explanation"].to_list(),
        "any": ["You would like number 4 a lot"] * n,
    }
    every = [*texts["its own"], texts["any"][0]]
    vectors = dict(zip(every, HashEncoder().encode(every), strict=True))
    found = script.compared(cases, texts, [[]] * n, vectors, seed=0)
    assert (found["cases"], found["people"]) == (n, n)
    own, constant = (found["systems"][name] for name in texts)
    assert own["different texts"] == 1 and constant["different texts"] == 1 / n
    for metric, most in {"corpus BLEU-4": 100, "sentence BLEU-4": 100, "ROUGE-L": 1, "similarity": 1}.items():
        assert own["metrics"][metric]["own"]["value"] == pytest.approx(most, rel=1e-5)
        assert own["metrics"][metric]["over control"]["low"] > 0
        # the same references are compared with, in another order
        assert constant["metrics"][metric]["over control"]["value"] == pytest.approx(0, abs=1e-6)
        assert constant["metrics"][metric]["over control"]["low"] < 0
        gap = found["differences"]["its own - any"][metric]
        assert gap["own"]["value"] == pytest.approx(
            most - constant["metrics"][metric]["own"]["value"], rel=1e-5
        )
        assert gap["over control"]["value"] == pytest.approx(
            own["metrics"][metric]["over control"]["value"], abs=1e-5
        )


# --- the cases


def test_systems_are_compared_where_all_have_a_text(script: ModuleType) -> None:
    clear = np.array([False, True, True])
    found = script.sets({"ours": ["x", "y", "z"], "XRec": ["x", None, "z"]}, clear)
    assert {name: (rows.tolist(), names) for name, (rows, names) in found.items()} == {
        "same cases": ([0, 2], ["ours", "XRec"]),
        "all cases": ([0, 1, 2], ["ours"]),
        "same cases, titles alone": ([2], ["ours", "XRec"]),
    }
    # an empty text is one, and is scored
    whole = script.sets({"ours": ["x", "y", "z"], "XRec": ["x", "", "z"]}, np.zeros(3, dtype=bool))
    assert [*whole] == ["same cases"] and len(whole["same cases"][0]) == 3
    with pytest.raises(InputError, match="no case with a text of each of: ours, XRec"):
        script.sets({"ours": ["x", None, "z"], "XRec": [None, "y", None]}, clear)


def test_titles_of_a_history_are_those_that_items_have(script: ModuleType, folder: Path) -> None:
    cases = script.read_cases(folder)
    titled, known = script.titles_known(folder, cases)
    assert titled == {f"i{row}" for row in range(20)} and len(known) == len(cases)
    titles = dict(CATALOG.table.select("item_id", "title").iter_rows())
    events = script.other_events(folder, cases)
    for (user, own), found in zip(cases.select("user_id", "title").iter_rows(), known, strict=True):
        theirs = events.filter(pl.col("user_id") == user)["item_id"].to_list()
        assert found == sorted({titles[each] for each in theirs if each in titled} - {own})


def test_other_texts_are_found_by_pair(script: ModuleType, folder: Path, tmp_path: Path) -> None:
    cases = script.read_cases(folder)
    file = tmp_path / "lm.parquet"
    rows = cases[[3, 1]].select("user_id", "item_id", pl.Series("text", ["third", "first"]))
    rows.write_parquet(file)
    found = script.read_texts(file, cases)
    assert (found[1], found[3]) == ("first", "third") and found.count(None) == len(cases) - 2
    pl.concat([rows, rows]).write_parquet(file)
    with pytest.raises(InputError, match="two texts for one pair"):
        script.read_texts(file, cases)
    rows.with_columns(item_id=pl.lit("i99")).write_parquet(file)
    with pytest.raises(InputError, match="is no case of the data"):
        script.read_texts(file, cases)


def test_a_pair_may_be_a_case_once(script: ModuleType, folder: Path, tmp_path: Path) -> None:
    cases = script.read_cases(folder)
    pl.concat([cases, cases[[0]]]).write_parquet(tmp_path / "explanations.parquet")
    with pytest.raises(InputError, match="more than once"):
        script.read_cases(tmp_path)


# --- the model


def test_the_model_knows_no_pair_of_the_cases(script: ModuleType, folder: Path, model: Recommender) -> None:
    cases = script.read_cases(folder)
    events = pl.read_parquet(folder / "interactions.parquet")
    for user, item in cases.select("user_id", "item_id").iter_rows():
        known = model.known_history(user)
        assert known is not None
        names = model.catalog.ids[known.items].to_list()
        told = events.filter(pl.col("user_id") == user)["item_id"].to_list()
        assert names == [each for each in told if each != item]
    assert [(field.name, field.modality) for field in model.catalog.fields] == [
        ("title", "text"),
        ("item_summary", "text"),
    ]


def test_each_case_is_explained_by_its_persons_history(
    script: ModuleType, folder: Path, model: Recommender
) -> None:
    cases = script.read_cases(folder)
    found = script.explained(model, cases)
    assert len(found) == len(cases) and found["cited"].list.len().max() > 0
    titles = dict(model.catalog.table.select("item_id", model.catalog.titles).iter_rows())
    for (user, item), (text, cited) in zip(
        cases.select("user_id", "item_id").iter_rows(), found.select("text", "cited").iter_rows(), strict=True
    ):
        known = model.known_history(user)
        assert known is not None and f"“{titles[item]}”" in text
        assert set(cited) <= set(model.catalog.ids[known.items].to_list())
        assert all(f"“{titles[each]}”" in text for each in cited)


def test_a_model_that_has_seen_the_cases_is_refused(
    script: ModuleType, folder: Path, model: Recommender
) -> None:
    cases = script.read_cases(folder)
    user = cases["user_id"][0]
    known = model.known_history(user)
    assert known is not None
    seen = cases[[0]].with_columns(item_id=pl.lit(model.catalog.ids[known.items][0]))
    with pytest.raises(InputError, match="was fitted on events of the cases"):
        script.explained(model, seen)
    with pytest.raises(InputError, match="has no history of the person nobody"):
        script.explained(model, cases.with_columns(user_id=pl.lit("nobody")))


# --- what texts name


def test_names_in_a_plain_form_are_told_from_its_item(script: ModuleType) -> None:
    labels = {"Dune": "1", "Emma": "2", "4711": "3"}
    assert script.named("You chose “4711” and “Dune”. What … “Emma”.", "Emma", labels) == ["3", "1"]
    assert script.named("“Emma” is much like “Emma”, which you chose.", "Emma", labels) == ["2"]
    assert script.named("“Emma” was chosen more than most things.", "Emma", labels) == []


def test_citations_are_counted_with_and_without_a_title(script: ModuleType) -> None:
    cited = pl.Series([["a", "b"], ["a"], ["b"], []], dtype=pl.List(pl.String))
    assert script.citations(cited, {"a"}) == {
        "name an item of the history": 3 / 4,
        "name one without a title": 2 / 4,
        "name none with a title": 2 / 4,
        "names": 4,
        "names without a title": 2,
    }


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("because they liked Drums of Autumn so much", True),
        ("because they liked drums of autumn", False),
        ("because they liked Drums of Autumnal", False),
        ("because they liked “Emma”", True),
        ('because they liked "Emma," a novel', True),
        ("because Emma liked it", False),  # one word may be any word
    ],
)
def test_a_title_is_found_in_any_text(script: ModuleType, text: str, holds: bool) -> None:
    assert script.mentions(text, ["Emma", "Drums of Autumn"]) == holds
