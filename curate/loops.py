"""JSON Schemas that never end, since they refer to themselves in place, or that apply too often to the same value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curate.pointer import MISSING, resolve

MOST_IN_PLACE = 10_000  # subschemas applied to one value; a schema written for people applies a few dozen
_SAME_PLACE = ("allOf", "anyOf", "oneOf")
_VALUES = ("enum", "const", "default", "examples")  # under these stand values, no schemas
_SAME_PLACE_ONE = ("not", "if", "then", "else")


def endless_reference(schema: Any) -> str | None:
    """The JSON Pointer of a local `$ref` that comes back to itself before any property or item is entered; or None.

    A list whose items are such lists is fine, `{"$ref": "#"}` is not: to check a value it would check that value again.
    """
    settled: set[int] = set()  # subschemas from which no way leads back to themselves
    root = _Root(schema)
    for node in _subschemas(schema):
        found = _follow(root, node, "#", set(), settled)
        if found:
            return found
    return None


def applied_in_place(schema: Any) -> int:
    """How many subschemas are applied to one value, at the worst place; `schema` holds no endless reference.

    A chain of `$defs`, each of which refers to the next one twice, doubles the work with every link: thirty lines would
    keep a validator busy for a billion steps.
    """
    counts: dict[int, int] = {}
    root = _Root(schema)

    def count(node: dict[str, Any]) -> int:
        known = counts.get(id(node))
        if known is None:
            known = counts[id(node)] = 1 + sum(count(inner) for _, inner in _in_place(root, node, "#"))
        return known

    return max((count(node) for node in _subschemas(schema)), default=0)


class _Root:
    """A whole schema and the parts of it that have a name of their own."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.anchors: dict[str, Any] = {}
        for node in _subschemas(schema):
            for key in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(key), str):
                    self.anchors.setdefault(node[key], node)


def _subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += (inner for key, inner in node.items() if key not in _VALUES)
        elif isinstance(node, list):
            waiting += node


def _follow(root: _Root, node: dict[str, Any], name: str, above: set[int], settled: set[int]) -> str | None:
    """Depth first over what applies to the same value."""
    if id(node) in above:
        return name
    if id(node) in settled:
        return None
    for label, inner in _in_place(root, node, name):
        found = _follow(root, inner, label, above | {id(node)}, settled)
        if found:
            return found
    settled.add(id(node))
    return None


def _in_place(root: _Root, node: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for reference in (node.get("$ref"), node.get("$dynamicRef")):
        if isinstance(reference, str) and reference.startswith("#"):
            target = _local(root, reference)
            if isinstance(target, dict):
                yield reference, target
    for key in _SAME_PLACE:
        inner = node.get(key)
        if isinstance(inner, list):
            yield from ((f"{name}/{key}/{at}", one) for at, one in enumerate(inner) if isinstance(one, dict))
    for key in _SAME_PLACE_ONE:
        if isinstance(node.get(key), dict):
            yield f"{name}/{key}", node[key]
    depending = node.get("dependentSchemas")
    if isinstance(depending, dict):
        yield from ((f"{name}/dependentSchemas/{key}", one) for key, one in depending.items() if isinstance(one, dict))


def _local(root: _Root, reference: str) -> Any:
    pointer = reference[1:]
    if pointer.startswith("/"):
        return resolve(root.schema, pointer)
    return root.anchors.get(pointer, MISSING) if pointer else root.schema
