"""Foreign records → pairs: which field is which, constants, and the shapes that RAG logs come in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from curate.behaviour import MISSING, Behaviour
from curate.errors import PairError
from curate.files import parse_json
from curate.pairs import Pair, make_pair
from curate.records import Record, Unreadable

PASSAGE_FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "doc_id", "chunk_id", "_id", "document_id", "passage_id"),
    "text": ("text", "content", "page_content", "body", "chunk", "passage"),
    "source": ("source", "metadata.source", "doc_id", "url", "title"),
}
TARGETS = ("question", "id", "answerable", "accepted", "history", "source", "passages", "output", "meta")
_PLAIN = ("question", "id", "answerable", "accepted", "history", "source", "passages", "output")
_GUESSES = {
    "question": ("query", "input", "prompt", "user_input", "instruction", "user_query"),
    "passages": ("documents", "contexts", "context", "chunks", "retrieved_contexts", "source_documents", "docs"),
    "output": ("answer", "response", "completion", "generation", "target"),
}
_ROLES = {"human": "user", "ai": "assistant", "bot": "assistant", "model": "assistant", "gpt": "assistant"}
_FALSE = frozenset({"", "false", "0", "no", "none", "null", "nan", "[]", "{}"})


class Plan(NamedTuple):
    """How records become pairs. Keys are targets (`question`, `output.answer`, `passages.text`, `meta.x`)."""

    fields: Mapping[str, str] = {}
    constants: Mapping[str, Any] = {}
    abstain_unanswerable: bool = False
    renumber_passages: bool = False


class _Skip(ValueError):
    """Why this record makes no pair."""


def parse_plan(maps: Iterable[str], sets: Iterable[str], abstain_unanswerable: bool, renumber_passages: bool) -> Plan:
    """The plan that `--map target=source` and `--set target=value` spell; raises `PairError` on a bad one."""
    fields: dict[str, str] = {}
    constants: dict[str, Any] = {}
    for option, words in (("--map", maps), ("--set", sets)):
        for word in words:
            target, equals, source = word.partition("=")
            target, source = target.strip(), source.strip()
            head, _, rest = target.partition(".")
            deep = head in ("output", "meta") or (head == "passages" and rest in PASSAGE_FIELDS and option == "--map")
            if (
                not equals
                or head not in TARGETS
                or (rest and not deep)
                or target == "meta"
                or (option == "--map" and not source)
            ):
                raise PairError(
                    f"{option} {word}: this is no target=source",
                    fix=f"the targets are {', '.join(_PLAIN)}, output.X, meta.X and passages.id, .text, .source; "
                    "for example --map question=query --map output.answer=answer --set output.status=answered",
                )
            if target in fields or target in constants:
                raise PairError(f"{option} {word}: {target} is given twice", fix="keep one of them")
            if option == "--map":
                fields[target] = source
            else:
                constants[target] = _constant(source)
    return Plan(fields, constants, abstain_unanswerable, renumber_passages)


def _constant(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


def to_pair(record: Record, plan: Plan, behaviour: Behaviour) -> Pair | Unreadable:
    """The pair a record makes, or why it makes none."""
    try:
        data = _assemble(record.data, plan, behaviour)
        if plan.fields and data.get("source") is None:
            data["source"] = Path(record.file).name
        pair = make_pair(data, f"{record.file}, line {record.line}")
        json.dumps(pair.record(), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except _Skip as error:
        return Unreadable(record.file, record.line, str(error))
    except UnicodeEncodeError:
        return Unreadable(record.file, record.line, "a text holds half a character (a lone surrogate)")
    except PairError as error:
        return Unreadable(record.file, record.line, error.what)
    except (ValueError, RecursionError) as error:
        return Unreadable(record.file, record.line, f"cannot be written as JSON: {error}")
    return pair


def unfound(record: Record, still: set[str]) -> set[str]:
    """Of the source paths in `still`, those that this record has not either."""
    return {path for path in still if at_path(record.data, path) is MISSING}


def sources_of(plan: Plan) -> set[str]:
    """The source paths that must stand in a record; those of the passages' fields stand inside the passages."""
    return {source for target, source in plan.fields.items() if not target.startswith("passages.")}


