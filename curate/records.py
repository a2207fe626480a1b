"""A record of a foreign file, and what stands in its place where none could be read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

MAX_LINE_BYTES = 64 * 2**20  # a longer line is no record but an accident; reading it could fill the memory


class Record(NamedTuple):
    """One record of a file. `line` is the line it begins at; of Parquet and `datasets` the row, counted from 1."""

    file: str
    line: int
    data: dict[str, Any]


class Unreadable(NamedTuple):
    """What could not be read. `line` is None where it is the whole file."""

    file: str
    line: int | None
    reason: str


def read_lines(handle: IO[bytes]) -> Iterator[tuple[int, bytes | str]]:
    """Number and bytes of each line; a string instead of bytes says why a line cannot be used."""
    number = 0
    while raw := handle.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            while not raw.endswith(b"\n") and (raw := handle.readline(MAX_LINE_BYTES)):
                pass
            yield number, f"the line is longer than {MAX_LINE_BYTES / 2**20:.0f} MiB"
            continue
        if number == 1:
            if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                yield 1, "the file is UTF-16; save it as UTF-8 (iconv -f utf-16 -t utf-8)"
                return
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        yield number, raw


def plain(value: Any) -> Any:
    """A column's value as JSON has it: dates as ISO text, tuples as lists, and NaN, which means missing there, as null.

    Bytes become text where they are UTF-8, else a mark that says how many there were; anything else its text.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return f"<{len(value)} bytes>"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
