"""One writer at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from llm4rec.errors import ArtefactError


@contextmanager
def alone(path: Path) -> Generator[None]:
    """Keep other processes that ask so from writing to `path`; a process that dies holds nothing.

    Raises:
        ArtefactError: where another process holds it.
    """
    path = path.resolve()
    made = [above for above in path.parents if not above.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ArtefactError(
            f"Another run is writing to {path}: wait until it has ended, or name another place."
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # of what was made for the lock, what nothing was written to goes again
            for folder in made:
                folder.rmdir()
