"""The search engine's SQLite: JSON by `json_each`, full text by FTS5, in argilla-server's own database file."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Float,
    FromClause,
    Select,
    String,
    case,
    cast,
    column,
    delete,
    event,
    func,
    insert,
    literal,
    select,
    table,
    union_all,
)
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from .backend import TEXT, Entry
from .fulltext import Clause, Term

_FTS = table("tutelage_fts", column("rowid"), column("rank"), column("body"), column("tutelage_fts"))

_STALE = "INSERT OR IGNORE INTO tutelage_stale (record_id) VALUES"
_STATEMENTS = (
    "CREATE TABLE IF NOT EXISTS tutelage_text (number INTEGER PRIMARY KEY, record_id CHAR(32) NOT NULL,"
    " dataset_id CHAR(32) NOT NULL, field TEXT NOT NULL)",
    # No index on dataset_id: with one the planner starts from it and searches the full text once per row.
    "CREATE INDEX IF NOT EXISTS tutelage_text_record ON tutelage_text (record_id)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS tutelage_fts USING fts5(body, tokenize='unicode61 remove_diacritics 0')",
    "CREATE TABLE IF NOT EXISTS tutelage_stale (record_id CHAR(32) PRIMARY KEY) WITHOUT ROWID",
    "CREATE TRIGGER IF NOT EXISTS tutelage_added AFTER INSERT ON records"
    f" BEGIN {_STALE} (new.id); END",
    "CREATE TRIGGER IF NOT EXISTS tutelage_changed AFTER UPDATE OF fields ON records"
    f" BEGIN {_STALE} (new.id); END",
    "CREATE TRIGGER IF NOT EXISTS tutelage_removed AFTER DELETE ON records"
    f" BEGIN {_STALE} (old.id); END",
)  # fmt: skip


def _mix(record_id: str, seed: int) -> int:
    """Fibonacci hashing of the random bits of a record's id; called for every record of a page's dataset."""
    return int(record_id[:15], 16) * seed & 0xFFFFFFFFFFFFFFF


def listen() -> None:
    """Set up every connection to come: write-ahead log (readers never wait for a writer) and the shuffle."""

    def prepare(connection: Any, _: Any) -> None:
        connection.create_function("tutelage_mix", 2, _mix, deterministic=True)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")  # with the log: no damage at a crash
        cursor.execute("PRAGMA mmap_size = 1073741824")  # a page of the queue looks at every record of a dataset
        cursor.close()

    event.listen(Engine, "connect", prepare)


def _path(keys: tuple[str, ...]) -> str:
    return "$" + "".join('."' + key.replace('"', '\\"') + '"' for key in keys)


def _expression(term: Term) -> str:
    """A term as FTS5 reads it; words hold letters, digits and `_` alone, so nothing needs escaping."""
    return '"' + " ".join(term.words) + '"' + ("*" if term.prefix else "")


def _hits(dataset_id: UUID, terms: tuple[Term, ...], field: str | None, *columns: Any) -> Select[Any]:
    query = select(*columns).select_from(_FTS).join(TEXT, TEXT.c.number == _FTS.c.rowid)
    query = query.where(_FTS.c.tutelage_fts.op("MATCH")(" OR ".join(map(_expression, terms))))
    query = query.where(TEXT.c.dataset_id == dataset_id)
    return query.where(TEXT.c.field == field) if field else query


class SQLite:
    """`Backend` on SQLite."""

    statements = _STATEMENTS

    def each(self, document: Any, *path: str) -> FromClause:
        return func.json_each(document, _path(path)).table_valued("value", "type", name="each")

    def is_number(self, each: FromClause) -> ColumnElement[bool]:
        return each.c.type.in_(("integer", "real"))

    def is_null(self, each: FromClause) -> ColumnElement[bool]:
        return each.c.type == "null"

    def text(self, each: FromClause) -> ColumnElement[str]:
        plain = cast(each.c.value, String)
        return case((each.c.type == "true", "true"), (each.c.type == "false", "false"), else_=plain)

    def number(self, each: FromClause) -> ColumnElement[float]:
        return case((self.is_number(each), cast(each.c.value, Float)))

    def scalar(self, document: Any, *path: str) -> ColumnElement[Any]:
        return func.json_extract(document, _path(path))

    def instant(self, moment: Any) -> ColumnElement[str]:
        return func.strftime("%Y-%m-%dT%H:%M:%f", moment)

    def uuid_text(self, value: str) -> str:
        return value.replace("-", "")

    def shuffle(self, record_id: Any, user_id: UUID | str) -> ColumnElement[Any]:
        seed = hashlib.blake2b(str(user_id).encode(), digest_size=7).digest()
        return func.tutelage_mix(record_id, int.from_bytes(seed, "big") | 1)

    def matching(self, dataset_id: UUID, terms: tuple[Term, ...], field: str | None) -> Select[Any]:
        return _hits(dataset_id, terms, field, TEXT.c.record_id)

    def ranking(self, dataset_id: UUID, clauses: list[Clause], field: str | None) -> FromClause:
        parts = []
        for clause in clauses:
            # What begins with a prefix counts 1, as in Elasticsearch: bm25 of all it stands for says little, and costs.
            rank = literal(-1.0) if all(term.prefix for term in clause.terms) else _FTS.c.rank
            # LIMIT keeps SQLite from folding bm25 into the aggregate, where it cannot run.
            hits = _hits(dataset_id, clause.terms, field, TEXT.c.record_id, rank.label("rank")).limit(-1).subquery()
            best = -func.min(hits.c.rank)  # bm25 is the better the lower
            parts.append(select(hits.c.record_id, best.label("rank")).group_by(hits.c.record_id))
        if len(parts) == 1:
            return parts[0].subquery()
        found = union_all(*parts).subquery()
        every = select(found.c.record_id, func.sum(found.c.rank).label("rank")).group_by(found.c.record_id)
        return every.having(func.count() == len(clauses)).subquery()

    async def write(self, db: AsyncSession, entries: list[Entry]) -> None:
        if not entries:
            return
        first = int(await db.scalar(select(func.coalesce(func.max(TEXT.c.number), 0))) or 0) + 1
        numbered = list(enumerate(entries, start=first))
        rows = [
            {"number": number, "record_id": entry.record_id, "dataset_id": entry.dataset_id, "field": entry.field}
            for number, entry in numbered
        ]
        await db.execute(insert(TEXT), rows)
        await db.execute(insert(_FTS), [{"rowid": number, "body": entry.body} for number, entry in numbered])

    async def drop(self, db: AsyncSession, record_ids: list[UUID]) -> None:
        condition = TEXT.c.record_id.in_(record_ids)
        await db.execute(delete(_FTS).where(_FTS.c.rowid.in_(select(TEXT.c.number).where(condition))))
        await db.execute(delete(TEXT).where(condition))