def _assemble(data: Mapping[str, Any], plan: Plan, behaviour: Behaviour) -> dict[str, Any]:
    found: dict[str, Any] = {key: _lookup(data, key, plan.fields.get(key)) for key in _PLAIN}
    found = {key: value for key, value in found.items() if value is not MISSING}
    if "question" in plan.fields and "question" not in found:
        raise _Skip(f"there is no {plan.fields['question']!r}; the record has {_names(data)}")
    if "question" not in found and "question" not in plan.constants:
        raise _Skip(f"there is no question; the record has {_names(data)}{_suggestion(data)}")
    found |= {key: value for key, value in plan.constants.items() if "." not in key}
    if isinstance(found.get("id"), (int, float)) and not isinstance(found["id"], bool):
        found["id"] = str(found["id"])
    if "answerable" in found and not (found["answerable"] is None and "answerable" not in plan.fields):
        found["answerable"] = is_true(found["answerable"])
    for key, shape in (("accepted", _accepted), ("history", _history)):
        if key in found:
            found[key] = shape(_json_text(found[key]))
    found["passages"] = _passages(_json_text(found.get("passages")), plan)
    output = _output(data, found.get("output", MISSING), plan, behaviour)
    renamed = _renumber(found["passages"]) if plan.renumber_passages else {}
    if output is not MISSING:
        found["output"] = _recite(output, renamed, behaviour)
    found["meta"] = _meta(data, plan)
    if plan.abstain_unanswerable and found.get("answerable") is False and behaviour.abstain is not None:
        logged = found.get("output", MISSING)
        if logged is not MISSING and not behaviour.abstains(logged):
            found["meta"]["logged_output"] = logged
        found["output"] = behaviour.abstain.output
    _refuse_bare(found, data, behaviour)
    return found


def _lookup(data: Mapping[str, Any], target: str, source: str | None) -> Any:
    """The value a target is made from. A mapped `answerable` that is not there is not answerable: logs omit empty."""
    if source is None:
        return data.get(target, MISSING)
    value = at_path(data, source)
    return None if value is MISSING and target == "answerable" else value


def at_path(value: Any, path: str) -> Any:
    """What stands at a dotted path (`request.docs.0.text`), or `MISSING`. A key that itself holds dots is found too."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    if isinstance(value, Mapping) and head in value:
        value = value[head]
    elif isinstance(value, list) and head.isascii() and head.isdecimal() and int(head) < len(value):
        value = value[int(head)]
    else:
        return MISSING
    return at_path(value, rest) if dot else value


def is_true(value: Any) -> bool:
    """Whether a field says yes: empty lists and texts, null, 0, "false", "no" and "[]" say no."""
    if isinstance(value, str):
        return value.strip().casefold() not in _FALSE
    return bool(value)


def _json_text(value: Any) -> Any:
    """A list or object that stands as JSON text, as in a CSV cell; any other value as it is."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def _accepted(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _history(value: Any) -> list[Any]:
    """Turns from {role, content}, {from, value}, [asked, answered] or plain texts that take turns."""
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise _Skip("history: this is a list of earlier messages")
    turns: list[Any] = []
    for one in value:
        if isinstance(one, dict):
            role = one.get("role", one.get("from", one.get("type")))
            text = next((one[key] for key in ("content", "value", "text", "message") if key in one), None)
            turns.append({"role": _ROLES.get(str(role).lower(), role), "content": text})
        elif isinstance(one, list):
            turns += [{"role": r, "content": t} for r, t in zip(("user", "assistant"), one, strict=False) if t]
        else:
            turns.append({"role": ("user", "assistant")[len(turns) % 2], "content": one})
    return turns


def _passages(value: Any, plan: Plan) -> list[dict[str, Any]]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = [value]
    if isinstance(value, dict):
        value = [{"id": key, "text": text} for key, text in value.items()] if _texts(value) else [value]
    if not isinstance(value, list):
        raise _Skip("passages: this is a list of objects or texts")
    made: list[dict[str, Any]] = []
    for number, one in enumerate(value, start=1):
        passage = {"id": f"p{number}", "text": one} if isinstance(one, str) else _passage(one, number, plan)
        if passage not in made:  # retrievers return the same chunk twice
            made.append(passage)
    return made


def _texts(value: Mapping[str, Any]) -> bool:
    known = {name for names in PASSAGE_FIELDS.values() for name in names}
    return not known & value.keys() and all(isinstance(text, str) for text in value.values())


