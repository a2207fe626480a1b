"""`review/`: what reviewers said, append-only, and what follows from it. Talks to no server."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.agreement import (
    Alpha,
    Ratings,
    Reviewer,
    agreement_with_others,
    krippendorff,
    seconds_per_review,
    stand_out,
    wilson,
)
from curate.behaviour import Behaviour, load_behaviour
from curate.consensus import Entry, Judgement, Round, Settlement, read_judgement, settle, version_of
from curate.errors import ReviewError, first_fault
from curate.files import canonical_json, parse_json, read_json, write_json, write_text
from curate.layout import ANSWERABLE, CORRECTED, DECISION, LAYOUT
from curate.pairs import Pair, read_pairs
from curate.workspace import Workspace

SETTLED = "settled.jsonl"  # in `review/`: the settled pairs, derived from the rest


class Terms(BaseModel):
    """`review/round.json`: what a round of review was agreed to be, at the last push."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    team: str = Field(description="The Argilla workspace of the reviewers.")
    overlap: int = Field(ge=1, description="How many reviewers each pair gets.")
    layout: int = LAYOUT

    @property
    def adjudicators(self) -> str:
        """The Argilla workspace of those who decide between reviewers; the dataset in it has the same name."""
        return f"{self.team}-adjudication"


def read_terms(workspace: Workspace) -> Terms | None:
    """The terms of the round; None where nothing was ever pushed. Raises `ReviewError` where they are damaged."""
    path = workspace.review / "round.json"
    if not path.exists():
        return None
    try:
        return Terms.model_validate(read_json(path))
    except ValidationError as error:
        fix = "put it back as it was (git, a copy), or delete it: tutelage curate push writes it anew"
        raise ReviewError(first_fault(error, "terms"), where=str(path), fix=fix) from None


def write_terms(workspace: Workspace, terms: Terms) -> None:
    """Write `review/round.json` where it says something else."""
    with workspace.lock():
        if read_terms(workspace) != terms:
            write_json(workspace.review / "round.json", terms.model_dump(mode="json"))


