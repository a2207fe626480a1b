"""Files of the usual kinds → records. What cannot be read is named by file, line and reason; the rest goes on."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from curate.errors import PairError
from curate.files import parse_json
from curate.records import Record, Unreadable, read_lines
from curate.tables import read_csv, read_parquet, read_saved_dataset

MAX_JSON_BYTES = 2**30  # a JSON array has to be read whole
KINDS = "JSONL, JSON, CSV, TSV, Parquet, or a directory that `datasets` saved or that holds Parquet files"

_SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".jl"), "jsonl"),
    ".json": "json",
    ".csv": "csv",
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}


def read_records(path: Path) -> Iterator[Record | Unreadable]:
    """Every record of a file or directory, in order, with what could not be read in its place.

    Raises `PairError` where there is no such file or it cannot be opened: a mistyped name must not pass for no records.
    """
    if not path.exists():
        raise PairError("there is no such file", where=str(path))
    if path.is_dir():
        yield from _directory(path)
        return
    name = str(path)
    if not path.is_file():  # a pipe can be read only once, and a look at its start is one time
        yield Unreadable(name, None, "this is no file but a pipe or a device; save it to a file first")
        return
    try:
        with path.open("rb") as raw:
            start = raw.read(8)
    except OSError as error:
        raise PairError(f"cannot be read: {error.strerror}", where=name) from error
    if not start:
        yield Unreadable(name, None, "the file is empty")
        return
    packed = start.startswith(b"\x1f\x8b")
    kind = _kind(path, start, packed)
    if kind is None:
        yield Unreadable(name, None, f"this is none of the kinds that can be read: {KINDS}")
        return
    if kind == "parquet":
        yield from read_parquet(path)
        return
    try:
        with cast(IO[bytes], gzip.open(path, "rb") if packed else path.open("rb")) as handle:
            reader = {"jsonl": _jsonl, "json": _json, "csv": read_csv, "tsv": read_csv}[kind]
            yield from reader(handle, name)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Unreadable(name, None, f"the gzip file is damaged; what follows is lost: {error}")
    except OSError as error:
        yield Unreadable(name, None, f"cannot be read to its end: {error.strerror or error}")


def _kind(path: Path, start: bytes, packed: bool) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".gzip"):
        suffixes.pop()
    if start.startswith(b"PAR1"):
        return "parquet"
    if suffixes and suffixes[-1] in _SUFFIXES:
        return _SUFFIXES[suffixes[-1]]
    if packed:
        return "jsonl"
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return {b"{": "jsonl", b"[": "json"}.get(first)


def _jsonl(handle: IO[bytes], name: str) -> Iterator[Record | Unreadable]:
    for number, raw in read_lines(handle):
        if isinstance(raw, str):
            yield Unreadable(name, number, raw)
        elif raw.strip():
            yield _record(raw, name, number)


def _record(raw: bytes, name: str, number: int) -> Record | Unreadable:
    try:
        return _as_record(parse_json(raw.decode("utf-8")), name, number)
    except UnicodeDecodeError as error:
        return Unreadable(name, number, f"not UTF-8: {error.reason} at byte {error.start}")
    except ValueError as error:
        return Unreadable(name, number, f"not valid JSON: {error}")


def _as_record(value: Any, name: str, number: int) -> Record | Unreadable:
    if isinstance(value, dict):
        return Record(name, number, value)
    return Unreadable(name, number, f"a record is a JSON object, and this is {_kind_of(value)}")


def _kind_of(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def _json(handle: IO[bytes], name: str) -> Iterator[Record | Unreadable]:
    """A JSON array of records, one JSON object, or JSONL under the name of JSON."""
    raw = handle.read(MAX_JSON_BYTES + 1)
    if len(raw) > MAX_JSON_BYTES:
        yield Unreadable(name, None, f"larger than {MAX_JSON_BYTES // 2**30} GiB; write it as JSONL, one record a line")
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Unreadable(name, raw.count(b"\n", 0, error.start) + 1, f"not UTF-8: {error.reason}")
        return
    if text.lstrip()[:1] == "[":
        yield from _json_array(text, name)
        return
    try:
        yield _as_record(parse_json(text), name, 1)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            yield Unreadable(name, error.lineno, f"not valid JSON: {error.msg}")
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _record(line.encode(), name, number)
    except ValueError as error:
        yield Unreadable(name, 1, f"not valid JSON: {error}")


def _json_array(text: str, name: str) -> Iterator[Record | Unreadable]:
    """Element by element, so that a key that stands twice costs one record and not the file."""
    decoder = json.JSONDecoder()
    at = _skip(text, text.index("[") + 1)
    line, counted = 1, 0
    while at < len(text) and text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            end = decoder.raw_decode(text, at)[1]
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            number = error.lineno if isinstance(error, json.JSONDecodeError) else line
            yield Unreadable(name, number, f"not valid JSON: {reason}; the rest of the array is lost")
            return
        yield _record(text[at:end].encode("utf-8", "surrogatepass"), name, line)
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            break
    if text[at : at + 1] != "]":
        yield Unreadable(name, text.count("\n", 0, at) + 1, "not valid JSON: the array is not closed here")
    elif text[at + 1 :].strip():
        yield Unreadable(name, text.count("\n", 0, at) + 1, "not valid JSON: something follows the array")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _directory(path: Path) -> Iterator[Record | Unreadable]:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        yield from read_saved_dataset(path)
        return
    files = sorted(path.rglob("*.parquet"))
    if not files:
        yield Unreadable(str(path), None, f"this directory holds no dataset; what can be read: {KINDS}")
    for file in files:
        yield from read_records(file)
