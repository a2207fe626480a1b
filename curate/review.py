"""Pairs to Argilla: `push`, and what it shares with `pulling.py`. Which Argilla it is nobody here knows."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from curate import layout
from curate.argilla.boards import Board, ensure_board, ensure_people, ensure_team, find_team, usernames
from curate.argilla.client import PAGE, Client, Json, Missing, encode_records
from curate.behaviour import Behaviour, load_behaviour
from curate.consensus import Entry, Round, version_of
from curate.pairs import Pair, read_pairs
from curate.review_log import Log, Terms, read_terms, write_terms
from curate.splits import Split
from curate.workspace import Workspace

IN_FLIGHT = 2  # so that the server can read one page while the database writes another
RENEWED_AT_ONCE = 16
Report = Callable[[str, int, int], None]  # what is done, how many so far, of how many (0: not known)


class PushOptions(NamedTuple):
    """How to push. What is None stays as it is, or gets its default at the first push."""

    dataset: str | None = None
    team: str | None = None
    overlap: int | None = None
    annotators: tuple[str, ...] = ()
    adjudicators: tuple[str, ...] = ()


@dataclass
class Pushed:
    """What a push did, by pair id."""

    terms: Terms
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    described: list[str] = field(default_factory=list)  # only metadata differed, or how the pair was shown
    unchanged: int = 0
    foreign: list[str] = field(default_factory=list)  # in Argilla, but no pair of the working set
    people: list[str] = field(default_factory=list)

    def document(self) -> Json:
        """As `--json` prints it."""
        return {
            "dataset": self.terms.dataset,
            "team": self.terms.team,
            "overlap": self.terms.overlap,
            "added": self.added,
            "changed": self.changed,
            "described": self.described,
            "unchanged": self.unchanged,
            "foreign": self.foreign,
            "people_made": self.people,
        }


def hints(
    workspace: Workspace, pairs: Sequence[Pair], behaviour: Behaviour
) -> tuple[dict[str, list[str]], dict[str, Split]]:
    """Pair -> rules of its findings, and pair -> the split the next release would put it into."""
    from curate.checks import check_pairs
    from curate.release import next_splits

    findings: dict[str, list[str]] = {}
    found = check_pairs(pairs, behaviour)
    for one in found:
        if one.pair is not None:
            findings.setdefault(one.pair, []).append(one.rule)
    return findings, next_splits(workspace, pairs, behaviour, found)


def guidelines_of(behaviour: Behaviour, pairs: Sequence[Pair], adjudication: bool) -> str:
    """The guidelines, with the output of the first pair that answers for an example."""
    answering = (pair for pair in pairs if behaviour.conforms(pair.output) and not behaviour.abstains(pair.output))
    first = min(answering, key=lambda pair: pair.id, default=None)
    return layout.guidelines(behaviour, adjudication, first.output if first else None)


def slug(name: str) -> str:
    """A name Argilla takes for a workspace."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-_") or "tutelage"


def push(client: Client, workspace: Workspace, options: PushOptions, report: Report) -> Pushed:
    """Bring every pair of the working set to Argilla as it is now; what is there already stays.

    Responses to a pair that has changed are kept in `review/` and taken off its record, since they were about
    something else.
    """
    behaviour, pairs = load_behaviour(workspace.behaviour), read_pairs(workspace.pairs)
    terms = _terms(workspace, options, behaviour)
    team = ensure_team(client, terms.team)
    passwords = workspace.root / ".argilla" / "passwords.json"
    people = ensure_people(client, options.annotators, team, passwords)
    if options.adjudicators:
        others = ensure_team(client, terms.adjudicators)
        people += ensure_people(client, options.adjudicators, others, passwords)
    text = guidelines_of(behaviour, pairs, False)
    board = ensure_board(client, team, terms.dataset, terms.overlap, text, is_json=behaviour.is_json)
    write_terms(workspace, terms)
    findings, splits = hints(workspace, pairs, behaviour)
    wanted = [
        Wanted(pair, layout.metadata(pair, behaviour, version_of(pair), findings.get(pair.id, ()), splits.get(pair.id)))
        for pair in pairs
    ]
    done = Pushed(terms, people=people)
    _sync(client, workspace, board, wanted, behaviour, done, report)
    return done


def _terms(workspace: Workspace, options: PushOptions, behaviour: Behaviour) -> Terms:
    before = read_terms(workspace)
    name = slug(behaviour.name)
    return Terms(
        dataset=options.dataset or (before.dataset if before else name),
        team=slug(options.team) if options.team else (before.team if before else name),
        overlap=options.overlap or (before.overlap if before else 2),
    )


class Wanted(NamedTuple):
    """A pair and what its record says about it."""

    pair: Pair
    metadata: Json