def _passage(one: Any, number: int, plan: Plan) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise _Skip(f"passage {number} is neither an object nor a text")
    found: dict[str, Any] = {}
    for field, guesses in PASSAGE_FIELDS.items():
        mapped = plan.fields.get(f"passages.{field}")
        values = (at_path(one, path) for path in ([mapped] if mapped else guesses))
        found[field] = next((value for value in values if value is not MISSING and value is not None), None)
    if not isinstance(found["text"], str):
        raise _Skip(f"passage {number} has no text; it has {_names(one)}; name it: --map passages.text=FIELD")
    found["id"] = f"p{number}" if found["id"] in (None, "") else str(found["id"])
    found["source"] = None if found["source"] in (None, "") else str(found["source"])
    return found


def _renumber(passages: Sequence[dict[str, Any]]) -> dict[str, str]:
    renamed = {}
    for number, passage in enumerate(passages, start=1):
        old, passage["id"] = passage["id"], f"p{number}"
        renamed[old] = passage["id"]
        passage["source"] = passage["source"] or old
    return renamed


def _output(data: Mapping[str, Any], whole: Any, plan: Plan, behaviour: Behaviour) -> Any:
    """The output: the whole one, with the parts that `output.X` names put in; `MISSING` where there is none."""
    output = _json_text(whole) if behaviour.is_json else whole
    cited = behaviour.citations.at if behaviour.citations else None
    parts: dict[str, Any] = {}
    for target, source in plan.fields.items():
        if target.startswith("output."):
            value = at_path(data, source)
            parts[target] = None if value is MISSING else value
            if cited == "/" + target.partition(".")[2].replace(".", "/"):
                parts[target] = [str(one) for one in _accepted(_json_text(parts[target]))]
    parts |= {target: value for target, value in plan.constants.items() if target.startswith("output.")}
    if not parts:
        return output
    result = dict(output) if isinstance(output, dict) else {}
    for target, value in parts.items():
        _put(result, target.split(".")[1:], value)
    return result


def _put(into: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = into.get(key)
        into[key] = dict(inner) if isinstance(inner, dict) else {}
        into = into[key]
    into[path[-1]] = value


def _recite(output: Any, renamed: Mapping[str, str], behaviour: Behaviour) -> Any:
    cited = behaviour.citations_of(output)
    if not renamed or not cited or behaviour.citations is None or not isinstance(output, dict):
        return output
    result = dict(output)
    _put(result, behaviour.citations.at.split("/")[1:], [renamed.get(one, one) for one in cited])
    return result


def _meta(data: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The record's own meta, what was mapped there, and every field that nothing was made from."""
    own = data.get("meta")
    meta = dict(own) if isinstance(own, dict) else {}
    used = {path for source in plan.fields.values() for path in (source, source.split(".")[0])}
    used |= {key for key in (*_PLAIN, "meta") if key not in plan.fields}
    meta |= {key: value for key, value in data.items() if key not in used}
    for target, value in [
        *((target, at_path(data, source)) for target, source in plan.fields.items()),
        *plan.constants.items(),
    ]:
        if target.startswith("meta.") and value is not MISSING:
            _put(meta, target.split(".")[1:], value)
    return meta


def _refuse_bare(found: Mapping[str, Any], data: Mapping[str, Any], behaviour: Behaviour) -> None:
    """A pair needs an output, and a JSON behaviour an output that is more than the answer's text."""
    if "output" not in found:
        raise _Skip(f"there is no output; the record has {_names(data)}{_suggestion(data)}")
    if behaviour.is_json and isinstance(found["output"], str) and behaviour.answer and behaviour.answer.at:
        place = behaviour.answer.at[1:].replace("/", ".")
        raise _Skip(
            f"the output is a bare text, and this behaviour wants a JSON object: use --map output.{place}=FIELD, "
            "and --set output.X=VALUE for what the record does not say"
        )


def _names(data: Mapping[str, Any]) -> str:
    names = sorted(map(str, data))
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "no fields"


def _suggestion(data: Mapping[str, Any]) -> str:
    guesses = {target: next((name for name in names if name in data), None) for target, names in _GUESSES.items()}
    words = [f"--map {target}={name}" for target, name in guesses.items() if name and target not in data]
    return f"; perhaps {' '.join(words)}" if words else "; say which is which with --map question=FIELD"
