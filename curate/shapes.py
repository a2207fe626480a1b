"""The shapes that RAG logs come in: paths into records, flags, conversations, retrieved passages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from curate.files import parse_json
from curate.pointer import MISSING

PASSAGE_FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "doc_id", "chunk_id", "_id", "document_id", "passage_id"),
    "text": ("text", "content", "page_content", "body", "chunk", "passage"),
    "source": ("source", "metadata.source", "doc_id", "url", "title"),
}
_ROLES = {"human": "user", "ai": "assistant", "bot": "assistant", "model": "assistant", "gpt": "assistant"}
_INDEX = re.compile(r"-?[0-9]{1,9}")
_FALSE = frozenset({"", "false", "f", "no", "n", "off", "none", "null", "nan", "na", "n/a", "unanswerable", "[]", "{}"})


class Skip(ValueError):
    """Why this record makes no pair."""


def at_path(value: Any, path: str) -> Any:
    """What stands at a dotted path (`request.docs.0.text`), or `MISSING`; -1 is the last of a list.

    A key that itself holds dots is found too.
    """
    if isinstance(value, Mapping) and path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    if isinstance(value, Mapping) and head in value:
        value = value[head]
    elif isinstance(value, list) and _INDEX.fullmatch(head) and -len(value) <= int(head) < len(value):
        value = value[int(head)]
    else:
        return MISSING
    return at_path(value, rest) if dot else value


def without_path(record: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A record less what stands at a dotted path, and less the objects that this leaves empty."""
    if at_path(record, path) is MISSING:
        return dict(record)
    if path in record:
        return {key: value for key, value in record.items() if key != path}
    head, _, rest = path.partition(".")
    inner = record.get(head)
    if not isinstance(inner, Mapping):  # a list is taken whole: its items have no names to be left by
        return {key: value for key, value in record.items() if key != head}
    left = without_path(inner, rest)
    return {key: left if key == head else value for key, value in record.items() if key != head or left}


def is_true(value: Any) -> bool:
    """Whether a field says yes: empty lists and texts, null, zeros, "false", "no", "n/a" and "[]" say no."""
    if not isinstance(value, str):
        return bool(value)
    word = value.strip().casefold()
    try:
        return float(word) != 0 and word != "nan"
    except ValueError:
        return word not in _FALSE


def json_text(value: Any) -> Any:
    """A list or object that stands as JSON text, as in a CSV cell; any other value as it is."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def as_list(value: Any) -> list[Any]:
    """A list as it is, one value as a list of one, nothing as none."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def turns_of(value: Any) -> list[Any]:
    """Turns from {role, content}, {from, value}, [asked, answered] or plain texts that take turns.

    System messages are left out: what the model is told stands in the behaviour.
    """
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise Skip("history: this is a list of earlier messages")
    turns: list[Any] = []
    for one in value:
        if isinstance(one, dict):
            role = one.get("role", one.get("from", one.get("type")))
            text = next((one[key] for key in ("content", "value", "text", "message") if key in one), None)
            low = str(role).lower()
            if low not in ("system", "developer"):
                turns.append({"role": _role(low), "content": joined(text)})
        elif isinstance(one, list):
            turns += [{"role": r, "content": t} for r, t in zip(("user", "assistant"), one, strict=False) if t]
        else:
            turns.append({"role": ("user", "assistant")[len(turns) % 2], "content": one})
    return turns


def joined(content: Any) -> Any:
    """A message's content as one text where it comes in parts, `[{"type": "text", "text": …}]`; else as it is."""
    if isinstance(content, list) and content and all(isinstance(one, dict) and "text" in one for one in content):
        return "".join(str(one["text"]) for one in content)
    return content


def _role(name: str) -> str:
    role = _ROLES.get(name, name)
    if role not in ("user", "assistant"):
        raise Skip(f"history: a message of the role {name!r}; only those of user and assistant can be earlier messages")
    return role


def passages_of(value: Any, mapped: Mapping[str, str]) -> list[dict[str, Any]]:
    """Passages from objects, texts, one of them, or a mapping of ids to texts; a second copy of an id is dropped."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = [value]
    if isinstance(value, dict):
        value = [{"id": key, "text": text} for key, text in value.items()] if _texts(value) else [value]
    if not isinstance(value, list):
        raise Skip("passages: this is a list of objects or texts")
    made: list[dict[str, Any]] = []
    for number, one in enumerate(value, start=1):
        passage = {"id": f"p{number}", "text": one} if isinstance(one, str) else _passage(one, number, mapped)
        if passage not in made:  # retrievers return the same chunk twice
            made.append(passage)
    return made


def _texts(value: Mapping[str, Any]) -> bool:
    known = {name for names in PASSAGE_FIELDS.values() for name in names}
    return not known & value.keys() and all(isinstance(text, str) for text in value.values())


def _passage(one: Any, number: int, mapped: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise Skip(f"passage {number} is neither an object nor a text")
    found: dict[str, Any] = {}
    for field, guesses in PASSAGE_FIELDS.items():
        name = mapped.get(f"passages.{field}")
        values = (at_path(one, path) for path in ([name] if name else guesses))
        found[field] = next((value for value in values if value is not MISSING and value is not None), None)
    if not isinstance(found["text"], str):
        raise Skip(f"passage {number} has no text; it has {names_of(one)}; name it: --map passages.text=FIELD")
    found["id"] = f"p{number}" if found["id"] in (None, "") else str(found["id"])
    found["source"] = None if found["source"] in (None, "") else str(found["source"])
    return found


def names_of(data: Mapping[str, Any]) -> str:
    """The fields a record has, for a message."""
    names = sorted(map(str, data))
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "no fields"
