"""Whether a raw output is the JSON the behaviour asks for, what is wrong where it is not, and how each field fares."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from curate.behaviour import Behaviour
from curate.files import DuplicateKeyError, is_text, parse_json
from curate.pairs import Pair
from curate.pointer import MISSING, escape, resolve, same_json
from curate.schema import Violation
from eval.statistics import Rate, rate

EMPTY, NOT_JSON, WRAPPED, TRUNCATED, DUPLICATE = "empty", "not_json", "wrapped", "truncated", "duplicate_key"
MOST_FIELDS = 200
_MOST_TRIES = 200  # places in one output where an embedded value is looked for; bounds the time on hostile text
_FENCE = re.compile(r"\s*(?:```|~~~)[\w-]*[ \t]*\n?(.*?)(?:(?:```|~~~)\s*)?", re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_ENDS_OF_STRING = ('"', '\\"', '0"', '00"', '000"', '0000"')
_ENDS_OF_VALUE = (
    "",
    ":null",
    "null",
    '"\\u0000":null',
    "0",
    *("rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l"),
)


class Reading(NamedTuple):
    """One raw output, read. `value` is what it says, `MISSING` where it is not exactly one JSON value."""

    value: Any
    fault: str | None  # the first violation: one of the five above or a JSON Schema keyword
    recoverable: bool  # would pass once a fence or the prose around it is taken off
    violations: tuple[Violation, ...] = ()

    @property
    def well_formed(self) -> bool:
        return self.fault is None


def read_output(behaviour: Behaviour, text: str, finish: str | None = None) -> Reading:
    """Read one raw output. `finish` is "length" where the model ran out of tokens.

    Never raises, whatever the text. A text output is well-formed when it is not empty.
    """
    if not text.strip():
        return Reading(MISSING, EMPTY, False)
    if not behaviour.is_json:
        return Reading(text, None, True)
    try:
        value = parse_json(text)
    except ValueError as error:
        return _read_broken(behaviour, text, finish, error)
    if "\\" in text and "\\ud" in text.lower() and not is_text(json.dumps(value, ensure_ascii=False)):
        return Reading(MISSING, NOT_JSON, False)  # its strings are no text; RFC 8259, section 8.2, promises nothing
    violations = _violations(behaviour, value)
    return Reading(value, violations[0].keyword if violations else None, not violations, tuple(violations))


def _violations(behaviour: Behaviour, value: Any) -> list[Violation]:
    try:
        return [] if behaviour.conforms(value) else behaviour.violations(value)
    except ValueError as error:  # half of a surrogate pair, or nested deeper than the validator goes
        return [Violation(keyword=NOT_JSON, where="", message=str(error))]


def _read_broken(behaviour: Behaviour, text: str, finish: str | None, error: ValueError) -> Reading:
    """What is wrong with a text that is not exactly one JSON value."""
    if _parses(text):
        return Reading(MISSING, DUPLICATE if isinstance(error, DuplicateKeyError) else NOT_JSON, False)
    if is_cut_short(text):
        return Reading(MISSING, TRUNCATED, False)
    found = [*_embedded(behaviour, text)]
    if found:
        return Reading(MISSING, WRAPPED, len(found) == 1 and found[0])
    return Reading(MISSING, TRUNCATED if finish == "length" else NOT_JSON, False)


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_no_constant)  # strict but for repeated keys: it finds where a value ends


def _parses(text: str) -> bool:
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def is_cut_short(text: str) -> bool:
    """Whether the text, less an opening fence or prose before its first brace, is the start of JSON and not all of it.

    It is when something can be put after it that makes it parse.
    """
    start = text.find("{")
    bodies = {text.strip("\ufeff \t\r\n"), text[start:] if start >= 0 else ""}
    fence = _FENCE.match(text)
    if fence:
        bodies.add(text[fence.start(1) :])
    return any(body[:1] in ("{", "[", '"') and _is_prefix(body) for body in bodies)


def _is_prefix(text: str) -> bool:
    closers: list[str] = []
    in_string = False
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark[0] == '"':
            in_string = not token.group(1)
        elif mark in "{[":
            closers.append("}" if mark == "{" else "]")
        elif not closers or closers.pop() != mark:
            return False
        if in_string:
            break
    if not closers and not in_string:
        return False
    tail = "".join(reversed(closers))
    ends = ["".join(two) for two in product(_ENDS_OF_STRING, ("", ":null"))] if in_string else _ENDS_OF_VALUE
    return any(_parses(text + end + tail) for end in ends)


def _embedded(behaviour: Behaviour, text: str) -> Iterator[bool]:
    """For every JSON value inside a fence or prose, whether it would pass by itself.

    Objects count; so do lists that would pass, since prose is full of [1]; so does whatever alone fills a fence.
    """
    fence = _FENCE.fullmatch(text)
    if fence and _parses(fence.group(1)):
        yield _passes(behaviour, fence.group(1))
        return
    for start, end in _values_in(text):
        passes = _passes(behaviour, text[start:end])
        if passes or text[start] == "{":
            yield passes


def embedded_span(text: str) -> tuple[int, int] | None:
    """Characters [start, end) of the longest JSON object or list inside a fence or prose; None where there is none."""
    return max(_values_in(text), key=lambda span: (span[1] - span[0], -span[0]), default=None)


def _values_in(text: str) -> Iterator[tuple[int, int]]:
    """Where the objects and lists stand that parse, from left to right, none inside another."""
    place = 0
    for _ in range(_MOST_TRIES):
        start = min((at for at in (text.find("{", place), text.find("[", place)) if at >= 0), default=-1)
        if start < 0:
            return
        try:
            _, place = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            place = start + 1
            continue
        yield start, place


def _passes(behaviour: Behaviour, text: str) -> bool:
    try:
        return not _violations(behaviour, parse_json(text))
    except ValueError:
        return False


def schema_numbers(behaviour: Behaviour, pairs: Sequence[Pair], readings: Sequence[Reading]) -> dict[str, Any]:
    """DESIGN 6's `schema`: adherence, recoverable, violations (most frequent first) and fields."""
    n = len(readings)
    faults = Counter(reading.fault for reading in readings if reading.fault)
    return {
        "adherence": rate(n - faults.total(), n),
        "recoverable": rate(sum(reading.recoverable for reading in readings), n),
        "violations": {fault: rate(k, n) for fault, k in sorted(faults.items(), key=lambda one: (-one[1], one[0]))},
        "fields": _fields(behaviour, pairs, readings) if behaviour.is_json else {},
    }


