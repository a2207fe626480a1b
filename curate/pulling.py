"""Responses back from Argilla: `pull` keeps them, settles what can be settled, returns what cannot be used."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from curate import layout
from curate.argilla.boards import Board, ensure_board, ensure_team, find_team, members, open_board, usernames
from curate.argilla.client import Client, Json, Missing, encode_records
from curate.behaviour import Behaviour, load_behaviour
from curate.consensus import Entry, Round, Settlement, adjudication_version, read_judgement, version_of
from curate.errors import ReviewError
from curate.pairs import Pair, read_pairs
from curate.review import Report, entries_of, guidelines_of, new_looks, renew, send, take_off_responses
from curate.review_log import Log, ReviewState, Terms, read_terms, review_state, write_settled
from curate.workspace import Workspace


@dataclass
class Seen:
    """What a pull found on one dataset: of each record its id, version and notice."""

    board: Board
    round: Round
    records: dict[str, tuple[str, str, str | None]] = field(default_factory=dict)
    shown: dict[str, Json] = field(default_factory=dict)  # of an adjudication, the few records as they are


@dataclass(frozen=True)
class Pulled:
    """What a pull brought and did."""

    state: ReviewState
    new: list[Entry]
    returned: list[tuple[str, str, str]]  # pair, reviewer, why
    adjudicating: int
    missing: list[str]  # pairs that have no record in Argilla
    undecided: bool  # reviewers disagree, and nobody is named to decide between them

    def document(self) -> Json:
        """As `--json` prints it."""
        return {
            "new_responses": len(self.new),
            "returned": [{"pair": pair, "reviewer": who, "why": why} for pair, who, why in self.returned],
            "to_adjudicate": self.adjudicating,
            "not_in_argilla": self.missing,
            "outcomes": self.state.counts(),
        }


def pull(client: Client, workspace: Workspace, report: Report) -> Pulled:
    """Bring responses into `review/`, settle what can be settled, return what cannot be used, ask for adjudication.

    May be broken off anywhere: what was read is kept, and the next pull goes on.
    """
    terms = read_terms(workspace)
    if terms is None:
        raise ReviewError(
            "nothing was pushed from here", where=str(workspace.root.resolve()), fix="tutelage curate push"
        )
    behaviour, pairs = load_behaviour(workspace.behaviour), read_pairs(workspace.pairs)
    team = find_team(client, terms.team)
    board = open_board(client, team, terms.dataset, adjudication=False) if team else None
    if team is None or board is None:
        raise ReviewError(
            f"Argilla at {client.url} has no dataset {terms.dataset!r} in the workspace {terms.team!r}",
            fix="check --api-url, or push again: tutelage curate push",
        )
    others = find_team(client, terms.adjudicators)
    second = open_board(client, others, terms.dataset, adjudication=True) if others else None
    people = usernames(client, [one for one in (team, others) if one])
    log, new = Log(workspace), list[Entry]()
    seen = [Seen(board, "review"), *([Seen(second, "adjudication")] if second else [])]
    for one in seen:
        new += _read_board(client, log, one, people, report)
    state = review_state(workspace, pairs, behaviour)
    by_id = {pair.id: pair for pair in pairs}
    returned = []
    for one in seen:
        returned += _return(client, log, one, by_id, behaviour)
    disputed = {name: one for name, one in state.pairs.items() if _is_disputed(one)}
    if disputed and len(seen) == 1:
        seen.append(_second_board(client, terms, pairs, behaviour))
    for one in seen[1:]:
        _adjudicate(client, log, people, one, disputed, by_id, behaviour, report)
    write_settled(workspace, state)
    missing = sorted(set(by_id) - set(seen[0].records))
    adjudicating = state.counts().get("to adjudicate", 0)
    undecided = adjudicating > 0 and not (others and members(client, others))
    return Pulled(state, new, returned, adjudicating, missing, undecided)


def _read_board(client: Client, log: Log, seen: Seen, people: Mapping[str, str], report: Report) -> list[Entry]:
    new = []
    by_pair: dict[str, list[Entry]] = defaultdict(list)
    for (round_, pair, _), entry in log.latest.items():
        if round_ == seen.round and entry.status != "withdrawn":
            by_pair[pair].append(entry)
    known = log.who_said()
    for page in client.records(seen.board.id, include="responses"):
        entries = []
        for record in page:
            name, version = str(record["external_id"]), str((record.get("metadata") or {}).get(layout.VERSION, ""))
            seen.records[name] = (str(record["id"]), version, (record.get("fields") or {}).get(layout.NOTICE))
            if seen.round == "adjudication":
                seen.shown[name] = record
            here = entries_of(record, seen.round, people, known)
            entries += [*here, *_withdrawn(by_pair.get(name, []), here, str(record["id"]), version)]
        new += log.add(entries)
        report("pulling", len(seen.records), 0)
    return new


def _withdrawn(known: Iterable[Entry], here: Sequence[Entry], record: str, version: str) -> list[Entry]:
    """What reviewers have deleted: known before of this very record and content, and there no more.

    A record that was deleted and pushed again is another one: what was said of it is not taken back by that.
    """
    present = {entry.reviewer for entry in here}
    gone = [e for e in known if e.record == record and e.version == version and e.reviewer not in present]
    return [one.model_copy(update={"status": "withdrawn", "answers": {}}) for one in gone]


def standing_faults(pair: Pair, version: str, entries: Iterable[Entry], behaviour: Behaviour) -> dict[str, str]:
    """Reviewer -> why the last answer they submitted cannot be used; gone once they submit a usable one.

    `entries` are those of one round on the pair, in the order of the log.
    """
    faults: dict[str, str | None] = {}
    for entry in entries:
        if entry.version != version:
            continue
        if entry.status == "submitted":
            faults[entry.reviewer] = read_judgement(entry, pair, behaviour).fault
        elif entry.status in ("discarded", "withdrawn"):
            faults[entry.reviewer] = None
    return {reviewer: fault for reviewer, fault in faults.items() if fault is not None}


def notice_text(faults: Mapping[str, str]) -> str | None:
    """What stands on top of a returned record."""
    lines = [f"<p><strong>{html.escape(who)}</strong>: {html.escape(why)}</p>" for who, why in sorted(faults.items())]
    return "\n".join(lines) or None


def _return(
    client: Client, log: Log, seen: Seen, by_id: Mapping[str, Pair], behaviour: Behaviour
) -> list[tuple[str, str, str]]:
    """Say on the record what must be mended, then make the response a draft again. Safe to be broken off between."""
    history: dict[str, list[Entry]] = defaultdict(list)
    for entry in log.entries:
        if entry.round == seen.round:
            history[entry.pair].append(entry)
    returned = []
    for name, (record_id, version, notice) in seen.records.items():
        pair = by_id.get(name)
        if pair is None or (seen.round == "review" and version != version_of(pair)):
            continue
        faults = standing_faults(pair, version, history.get(name, []), behaviour)
        if notice_text(faults) != notice:
            _set_notice(client, record_id, notice_text(faults))
            if name in seen.shown:
                seen.shown[name]["fields"][layout.NOTICE] = notice_text(faults)
        for reviewer, fault in faults.items():
            entry = log.latest[seen.round, name, reviewer]
            if entry.status == "submitted" and _make_draft(client, record_id, entry):
                returned.append((name, reviewer, fault))
    return returned


def _set_notice(client: Client, record_id: str, notice: str | None) -> None:
    try:
        record = client.get(f"/records/{record_id}")
    except Missing:
        return  # deleted in the meantime; the next pull says so
    # No PATCH of the record: argilla-server 2.8 fails on one whose fields hold a conversation.
    kept = {name: record[name] for name in ("external_id", "metadata")}
    changed = {**kept, "fields": {**record["fields"], layout.NOTICE: notice}}
    client.upsert_records(record["dataset_id"], encode_records([changed]))


def _make_draft(client: Client, record_id: str, entry: Entry) -> bool:
    """Make a submitted response a draft, unless it has changed since it was read."""
    try:
        responses = client.get(f"/records/{record_id}").get("responses") or []
        now = next((one for one in responses if str(one["id"]) == entry.response), None)
        if now is None or str(now["updated_at"]) != entry.at:
            return False
        client.request("PUT", f"/responses/{entry.response}", body={"values": now["values"], "status": "draft"})
    except Missing:
        return False
    return True


def _second_board(client: Client, terms: Terms, pairs: Sequence[Pair], behaviour: Behaviour) -> Seen:
    """The dataset for those who decide, made at the first disagreement."""
    team = ensure_team(client, terms.adjudicators)
    text = guidelines_of(behaviour, pairs, True)
    board = ensure_board(client, team, terms.dataset, 1, text, is_json=behaviour.is_json, adjudication=True)
    return Seen(board, "adjudication")


def _adjudicate(
    client: Client,
    log: Log,
    people: Mapping[str, str],
    second: Seen,
    disputed: Mapping[str, Settlement],
    by_id: Mapping[str, Pair],
    behaviour: Behaviour,
    report: Report,
) -> None:
    """Keep the second dataset as the disagreements are: add the new, renew the changed, take out what is agreed on."""
    todo, changed = [], []
    for name, one in disputed.items():
        version = adjudication_version(by_id[name], one.judgements)
        wanted = _adjudication_record(by_id[name], one, version, behaviour)
        known = second.records.get(name)
        if known is None:
            todo.append(wanted)
        elif known[1] != version:
            changed.append((known[0], wanted))
        elif looks := new_looks(second.shown[name], wanted):
            todo.append({"external_id": name, **looks})
    renew(client, log, people, second.board, changed, "adjudication", report)
    send(client, second.board, todo, len(todo), report)
    for name, (record_id, _, _) in second.records.items():
        if name not in disputed:
            take_off_responses(client, log, people, record_id, "adjudication")
            try:
                client.request("DELETE", f"/records/{record_id}")
            except Missing:
                continue


def _is_disputed(one: Settlement) -> bool:
    return one.outcome == "to adjudicate" or one.adjudicator is not None


def _adjudication_record(pair: Pair, one: Settlement, version: str, behaviour: Behaviour) -> Json:
    record = layout.record(pair, behaviour, layout.metadata(pair, behaviour, version))
    said = [(each.decision, each.output, each.answerable, each.why) for each in one.judgements]
    record["fields"][layout.ANSWERS] = layout.render_answers(said, behaviour)
    return record
