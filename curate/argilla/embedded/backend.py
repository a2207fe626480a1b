"""What the search engine asks of a database beyond plain SQL: values inside JSON, full text, a repeatable shuffle.

Two databases answer: SQLite (`sqlite.py`) and PostgreSQL (`postgresql.py`). Either keeps two tables of ours beside
argilla-server's: `tutelage_text` (one row per record and field) and `tutelage_stale` (records whose text has changed
since). Triggers fill the second inside the very transaction that changes a record, so that a server killed between
writing a record and indexing it has nothing to repair but that list.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Select, Uuid, column, table
from sqlalchemy.ext.asyncio import AsyncSession

from .fulltext import Clause, Term

TEXT = table(
    "tutelage_text", column("number"), column("record_id", Uuid()), column("dataset_id", Uuid()), column("field")
)
STALE = table("tutelage_stale", column("record_id", Uuid()))


class Entry(NamedTuple):
    """The text of one field of one record."""

    record_id: UUID
    dataset_id: UUID
    field: str
    body: str


class Backend(Protocol):
    """One database's way of saying what SQL has no common words for."""

    @property
    def statements(self) -> tuple[str, ...]:
        """Makes the tables and triggers where they are missing; run at every start."""
        ...

    def each(self, document: Any, *path: str) -> FromClause:
        """The value at a path of a JSON column as rows `value`, `kind`: one for a scalar, one per item of a list."""
        ...

    def is_number(self, each: FromClause) -> ColumnElement[bool]:
        """Whether a row of `each` is a number."""
        ...

    def is_null(self, each: FromClause) -> ColumnElement[bool]:
        """Whether a row of `each` is JSON's null."""
        ...

    def text(self, each: FromClause) -> ColumnElement[str]:
        """A row of `each` as text; Booleans and numbers as JSON spells them."""
        ...

    def number(self, each: FromClause) -> ColumnElement[float]:
        """A row of `each` as a number; null where it is none."""
        ...

    def scalar(self, document: Any, *path: str) -> ColumnElement[Any]:
        """The value at a path as something to sort by; null where there is none."""
        ...

    def instant(self, moment: Any) -> ColumnElement[str]:
        """A time as `YYYY-MM-DDTHH:MM:SS.ffffff`, so that it compares as text."""
        ...

    def uuid_text(self, value: str) -> str:
        """A UUID as the database spells it when cast to text."""
        ...

    def shuffle(self, record_id: Any, user_id: UUID | str) -> ColumnElement[Any]:
        """A key that puts records in an order of each user's own, the same every time."""
        ...

    def matching(self, dataset_id: UUID, terms: tuple[Term, ...], field: str | None) -> Select[Any]:
        """Ids of the dataset's records that hold any of the terms."""
        ...

    def ranking(self, dataset_id: UUID, clauses: list[Clause], field: str | None) -> FromClause:
        """Rows `record_id`, `rank` of the records that meet every clause; a higher rank is a better match."""
        ...

    async def write(self, db: AsyncSession, entries: list[Entry]) -> None:
        """Add texts to the index."""
        ...

    async def drop(self, db: AsyncSession, record_ids: list[UUID]) -> None:
        """Take records out of the index."""
        ...
