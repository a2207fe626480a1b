"""The output that most tests speak of: its JSON Schema, and how it says "I don't know"."""

from __future__ import annotations

from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["status", "answer", "citations"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["answered", "unknown"]},
        "answer": {"type": ["string", "null"]},
        "citations": {"type": "array", "items": {"type": "string"}},
    },
}
UNKNOWN: dict[str, Any] = {"status": "unknown", "answer": None, "citations": []}
