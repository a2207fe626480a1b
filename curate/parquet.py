"""Pairs as Parquet and back: fixed columns, fixed writer settings, the same bytes for the same pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import PairError, WorkspaceError
from curate.files import is_text, parse_json
from curate.pairs import Json, Pair, make_pair

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 4096
JSON_COLUMNS = ("output", "meta")


def schema() -> pa.Schema:
    """The columns; `output`, `meta` and each of `accepted` hold JSON text."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("id", text),
            ("question", text),
            ("history", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("passages", pa.list_(pa.struct([("id", text), ("text", text), ("source", text)]))),
            ("output", text),
            ("answerable", pa.bool_()),
            ("accepted", pa.list_(text)),
            ("source", text),
            ("meta", text),
            ("sha256", text),
        ]
    )


def write_parquet(path: Path, pairs: Sequence[Pair]) -> None:
    """Write the pairs in the order given. Every text must be encodable (no lone surrogates)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([_row(pair) for pair in pairs], schema=schema())
    # Everything that decides the bytes is said here; the library's version is pinned by constraints.txt.
    pq.write_table(
        table,
        path,
        row_group_size=ROWS_PER_GROUP,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=["source"],
        write_statistics=True,
        store_schema=True,
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows as they stand, JSON columns still text; raises `WorkspaceError` where the file cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # By file, not by directory: a path such as release=1/ must not become a column.
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    except FileNotFoundError:
        raise WorkspaceError("there is no such file", where=str(path)) from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise WorkspaceError(f"cannot be read as Parquet: {error}", where=str(path)) from None
    return rows


def row_pair(row: dict[str, Any], where: str) -> Pair:
    """The pair in a row; raises `PairError` that names `where`."""
    try:
        values: dict[str, Json] = {key: value for key, value in row.items() if key != "sha256"}
        values |= {key: parse_json(values[key]) for key in JSON_COLUMNS}
        values["accepted"] = [parse_json(one) for one in values["accepted"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PairError(f"not a row of a release: {error}", where=where) from None
    return make_pair(values, where)


def read_parquet(path: Path) -> list[Pair]:
    """The pairs of one split."""
    return [row_pair(row, f"{path}, row {number}") for number, row in enumerate(read_rows(path), start=1)]


def encodable(pair: Pair) -> bool:
    """Whether every text of the pair is Unicode that UTF-8 can hold; half of a surrogate pair is not."""
    return is_text(json_text(pair.record()))


def json_text(value: Json) -> str:
    """JSON with the keys in the order they have: a model learns to write them in that order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _row(pair: Pair) -> dict[str, Any]:
    row = pair.record()
    row |= {key: json_text(row[key]) for key in JSON_COLUMNS}
    row["accepted"] = [json_text(one) for one in row["accepted"]]
    return {**row, "sha256": pair.content_hash()}