class Log:
    """`review/responses.jsonl`. Lines are added and never changed; a line cut short by a crash is taken for none.

    With `without`, read as though these reviewers had said nothing.
    """

    def __init__(self, workspace: Workspace, without: Collection[str] = ()) -> None:
        self.workspace = workspace
        self.path = workspace.review / "responses.jsonl"
        self.without = without
        self.entries: list[Entry] = []
        self.latest: dict[tuple[Round, str, str], Entry] = {}  # of each (round, pair, reviewer)
        self._read_to = 0
        self._read()

    def _read(self) -> None:
        """Take in what has been added since, by us or another process."""
        if not self.path.exists():
            return
        with self.path.open("rb") as handle:
            handle.seek(self._read_to)
            for raw in handle:
                if not raw.endswith(b"\n") and not _is_json(raw):
                    return
                self._read_to += len(raw)
                if not raw.strip():
                    continue
                entry = self._parse(raw)
                if entry.reviewer in self.without:
                    continue
                self.entries.append(entry)
                self.latest[entry.round, entry.pair, entry.reviewer] = entry

    def _parse(self, raw: bytes) -> Entry:
        try:
            return Entry.model_validate(parse_json(raw.decode("utf-8")))
        except (ValueError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise ReviewError(
                f"line {len(self.entries) + 1} is no response: {reason}",
                where=str(self.path),
                fix="put the file back as it was (git, a copy), or delete that line: a pull fetches again what"
                " Argilla still has",
            ) from None

    def who_said(self) -> dict[str, str]:
        """Argilla's id of each response -> the reviewer who gave it."""
        return {entry.response: entry.reviewer for entry in self.entries}

    def add(self, entries: Iterable[Entry]) -> list[Entry]:
        """Append those that say something new; returns them. On disk when this returns."""
        with self.workspace.lock():
            self._read()
            fresh = [one for one in entries if _differs(self.latest.get((one.round, one.pair, one.reviewer)), one)]
            if fresh:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("r+b" if self.path.exists() else "w+b") as handle:
                    handle.truncate(self._read_to)
                    handle.seek(max(0, self._read_to - 1))
                    if handle.read(1) not in (b"", b"\n"):
                        handle.write(b"\n")  # an editor took the last one away
                    for entry in fresh:
                        handle.write(json.dumps(entry.model_dump(mode="json"), ensure_ascii=False).encode() + b"\n")
                    handle.flush()
                    os.fsync(handle.fileno())
                self._read()
        return fresh


def _is_json(raw: bytes) -> bool:
    """Whether a line without its end is whole all the same."""
    try:
        parse_json(raw.decode("utf-8"))
    except ValueError:
        return False
    return True


def _differs(known: Entry | None, entry: Entry) -> bool:
    """Whether an entry is news: another response or moment than the last one's, or something else said in the same."""
    if known is None:
        return True
    if entry.status == "withdrawn":
        return known.status != "withdrawn" and known.response == entry.response
    if known.response == entry.response and known.at == entry.at:
        return (known.status, known.answers) != (entry.status, entry.answers)
    return True


@dataclass(frozen=True)
class ReviewState:
    """Where a review stands: each pair of the working set, how far the reviewers agree, what each of them did."""

    terms: Terms | None
    pairs: dict[str, Settlement]
    agreement: dict[str, Alpha]
    reviewers: tuple[Reviewer, ...]

    def settled(self) -> dict[str, Settlement]:
        """The pairs of which nothing more is asked."""
        return {name: one for name, one in self.pairs.items() if one.settled}

    def counts(self) -> dict[str, int]:
        """Outcome -> pairs."""
        found: dict[str, int] = defaultdict(int)
        for one in self.pairs.values():
            found[one.outcome] += 1
        return dict(found)


def review_state(
    workspace: Workspace,
    pairs: Iterable[Pair] | None = None,
    behaviour: Behaviour | None = None,
    without: Collection[str] = (),
) -> ReviewState:
    """The state of the review, from `review/`, the pairs and the behaviour alone: the same files, the same state.

    `without` names reviewers whose part is left out, as though they had said nothing.
    """
    terms = read_terms(workspace)
    if terms is None:
        return ReviewState(None, {}, {}, ())
    behaviour = behaviour or load_behaviour(workspace.behaviour)
    pairs = list(read_pairs(workspace.pairs) if pairs is None else pairs)
    log = Log(workspace, without)
    by_pair: dict[str, list[Entry]] = defaultdict(list)
    for entry in log.latest.values():
        by_pair[entry.pair].append(entry)
    settlements = {pair.id: settle(pair, by_pair.get(pair.id, []), terms.overlap, behaviour) for pair in pairs}
    ratings = ratings_of(settlements.values())
    agreement = {question: krippendorff(values) for question, values in ratings.items()}
    faults = _count_faults(log.entries, {pair.id: pair for pair in pairs}, behaviour)
    return ReviewState(terms, settlements, agreement, _reviewers(log, ratings, faults))


def ratings_of(settlements: Iterable[Settlement]) -> dict[str, Ratings]:
    """Question -> pair -> reviewer -> value, of the judgements that could be used. `corrected` is the output meant."""
    made: dict[str, dict[str, dict[str, str]]] = {DECISION: {}, ANSWERABLE: {}, CORRECTED: {}}
    for one in settlements:
        for judgement in one.judgements:
            for question, value in _values(judgement).items():
                made[question].setdefault(one.pair, {})[judgement.reviewer] = value
    return dict(made)


def _values(judgement: Judgement) -> dict[str, str]:
    output = "reject" if judgement.decision == "reject" else canonical_json(judgement.output)
    return {DECISION: judgement.decision, ANSWERABLE: judgement.answerable, CORRECTED: output}


def _count_faults(entries: Iterable[Entry], pairs: dict[str, Pair], behaviour: Behaviour) -> dict[str, int]:
    """Reviewer -> submitted answers on the pairs, as they are now, that could not be taken."""
    faults: dict[str, int] = defaultdict(int)
    for entry in entries:
        pair = pairs.get(entry.pair)
        if pair is None or (entry.round, entry.status) != ("review", "submitted"):
            continue
        if entry.version == version_of(pair):
            faults[entry.reviewer] += read_judgement(entry, pair, behaviour).fault is not None
    return faults


def _reviewers(log: Log, ratings: dict[str, Ratings], faults: dict[str, int]) -> tuple[Reviewer, ...]:
    status: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (round_, _, reviewer), entry in log.latest.items():
        if round_ == "review":
            status[reviewer][entry.status] += 1
    moments: dict[str, list[float]] = defaultdict(list)
    for entry in log.entries:
        if entry.status == "submitted" and entry.round == "review":
            moments[entry.reviewer].append(_seconds(entry.at))
    agreement = agreement_with_others([ratings[DECISION], ratings[ANSWERABLE]])
    pace = {name: seconds_per_review(moments[name]) for name in status}
    return tuple(
        Reviewer(
            name,
            status[name]["submitted"],
            status[name]["draft"],
            status[name]["discarded"],
            faults.get(name, 0),
            agreement.get(name, wilson(0, 0)),
            pace[name],
            stand_out(name, agreement, pace),
        )
        for name in sorted(status)
    )


def _seconds(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


def write_settled(workspace: Workspace, state: ReviewState) -> None:
    """Write `review/settled.jsonl`, a line a settled pair in the order of the ids; derived, so it may be deleted."""
    lines = [json.dumps(one.document(), ensure_ascii=False) for _, one in sorted(state.settled().items())]
    with workspace.lock():
        write_text(workspace.review / SETTLED, "".join(line + "\n" for line in lines))
