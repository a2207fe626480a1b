"""Argilla's filters and sorts as SQL over argilla-server's own tables. Pure: builds expressions, runs nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from argilla_server.enums import ResponseStatus, ResponseStatusFilter, SortOrder
from argilla_server.models import Question, Record, Response, Suggestion
from argilla_server.search_engine.base import (
    AndFilter,
    Filter,
    MetadataFilterScope,
    Order,
    RangeFilter,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
    TextQuery,
)
from sqlalchemy import ColumnElement, FromClause, String, and_, cast, exists, false, func, not_, or_, select, true

from .backend import Backend
from .fulltext import parse_query

_MOMENTS = ("inserted_at", "updated_at")


def condition(backend: Backend, filter: Filter) -> ColumnElement[bool]:
    """What of `Record` a filter lets through. Raises `ValueError` for a filter Argilla does not have."""
    if isinstance(filter, AndFilter):
        return and_(true(), *(condition(backend, part) for part in filter.filters))
    scope = filter.scope
    if isinstance(scope, RecordFilterScope):
        return _record_condition(backend, filter, str(scope.property))
    if isinstance(scope, MetadataFilterScope):
        return _any_value(backend, filter, backend.each(Record.metadata_, scope.metadata_property))
    if isinstance(scope, SuggestionFilterScope):
        return _suggestion_condition(backend, filter, scope)
    if isinstance(scope, ResponseFilterScope):
        return _response_condition(backend, filter, scope)
    raise ValueError(f"there is no filter on {scope!r}")


def _compare(filter: Filter, text: ColumnElement[str], number: ColumnElement[Any] | None) -> ColumnElement[bool]:
    """Terms compare as text, since that is how the API hands every one of them over; ranges by `number`, else text."""
    if isinstance(filter, TermsFilter):
        return text.in_([str(value) for value in filter.values])
    if not isinstance(filter, RangeFilter):
        raise ValueError(f"there is no filter {filter!r}")
    value: ColumnElement[Any] = text if number is None else number
    low = value >= filter.ge if filter.ge is not None else true()
    high = value <= filter.le if filter.le is not None else true()
    return and_(low, high, value.is_not(None))


def _any_value(backend: Backend, filter: Filter, each: FromClause) -> ColumnElement[bool]:
    test = _compare(filter, backend.text(each), backend.number(each))
    return exists(select(1).select_from(each).where(test, not_(backend.is_null(each))))


def _record_condition(backend: Backend, filter: Filter, name: str) -> ColumnElement[bool]:
    attribute = getattr(Record, name)
    if name in _MOMENTS:
        return _compare(filter, backend.instant(attribute), None)
    if name == "id" and isinstance(filter, TermsFilter):
        return cast(attribute, String).in_([backend.uuid_text(str(value)) for value in filter.values])
    return _compare(filter, cast(attribute, String), None)


def _suggestion_condition(backend: Backend, filter: Filter, scope: SuggestionFilterScope) -> ColumnElement[bool]:
    query = select(1).select_from(Suggestion).join(Question, Question.id == Suggestion.question_id)
    query = query.where(Suggestion.record_id == Record.id, Question.name == scope.question)
    attribute = getattr(Suggestion, scope.property)
    if scope.property in ("value", "score"):
        each = backend.each(attribute)
        test = _compare(filter, backend.text(each), backend.number(each))
        return exists(query.join(each, true()).where(test, not_(backend.is_null(each))))
    return exists(query.where(_compare(filter, cast(attribute, String), None)))


def _response_condition(backend: Backend, filter: Filter, scope: ResponseFilterScope) -> ColumnElement[bool]:
    mine = [Response.record_id == Record.id]
    if scope.user:
        mine.append(Response.user_id == scope.user.id)
    if scope.question:
        each = backend.each(Response.values, scope.question, "value")
        test = _compare(filter, backend.text(each), backend.number(each))
        query = select(1).select_from(Response).join(each, true())
        return exists(query.where(*mine, test, not_(backend.is_null(each))))
    if scope.property != "status" or not isinstance(filter, TermsFilter):
        raise ValueError(f"there is no filter {filter!r}")
    values = [str(getattr(value, "value", value)) for value in filter.values]
    pending = ResponseStatusFilter.pending.value
    statuses = [ResponseStatus(value) for value in values if value != pending]
    given = exists(select(1).where(*mine, Response.status.in_(statuses))) if statuses else false()
    # Pending is no status of a response: it is a record that has none (of that user's).
    return or_(given, not_(exists(select(1).where(*mine)))) if pending in values else given


def ordering(backend: Backend, order: Order) -> ColumnElement[Any]:
    """A sort as SQL; records that lack the value come last. Raises `ValueError` for a sort Argilla does not have."""
    key = _key(backend, order)
    return (key.desc() if order.order == SortOrder.desc else key.asc()).nulls_last()


def _key(backend: Backend, order: Order) -> ColumnElement[Any]:
    scope = order.scope
    if isinstance(scope, RecordFilterScope):
        attribute = getattr(Record, str(scope.property))
        return cast(attribute, String) if str(scope.property) == "status" else attribute
    if isinstance(scope, MetadataFilterScope):
        return backend.scalar(Record.metadata_, scope.metadata_property)
    if isinstance(scope, SuggestionFilterScope):
        attribute = getattr(Suggestion, scope.property)
        of_json = scope.property in ("value", "score")
        query = select(backend.scalar(attribute) if of_json else cast(attribute, String))
        query = query.join(Question, Question.id == Suggestion.question_id)
        query = query.where(Suggestion.record_id == Record.id, Question.name == scope.question)
        return query.limit(1).scalar_subquery()
    if isinstance(scope, ResponseFilterScope):
        return _response_key(backend, scope)
    raise ValueError(f"there is no sort by {scope!r}")


def _response_key(backend: Backend, scope: ResponseFilterScope) -> ColumnElement[Any]:
    """The mean of a question's answers, as Elasticsearch sorts by; of a property the first."""
    if scope.question:
        each = backend.each(Response.values, scope.question, "value")
        query = select(func.avg(backend.number(each))).select_from(Response).join(each, true())
    else:
        query = select(func.min(cast(getattr(Response, str(scope.property)), String))).select_from(Response)
    query = query.where(Response.record_id == Record.id)
    if scope.user:
        query = query.where(Response.user_id == scope.user.id)
    return query.scalar_subquery()


def text_conditions(
    backend: Backend, dataset_id: UUID, query: TextQuery | str | None
) -> tuple[list[ColumnElement[bool]], FromClause | None]:
    """What a text query lets through, and where it asks for words the ranking to join with: the records that hold them.

    Each clause is searched for once, since a prefix may stand in every field of every record.
    """
    if query is None:
        return [], None
    words, field = (query, None) if isinstance(query, str) else (str(query.q), query.field)
    clauses = parse_query(words)
    if not clauses:
        return [false()], None
    unwanted = [clause for clause in clauses if clause.negated]
    tests = [not_(Record.id.in_(backend.matching(dataset_id, clause.terms, field))) for clause in unwanted]
    wanted = [clause for clause in clauses if not clause.negated]
    return tests, backend.ranking(dataset_id, wanted, field) if wanted else None