def _sync(
    client: Client,
    workspace: Workspace,
    board: Board,
    wanted: Sequence[Wanted],
    behaviour: Behaviour,
    done: Pushed,
    report: Report,
) -> None:
    """Bring Argilla's records to what is wanted, and note in `done` what that took."""
    there: dict[str, Json] = {}
    for page in client.records(board.id):
        there.update({str(one["external_id"]): one for one in page})
        report("looking at what is there", len(there), 0)
    added: list[Wanted] = []
    changed: list[tuple[str, Json]] = []  # the id of the record, and what it shall be
    described: list[Json] = []
    for one in wanted:
        name = one.pair.id
        known = there.get(name)
        metadata = (known or {}).get("metadata") or {}
        if known is None:
            added.append(one)
            done.added.append(name)
        elif metadata.get(layout.VERSION) != one.metadata[layout.VERSION]:
            changed.append((str(known["id"]), layout.record(one.pair, behaviour, one.metadata)))
            done.changed.append(name)
        elif looks := new_looks(known, layout.record(one.pair, behaviour, one.metadata)):
            described.append({"external_id": name, **looks})
            done.described.append(name)
        else:
            done.unchanged += 1
    if changed:
        teams = [find_team(client, name) for name in (done.terms.team, done.terms.adjudicators)]
        log, people = Log(workspace), usernames(client, [team for team in teams if team])
        renew(client, log, people, board, changed, "review", report)
    records = (layout.record(one.pair, behaviour, one.metadata) for one in added)
    send(client, board, chain(records, described), len(added) + len(described), report)
    done.foreign = sorted(set(there) - {one.pair.id for one in wanted})


def new_looks(known: Json, wanted: Json) -> Json:
    """What to send of a record whose pair is the same: how an older version showed it is renewed, its answers stay."""
    fields = {**wanted["fields"], layout.NOTICE: known["fields"].get(layout.NOTICE)}
    there = {name: known["fields"].get(name) for name in fields}
    looks = {"fields": fields} if there != fields else {}
    return {"metadata": wanted["metadata"], **looks} if looks or known["metadata"] != wanted["metadata"] else {}


def send(client: Client, board: Board, records: Iterable[Json], total: int, report: Report) -> None:
    """Add or change records, a page a request and `IN_FLIGHT` requests at once; broken off, it has sent whole pages."""
    addressed = (_addressed(one, board) for one in records)
    begun: deque[tuple[Future[None], int]] = deque()
    sent = 0

    def finish_one() -> None:
        nonlocal sent
        done, count = begun.popleft()
        done.result()
        sent += count
        report("pushing", sent, total)

    report("pushing", sent, total)
    with ThreadPoolExecutor(IN_FLIGHT) as senders:
        try:
            for page in iter(lambda: list(islice(addressed, PAGE)), []):
                if len(begun) == IN_FLIGHT:
                    finish_one()
                begun.append((senders.submit(client.upsert_records, board.id, encode_records(page)), len(page)))
            while begun:
                finish_one()
        except BaseException:
            client.patience = 0  # what is on its way ends, and waits no longer for a server that is away
            raise


def _addressed(record: Json, board: Board) -> Json:
    """A record with its suggestion addressed to the question of this dataset."""
    if layout.SUGGESTED not in record:
        return record
    plain = {key: value for key, value in record.items() if key != layout.SUGGESTED}
    suggestion = {"question_id": board.corrected, "value": record[layout.SUGGESTED], "agent": "proposed"}
    return {**plain, "suggestions": [suggestion]}


def renew(
    client: Client,
    log: Log,
    people: Mapping[str, str],
    board: Board,
    changed: Sequence[tuple[str, Json]],
    round_: Round,
    report: Report,
) -> None:
    """Give records, each with its id, another content, and take off what was said of the old one.

    A few at a time: between the two steps the old content can be answered, which would count for the new one.
    """
    for begun in range(0, len(changed), RENEWED_AT_ONCE):
        report("renewing", begun, len(changed))
        some = changed[begun : begun + RENEWED_AT_ONCE]
        for record_id, _ in some:
            take_off_responses(client, log, people, record_id, round_)
        client.upsert_records(board.id, encode_records([_addressed(record, board) for _, record in some]))


def take_off_responses(client: Client, log: Log, people: Mapping[str, str], record_id: str, round_: Round) -> None:
    """Keep the responses of a record in `review/`, then take them off it. `people` are users by id."""
    try:
        record = client.get(f"/records/{record_id}")
    except Missing:
        return
    responses = record.get("responses") or []
    if responses:
        log.add(entries_of(record, round_, people, log.who_said()))
    for response in responses:
        try:
            client.request("DELETE", f"/responses/{response['id']}")
        except Missing:
            continue


def entries_of(record: Json, round_: Round, people: Mapping[str, str], known: Mapping[str, str]) -> list[Entry]:
    """The responses on a record as log entries. `people` are users by id, `known` who gave a response before.

    A reviewer who has left keeps the name the log has; of one never met only the id is known.
    """
    made = []
    for one in record.get("responses") or []:
        values = one.get("values") or {}
        user = str(one["user_id"])
        made.append(
            Entry(
                pair=str(record["external_id"]),
                version=str((record.get("metadata") or {}).get(layout.VERSION, "")),
                round=round_,
                reviewer=people.get(user) or known.get(str(one["id"]), f"user-{user}"),
                status=one["status"],
                answers={str(name): str(value["value"]) for name, value in values.items() if value.get("value")},
                started=str(one["inserted_at"]),
                at=str(one["updated_at"]),
                response=str(one["id"]),
                record=str(record["id"]),
            )
        )
    return made
