"""argilla-server's own environment: made on first use from a lock file with hashes, shared by all workspaces.

It cannot be this one: argilla-server 2.8 pins older versions of pydantic, httpx and fastapi than the rest needs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from collections import deque
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from curate.errors import ServerError

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
SUPPORTED = ((3, 11), (3, 13))
_READY = "ready"
_NETWORK = re.compile(
    "NewConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|Temporary failure in name resolution"
    "|Network is unreachable|ProxyError|SSLError|from versions: none"
)


def cache_directory() -> Path:
    """Where environments are kept: `$TUTELAGE_CACHE`, else `tutelage` in the user's cache directory."""
    given = os.environ.get("TUTELAGE_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutelage"


def environment_path(cache: Path) -> Path:
    """Where this lock file's environment for this Python lies; another lock file or Python has another place."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return cache / f"argilla-{digest}-py{sys.version_info.major}.{sys.version_info.minor}"


def pinned() -> list[str]:
    """The lock file's packages as `name==version`."""
    return re.findall(r"^([A-Za-z0-9_.\-]+==[^\s;\\]+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)


def is_ready(cache: Path) -> bool:
    """Whether the environment is there and whole."""
    return (environment_path(cache) / _READY).is_file()


def prepare(cache: Path, report: Callable[[int], None]) -> Path:
    """The environment's Python; made first where it is missing. `report` hears how many packages were reached so far.

    An installation that was broken off is begun anew. Raises `ServerError` where this Python is not supported, or the
    packages cannot be had.
    """
    low, high = SUPPORTED
    if not low <= sys.version_info[:2] <= high:
        raise ServerError(
            f"argilla-server 2.8 runs on Python {low[0]}.{low[1]} to {high[0]}.{high[1]},"
            f" and this is {sys.version_info.major}.{sys.version_info.minor}",
            fix="install tutelage with one of these, or use a hosted Argilla: tutelage curate push --api-url URL",
        )
    target = environment_path(cache)
    python = target / "bin" / "python"
    if is_ready(cache):
        return python
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{target.name}.lock"):
            if not is_ready(cache):
                shutil.rmtree(target, ignore_errors=True)
                venv.create(target, with_pip=True, symlinks=True)
                _install(python, report)
                (target / _READY).touch()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServerError(
            f"the environment of argilla-server cannot be made: {error}",
            where=str(target),
            fix="check the permissions and the free space there (600 MB), or name another place with --cache",
        ) from error
    return python


def _install(python: Path, report: Callable[[int], None]) -> None:
    command: list[str | Path] = [
        *(python, "-I", "-m", "pip", "install", "--require-hashes", "--only-binary=:all:", "--no-deps"),
        *("--no-input", "--progress-bar=off", "--disable-pip-version-check", "--requirement", REQUIREMENTS),
    ]
    tail: deque[str] = deque(maxlen=40)
    reached = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            if line.startswith(("Collecting ", "Processing ", "Requirement already satisfied")):
                reached += 1
                report(reached)
    if process.returncode:
        raise install_error("\n".join(tail))


def install_error(output: str) -> ServerError:
    """What pip's last words mean for the person."""
    if _NETWORK.search(output):
        return ServerError(
            "argilla-server's packages cannot be fetched: the package index does not answer, or has no files for this"
            f" machine ({_last_error(output)})",
            fix="connect this machine to PyPI or a mirror once (pip's own settings, such as PIP_INDEX_URL, hold),"
            " or use a hosted Argilla: tutelage curate push --api-url URL",
        )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in output:
        return ServerError(
            "a package that was fetched is not the one that was locked: its hash differs",
            fix="use another package index; the one in pip's settings hands out changed files",
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()[-3:]
    return ServerError("argilla-server cannot be installed:\n  " + "\n  ".join(errors))


def _last_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no message")
