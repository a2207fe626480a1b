"""What went wrong, one answer at a time: the cases a person reads to believe the numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.behaviour import Behaviour
from curate.errors import WorkspaceError
from curate.files import atomic_path, parse_json
from curate.pointer import MISSING
from eval.grading import Graded
from eval.marking import fault_spans
from eval.schema import DUPLICATE, EMPTY, NOT_JSON, TRUNCATED, WRAPPED

NAME = "failures.jsonl"

# kind -> (its badge, how grave it is: the gravest stand first)
KINDS: dict[str, tuple[str, int]] = {
    "hallucination": ("answered the unanswerable", 0),
    "schema": ("breaks the schema", 1),
    "wrong": ("wrong answer", 2),
    "over-abstention": ("abstained although it could answer", 3),
    "citation": ("bad citation", 4),
}


class Failure(BaseModel):
    """One answer that is not what was wanted, with all a reader needs to judge it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kinds: tuple[str, ...] = Field(description="Keys of KINDS, the gravest first.")
    wrong: tuple[str, ...] = Field(description="What is wrong, a sentence each.")
    question: str
    history: tuple[dict[str, str], ...] = ()
    passages: tuple[dict[str, Any], ...] = Field(default=(), description="id, text, source, cited.")
    wanted: str
    given: str
    confidence: float | None = None
    marks: tuple[tuple[int, int], ...] = Field(default=(), description="Characters of `given` that are wrong.")


def gravest_first(failures: Sequence[Failure]) -> list[Failure]:
    """The order of the page: by the gravest kind, then the surest, then by id."""

    def rank(one: Failure) -> tuple[int, float, str]:
        return min(KINDS[kind][1] for kind in one.kinds), -(one.confidence or 0.0), one.id

    return sorted(failures, key=rank)


def count_kinds(failures: Sequence[Failure]) -> dict[str, int]:
    """Kind -> how many failures are of it, in the order of KINDS; a failure may be of several."""
    counts = Counter(kind for one in failures for kind in one.kinds)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def find_failures(behaviour: Behaviour, graded: Iterable[Graded]) -> list[Failure]:
    """The answers that are not what was wanted, the gravest first."""
    return gravest_first([one for item in graded if (one := _failure(behaviour, item)) is not None])


def _failure(behaviour: Behaviour, graded: Graded) -> Failure | None:
    pair, prediction = graded.pair, graded.prediction
    kinds: list[str] = []
    wrong: list[str] = []
    for kind, sentences in (_cell_faults(behaviour, graded), _citation_faults(behaviour, graded)):
        kinds += [kind] if sentences else []
        wrong += sentences
    if not kinds:
        return None
    cited = behaviour.citations_of(graded.reading.value) or []
    return Failure(
        id=pair.id,
        kinds=tuple(kinds),
        wrong=tuple(wrong),
        question=pair.question,
        history=tuple(turn.model_dump() for turn in pair.history),
        passages=tuple({**passage.model_dump(), "cited": passage.id in cited} for passage in pair.passages),
        wanted=behaviour.text(pair.output),
        given=prediction.output,
        confidence=prediction.confidence,
        marks=fault_spans(behaviour, graded),
    )


FAULTS = {
    EMPTY: "The output is empty.",
    NOT_JSON: "The output is not JSON.",
    WRAPPED: "The JSON is wrapped in a fence or in prose; the output must be the JSON alone.",
    TRUNCATED: "The output ends before its JSON does.",
    DUPLICATE: "An object names the same key twice.",
}


def _cell_faults(behaviour: Behaviour, graded: Graded) -> tuple[str, list[str]]:
    """The kind of failure that the output's cell is, and the sentences; no sentences where it is none."""
    reading, cell = graded.reading, graded.cell
    if reading.fault is not None:
        broken = [f"{one.where or 'At the top'}: {one.message} ({one.keyword})" for one in reading.violations]
        return "schema", broken or [FAULTS.get(reading.fault, f"The output breaks the schema at {reading.fault}.")]
    if cell == "answered_unanswerable":
        return "hallucination", ["The passages do not hold the answer, and the output gives one."]
    if cell == "abstained_answerable":
        return "over-abstention", ["The passages hold the answer, and the output says that it does not know."]
    if cell == "answered_wrong":
        rule = behaviour.answer.compare if behaviour.answer else "exact"
        given = _quoted(behaviour.answer_of(reading.value))
        accepted = [_quoted(one) for one in behaviour.wanted_answers(graded.pair)]
        wanted = " or ".join(dict.fromkeys(accepted)) or "an answer"
        how = f"compared by {rule}" if graded.prediction.correct is None else "a judge called it wrong"
        return "wrong", [f"The answer is {given}; wanted is {wanted} ({how})."]
    return "", []


def _quoted(value: Any) -> str:
    return "missing" if value is MISSING else json.dumps(value, ensure_ascii=False)


def _citation_faults(behaviour: Behaviour, graded: Graded) -> tuple[str, list[str]]:
    """What is wrong with what a well-formed output cites: ids that no passage has, or none under an answer."""
    if behaviour.citations is None or not graded.reading.well_formed:
        return "citation", []
    cited = behaviour.citations_of(graded.reading.value)
    ids = {passage.id for passage in graded.pair.passages}
    foreign = [one for one in cited or [] if one not in ids]
    found = [f"It cites {one!r}, and no passage has that id." for one in foreign]
    if not cited and graded.cell in ("answered_correct", "answered_wrong"):
        found.append("It answers and cites no passage.")
    return "citation", found


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """Write the failures as JSONL, the whole file at once or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for one in failures:
            handle.write(json.dumps(one.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n")


def read_failures(path: Path) -> list[Failure]:
    """The failures of a report; raises `WorkspaceError` where the file is missing or damaged."""
    try:
        with path.open(encoding="utf-8", newline="\n") as handle:
            return [Failure.model_validate(parse_json(line)) for line in handle if line.strip()]
    except FileNotFoundError:
        raise WorkspaceError("there is no such file", where=str(path), fix="score the predictions again") from None
    except (ValidationError, ValueError) as error:
        raise WorkspaceError(f"it is damaged: {error}", where=str(path), fix="score the predictions again") from None