def _fields(
    behaviour: Behaviour, pairs: Sequence[Pair], readings: Sequence[Reading]
) -> dict[str, dict[str, Rate | None]]:
    """Per JSON Pointer: `present` of all outputs, `valid` of those present, `correct` of the pairs that want it."""
    fields = {}
    for pointer in field_pointers(behaviour, pairs):
        given = [resolve(reading.value, pointer) for reading in readings]
        wanted = [resolve(pair.output, pointer) for pair in pairs]
        there = sum(one is not MISSING for one in given)
        breaking = sum(
            one is not MISSING and bool(reading.violations) and _breaks(reading, pointer)
            for one, reading in zip(given, readings, strict=True)
        )
        correct = sum(
            left is not MISSING and right is not MISSING and _is_correct(behaviour, pointer, left, right, pair)
            for left, right, pair in zip(given, wanted, pairs, strict=True)
        )
        fields[pointer] = {
            "present": rate(there, len(readings)),
            "valid": rate(there - breaking, there),
            "correct": rate(correct, sum(one is not MISSING for one in wanted)),
        }
    return fields


def _breaks(reading: Reading, pointer: str) -> bool:
    return any(one.where == pointer or one.where.startswith(pointer + "/") for one in reading.violations)


def _is_correct(behaviour: Behaviour, pointer: str, given: Any, wanted: Any, pair: Pair) -> bool:
    """The answer by the behaviour's comparator, citations as a set, any other field as equal JSON."""
    if behaviour.answer and pointer == behaviour.answer.at and wanted is not None:
        return behaviour.is_right_answer(given, pair)
    if behaviour.citations and pointer == behaviour.citations.at and isinstance(given, list):
        return isinstance(wanted, list) and set(map(str, given)) == set(map(str, wanted))
    return same_json(given, wanted)


def field_pointers(behaviour: Behaviour, pairs: Sequence[Pair] = ()) -> list[str]:
    """The fields to report: what the schema's `properties` name; without any, the keys of the wanted outputs."""
    named = dict.fromkeys(_walk(behaviour.schema_document, behaviour.schema_document, "", ()))
    if not named:
        keys = (key for pair in pairs if isinstance(pair.output, dict) for key in pair.output)
        named = dict.fromkeys("/" + escape(key) for key in keys)
    return list(named)[:MOST_FIELDS]


def _walk(schema: Any, root: Any, pointer: str, refs: tuple[str, ...]) -> Iterator[str]:
    """Pointers of the properties below `schema`; a `$ref` is followed inside the file, once on each way down."""
    if not isinstance(schema, Mapping):
        return
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith("#") and ref not in refs:
        yield from _walk(resolve(root, ref[1:]), root, pointer, (*refs, ref))
    properties = schema.get("properties")
    for key, inner in properties.items() if isinstance(properties, Mapping) else ():
        yield f"{pointer}/{escape(key)}"
        yield from _walk(inner, root, f"{pointer}/{escape(key)}", refs)
    for part in schema.get("allOf") or ():
        yield from _walk(part, root, pointer, refs)
