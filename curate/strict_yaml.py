"""YAML in which no key stands twice: of two, PyYAML would silently take the last."""

from __future__ import annotations

from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` that refuses a repeated key."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = getattr(key_node, "value", None)
            if isinstance(key, str) and key in seen:
                what = f"the key {key!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, what, key_node.start_mark)
            seen |= {key} if isinstance(key, str) else set()
        return super().construct_mapping(node, deep)
