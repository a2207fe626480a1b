"""Places inside JSON values, and what makes two of them the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MISSING = object()  # what a JSON Pointer that leads nowhere gives; None is a value


def resolve(value: Any, pointer: str) -> Any:
    """The value at a JSON Pointer (RFC 6901), or `MISSING`."""
    for key in keys_of(pointer):
        if isinstance(value, dict):
            if key not in value:
                return MISSING
            value = value[key]
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9]\d*", key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return MISSING
    return value


@lru_cache(maxsize=10_000)
def keys_of(pointer: str) -> tuple[str, ...]:
    """A pointer's reference tokens: the same few pointers are looked up in every pair."""
    return tuple(raw.replace("~1", "/").replace("~0", "~") for raw in pointer.split("/")[1:])


def escape(key: object) -> str:
    """A key or an index as it stands in a pointer."""
    return str(key).replace("~", "~0").replace("/", "~1")


def same_json(left: Any, right: Any) -> bool:
    """Equality of JSON values: true is not 1, order of keys does not matter."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same_json, left, right))
    return bool(left == right)


def in_order(value: Any, example: Any, schema: Any) -> Any:
    """An object with its keys in the order of an example, then of a schema's properties, then as they came.

    A model learns the order of keys with all else, and learns one order better than two.
    """
    if not isinstance(value, dict):
        return value
    shown = example if isinstance(example, Mapping) else {}
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    named = properties if isinstance(properties, Mapping) else {}
    order = dict.fromkeys(key for key in (*shown, *named, *value) if key in value)
    return {key: in_order(value[key], shown.get(key), named.get(key)) for key in order}
