"""JSON Schema: read, compiled without fetching anything, and what breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema_rs
from pydantic import BaseModel, ConfigDict, Field

from curate.errors import BehaviourError
from curate.files import parse_json
from curate.loops import MOST_IN_PLACE, applied_in_place, endless_reference
from curate.pointer import escape

MOST_VIOLATIONS = 200  # of one value: nobody reads more, and a hostile one has one for every item of a long list


class Violation(BaseModel):
    """One way in which a value breaks the schema."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keyword: str = Field(description="The JSON Schema keyword, e.g. required.")
    where: str = Field(description="JSON Pointer into the value.")
    message: str


def violations_of(validator: Any, value: Any) -> Iterator[Violation]:
    """The ways in which a value breaks a compiled schema, at most 200."""
    for error in islice(validator.iter_errors(value), MOST_VIOLATIONS):
        where = "".join("/" + escape(part) for part in error.instance_path)
        yield Violation(keyword=_keyword(error), where=where, message=error.message)


def _keyword(error: Any) -> str:
    """The schema keyword that failed, as the schema spells it; `false` schemas are named by what applies them."""
    path = [part for part in error.schema_path if isinstance(part, str)]
    if error.kind.name != "falseSchema":
        return path[-1] if path else str(error.kind.name)
    return next((part for part in reversed(path) if part in _APPLICATORS), "falseSchema")


_APPLICATORS = frozenset(
    {
        *("additionalItems", "additionalProperties", "contains", "dependentSchemas", "items", "not"),
        *("patternProperties", "prefixItems", "properties", "propertyNames"),
        *("unevaluatedItems", "unevaluatedProperties"),
    }
)


def compile_schema(schema: Any) -> Any:
    """A validator with formats asserted that never fetches a `$ref`; None for no schema. Raises `ValueError`."""
    if schema is None:
        return None

    def refuse(uri: str) -> Any:
        raise ValueError(f"$ref {uri!r} points outside the schema file, and nothing is ever fetched")

    return jsonschema_rs.validator_for(schema, validate_formats=True, retriever=refuse)


def read_schema(path: Path) -> Any:
    """The schema in a file; raises `BehaviourError` where it is none, or could never be done with a value."""
    try:
        schema = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BehaviourError("output.schema: there is no such file", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise BehaviourError(f"cannot be read as JSON: {error}", where=str(path)) from error
    try:
        compile_schema(schema)
        loop = endless_reference(schema)
    except ValueError as error:
        reason = str(error).strip().split("\n")[0]
        raise BehaviourError(f"this is no JSON Schema that can be used: {reason}", where=str(path)) from error
    except RecursionError:
        raise BehaviourError("this is no JSON Schema that can be used: nested too deeply", where=str(path)) from None
    if loop:
        raise BehaviourError(
            f"the schema comes back to itself at {loop} without going deeper into the value, so it never ends",
            where=str(path),
            fix="let $ref point at a part of the schema that is about a property or an item",
        )
    if applied_in_place(schema) > MOST_IN_PLACE:
        raise BehaviourError(
            f"the schema applies more than {MOST_IN_PLACE:,} of its parts to one value, so checking never ends",
            where=str(path),
            fix="look for parts that are referred to twice by parts that are referred to twice",
        )
    return schema
