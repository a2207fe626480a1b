"""Start, watch and end the Argilla on this machine: one child process, gone whenever its parent is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from curate.apikey import without_password
from curate.argilla.credentials import Credentials, ensure_credentials, private_directory, write_private
from curate.errors import ServerError
from curate.files import parse_json

_BOOT = "import sys; sys.path.append(sys.argv.pop()); from embedded.launch import main; main()"
_START_SECONDS, _STOP_SECONDS = 120.0, 1.6


class Options(NamedTuple):
    """How to serve. `database` and `redis` are URLs, None for the ones that need nothing installed."""

    home: Path
    host: str = "127.0.0.1"
    port: int = 6900
    database: str | None = None
    redis: str | None = None

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


@contextmanager
def serving(python: Path, options: Options) -> Iterator[tuple[subprocess.Popen[bytes], Credentials]]:
    """A server that answers, for as long as the block lasts. `python` is that of the server's own environment.

    Raises `ServerError` where the port is taken, the home is served already, or the server does not come up.
    """
    home = private_directory(options.home)
    try:
        with FileLock(home / ".lock", timeout=3):  # one that is just ending may take a moment
            credentials = ensure_credentials(home)
            check_options(options)
            process = _start(python, options, credentials)
            try:
                _wait_until_ready(process, options, credentials)
                write_private(home / "server.json", json.dumps({"url": options.url, "pid": process.pid}) + "\n")
                yield process, credentials
            finally:
                (home / "server.json").unlink(missing_ok=True)
                stop(process)
                shutil.rmtree(home / "tmp", ignore_errors=True)
    except Timeout:
        raise ServerError(
            "an Argilla is served from here already",
            where=str(home),
            fix="use that one (tutelage curate push finds it), or end it first",
        ) from None


def check_options(options: Options) -> None:
    """Refuse what cannot work before a server is started on it."""
    with socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except (OSError, OverflowError) as error:
            raise ServerError(
                f"cannot listen on {options.host}, port {options.port}: {getattr(error, 'strerror', None) or error}",
                fix="choose another one: --port PORT",
            ) from None
    if options.database and not re.match(r"(postgresql|sqlite)(\+\w+)?://", options.database):
        raise ServerError(
            f"--database {without_password(options.database)}: neither PostgreSQL nor SQLite",
            fix="postgresql+asyncpg://user:password@host/name, or leave it out for SQLite in the home directory",
        )
    if options.redis and not re.match(r"rediss?://", options.redis):
        raise ServerError(f"--redis {without_password(options.redis)}: no Redis URL", fix="redis://host:6379/0")


def _start(python: Path, options: Options, credentials: Credentials) -> subprocess.Popen[bytes]:
    temporary = options.home / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # the server unpacks its pages anew at every start
    temporary.mkdir()
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("ARGILLA_", "PYTHON"))}
    log = options.home / "server.log"
    with contextlib.suppress(FileNotFoundError):
        log.replace(options.home / "server.log.1")
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        process = subprocess.Popen(
            [python, "-I", "-c", _BOOT, str(Path(__file__).parent.absolute())],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=options.home,
            env={**keep, "TMPDIR": str(temporary.absolute()), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches us alone; we end the server
            umask=0o077,  # the database holds keys too
        )
    settings = {**options._asdict(), "home": str(options.home.absolute()), **credentials._asdict()}
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], options: Options, credentials: Credentials) -> None:
    request = urllib.request.Request(f"{options.url}/api/v1/me", headers={"X-Argilla-Api-Key": credentials.api_key})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise _start_error(options)
        try:
            with direct.open(request, timeout=5) as answer:
                if parse_json(answer.read().decode()).get("username") == credentials.username:
                    return
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(0.1)
    raise ServerError(
        f"argilla-server has not answered within {_START_SECONDS:.0f} seconds",
        where=str(options.home / "server.log"),
        fix="read that file; if the machine was busy, start again",
    )


def _start_error(options: Options) -> ServerError:
    log = options.home / "server.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if re.match(r"[A-Za-z_.]*(Error|Exception|Refused)\b", line)), "")
    last = last or (lines[-1] if lines else "it said nothing")
    if "redis" in last.lower() or (options.redis and "Connection" in last):
        fix = "check that Redis runs at the URL given with --redis, or leave the option out"
    elif options.database:
        fix = "check the URL given with --database, and that the user may create tables there"
    elif "malformed" in last or "not a database" in last:
        fix = f"put back a copy of {options.home / 'argilla.db'}; what was pulled is safe in review/"
    else:
        fix = f"read {log}"
    return ServerError(f"argilla-server ended while starting: {without_password(last)}", where=str(log), fix=fix)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, within two seconds whatever it does. Its database is safe either way."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def watch(process: subprocess.Popen[bytes], say: Callable[[str], None], home: Path) -> None:
    """Wait until Ctrl-C or SIGTERM; raises `ServerError` where the server ends by itself."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        say("Argilla has ended; what reviewers gave is kept.")
        return
    finally:
        signal.signal(signal.SIGTERM, before)
    raise ServerError(
        f"argilla-server has ended by itself (code {code})",
        where=str(home / "server.log"),
        fix="start it again: tutelage curate serve; what reviewers gave is kept",
    )
