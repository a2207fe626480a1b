"""What reviewers said, and what follows from it for each pair. Pure: the log of `review/` in, settled pairs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from curate.behaviour import Behaviour
from curate.files import canonical_json, parse_json, sha256_value
from curate.layout import ANSWERABLE, CORRECTED, DECISION, WHY, editable
from curate.pairs import Pair
from curate.pointer import same_json

Round = Literal["review", "adjudication"]
Status = Literal["submitted", "draft", "discarded", "withdrawn"]
Outcome = Literal["open", "returned", "to adjudicate", "accepted", "corrected", "rejected"]
SETTLED: tuple[Outcome, ...] = ("accepted", "corrected", "rejected")


class Entry(BaseModel):
    """One line of `review/responses.jsonl`: what a reviewer had said of a pair at one moment. Never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: str
    version: str = Field(description="Which content of the pair the reviewer saw: `version_of`.")
    round: Round
    reviewer: str
    status: Status
    answers: dict[str, str] = Field(default_factory=dict, description="Question -> answer, as given.")
    started: str = Field(description="When the response was begun: ISO 8601, UTC, as Argilla's clock had it.")
    at: str = Field(description="When it was last changed.")
    response: str = Field(description="Argilla's id of the response.")
    record: str = Field(description="Argilla's id of the record it stands on.")


def version_of(pair: Pair) -> str:
    """A hash of what a reviewer judges; what only describes the pair (source, meta) can change without a new review."""
    seen = pair.model_dump(mode="json", exclude={"id", "source", "meta"})
    return sha256_value(seen)[:16]


@dataclass(frozen=True)
class Judgement:
    """A reviewer's submitted answer, read: the output it comes to, or why it cannot be used."""

    reviewer: str
    decision: str
    output: Any
    answerable: str
    why: str | None
    fault: str | None = None

    def key(self) -> str:
        """Equal for two reviewers who agree. Of a rejected question nothing else is asked."""
        if self.decision == "reject":
            return "reject"
        return canonical_json([self.output, self.answerable])


def read_judgement(entry: Entry, pair: Pair, behaviour: Behaviour) -> Judgement:
    """A submitted entry as a judgement on the pair; `fault` says in the reviewer's words what must be mended."""
    answers = entry.answers
    decision, answerable = answers.get(DECISION, ""), answers.get(ANSWERABLE, "")
    typed, why = answers.get(CORRECTED), answers.get(WHY) or None

    def judged(output: Any, fault: str | None = None) -> Judgement:
        return Judgement(entry.reviewer, decision, output, answerable, why, fault)

    if decision not in ("accept", "fix", "reject") or answerable not in ("yes", "no"):
        return judged(pair.output, "questions 1 and 2 need an answer.")
    if decision == "reject":
        return judged(None)
    changed = typed is not None and typed.strip() != editable(pair.output, behaviour).strip()
    if decision == "accept":
        if changed and not _same_output(typed, pair, behaviour):
            return judged(pair.output, "you accepted the output, yet changed it: choose Fix if you meant the change.")
        return judged(pair.output, _contradiction(pair.output, answerable, pair, behaviour))
    if not changed:  # or emptied: Argilla sends nothing of an empty box
        why_not = "the box of question 3 is empty or unchanged: correct it there, or choose Accept."
        return judged(pair.output, f"you chose Fix, but {why_not}")
    try:
        output = parse_output(typed or "", behaviour)
    except ValueError as error:
        return judged(pair.output, f"the corrected output cannot be read ({error}). Compare it with the proposed one.")
    fault = output_fault(output, pair, behaviour) or _contradiction(output, answerable, pair, behaviour)
    if fault is None and same_json(output, pair.output):
        fault = "you chose Fix, but the output says the same as before: change it, or choose Accept."
    return judged(output, fault)


def _same_output(typed: str | None, pair: Pair, behaviour: Behaviour) -> bool:
    try:
        return same_json(parse_output(typed or "", behaviour), pair.output)
    except ValueError:
        return False


def parse_output(text: str, behaviour: Behaviour) -> Any:
    """What a reviewer typed, as an output; raises `ValueError`. Only what an editor puts in by itself is mended."""
    plain = text.replace("\u00a0", " ").replace("\r\n", "\n").strip()
    return parse_json(plain) if behaviour.is_json else plain


def output_fault(output: Any, pair: Pair, behaviour: Behaviour) -> str | None:
    """Why a corrected output cannot be taken: it breaks the schema, or cites what is not there; None where it can."""
    violations = behaviour.violations(output)
    if violations:
        first = violations[0]
        where = f" at {first.where}" if first.where else ""
        return f"the corrected output does not have the form that is wanted{where}: {first.message}"
    known = {passage.id for passage in pair.passages}
    unknown = [one for one in behaviour.citations_of(output) or [] if one not in known]
    if unknown:
        there = ", ".join(sorted(known)) or "none"
        return f"the corrected output cites {', '.join(unknown)}; the passages here are {there}."
    return None


