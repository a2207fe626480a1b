"""Whether the parts of a behaviour agree with each other."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from curate.compare import plain_words
from curate.errors import BehaviourError
from curate.files import canonical_json
from curate.pairs import Pair, Passage
from curate.pointer import resolve

if TYPE_CHECKING:
    from curate.behaviour import Behaviour


def check_behaviour(behaviour: Behaviour) -> list[str]:
    """What a schema of fields cannot say: that the parts of a behaviour agree. Each fault names its field."""
    faults = [*_check_prompt(behaviour), *_check_places(behaviour)]
    return faults or _check_abstention(behaviour)


def _check_prompt(behaviour: Behaviour) -> list[str]:
    sample = Pair(
        id="sample",
        question="TUTELAGE-QUESTION",
        passages=(Passage(id="p1", text="A passage."), Passage(id="p2", text="Another.")),
        output="",
    )
    try:
        rendered = behaviour.render(sample)[-1]["content"]
        behaviour.render(sample.model_copy(update={"passages": ()}))
    except BehaviourError as error:
        return [str(error)]
    if "TUTELAGE-QUESTION" not in rendered:
        return ["prompt: the question does not appear in it; write {{ question }} where it belongs"]
    return []


def _check_places(behaviour: Behaviour) -> list[str]:
    faults = []
    if not behaviour.is_json and behaviour.output.schema_file:
        faults.append("output.schema: a text output has no schema; set output.format to json or drop it")
    abstain = behaviour.abstain
    if abstain and behaviour.is_json and not isinstance(abstain.where, str):
        faults.append("abstain.where: for JSON output this is one JSON Pointer such as /status")
    if abstain and not behaviour.is_json and isinstance(abstain.where, str) and abstain.where.startswith("/"):
        faults.append("abstain.where: for text output this is a list of phrases, not a JSON Pointer")
    places: dict[str, str | None] = {
        "answer.at": behaviour.answer.at if behaviour.answer else None,
        "citations.at": behaviour.citations.at if behaviour.citations else None,
    }
    if abstain and behaviour.is_json and isinstance(abstain.where, str):
        places["abstain.where"] = abstain.where
    for name, pointer in places.items():
        if not pointer:
            continue
        if not behaviour.is_json:
            faults.append(f"{name}: a text output has no places to point at; drop it")
        elif not pointer.startswith("/"):
            faults.append(f"{name}: {pointer!r} is no JSON Pointer; it begins with a slash, as in /answer")
    return faults


def _check_abstention(behaviour: Behaviour) -> list[str]:
    abstain = behaviour.abstain
    if abstain is None:
        return []
    try:
        canonical_json([abstain.equals, abstain.output])
    except (ValueError, TypeError):
        return ["abstain: equals and output are JSON values (a date or .nan is none); quote them"]
    phrases = [abstain.where] if isinstance(abstain.where, str) else list(abstain.where)
    if not behaviour.is_json and not all(plain_words(phrase) for phrase in phrases):
        return ["abstain.where: a phrase without a letter or digit would make any punctuation an abstention"]
    faults = [
        f"abstain.output: the abstention breaks the schema at {one.where or 'the top'}: {one.message}"
        for one in behaviour.violations(abstain.output)
    ]
    if not behaviour.abstains(abstain.output):
        faults.append("abstain.output: the abstention does not fit its own rule (abstain.where, abstain.equals)")
    return faults or _check_citations(behaviour, abstain.output)


def _check_citations(behaviour: Behaviour, output: Any) -> list[str]:
    """Whether passage ids may stand at `citations.at`: tried on an output, since a schema says it in many ways."""
    at = behaviour.citations.at if behaviour.citations else ""
    output = deepcopy(output)
    cited = resolve(output, at)
    if not at or not isinstance(cited, list):
        return []
    refused = []
    for one in ("p1", 1):
        cited[:] = [one]
        refused += [v for v in behaviour.violations(output) if v.where == f"{at}/0" and v.keyword == "type"]
    if len(refused) < 2:
        return []
    return [f"citations.at: {at} must be a list of bare passage ids, and the schema wants others: {refused[0].message}"]
