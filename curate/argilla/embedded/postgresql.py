"""The search engine's PostgreSQL: JSON by `jsonb_array_elements`, full text by `tsvector` (dictionary `simple`)."""

from __future__ import annotations

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
    func,
    literal,
    or_,
    select,
    table,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from .backend import TEXT, Entry
from .fulltext import Clause, Term

_TEXT = table("tutelage_text", *(column(one.name, one.type) for one in TEXT.columns), column("body"))

_STATEMENTS = (
    "CREATE TABLE IF NOT EXISTS tutelage_text (number BIGSERIAL PRIMARY KEY, record_id UUID NOT NULL,"
    " dataset_id UUID NOT NULL, field TEXT NOT NULL, body TSVECTOR NOT NULL)",
    "CREATE INDEX IF NOT EXISTS tutelage_text_record ON tutelage_text (record_id)",
    "CREATE INDEX IF NOT EXISTS tutelage_text_body ON tutelage_text USING GIN (body)",
    "CREATE TABLE IF NOT EXISTS tutelage_stale (record_id UUID PRIMARY KEY)",
    "CREATE OR REPLACE FUNCTION tutelage_mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF TG_OP = 'DELETE' THEN INSERT INTO tutelage_stale VALUES (OLD.id) ON CONFLICT DO NOTHING;"
    " ELSE INSERT INTO tutelage_stale VALUES (NEW.id) ON CONFLICT DO NOTHING; END IF; RETURN NULL; END $$",
    "CREATE OR REPLACE TRIGGER tutelage_changed AFTER INSERT OR DELETE OR UPDATE OF fields ON records"
    " FOR EACH ROW EXECUTE FUNCTION tutelage_mark()",
)


def _expression(term: Term) -> str:
    """A term as `to_tsquery` reads it; words hold letters, digits and `_` alone, so nothing needs escaping."""
    return "(" + " <-> ".join(term.words) + (":*" if term.prefix else "") + ")"


def _query(terms: tuple[Term, ...]) -> ColumnElement[Any]:
    return func.to_tsquery(text("'simple'"), literal(" | ".join(map(_expression, terms))))


class PostgreSQL:
    """`Backend` on PostgreSQL 14 or later."""

    statements = _STATEMENTS

    def each(self, document: Any, *path: str) -> FromClause:
        value = self._at(document, path)
        as_list = case((func.jsonb_typeof(value) == "array", value), else_=func.jsonb_build_array(value))
        return func.jsonb_array_elements(as_list).table_valued(column("value", JSONB), name="each").lateral()

    @staticmethod
    def _at(document: Any, path: tuple[str, ...]) -> ColumnElement[Any]:
        whole = cast(document, JSONB)
        return whole[path] if path else whole

    @staticmethod
    def _plain(value: Any) -> ColumnElement[str]:
        return value.op("#>>")(text("'{}'"))

    def is_number(self, each: FromClause) -> ColumnElement[bool]:
        return func.jsonb_typeof(each.c.value) == "number"

    def is_null(self, each: FromClause) -> ColumnElement[bool]:
        return or_(each.c.value.is_(None), func.jsonb_typeof(each.c.value) == "null")

    def text(self, each: FromClause) -> ColumnElement[str]:
        return self._plain(each.c.value)

    def number(self, each: FromClause) -> ColumnElement[float]:
        return case((self.is_number(each), cast(self._plain(each.c.value), Float)))

    def scalar(self, document: Any, *path: str) -> ColumnElement[Any]:
        value = self._at(document, path)  # jsonb sorts numbers as numbers, texts as texts
        return case((func.jsonb_typeof(value) != "null", value))

    def instant(self, moment: Any) -> ColumnElement[str]:
        return func.to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS.US')

    def uuid_text(self, value: str) -> str:
        return value

    def shuffle(self, record_id: Any, user_id: UUID | str) -> ColumnElement[Any]:
        return func.md5(literal(str(user_id)) + cast(record_id, String))

    def matching(self, dataset_id: UUID, terms: tuple[Term, ...], field: str | None) -> Select[Any]:
        query = select(_TEXT.c.record_id).where(_TEXT.c.dataset_id == dataset_id, _TEXT.c.body.op("@@")(_query(terms)))
        return query.where(_TEXT.c.field == field) if field else query

    def ranking(self, dataset_id: UUID, clauses: list[Clause], field: str | None) -> FromClause:
        parts = []
        for clause in clauses:
            best = func.max(func.ts_rank(_TEXT.c.body, _query(clause.terms))).label("rank")
            hits = self.matching(dataset_id, clause.terms, field).with_only_columns(_TEXT.c.record_id, best)
            parts.append(hits.group_by(_TEXT.c.record_id))
        found = union_all(*parts).subquery()
        every = select(found.c.record_id, func.sum(found.c.rank).label("rank")).group_by(found.c.record_id)
        return every.having(func.count() == len(clauses)).subquery()

    async def write(self, db: AsyncSession, entries: list[Entry]) -> None:
        statement = text(
            "INSERT INTO tutelage_text (record_id, dataset_id, field, body)"
            " VALUES (:record_id, :dataset_id, :field, to_tsvector('simple', :body))"
        )
        if entries:
            await db.execute(statement, [entry._asdict() for entry in entries])

    async def drop(self, db: AsyncSession, record_ids: list[UUID]) -> None:
        await db.execute(delete(_TEXT).where(_TEXT.c.record_id.in_(record_ids)))
