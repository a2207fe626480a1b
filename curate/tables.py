"""Records of tables: CSV, Parquet, and what `datasets` saved."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from curate.errors import PairError
from curate.files import is_text
from curate.parquet import row_pair, schema
from curate.records import MAX_LINE_BYTES, Record, Unreadable, plain, read_lines
from curate.shapes import json_text


def read_csv(handle: IO[bytes], name: str) -> Iterator[Record | Unreadable]:
    """Rows by the names of the first one. Bytes that are no UTF-8 cost their row only."""
    broken: list[Unreadable] = []
    texts = _csv_lines(handle, name, broken)
    blank, head = 0, next(texts, "")
    while not head.strip() and not broken and (following := next(texts, None)) is not None:
        blank, head = blank + 1, following
    if broken:
        yield broken[0]
        return
    separator = max(",\t;", key=head.count)
    csv.field_size_limit(MAX_LINE_BYTES)
    rows = csv.reader(chain([head], texts), delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        line = blank + rows.line_num + 1
        row, reason = _next_row(rows)
        yield from broken
        broken.clear()
        if reason:
            yield Unreadable(name, line, reason)
        if row is None or (reason and header is None):
            return
        if reason:
            continue
        if header is None:
            header = [cell.strip() for cell in row]
            if len(set(header)) < len(header):
                yield Unreadable(name, line, f"two columns have the same name: {', '.join(header)}")
                return
        elif row:
            yield _row(row, header, name, line)


def _next_row(rows: Iterator[list[str]]) -> tuple[list[str] | None, str]:
    """The next row, None at the end, and why it cannot be used."""
    try:
        return next(rows, None), ""
    except csv.Error as error:
        unclosed = "end of data" in str(error) or "field limit" in str(error)
        return [], "a quotation mark is opened and not closed" if unclosed else f"not valid CSV: {error}"


def _csv_lines(handle: IO[bytes], name: str, broken: list[Unreadable]) -> Iterator[str]:
    for number, raw in read_lines(handle):
        if isinstance(raw, str):
            broken.append(Unreadable(name, number, raw))
        yield "" if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")


def _row(row: list[str], header: list[str], name: str, line: int) -> Record | Unreadable:
    if len(row) != len(header):
        return Unreadable(name, line, f"the row has {len(row)} fields and the header {len(header)}")
    if not all(cell.isprintable() or is_text(cell) for cell in row):
        return Unreadable(name, line, "not UTF-8")
    # numbers stay text, as an answer may be one
    return Record(name, line, {key: json_text(text) for key, text in zip(header, row, strict=True)})


def read_parquet(path: Path) -> Iterator[Record | Unreadable]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as file:
            released = file.schema_arrow.names == schema().names  # a release's own: some columns hold JSON text
            for batch in file.iter_batches(batch_size=1024):
                for data in batch.to_pylist():
                    row += 1
                    yield _released(data, str(path), row) if released else Record(str(path), row, plain(data))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).strip().split("\n")[0]
        yield Unreadable(str(path), row + 1 if row else None, f"not a readable Parquet file: {reason}")


def _released(data: dict[str, Any], name: str, row: int) -> Record | Unreadable:
    try:
        return Record(name, row, row_pair(data, name).record())
    except PairError as error:
        return Unreadable(name, row, error.what)


def read_saved_dataset(path: Path) -> Iterator[Record | Unreadable]:
    import datasets

    row = 0
    try:
        loaded = datasets.load_from_disk(str(path))
        parts = loaded.items() if isinstance(loaded, dict) else [(None, loaded)]
        for split, part in parts:
            name = f"{path} ({split})" if split else str(path)
            for row, data in enumerate(part, start=1):
                yield Record(name, row, plain(data))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        # pyarrow's own are ValueError and OSError
        reason = str(error).strip().split("\n")[0]
        yield Unreadable(str(path), row + 1 if row else None, f"not a readable dataset: {reason}")
