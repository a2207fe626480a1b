"""An Argilla `SearchEngine` with no search server: every question is answered from argilla-server's own database.

There is no second copy of records, responses or suggestions that could drift; the only state besides is an index of the
fields' text, kept in the same database and brought up to date from `tutelage_stale` (see `backend.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar
from uuid import UUID

import numpy as np
from argilla_server.database import AsyncSessionLocal
from argilla_server.enums import MetadataPropertyType, SimilarityOrder
from argilla_server.models import (
    Dataset,
    Field,
    MetadataProperty,
    Record,
    Response,
    Suggestion,
    User,
    Vector,
    VectorSettings,
)
from argilla_server.search_engine.base import (
    Filter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataMetrics,
    Order,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
    TextQuery,
)
from argilla_server.settings import settings
from sqlalchemy import Select, delete, func, literal, not_, select, text, true
from sqlalchemy.ext.asyncio import AsyncSession

from .backend import STALE, Backend, Entry
from .conditions import condition, ordering, text_conditions
from .fulltext import field_texts
from .postgresql import PostgreSQL
from .sqlite import SQLite

NAME = "embedded"
_BATCH = 256


@SearchEngine.register(engine_name=NAME)
class EmbeddedSearchEngine(SearchEngine):  # type: ignore[misc]  # argilla-server ships no types
    """The engine. argilla-server makes one per request; what they share is the database and a lock around indexing."""

    _indexing: ClassVar[asyncio.Lock] = asyncio.Lock()
    _prepared: ClassVar[bool] = False

    def __init__(self) -> None:
        self.backend = _backend()

    @classmethod
    async def new_instance(cls) -> EmbeddedSearchEngine:
        engine = cls()
        if not cls._prepared:
            async with cls._indexing:
                if not cls._prepared:
                    await engine._prepare()
                    cls._prepared = True
            await engine._index_stale()
        return engine

    async def close(self) -> None:
        """Nothing is held between requests."""

    async def ping(self) -> bool:
        return True

    async def info(self) -> dict[str, Any]:
        return {"engine": NAME, "backend": type(self.backend).__name__}

    async def _prepare(self) -> None:
        """Make the index where it is missing, and list the records it lacks: those of a database that had none."""
        async with AsyncSessionLocal() as db:
            for statement in self.backend.statements:
                await db.execute(text(statement))
            await db.execute(
                text(
                    "INSERT INTO tutelage_stale (record_id) SELECT id FROM records"
                    " WHERE id NOT IN (SELECT record_id FROM tutelage_text)"
                    " AND id NOT IN (SELECT record_id FROM tutelage_stale)"
                )
            )
            await db.commit()

    async def _index_stale(self) -> None:
        """Write anew the text of every record on the list; of those that are gone nothing stays."""
        async with self._indexing, AsyncSessionLocal() as db:
            while ids := list((await db.scalars(select(STALE.c.record_id).limit(_BATCH))).all()):
                await db.execute(delete(STALE).where(STALE.c.record_id.in_(ids)))  # first: it takes the write lock
                await self.backend.drop(db, ids)
                await self.backend.write(db, await self._entries(db, ids))
                await db.commit()

    async def _entries(self, db: AsyncSession, ids: list[UUID]) -> list[Entry]:
        query = select(Record.id, Record.dataset_id, Record.fields).where(Record.id.in_(ids))
        rows = (await db.execute(query)).all()
        fields = select(Field.dataset_id, Field.name, Field.settings)
        fields = fields.where(Field.dataset_id.in_({row.dataset_id for row in rows}))
        images = {(f.dataset_id, f.name) for f in await db.execute(fields) if f.settings.get("type") == "image"}
        return [
            Entry(row.id, row.dataset_id, name, "\n".join(field_texts(value)))
            for row in rows
            for name, value in (row.fields or {}).items()
            if (row.dataset_id, name) not in images
        ]

    async def create_index(self, dataset: Dataset) -> None:
        """Nothing to make: one index serves all datasets."""

    async def configure_metadata_property(self, dataset: Dataset, metadata_property: MetadataProperty) -> None:
        """Nothing to set up: metadata are read where they lie."""

    async def configure_index_vectors(self, vector_settings: VectorSettings) -> None:
        """Nothing to set up: vectors are read where they lie."""

    async def delete_index(self, dataset: Dataset) -> None:
        await self._index_stale()

    async def index_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        await self._index_stale()

    async def delete_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        await self._index_stale()

    # The server has committed these rows before it calls, and the database is the index.
    async def partial_record_update(self, record: Record, **update: Any) -> None:
        """Nothing to do: what the server updates so is a record's status."""

    async def update_record_response(self, response: Response) -> None:
        """Nothing to do."""

    async def delete_record_response(self, response: Response) -> None:
        """Nothing to do."""

    async def update_record_suggestion(self, suggestion: Suggestion) -> None:
        """Nothing to do."""

    async def delete_record_suggestion(self, suggestion: Suggestion) -> None:
        """Nothing to do."""

    async def get_dataset_progress(self, dataset: Dataset) -> dict[str, int]:
        """Records by status, and their number as `total`; {} for a dataset not yet published."""
        if dataset.is_draft:
            return {}
        query = select(Record.status, func.count()).where(Record.dataset_id == dataset.id)
        return await self._counts(query.group_by(Record.status))

    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict[str, int]:
        """A user's responses by status, and their number as `total`; {} for a dataset not yet published."""
        if dataset.is_draft:
            return {}
        query = select(Response.status, func.count()).join(Record, Record.id == Response.record_id)
        query = query.where(Record.dataset_id == dataset.id, Response.user_id == user.id)
        return await self._counts(query.group_by(Response.status))

    @staticmethod
    async def _counts(query: Select[Any]) -> dict[str, int]:
        async with AsyncSessionLocal() as db:
            counts = {str(getattr(status, "value", status)): count for status, count in await db.execute(query)}
        return {"total": sum(counts.values()), **counts}

    # `user_id` is not in the abstract signature, yet the server passes it: each user meets the queue in an own order.
    async def search(
        self,
        dataset: Dataset,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        sort: list[Order] | None = None,
        offset: int = 0,
        limit: int = 100,
        user_id: UUID | str | None = None,
    ) -> SearchResponses:
        tests, ranking = text_conditions(self.backend, dataset.id, query)
        tests = [Record.dataset_id == dataset.id, *tests, *([condition(self.backend, filter)] if filter else [])]
        found: Select[Any] = select(Record.id, literal(1.0), func.count().over())
        order: list[Any] = []
        if ranking is not None:
            found = select(Record.id, ranking.c.rank, func.count().over())
            found = found.join(ranking, ranking.c.record_id == Record.id)
            order = [ranking.c.rank.desc()]
        if sort:
            order = [ordering(self.backend, one) for one in sort]
        elif user_id:
            order.append(self.backend.shuffle(Record.id, user_id))
        found = found.where(*tests)
        page = found.order_by(*order, Record.inserted_at, Record.id).offset(offset).limit(limit)
        async with AsyncSessionLocal() as db:
            rows = (await db.execute(page)).all()
            total = rows[0][2] if rows else 0
            if not rows and offset:  # a page beyond the last one says nothing of how many there are
                total = await db.scalar(select(func.count()).select_from(found.subquery()))
        items = [SearchResponseItem(record_id=name, score=score) for name, score, _ in rows]
        return SearchResponses(items=items, total=total or 0)

    async def similarity_search(
        self,
        dataset: Dataset,
        vector_settings: VectorSettings,
        value: list[float] | None = None,
        record: Record | None = None,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        max_results: int = 100,
        order: SimilarityOrder = SimilarityOrder.most_similar,
        threshold: float | None = None,
    ) -> SearchResponses:
        """By cosine, scaled to 0 … 1 as Elasticsearch's score is: (1 + cos) / 2; exact, over every vector there is."""
        if bool(value) == bool(record):
            raise ValueError("a similarity search takes either a vector or a record")
        wanted = value if record is None else record.vector_value_by_vector_settings(vector_settings)
        if not wanted:
            raise ValueError("the record has no vector of that name")
        tests, ranking = text_conditions(self.backend, dataset.id, query)
        tests += [Record.dataset_id == dataset.id, Vector.vector_settings_id == vector_settings.id]
        if filter:
            tests.append(condition(self.backend, filter))
        if record is not None:
            tests.append(Record.id != record.id)
        candidates = select(Vector.record_id, Vector.value).join(Record, Record.id == Vector.record_id)
        if ranking is not None:
            candidates = candidates.join(ranking, ranking.c.record_id == Record.id)
        async with AsyncSessionLocal() as db:
            rows = (await db.execute(candidates.where(*tests))).all()
        if not rows:
            return SearchResponses(items=[], total=0)
        scores = _cosine_scores([vector for _, vector in rows], wanted, order == SimilarityOrder.least_similar)
        best = [i for i in np.argsort(-scores, kind="stable") if threshold is None or scores[i] >= threshold]
        items = [SearchResponseItem(record_id=rows[i][0], score=float(scores[i])) for i in best[:max_results]]
        return SearchResponses(items=items, total=len(items))

    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        each = self.backend.each(Record.metadata_, metadata_property.name)
        source = select(1).select_from(Record).join(each, true())
        source = source.where(Record.dataset_id == metadata_property.dataset_id, not_(self.backend.is_null(each)))
        async with AsyncSessionLocal() as db:
            if metadata_property.type == MetadataPropertyType.terms:
                term, count = self.backend.text(each), func.count()
                terms = source.with_only_columns(term, count).group_by(term).order_by(count.desc(), term)
                values = [TermsMetrics.TermCount(term=t, count=n) for t, n in await db.execute(terms)]
                return TermsMetrics(total=sum(value.count for value in values), values=values)
            number = self.backend.number(each)
            low, high = (await db.execute(source.with_only_columns(func.min(number), func.max(number)))).one()
        if metadata_property.type == MetadataPropertyType.integer:
            return IntegerMetadataMetrics(min=low, max=high)
        return FloatMetadataMetrics(min=low, max=high)


def _backend() -> Backend:
    return SQLite() if settings.database_is_sqlite else PostgreSQL()


def _cosine_scores(vectors: list[list[float]], wanted: list[float], inverse: bool) -> Any:
    """(1 + cosine) / 2 of each vector with `wanted` (or with its opposite); 0.5 for a vector of zeros."""
    matrix, target = np.asarray(vectors, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(target)
    return (1 + (matrix @ (-target if inverse else target)) / np.where(norms == 0, 1, norms)) / 2
