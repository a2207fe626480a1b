"""Foreign records → pairs: which field is which, constants, and the shapes that RAG logs come in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from curate.behaviour import Behaviour
from curate.errors import PairError
from curate.files import check_nesting, parse_json
from curate.pairs import Pair, make_pair
from curate.pointer import MISSING, in_order
from curate.records import Record, Unreadable
from curate.shapes import (
    PASSAGE_FIELDS,
    Skip,
    as_list,
    at_path,
    is_true,
    joined,
    json_text,
    names_of,
    passages_of,
    turns_of,
    without_path,
)
from curate.support import stands_in

_PLAIN = ("question", "id", "answerable", "accepted", "history", "source", "passages", "output")
_GUESSES = {
    "question": ("query", "input", "prompt", "user_input", "instruction", "user_query"),
    "passages": ("documents", "contexts", "context", "chunks", "retrieved_contexts", "source_documents", "docs"),
    "output": ("answer", "response", "completion", "generation", "target"),
}
# Whose message is no question, or no output.
_OTHERS = {"question": ("assistant", "system", "developer", "tool"), "output": ("user", "system", "developer")}


class Plan(NamedTuple):
    """How records become pairs. Keys are targets (`question`, `output.answer`, `passages.text`, `meta.x`)."""

    fields: Mapping[str, str] = {}
    constants: Mapping[str, Any] = {}
    abstain_unanswerable: bool = False
    renumber_passages: bool = False


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
                or head not in (*_PLAIN, "meta")
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
        line = json.dumps(pair.record(), ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
        check_nesting(line, pair.record())
    except Skip as error:
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
        raise Skip(f"there is no {plan.fields['question']!r}; the record has {names_of(data)}")
    if "question" not in found and "question" not in plan.constants:
        raise Skip(f"there is no question; the record has {names_of(data)}{_suggestion(data)}")
    for target, source in plan.fields.items():
        _refuse_other_speaker(data, target.partition(".")[0], source)
    found |= {key: value for key, value in plan.constants.items() if "." not in key}
    if "question" in found:
        found["question"] = joined(found["question"])
    if isinstance(found.get("id"), (int, float)) and not isinstance(found["id"], bool):
        found["id"] = str(found["id"])
    if "answerable" in found and not (found["answerable"] is None and "answerable" not in plan.fields):
        found["answerable"] = is_true(found["answerable"])
    for key, shape in (("accepted", as_list), ("history", turns_of)):
        if key in found:
            found[key] = shape(json_text(found[key]))
    # chat logs keep the question, and some the answer, among the messages: it is asked once, and not told before
    asked = {"role": "user", "content": found.get("question")}
    parts = [at_path(data, source) for target, source in plan.fields.items() if target.startswith("output.")]
    replies = [[asked, {"role": "assistant", "content": reply}] for reply in (found.get("output"), *parts)]
    own = next((one for one in ([asked], *replies) if found.get("history", [])[-len(one) :] == one), [])
    if own:
        del found["history"][-len(own) :]
    found["passages"] = passages_of(json_text(found.get("passages")), plan.fields)
    output = _output(data, found.get("output", MISSING), plan, behaviour)
    silent = plan.abstain_unanswerable and found.get("answerable") is False and behaviour.abstain is not None
    if plan.renumber_passages:
        renamed = _renumber(found["passages"], MISSING if silent else output, behaviour)
        output = output if output is MISSING else _recite(output, renamed, behaviour)
    if output is not MISSING:
        found["output"] = output
    found["meta"] = _meta(data, plan)
    if silent and behaviour.abstain is not None:
        logged = found.get("output", MISSING)
        if logged is not MISSING and not behaviour.abstains(logged):
            found["meta"]["logged_output"] = logged
        found["output"] = behaviour.abstain.output
    _refuse_bare(found, data, behaviour)
    return found


def _refuse_other_speaker(data: Mapping[str, Any], target: str, source: str) -> None:
    """Places counted from the end of a chat shift where it ends with a thank-you: who speaks there is looked at."""
    role = at_path(data, source.removesuffix("content") + "role") if source.endswith(".content") else None
    if isinstance(role, str) and role.lower() in _OTHERS.get(target, ()):
        raise Skip(f"{source} is of the role {role!r}, which says no {target}: the chat does not end as mapped")


def _lookup(data: Mapping[str, Any], target: str, source: str | None) -> Any:
    """The value a target is made from. A mapped `answerable` that is not there is not answerable: logs omit empty."""
    if source is None:
        return data.get(target, MISSING)
    value = at_path(data, source)
    return None if value is MISSING and target == "answerable" else value


def _renumber(passages: Sequence[dict[str, Any]], output: Any, behaviour: Behaviour) -> dict[str, list[str]]:
    """Old id -> new ones; of several passages with a cited id, those in which the answer stands.

    Raises `Skip` where it stands in none of them: nobody can tell which was meant.
    """
    renamed: dict[str, list[str]] = {}
    holding: dict[str, list[str]] = {}
    answer = MISSING if output is MISSING else behaviour.answer_of(output)
    for number, passage in enumerate(passages, start=1):
        old, passage["id"] = passage["id"], f"p{number}"
        renamed.setdefault(old, []).append(passage["id"])
        if isinstance(answer, str) and stands_in(answer, passage["text"]):
            holding.setdefault(old, []).append(passage["id"])
        # A number says nothing about where a passage is from, and would make one document of every first passage.
        passage["source"] = passage.get("source") or (None if re.fullmatch(r"p?\d+", old) else old)
    for name in (behaviour.citations_of(output) or ()) if output is not MISSING else ():
        count = len(renamed.get(name, ()))
        if count > 1 and name not in holding:
            raise Skip(f"{name} is cited, {count} passages have that id, and the answer stands in none of them")
        renamed[name] = holding[name] if count > 1 else renamed.get(name, [name])
    return renamed


def _output(data: Mapping[str, Any], whole: Any, plan: Plan, behaviour: Behaviour) -> Any:
    """The output: the whole one, with the parts that `output.X` names put in; `MISSING` where there is none."""
    output = json_text(whole) if behaviour.is_json else whole
    cited = behaviour.citations.at if behaviour.citations else None
    parts: dict[str, Any] = {}
    for target, source in plan.fields.items():
        if target.startswith("output."):
            value = at_path(data, source)
            parts[target] = None if value is MISSING else value
            if cited == "/" + target.partition(".")[2].replace(".", "/"):
                parts[target] = [_cited(one, source) for one in as_list(json_text(parts[target]))]
    parts |= {target: value for target, value in plan.constants.items() if target.startswith("output.")}
    if not parts:
        return output
    result = dict(output) if isinstance(output, dict) else {}
    for target, value in parts.items():
        _put(result, target.split(".")[1:], value)
    return in_order(result, behaviour.abstain.output if behaviour.abstain else None, behaviour.schema_document)


def _cited(one: Any, source: str) -> str:
    if isinstance(one, (dict, list)):
        raise Skip(f"{source} cites by {json.dumps(one)[:60]}, and a citation is the bare id of a passage")
    return str(one)


def _put(into: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = into.get(key)
        into[key] = dict(inner) if isinstance(inner, dict) else {}
        into = into[key]
    into[path[-1]] = value


def _recite(output: Any, renamed: Mapping[str, list[str]], behaviour: Behaviour) -> Any:
    cited = behaviour.citations_of(output)
    if not renamed or not cited or behaviour.citations is None or not isinstance(output, dict):
        return output
    result = dict(output)
    _put(result, behaviour.citations.at.split("/")[1:], [new for one in cited for new in renamed.get(one, [one])])
    return result


def _meta(data: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The record's own meta, what was mapped there, and every field that nothing was made from."""
    own = json_text(data.get("meta"))
    meta = dict(own) if isinstance(own, dict) else {} if own is None else {"meta": own}
    used = {key for key in (*_PLAIN, "meta") if key not in plan.fields}
    left = {key: value for key, value in data.items() if key not in used}
    for source in sources_of(plan):
        left = without_path(left, source)
    meta |= left
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
        raise Skip(f"there is no output; the record has {names_of(data)}{_suggestion(data)}")
    if behaviour.is_json and isinstance(found["output"], str) and behaviour.answer and behaviour.answer.at:
        place = behaviour.answer.at[1:].replace("/", ".")
        raise Skip(
            f"the output is a bare text, and this behaviour wants a JSON object: use --map output.{place}=FIELD, "
            "and --set output.X=VALUE for what the record does not say"
        )


def _suggestion(data: Mapping[str, Any]) -> str:
    guesses = {target: next((name for name in names if name in data), None) for target, names in _GUESSES.items()}
    words = [f"--map {target}={name}" for target, name in guesses.items() if name and target not in data]
    return f"; perhaps {' '.join(words)}" if words else "; say which is which with --map question=FIELD"
