import datetime
import zipfile
from pathlib import Path

import polars as pl
import pytest

from llm4rec.data.ingest import ingest
from llm4rec.data.sources import get, kuairec, origin
from llm4rec.data.split import given
from llm4rec.errors import InputError

HEAD = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
FILES = {
    "big_matrix.csv": HEAD
    + "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.2733965215790926\n"
    + "0,9,0,10000,2020-07-06 00:00:00.0,20200706,1593964800.0,0.0\n"
    + "2,9,20000,10000,2020-07-05 00:00:00.5,20200705,1593878400.5,2.0\n",
    "small_matrix.csv": HEAD
    + "0,148,5,10,2020-07-05 05:27:48.378,20200705.0,1593898068.378,0.5\n"
    + "2,148,1,10,,,,0.1\n",
    "user_features.csv": "user_id,user_active_degree,is_lowactive_period,follow_user_num,"
    "follow_user_num_range,fans_user_num,friend_user_num,register_days,onehot_feat4\n"
    '0,high_active,0,5,"(0,10]",0,0,107,2.0\n1,UNKNOWN,0,386,"(250,500]",4,2,327,\n',
    "item_categories.csv": 'video_id,feat\n9,[8]\n148,"[27, 9]"\n',
    "item_daily_features.csv": "video_id,date,author_id,video_type,upload_dt,upload_type,visible_status,"
    "video_duration,video_width,video_height,music_id,video_tag_id,video_tag_name,show_cnt\n"
    "9,20200705,3309,NORMAL,2020-03-30,ShortImport,public,5966.0,720,1280,3350323409,841,建筑,4\n"
    "9,20200706,3309,NORMAL,2020-03-30,LongImport,private,5966.0,720,1280,3350323409,841,建筑,40\n"
    "148,20200705,7,AD,2020-07-01,Web,public,,576,1024,-1,-124,,9\n",
    "kuairec_caption_category.csv": "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,"
    "first_level_category_name,second_level_category_id,second_level_category_name,third_level_category_id,"
    'third_level_category_name\n9,UNKNOWN,"so, ""sweet"" #dog","[博美,萌宠]",17,宠物,233,日常,1169,宠物狗\n'
    "148,hi,,[],8,颜值,673,美女,-124,UNKNOWN\n",
}


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def lay(folder: Path, changed: dict[str, str | None] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **(changed or {})}.items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")


def check(out: Path) -> None:
    ratio = 1.2733964920043945  # the nearest number of 32 bits
    assert table(out, "interactions").rows() == [
        ("0", "3649", ratio, 1593878903, "train"),
        ("0", "9", 0.0, 1593964800, "train"),
        ("2", "9", 2.0, 1593878400, "train"),
        ("0", "148", 0.5, 1593898068, "test"),
        ("2", "148", pytest.approx(0.1), None, "test"),
    ]
    users = table(out, "users")
    assert users.columns[:2] == ["user_id", "user_active_degree"]
    assert users.rows() == [
        ("0", "high_active", "0", 5, "(0,10]", 0, 0, 107, "2"),
        ("2", *[None] * 8),
        ("1", None, "0", 386, "(250,500]", 4, 2, 327, None),
    ]
    first, second, third = table(out, "items").rows(named=True)
    assert first == {
        "item_id": "9",
        "tags": ["8"],
        "author_id": "3309",
        "video_type": "NORMAL",
        "upload_date": datetime.date(2020, 3, 30),
        "upload_type": "ShortImport",
        "video_duration": 5966.0,
        "video_width": 720,
        "video_height": 1280,
        "music_id": "3350323409",
        "video_tag": "建筑",
        "cover_text": None,
        "caption": 'so, "sweet" #dog',
        "topic_tags": ["博美", "萌宠"],
        "category_1": "宠物",
        "category_2": "日常",
        "category_3": "宠物狗",
    }
    assert second["item_id"] == "148" and second["tags"] == ["27", "9"] and second["topic_tags"] == []
    assert second["video_duration"] is None and second["category_3"] is None and second["caption"] is None
    assert third == {**dict.fromkeys(first), "item_id": "3649"}


