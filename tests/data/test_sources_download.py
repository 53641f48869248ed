import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llm4rec.data.sources import download
from llm4rec.data.sources.download import Remote, UnreachableError, fetch, unpack
from llm4rec.errors import DownloadError

BODY = bytes(range(256)) * 4096  # 1 MiB
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


@dataclass
class Publisher:
    """A local server's behaviour, and what it was asked."""

    body: bytes = BODY
    etag: str | None = '"one"'
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)  # after how many bytes each of the next answers stops
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


class Server(http.server.HTTPServer):
    publisher: Publisher


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        publisher = self.server.publisher
        publisher.asked.append(self.headers.get("Range"))
        if self.path == "/missing.zip":
            self.send_error(404)
            return
        start = 0
        whole = len(publisher.body)
        wanted = self.headers.get("Range")
        if wanted and publisher.ranges and self.headers.get("If-Range") == publisher.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= whole:
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        if publisher.etag:
            self.send_header("ETag", publisher.etag)
        self.send_header("Content-Length", str(whole - start))
        self.end_headers()
        stop = publisher.breaks.pop(0) if publisher.breaks else whole
        self.wfile.write(publisher.body[start : start + stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.publisher = Publisher()
        server.publisher.url = f"http://127.0.0.1:{server.server_port}/set.zip"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.publisher
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_reused(publisher: Publisher, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, **figures: float) -> None:
        assert stage == "downloading set.zip"
        seen.append((done, total))

    for _ in range(2):
        path = fetch(Remote(publisher.url, MD5), tmp_path, progress=progress)
        assert path.read_bytes() == BODY
    assert publisher.asked == [None]
    assert seen[-1] == (len(BODY), len(BODY))
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]


def test_a_broken_transfer_goes_on_where_it_stopped(publisher: Publisher, tmp_path: Path) -> None:
    publisher.breaks = [300_000, 200_000]
    path = fetch(Remote(publisher.url, MD5), tmp_path)
    assert path.read_bytes() == BODY
    assert publisher.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_run_resumes_what_an_earlier_one_left(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(stage: str, done: int, total: int, **figures: float) -> None:
        raise Killed

    monkeypatch.setattr(download, "BLOCK", 1 << 16)
    with pytest.raises(Killed):
        fetch(Remote(publisher.url, MD5), tmp_path, progress=kill)
    left = (tmp_path / "set.zip.part").stat().st_size
    assert 0 < left < len(BODY) and not (tmp_path / "set.zip").exists()
    assert fetch(Remote(publisher.url, MD5), tmp_path).read_bytes() == BODY
    assert publisher.asked == [None, f"bytes={left}-"]


def test_halves_of_two_versions_are_never_joined(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(b"x" * 1000)
    (tmp_path / "set.zip.part.tag").write_text('"zero"')
    assert fetch(Remote(publisher.url), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(("etag", "ranges"), [(None, True), ('W/"weak"', True), ('"one"', False)])
def test_without_safe_ranges_it_begins_again(
    publisher: Publisher, tmp_path: Path, etag: str | None, ranges: bool
) -> None:
    publisher.etag, publisher.ranges, publisher.breaks = etag, ranges, [300_000]
    assert fetch(Remote(publisher.url, MD5), tmp_path).read_bytes() == BODY


def test_a_part_longer_than_the_file_is_thrown_away(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(b"x" * (len(BODY) + 5))
    (tmp_path / "set.zip.part.tag").write_text('"one"')
    assert fetch(Remote(publisher.url, MD5), tmp_path).read_bytes() == BODY


def test_a_server_that_always_breaks_off_is_given_up(publisher: Publisher, tmp_path: Path) -> None:
    publisher.breaks = [0] * 20
    with pytest.raises(DownloadError, match="broke off 5 times"):
        fetch(Remote(publisher.url, MD5), tmp_path)


def test_a_tampered_download_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    publisher.body = BODY[:-1] + b"!"
    with pytest.raises(DownloadError, match=f"published MD5 {MD5}"):
        fetch(Remote(publisher.url, MD5), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_file_altered_in_the_cache_is_refused(
    publisher: Publisher, tmp_path: Path, md5: str | None
) -> None:
    path = fetch(Remote(publisher.url, md5), tmp_path)
    fetch(Remote(publisher.url, md5), tmp_path)
    path.write_bytes(BODY + b"!")
    with pytest.raises(DownloadError, match="was altered"):
        fetch(Remote(publisher.url, md5), tmp_path)


def test_without_a_published_checksum_the_first_download_sets_one(
    publisher: Publisher, tmp_path: Path
) -> None:
    fetch(Remote(publisher.url), tmp_path)
    assert (tmp_path / "set.zip.sha256").read_text().strip() == hashlib.sha256(BODY).hexdigest()


def test_a_refusal_names_the_address_and_the_remedy(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"missing\.zip.*404.*--from DIR") as caught:
        fetch(Remote(publisher.url.replace("set", "missing")), tmp_path)
    assert not isinstance(caught.value, UnreachableError)


def test_nobody_there_is_told_apart(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 can't be reached"):
        fetch(Remote("http://127.0.0.1:1/set.zip"), tmp_path)


@pytest.mark.parametrize("name", ["../u.data", "/etc/u.data", "a/../../u.data", "..\\u.data", "C:\\u.data"])
def test_an_archive_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as bundle:
        bundle.writestr(name, "x")
    (tmp_path / "into").mkdir()
    with pytest.raises(DownloadError, match="points outside"):
        unpack(tmp_path / "evil.zip", ["u.data"], tmp_path / "into")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["evil.zip", "into"]


def test_only_what_is_wanted_is_unpacked_and_a_broken_archive_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as bundle:
        bundle.writestr("ml/u.data", "rows")
        bundle.writestr("ml/README", "text")
    (tmp_path / "into").mkdir()
    unpack(tmp_path / "set.zip", ["u.data"], tmp_path / "into")
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["u.data"]
    (tmp_path / "set.zip").write_bytes(b"PK no more")
    with pytest.raises(DownloadError, match=r"set\.zip is no whole zip file"):
        unpack(tmp_path / "set.zip", ["u.data"], tmp_path / "into")
