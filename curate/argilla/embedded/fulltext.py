"""What a reviewer types into the search box, and what of a record it is searched in. Pure; no database."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_TOKEN = re.compile(r'(?P<sign>[-+]?)"(?P<phrase>[^"]*)"|(?P<word>\S+)')


class Term(NamedTuple):
    """Words that stand together, in order; with `prefix` the last one may go on."""

    words: tuple[str, ...]
    prefix: bool = False


class Clause(NamedTuple):
    """One condition of a query: any of the terms; with `negated` none of them."""

    negated: bool
    terms: tuple[Term, ...]


def parse_query(query: str) -> list[Clause]:
    """The part of Elasticsearch's `simple_query_string` (default operator AND) that Argilla's users meet.

    `a b` both; `a | b` either; `-a` not; `"a b"` the phrase; `a*` the prefix. Anything else is read as words, so no
    query is a syntax error. [] where no word is left.
    """
    clauses: list[Clause] = []
    either = False
    for match in _TOKEN.finditer(query):
        word = match["word"]
        if word == "|":
            either = bool(clauses)
            continue
        sign, raw = (match["sign"], match["phrase"]) if word is None else (word[0], word.lstrip("+-"))
        words = tuple(re.findall(r"\w+", raw))
        if not words:
            continue
        negated = sign == "-"
        term = Term(words, prefix=word is not None and raw.rstrip(")").endswith("*"))
        if either and clauses[-1].negated == negated:
            clauses[-1] = Clause(negated, (*clauses[-1].terms, term))
        else:
            clauses.append(Clause(negated, (term,)))
        either = False
    return clauses


def field_texts(value: Any) -> list[str]:
    """Every text inside a field's value. Of a chat only the contents, so that no role's name matches every record."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for part in value.values() for text in field_texts(part)]
    if isinstance(value, list):
        parts = [part["content"] if isinstance(part, dict) and "content" in part else part for part in value]
        return [text for part in parts for text in field_texts(part)]
    return [] if value is None else [str(value)]