def _contradiction(output: Any, answerable: str, pair: Pair, behaviour: Behaviour) -> str | None:
    if behaviour.abstain is None or not pair.passages:
        return None
    abstains = behaviour.abstains(output)
    if abstains and answerable == "yes":
        return "you say that the passages hold the answer, yet the output says that it does not know. Which is right?"
    if not abstains and answerable == "no":
        return (
            "you say that the passages do not hold the answer, yet the output answers."
            " If they do not, the right output says that it does not know (see the guidelines)."
        )
    return None


@dataclass(frozen=True)
class Settlement:
    """Where one pair stands. `by` are the reviewers whose judgements count, `adjudicator` who decided between them."""

    pair: str
    version: str
    outcome: Outcome
    by: tuple[str, ...] = ()
    adjudicator: str | None = None
    output: Any = None
    answerable: bool | None = None
    judgements: tuple[Judgement, ...] = ()
    returned: Mapping[str, str] | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing more is asked of anyone."""
        return self.outcome in SETTLED

    def document(self) -> dict[str, Any]:
        """A line of `review/settled.jsonl`: who said what, and what came of it. No times, no ids of a server."""
        said = {one.reviewer: {"decision": one.decision, "answerable": one.answerable} for one in self.judgements}
        return {
            "pair": self.pair,
            "version": self.version,
            "outcome": self.outcome,
            "by": list(self.by),
            "adjudicator": self.adjudicator,
            "answerable": self.answerable,
            "output": self.output,
            "said": dict(sorted(said.items())),
        }


def adjudication_version(pair: Pair, judgements: Sequence[Judgement]) -> str:
    """A hash of what an adjudicator sees: the pair and what the reviewers said of it."""
    said = [[one.reviewer, one.decision, one.key(), one.why] for one in judgements]
    return sha256_value([version_of(pair), said])[:16]


def settle(pair: Pair, entries: Sequence[Entry], overlap: int, behaviour: Behaviour) -> Settlement:
    """Where a pair stands, by the latest entries on it.

    `overlap` reviewers who agree settle it; where two differ it goes to adjudication, whatever the majority says.
    What was said of another content of the pair does not count.
    """
    version = version_of(pair)
    current = [one for one in entries if one.round == "review" and one.version == version]
    judged = [read_judgement(one, pair, behaviour) for one in current if one.status == "submitted"]
    good = tuple(sorted((one for one in judged if one.fault is None), key=lambda one: one.reviewer))
    returned = {one.reviewer: one.fault for one in judged if one.fault is not None}
    base = Settlement(pair.id, version, "open", tuple(one.reviewer for one in good), judgements=good, returned=returned)
    if len({one.key() for one in good}) > 1:
        return _adjudicate(pair, entries, base, behaviour)
    if len(good) >= overlap and not returned:
        return _settled(base, good[0], pair, None, behaviour)
    return replace(base, outcome="returned") if returned else base


def _adjudicate(pair: Pair, entries: Sequence[Entry], base: Settlement, behaviour: Behaviour) -> Settlement:
    version = adjudication_version(pair, base.judgements)
    ruling = [one for one in entries if one.round == "adjudication" and one.version == version]
    judged = [read_judgement(one, pair, behaviour) for one in ruling if one.status == "submitted"]
    faults = {one.reviewer: one.fault for one in judged if one.fault is not None}
    good = sorted((one for one in judged if one.fault is None), key=lambda one: one.reviewer)
    if good and not faults and len({one.key() for one in good}) == 1:
        return _settled(base, good[0], pair, good[0].reviewer, behaviour)
    return replace(base, outcome="to adjudicate", returned={**(base.returned or {}), **faults})


def _settled(
    base: Settlement, judgement: Judgement, pair: Pair, adjudicator: str | None, behaviour: Behaviour
) -> Settlement:
    if judgement.decision == "reject":
        return replace(base, outcome="rejected", adjudicator=adjudicator)
    outcome: Outcome = "accepted" if same_json(judgement.output, pair.output) else "corrected"
    # Where there are no passages, the question whether they hold the answer says nothing: the output does.
    answerable = judgement.answerable == "yes" if pair.passages else not behaviour.abstains(judgement.output)
    return replace(base, outcome=outcome, adjudicator=adjudicator, output=judgement.output, answerable=answerable)


def reviewed_pair(pair: Pair, settlement: Settlement) -> Pair:
    """The pair as reviewed: output and answerability as settled, and in `meta.review` who said so."""
    review = {"outcome": settlement.outcome, "by": list(settlement.by), "adjudicator": settlement.adjudicator}
    return pair.model_copy(
        update={
            "output": settlement.output,
            "answerable": settlement.answerable,
            "accepted": pair.accepted if settlement.outcome == "accepted" else (),
            "meta": {**pair.meta, "review": review},
        }
    )
