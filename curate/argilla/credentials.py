"""Secrets of the Argilla on this machine: made once, in files that only their owner can read."""

from __future__ import annotations

import json
import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

from curate.errors import ServerError
from curate.files import parse_json

_ALPHABET = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKMNPQRSTUVWXYZ23456789"  # nothing that is mistaken for something else


class Credentials(NamedTuple):
    """Who owns the Argilla on this machine."""

    username: str
    password: str
    api_key: str
    secret_key: str


def new_password() -> str:
    """16 letters and digits that can be read aloud: some 92 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(16))


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner can enter, and that git leaves alone."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all; it is never open to others, not for a moment."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def ensure_credentials(home: Path) -> Credentials:
    """The credentials in `home`, made where there are none."""
    path = home / "credentials.json"
    if not path.exists():
        made = Credentials("owner", new_password(), secrets.token_urlsafe(48), secrets.token_hex(32))
        write_private(path, json.dumps(made._asdict(), indent=2) + "\n")
    return read_credentials(home)


def read_credentials(home: Path) -> Credentials:
    """The credentials in `home`; raises `ServerError` where they are damaged. Others lose their right to it."""
    path = home / "credentials.json"
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
        data = parse_json(path.read_text(encoding="utf-8"))
        return Credentials(*(str(data[name]) for name in Credentials._fields))
    except FileNotFoundError:
        raise ServerError("no Argilla has been started here", where=str(home), fix="tutelage curate serve") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"the credentials cannot be read: {error}",
            where=str(path),
            fix="delete the file: the next `tutelage curate serve` makes new ones; reviewers and data stay",
        ) from None
