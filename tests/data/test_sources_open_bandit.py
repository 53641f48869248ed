import zipfile
from pathlib import Path

import polars as pl
import pytest

from llm4rec.data.sources import get, origin
from llm4rec.errors import DownloadError, InputError

ITEMS = ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n"
LOG = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,"
    "user_feature_3,user-item_affinity_0,user-item_affinity_1\n"
)
LOGS = [(policy, campaign) for policy in ("random", "bts") for campaign in ("all", "men", "women")]


def files(*logs: tuple[str, str]) -> dict[str, str]:
    """The publisher's files of the logs: two impressions each, of which the second is clicked."""
    found: dict[str, str] = {}
    for policy, campaign in logs:
        code = f"{policy}-{campaign}"
        found[f"{policy}/{campaign}/{campaign}.csv"] = (
            f"{LOG}0,2019-11-24 00:00:34.762830+00:00,1,3,0,0.5,{code},b,c,d,0.0,2.0\n"
            f"1,2019-11-24 09:00:35.999999+09:00,0,1,1,1.0,{code},b,c,d,1.0,0.0\n"
        )
        found[f"{policy}/{campaign}/item_context.csv"] = f"{ITEMS}0,0,-0.5,{code},y,z\n1,1,0.25,{code},y,z\n"
    return found


def lay(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def check(out: Path) -> None:
    impressions = table(out, "impressions")
    assert impressions.columns == [
        "policy",
        "campaign",
        "timestamp",
        "item_id",
        "position",
        "click",
        "propensity",
        "user_feature_0",
        "user_feature_1",
        "user_feature_2",
        "user_feature_3",
        "user_item_affinity",
    ]
    # 2019-11-24 00:00:34 UTC; nine hours ahead of it, the second row is one second later
    assert impressions.rows()[6:8] == [
        ("bts", "all", 1574553634, "all:1", 3, 0, 0.5, "bts-all", "b", "c", "d", [0.0, 2.0]),
        ("bts", "all", 1574553635, "all:0", 1, 1, 1.0, "bts-all", "b", "c", "d", [1.0, 0.0]),
    ]
    assert impressions.select("policy", "campaign").rows() == [log for log in LOGS for _ in range(2)]
    assert table(out, "items").rows() == [
        (f"{campaign}:{number}", campaign, feature, f"random-{campaign}", "y", "z")
        for campaign in ("all", "men", "women")
        for number, feature in enumerate((-0.5, 0.25))
    ]
    assert sorted(path.name for path in out.iterdir()) == ["impressions.parquet", "items.parquet"]


def test_every_table_of_the_set(tmp_path: Path) -> None:
    lay(tmp_path / "raw" / "open_bandit_dataset", files(*LOGS))
    notes = get("open-bandit", tmp_path / "out", source_dir=tmp_path / "raw")
    check(tmp_path / "out")
    assert "CC BY 4.0" in notes[0] and not any("no log of" in note for note in notes)


def test_from_its_archive_with_a_shadow_of_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "open_bandit_dataset.zip", "w") as bundle:
        for name, text in files(*LOGS).items():
            bundle.writestr(f"__MACOSX/open_bandit_dataset/{name}", "shadow")
            bundle.writestr(f"open_bandit_dataset/{name}", text)
    get("open-bandit", tmp_path / "out", source_dir=tmp_path)
    check(tmp_path / "out")

    def fetch(remote: origin.Remote, folder: Path, **_: object) -> Path:
        assert remote.url == "https://research.zozo.com/data_release/open_bandit_dataset.zip"
        return tmp_path / "open_bandit_dataset.zip"

    monkeypatch.setattr(origin, "fetch", fetch)
    notes = get("open-bandit", tmp_path / "again")
    check(tmp_path / "again")
    assert any("SHA-256 of the first download" in note for note in notes)


def test_some_of_the_logs_will_do_and_the_others_are_named(tmp_path: Path) -> None:
    contents = files(("bts", "men"))
    del contents["bts/men/item_context.csv"]
    lay(tmp_path / "raw", contents)
    notes = get("open-bandit", tmp_path / "out", source_dir=tmp_path / "raw")
    assert table(tmp_path / "out", "impressions").height == 2
    assert sorted(table(tmp_path / "out", "items").rows()) == [("men:0", None), ("men:1", None)]
    assert sum(note.startswith("There is no log of") for note in notes) == 5
    assert any(note.startswith("2 items that were shown are not described") for note in notes)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("timestamp", "2019-11-24 00:00:34"),
        ("item_id", "-1"),
        ("position", "4"),
        ("position", "0"),
        ("click", "2"),
        ("propensity_score", "0.0"),
        ("propensity_score", "1.5"),
        ("propensity_score", "nan"),
        ("user_feature_2", ""),
        ("user-item_affinity_1", "x"),
    ],
)
def test_wrong_rows_are_set_aside(tmp_path: Path, column: str, value: str) -> None:
    contents = files(("random", "men"), ("bts", "men"))
    head, first, second = contents["bts/men/men.csv"].splitlines()
    wrong = dict(zip(head.split(","), first.split(","), strict=True)) | {column: value}
    contents["bts/men/men.csv"] = "\n".join([head, second, ",".join(wrong.values())])
    lay(tmp_path / "raw", contents)
    notes = get("open-bandit", tmp_path / "out", source_dir=tmp_path / "raw")
    assert table(tmp_path / "out", "impressions")["policy"].to_list() == ["random", "random", "bts"]
    ((file, row, at, reason),) = table(tmp_path / "out", "rejected").rows()
    assert (file, row) == ("bts/men/men.csv", 3)
    assert at == ("user-item_affinity_0" if column.startswith("user-item") else column) and "is not" in reason
    assert notes[-1].startswith("1 rows could not be read")


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"neither random/all/all\.csv nor open_bandit_dataset\.zip.*--from DIR"
    ):
        get("open-bandit", tmp_path / "out", source_dir=tmp_path)
    lay(tmp_path / "raw", {"random/men/men.csv": LOG.replace("affinity_0", "affinity_7")})
    with pytest.raises(InputError, match=r"men\.csv, row 1, must name user-item_affinity_0"):
        get("open-bandit", tmp_path / "out", source_dir=tmp_path / "raw")
    lay(tmp_path / "raw", {"random/men/men.csv": LOG.replace("click", "clack")})
    with pytest.raises(InputError, match=r"men\.csv, row 1, must name the column 'click' once"):
        get("open-bandit", tmp_path / "out", source_dir=tmp_path / "raw")
    (tmp_path / "zip").mkdir()
    (tmp_path / "zip" / "open_bandit_dataset.zip").write_bytes(b"no archive")
    with pytest.raises(DownloadError, match="no whole zip file"):
        get("open-bandit", tmp_path / "out", source_dir=tmp_path / "zip")
    with zipfile.ZipFile(tmp_path / "zip" / "open_bandit_dataset.zip", "w") as bundle:
        bundle.writestr("open_bandit_dataset/README.md", "hello")
    with pytest.raises(InputError, match=r"holds no log such as random/all/all\.csv"):
        get("open-bandit", tmp_path / "out", source_dir=tmp_path / "zip")
    assert not (tmp_path / "out").exists()


def test_tables_of_an_earlier_set_make_way(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    pl.DataFrame({"user_id": ["1"]}).write_parquet(out / "interactions.parquet")
    lay(tmp_path / "raw", files(*LOGS))
    get("open-bandit", out, source_dir=tmp_path / "raw")
    check(out)
