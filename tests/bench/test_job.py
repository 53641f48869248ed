from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from llm4rec.bench import job
from llm4rec.data.ingest import DataConfig
from llm4rec.errors import InputError

HEADER = "user_id,item_id,timestamp,rating,split"
TRAIN = ["u,a,1,5,train", "u,b,2,5,train"]


def refusal(folder: Path, lines: list[str], config: DataConfig) -> str:
    """What is said of a split file of these lines, whose items are a, b and c."""
    (folder / "s.csv").write_text("\n".join([HEADER, *lines, ""]))
    pl.DataFrame({"item_id": ["a", "b", "c"]}).write_csv(folder / "i.csv")
    source = job.Source(str(folder / "s.csv"), str(folder / "i.csv"), given=True)
    with pytest.raises(InputError) as raised:
        job.read(source, "given", config)
    assert str(raised.value).startswith(str(folder / "s.csv"))
    return str(raised.value)


@pytest.mark.parametrize(
    ("lines", "config", "says"),
    [
        (TRAIN, DataConfig(), "has nothing to ask: no event that counts is test in the column 'split'. Mark"),
        (["u,a,1,5,test"], DataConfig(), "has nothing to fit on: no event that counts is train"),
        (
            [*TRAIN, "u,c,3,5,tset"],
            DataConfig(),
            "Rows set aside for their column 'split': 1, the first of them row 4, since the split tset",
        ),
        (
            ["u,a,never,5,train", *TRAIN, "u,x,3,5,test", "u,y,4,5,test"],  # the first fault is not the cause
            DataConfig(),
            "Rows set aside for their column 'item_id': 2, the first of them row 5, since the item x",
        ),
        (
            [*TRAIN, "u,c,3,1,test"],
            DataConfig(min_rating=3),
            "Events left out by data.min_rating or data.k_core: 1",
        ),
        (
            ["v,a,1,5,train", "u,a,2,5,train", "u,b,1,5,test"],
            DataConfig(),
            "s.csv, row 3, column 'split': this event of user 'u' is train and follows one that is test, "
            "in row 4",
        ),
    ],
)
def test_an_unusable_split_is_told_why(
    tmp_path: Path, lines: list[str], config: DataConfig, says: str
) -> None:
    assert says in refusal(tmp_path, lines, config)


def test_histories_too_short_to_ask_about_are_named(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("\n".join(["user_id,item_id,timestamp", "u,a,1", "u,b,2", ""]))
    with pytest.raises(InputError, match=r"s\.csv has nothing to ask: .* nobody has three events or more\."):
        job.read(job.Source(str(tmp_path / "s.csv")), "leave-last-out", DataConfig())