def test_every_table_of_the_set(tmp_path: Path) -> None:
    lay(tmp_path / "KuaiRec 2.0" / "data")
    notes = get("kuairec", tmp_path / "out", source_dir=tmp_path)  # two folders above the files
    check(tmp_path / "out")
    assert "CC BY-SA 4.0" in notes[0]
    assert any(note.startswith("1 rows have no time") for note in notes)
    assert any(note.startswith("1 watched videos are not described") for note in notes)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]


def test_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "KuaiRec.zip", "w") as bundle:
        for name, text in FILES.items():
            bundle.writestr(f"KuaiRec 2.0/data/{name}", text)

    def fetch(remote: origin.Remote, folder: Path, **_: object) -> Path:
        assert remote == kuairec.ARCHIVE and remote.md5 is not None
        return tmp_path / "KuaiRec.zip"

    monkeypatch.setattr(origin, "fetch", fetch)
    get("kuairec", tmp_path / "out")
    check(tmp_path / "out")


def test_without_the_tables_beside_the_matrices_it_says_so(tmp_path: Path) -> None:
    beside = list(FILES)[2:]
    lay(tmp_path / "raw", dict.fromkeys(beside))
    notes = get("kuairec", tmp_path / "out", source_dir=tmp_path / "raw")
    assert table(tmp_path / "out", "users").rows() == [("0",), ("2",)]
    assert table(tmp_path / "out", "items").rows() == [("3649",), ("9",), ("148",)]
    for name in beside:
        assert any(note.startswith(f"There is no {name}") for note in notes)


def test_wrong_rows_are_set_aside(tmp_path: Path) -> None:
    lay(
        tmp_path / "raw",
        {
            "big_matrix.csv": FILES["big_matrix.csv"] + "0,9,1,1,t,d,1.0,inf\n0,9,1,1\n0,9,1,1,t,d,soon,1\n",
            "item_categories.csv": FILES["item_categories.csv"] + "10\n,[8]\n",
        },
    )
    notes = get("kuairec", tmp_path / "out", source_dir=tmp_path / "raw")
    check(tmp_path / "out")
    assert table(tmp_path / "out", "rejected").select("file", "row", "column").rows() == [
        ("big_matrix.csv", 5, "watch_ratio"),
        ("big_matrix.csv", 6, None),
        ("big_matrix.csv", 7, "timestamp"),
        ("item_categories.csv", 4, None),
        ("item_categories.csv", 5, "video_id"),
    ]
    assert notes[-1].startswith("5 rows could not be read")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("small_matrix.csv", None, r"lacks small_matrix\.csv, which belongs to KuaiRec"),
        ("big_matrix.csv", None, r"neither big_matrix\.csv nor KuaiRec\.zip.*zenodo.*--from DIR"),
        ("small_matrix.csv", "user_id,video_id\n1,2\n", r"row 1, must name the column 'watch_ratio' once"),
        ("small_matrix.csv", HEAD, r"small_matrix\.csv is empty"),
        ("item_categories.csv", "video_id,tags\n1,[2]\n", r"item_categories\.csv, row 1.*'feat'"),
        ("user_features.csv", "", r"user_features\.csv is empty"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, text: str | None, said: str) -> None:
    lay(tmp_path / "raw", {file: text})
    with pytest.raises(InputError, match=said):
        get("kuairec", tmp_path / "out", source_dir=tmp_path / "raw")
    assert not (tmp_path / "out").exists()


def test_the_split_is_read_where_the_times_that_contradict_it_are_left_out(tmp_path: Path) -> None:
    lay(tmp_path / "raw")
    out = tmp_path / "out"
    get("kuairec", out, source_dir=tmp_path / "raw")
    files = [str(out / f"{name}.parquet") for name in ("interactions", "items", "users")]
    found = ingest(*files)
    assert found.parts is not None
    with pytest.raises(InputError, match="all of train must come before"):
        given(found.log, found.parts)
    table(out, "interactions").drop("timestamp").write_parquet(files[0])
    found = ingest(*files)
    assert found.parts is not None
    split = given(found.log, found.parts)
    assert split.train.n_events == 3 and len(split.test) == 2
