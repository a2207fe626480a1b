"""Files at the edge: strict JSON, canonical bytes, hashes, and writes that never leave half a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from curate.errors import TutelageError, WorkspaceError

MOST_NESTED = 200  # a JSON Schema validator gives up at about 250


class DuplicateKeyError(ValueError):
    """A JSON object names the same key twice."""


def _no_duplicates(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        counts = Counter(key for key, _ in items)
        twice = next(key for key, count in counts.items() if count > 1)
        raise DuplicateKeyError(f"the key {twice!r} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON (RFC 8259 has no NaN and no Infinity)")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text} is too large")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)


def parse_json(text: str) -> Any:
    """One JSON value as RFC 8259 has it: no NaN, no Infinity, no key twice, nothing after the value.

    Raises `ValueError` (`DuplicateKeyError` for a repeated key); nesting deeper than `MOST_NESTED` is one too: what
    walks a value later would run out of stack.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_nesting(text, value)
    return value


def check_nesting(text: str, value: Any) -> None:
    """Raise `ValueError` where `value`, which `text` spells, is nested deeper than `MOST_NESTED`."""
    if text.count("[") + text.count("{") > MOST_NESTED and _depth(value) > MOST_NESTED:
        raise ValueError(f"nested more than {MOST_NESTED} deep")


def _depth(value: Any) -> int:
    """How many lists and objects stand inside each other."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def canonical_json(value: Any) -> str:
    """The one spelling of `value` that hashes are taken over: sorted keys, no spaces, UTF-8 as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: JSON's escapes can spell halves of surrogate pairs."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def sha256_text(text: str) -> str:
    """SHA-256 of the UTF-8 bytes, in hex. Lone surrogates are kept apart rather than refused."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_value(value: Any) -> str:
    """SHA-256 of a JSON value's canonical spelling, in hex."""
    return sha256_text(canonical_json(value))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_tree(path: Path) -> str:
    """SHA-256 over a file, or over the relative names and hashes of all files below a directory."""
    if path.is_file():
        return sha256_file(path)
    return sha256_value({str(p.relative_to(path)): sha256_file(p) for p in sorted(path.rglob("*")) if p.is_file()})


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there becomes `path` only when the block succeeds.

    The name is fixed, so what a killed process left is overwritten; who writes one file from several processes locks.
    """
    path = path.resolve()  # a link stays one
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(b"")
        if path.exists():
            shutil.copymode(path, temporary)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # a read-only place holds nothing to take away; the first error is the one to show
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file at once or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, at once or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; raises `TutelageError` that names the file."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TutelageError("there is no such file", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise TutelageError(f"cannot be read as JSON: {error}", where=str(path)) from error


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give an empty directory beside `path` that becomes `path` when the block succeeds. `path` must not exist."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
        temporary.mkdir(parents=True)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def hold(lock: Path, path: Path, seconds: float = 0) -> Iterator[None]:
    """Be the only command that writes `path`; the lock of a killed process is free again at once.

    Raises `WorkspaceError` where another one still writes there after `seconds`, `TutelageError` where none can lock.
    """
    held = FileLock(lock, timeout=seconds)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise WorkspaceError(
            "another tutelage command is writing here",
            where=str(path),
            fix="wait for it to end, then run this command again",
        ) from None
    except (OSError, NotImplementedError) as error:  # read-only, full, or a file system without locks
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        held.release()


def beside(path: Path) -> Path:
    """The lock of a directory that is written as a whole."""
    return path.with_name(f".{path.name}.lock")


_NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_NO_SPACE_TOLD = re.compile(
    rf"os error ({'|'.join(map(str, _NO_SPACE))})\b|iostream error|inline_container|PytorchStreamWriter"
)


@contextmanager
def need_space(path: Path, fix: str) -> Iterator[None]:
    """Tell a full disk as a `TutelageError`; safetensors and PyTorch, when they write, raise errors of their own."""
    try:
        yield
    except Exception as error:
        told = error.errno in _NO_SPACE if isinstance(error, OSError) else _NO_SPACE_TOLD.search(str(error))
        if not told or isinstance(error, TutelageError):
            raise
        raise TutelageError("cannot be written: the disk is full", where=str(path), fix=fix) from error


def unwritable(path: Path, error: OSError | NotImplementedError) -> TutelageError:
    """The error for a file or directory that cannot be written."""
    return TutelageError(
        f"cannot be written: {getattr(error, 'strerror', None) or error}",
        where=str(path),
        fix="check the permissions and the free space there; nothing that was there before has changed",
    )
