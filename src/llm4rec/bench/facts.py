"""What a published figure has to name: version, commit, machine, command."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import llm4rec

# Sources that show or start runs and have no part in their figures.
APART = ("cli", "bench/tables.py", "bench/render.py", "bench/report.py", "bench/charts.py", "bench/run.py",
         "bench/peers.py", "bench/facts.py", "data/sources", "data/world")  # fmt: skip


def commit() -> str:
    """The git commit the package's source is at, with a mark for uncommitted changes; else the version."""
    source = Path(llm4rec.__file__).parent
    try:
        found = _git(source, "rev-parse", "--short=12", "HEAD")
        changed = _git(source, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return f"version {llm4rec.__version__}"
    return f"{found} with uncommitted changes" if changed else found


def source_hash() -> str:
    """SHA-256 over the sources a run's figures can depend on: a changed model makes old figures stale."""
    root = Path(llm4rec.__file__).parent
    found = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        if not name.startswith(APART):
            found.update(name.encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def machine() -> str:
    """Processor, cores this process may use, threads, and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"{_processor()}, {cores} cores ({threads} for arithmetic), {_memory()}, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )


def command() -> str:
    """The command this process was started by."""
    return shlex.join(["llm4rec", *sys.argv[1:]])


def peak_mib() -> float:
    """The most memory this process has held at once [MiB].

    Linux's own high-water mark is read where there is one: `ru_maxrss` starts at the parent's size.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20) if sys.platform == "darwin" else most / 1024


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _memory() -> str:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB"
    return "memory unknown"
