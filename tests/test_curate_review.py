"""From responses to settled pairs, without a server: consensus, the log, what goes back, what a release takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import tutelage
from curate.behaviour import Behaviour
from curate.consensus import (
    SETTLED,
    Entry,
    adjudication_version,
    read_judgement,
    reviewed_pair,
    settle,
    version_of,
)
from curate.erasing import containing
from curate.errors import ReviewError
from curate.layout import editable
from curate.manifest import Input, write_manifest
from curate.pairs import Pair, make_pair, write_pairs
from curate.pulling import notice_text, standing_faults
from curate.release import Options, load_release, make_release
from curate.review import entries_of
from curate.review_log import Log, Terms, review_state, write_settled, write_terms
from curate.reviewed import audited_versions
from curate.verify import verify
from curate.workspace import Workspace

ABSTENTION = {"status": "unknown", "answer": None, "citations": []}
SCHEMA = {
    "type": "object",
    "required": ["status", "answer", "citations"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["answered", "unknown"]},
        "answer": {"type": ["string", "null"]},
        "citations": {"type": "array", "items": {"type": "string"}},
    },
}
WRITTEN: dict[str, Any] = {
    "name": "support",
    "prompt": "{{ question }} {{ passages }}",
    "output": {"format": "json", "schema": "schema.json"},
    "abstain": {"where": "/status", "equals": "unknown", "output": ABSTENTION},
    "answer": {"at": "/answer"},
    "citations": {"at": "/citations"},
}
BEHAVIOUR = Behaviour.model_validate({**WRITTEN, "schema_document": SCHEMA})


def output(answer: str, *cited: str) -> dict[str, Any]:
    return {"status": "answered", "answer": answer, "citations": list(cited) or ["p1"]}


def pair_of(number: int = 0) -> Pair:
    passages = [{"id": "p1", "text": f"Fact {number}: it is red {number}.", "source": f"doc-{number}.md#1"}]
    question = f"What colour is thing {'abcdefghij'[number % 10] * 5} {number}?"
    return make_pair(
        {
            "id": f"q{number:02}",
            "question": question,
            "passages": passages,
            "output": output("red"),
            "answerable": True,
            "source": "log-a" if number % 2 else "log-b",
        },
        "t",
    )


PAIR = pair_of()
ACCEPT = {"decision": "accept", "answerable": "yes", "corrected": editable(PAIR.output, BEHAVIOUR)}
REJECT = {"decision": "reject", "answerable": "no"}


def fix(answer: str, *cited: str, answerable: str = "yes") -> dict[str, str]:
    return {"decision": "fix", "answerable": answerable, "corrected": json.dumps(output(answer, *cited))}


def entry(reviewer: str, answers: dict[str, str], status: str = "submitted", pair: Pair = PAIR, **more: Any) -> Entry:
    made = {
        "pair": pair.id,
        "version": version_of(pair),
        "round": "review",
        "reviewer": reviewer,
        "status": status,
        "answers": answers,
        "started": "2026-01-01T10:00:00",
        "at": "2026-01-01T10:01:00",
        "response": f"{pair.id}-{reviewer}",
        "record": f"record-{pair.id}",
    }
    return Entry.model_validate({**made, **more})


def ruling(reviewer: str, answers: dict[str, str], *said: Entry) -> Entry:
    judged = sorted((read_judgement(one, PAIR, BEHAVIOUR) for one in said), key=lambda one: one.reviewer)
    return entry(reviewer, answers, round="adjudication", version=adjudication_version(PAIR, judged))


def test_two_who_agree_settle_a_pair() -> None:
    one = settle(PAIR, [entry("anna", ACCEPT), entry("ben", ACCEPT)], 2, BEHAVIOUR)
    assert (one.outcome, one.by, one.answerable, one.output) == ("accepted", ("anna", "ben"), True, PAIR.output)


def test_one_of_two_does_not() -> None:
    assert settle(PAIR, [entry("anna", ACCEPT)], 2, BEHAVIOUR).outcome == "open"


def test_the_same_correction_spelled_differently_is_agreement() -> None:
    other = {
        "decision": "fix",
        "answerable": "yes",
        "corrected": '{"citations":["p1"],\u00a0"answer":"blue","status":"answered"}',
    }
    one = settle(PAIR, [entry("anna", fix("blue")), entry("ben", other)], 2, BEHAVIOUR)
    assert (one.outcome, one.output) == ("corrected", output("blue"))


@pytest.mark.parametrize(
    "others",
    [
        [ACCEPT, ACCEPT, REJECT],
        [ACCEPT, fix("blue")],
        [fix("blue"), fix("green")],
        [ACCEPT, ACCEPT, ACCEPT, fix("blue")],
    ],
    ids=["two to one", "accept and fix", "two fixes", "three to one"],
)
def test_who_disagree_go_to_adjudication_whatever_the_majority_says(others: list[dict[str, str]]) -> None:
    said = [entry(f"reviewer-{number}", answers) for number, answers in enumerate(others)]
    assert settle(PAIR, said, 2, BEHAVIOUR).outcome == "to adjudicate"


def test_adjudication_decides_and_is_void_once_the_answers_change() -> None:
    anna, ben = entry("anna", ACCEPT), entry("ben", fix("blue"))
    dora = ruling("dora", fix("blue"), anna, ben)
    one = settle(PAIR, [anna, ben, dora], 2, BEHAVIOUR)
    assert (one.outcome, one.adjudicator, one.by) == ("corrected", "dora", ("anna", "ben"))
    changed = entry("ben", fix("green"))
    assert settle(PAIR, [anna, changed, dora], 2, BEHAVIOUR).outcome == "to adjudicate"


def test_two_adjudicators_who_differ_settle_nothing() -> None:
    anna, ben = entry("anna", ACCEPT), entry("ben", fix("blue"))
    both = [ruling("dora", fix("blue"), anna, ben), ruling("emil", ACCEPT, anna, ben)]
    assert settle(PAIR, [anna, ben, *both], 2, BEHAVIOUR).outcome == "to adjudicate"


def test_rejection_needs_agreement_on_nothing_else() -> None:
    said = [entry("anna", REJECT), entry("ben", {**REJECT, "answerable": "yes", "corrected": "{broken"})]
    assert settle(PAIR, said, 2, BEHAVIOUR).outcome == "rejected"


def test_what_was_said_of_another_content_does_not_count() -> None:
    changed = PAIR.model_copy(update={"output": output("blue")})
    assert settle(changed, [entry("anna", ACCEPT), entry("ben", ACCEPT)], 2, BEHAVIOUR).outcome == "open"
    described = PAIR.model_copy(update={"source": "elsewhere", "meta": {"k": 1}})
    assert settle(described, [entry("anna", ACCEPT), entry("ben", ACCEPT)], 2, BEHAVIOUR).outcome == "accepted"


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        (fix("blue", "p9"), "cites p9; the passages here are p1"),
        ({**ACCEPT, "decision": "fix", "corrected": "{"}, "cannot be read"),
        ({**ACCEPT, "decision": "fix", "corrected": '{"answer": "blue"}'}, "does not have the form"),
        ({**ACCEPT, "decision": "fix", "corrected": "```json\n{}\n```"}, "cannot be read"),
        ({**ACCEPT, "decision": "fix"}, "left the output as it was"),
        (fix("red"), "says the same as before"),
        ({**fix("blue"), "decision": "accept"}, "yet changed it"),
        ({**ACCEPT, "answerable": "no"}, "yet the output answers"),
        ({**fix("x"), "corrected": json.dumps(ABSTENTION)}, "yet the output says that it does not know"),
        ({"decision": "accept"}, "need an answer"),
        ({**ACCEPT, "decision": "fix", "corrected": ""}, "cannot be read"),
    ],
)
def test_answers_that_cannot_be_used_are_named(answers: dict[str, str], fault: str) -> None:
    judged = read_judgement(entry("anna", answers), PAIR, BEHAVIOUR)
    assert judged.fault is not None
    assert fault in judged.fault
    one = settle(PAIR, [entry("anna", answers), entry("ben", ACCEPT)], 1, BEHAVIOUR)
    assert one.outcome == "returned"
    assert one.by == ("ben",)


statuses = st.sampled_from(["submitted", "draft", "discarded", "withdrawn"])
said_strategy = st.sampled_from([ACCEPT, REJECT, fix("blue"), fix("green"), fix("blue", "p9"), {}])


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["anna", "ben", "chris", "dora"]), st.tuples(said_strategy, statuses)),
    st.integers(1, 3),
    st.randoms(),
)
def test_settled_means_that_enough_people_said_so_and_nobody_else_otherwise(
    said: dict[str, tuple[dict[str, str], str]], overlap: int, shuffle: Any
) -> None:
    entries = [entry(name, answers, status) for name, (answers, status) in said.items()]
    one = settle(PAIR, entries, overlap, BEHAVIOUR)
    shuffle.shuffle(entries)
    assert settle(PAIR, entries, overlap, BEHAVIOUR) == one
    submitted = [read_judgement(e, PAIR, BEHAVIOUR) for e in entries if e.status == "submitted"]
    usable = [judged for judged in submitted if judged.fault is None]
    assert one.settled == (
        len(usable) >= overlap and len({judged.key() for judged in usable}) == 1 and len(usable) == len(submitted)
    )
    if one.outcome in SETTLED[:2]:
        assert BEHAVIOUR.conforms(one.output)
        assert set(one.output["citations"]) <= {"p1"}


def test_notice_stays_until_a_usable_answer_and_names_the_reviewer() -> None:
    wrong, draft = entry("anna", fix("blue", "p9")), entry("anna", fix("blue", "p9"), "draft")
    version = version_of(PAIR)
    faults = standing_faults(PAIR, version, [wrong, draft], BEHAVIOUR)
    assert "anna" in (notice_text(faults) or "")
    assert standing_faults(PAIR, version, [wrong, draft, entry("anna", fix("blue"))], BEHAVIOUR) == {}
    assert notice_text({}) is None
    assert "<b>" not in (notice_text({"anna": "what <b>is</b> this"}) or "")


def make_workspace(root: Path, pairs: int = 12) -> Workspace:
    import yaml

    root.mkdir(exist_ok=True)
    (root / "behaviour.yaml").write_text(yaml.safe_dump(WRITTEN), encoding="utf-8")
    (root / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    write_pairs(root / "pairs.jsonl", map(pair_of, range(pairs)))
    return Workspace(root)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    made = make_workspace(tmp_path / "w")
    write_terms(made, Terms(dataset="d", team="t", overlap=2))
    return made


def test_log_keeps_what_is_new_once(place: Workspace) -> None:
    first = entry("anna", ACCEPT)
    assert Log(place).add([first, entry("ben", ACCEPT)]) == [first, entry("ben", ACCEPT)]
    before = (place.review / "responses.jsonl").read_bytes()
    assert Log(place).add([first]) == []
    later = entry("anna", REJECT, at="2026-01-02T00:00:00")
    assert Log(place).add([later, first.model_copy(update={"status": "withdrawn"})]) != []
    assert (place.review / "responses.jsonl").read_bytes().startswith(before), "append-only"


def test_two_processes_add_the_same_once(place: Workspace) -> None:
    one, other = Log(place), Log(place)
    assert len(one.add([entry("anna", ACCEPT)])) == 1
    assert other.add([entry("anna", ACCEPT)]) == []


def test_line_cut_short_by_a_crash_is_taken_for_none(place: Workspace) -> None:
    Log(place).add([entry("anna", ACCEPT), entry("ben", ACCEPT)])
    path = place.review / "responses.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [one.reviewer for one in Log(place).entries] == ["anna"]
    Log(place).add([entry("ben", ACCEPT)])
    assert path.read_bytes() == whole


def test_damaged_line_is_named(place: Workspace) -> None:
    Log(place).add([entry("anna", ACCEPT)])
    with (place.review / "responses.jsonl").open("a") as handle:
        handle.write('{"pair": 1}\n')
    with pytest.raises(ReviewError, match="line 2 is no response"):
        Log(place)


def test_last_line_whose_end_an_editor_took_away_is_kept(place: Workspace) -> None:
    Log(place).add([entry("anna", ACCEPT), entry("ben", ACCEPT)])
    path = place.review / "responses.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    log = Log(place)
    log.add([entry("chris", ACCEPT)])
    assert [one.reviewer for one in Log(place).entries] == ["anna", "ben", "chris"]
    path.write_bytes(path.read_bytes() + b"\n")
    assert len(Log(place).entries) == 3, "a blank line says nothing"


def test_reviewer_who_has_left_keeps_the_name_the_log_has(place: Workspace) -> None:
    log = Log(place)
    log.add([entry("ben", ACCEPT)])
    times = {"inserted_at": "2026-01-01T10:00:00", "updated_at": "2026-01-01T10:01:00", "status": "submitted"}
    said = [{"id": f"{PAIR.id}-ben", "user_id": "u1", **times}, {"id": "other", "user_id": "u2", **times}]
    record = {"id": "r", "external_id": PAIR.id, "metadata": {}, "responses": said}
    assert [one.reviewer for one in entries_of(record, "review", {}, log.who_said())] == ["ben", "user-u2"]


def test_answers_about_another_content_of_a_pair_are_no_returned_ones(place: Workspace) -> None:
    settle_all(place)
    before = {one.name: one.returned for one in review_state(place).reviewers}
    assert before["anna"] == 0
    pairs = [pair_of(number) for number in range(12)]
    pairs[0] = pairs[0].model_copy(update={"output": output("green")})
    write_pairs(place.pairs, pairs)
    assert {one.name: one.returned for one in review_state(place).reviewers} == before


def settle_all(place: Workspace, pairs: int = 12) -> None:
    entries = []
    for number in range(pairs):
        pair = pair_of(number)
        accept = {**ACCEPT, "corrected": editable(pair.output, BEHAVIOUR)}
        said = {0: (accept, accept), 1: (fix("blue"), fix("blue")), 2: (REJECT, REJECT), 3: (accept, fix("blue"))}
        first, second = said.get(number, (accept, accept))
        entries += [entry("anna", first, pair=pair), entry("ben" if number != 5 else "chris", second, pair=pair)]
    Log(place).add(entries)


def test_a_reviewed_release_still_holds_when_pairs_are_added_and_names_one_that_changed(place: Workspace) -> None:
    settle_all(place)
    made = make_release(place, Options(name="v1")).release
    write_pairs(place.pairs, map(pair_of, range(15)))
    assert verify(made.directory).findings == []
    audit = (made.directory / "review.jsonl").read_text().split("\n")[0]
    assert audited_versions(audit.replace('"blue"', '"bl\u2028ue"') + "\n"), "a line break of Unicode ends no line"
    pairs = [pair_of(number) for number in range(15)]
    pairs[1] = pairs[1].model_copy(update={"output": output("green")})
    pairs[4] = pairs[4].model_copy(update={"meta": {"team": "other"}})
    write_pairs(place.pairs, pairs)
    assert {(one.rule, one.pair) for one in verify(made.directory).findings} == {
        ("pair-changed", "q01"),
        ("pair-changed", "q04"),
    }


def test_release_takes_what_is_settled_and_says_who(place: Workspace) -> None:
    settle_all(place)
    made = make_release(place, Options(name="v1")).release
    held = {pair.id: pair for split in ("train", "validation", "calibration", "test") for pair in made.pairs(split)}
    assert set(held) == {f"q{n:02}" for n in range(12)} - {"q02", "q03"}
    assert held["q01"].output == output("blue")
    assert held["q01"].meta["review"] == {"outcome": "corrected", "by": ["anna", "ben"], "adjudicator": None}
    details = made.manifest.details
    assert {(one["pair"], one["rule"]) for one in details["excluded"]} == {
        ("q02", "rejected"),
        ("q03", "to-adjudicate"),
    }
    assert details["review"]["reviewers"] == {"anna": 10, "ben": 9, "chris": 1}
    lines = (made.directory / "review.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["said"]["ben"] == {"decision": "fix", "answerable": "yes"}
    card = (made.directory / "README.md").read_text()
    for words in ("`anna` judged 10", "Krippendorff's alpha", "to-adjudicate: 1"):
        assert words in card


def test_unreviewed_pairs_go_in_only_when_asked_for_and_the_card_says_so(place: Workspace) -> None:
    settle_all(place, pairs=8)
    assert make_release(place, Options(name="strict")).release.manifest.details["reviewed"] == 6
    made = make_release(place, Options(name="all", unreviewed=True, fresh=True)).release
    assert sum(split["pairs"] for split in made.manifest.details["splits"].values()) == 10
    assert made.manifest.details["review"]["unreviewed_pairs_taken"] is True
    assert "nobody reviewed" in (made.directory / "README.md").read_text()


def test_erase_leaves_nothing_of_a_reviewer_or_a_source(place: Workspace) -> None:
    settle_all(place)
    make_release(place, Options(name="before"))
    person = make_release(place, Options(name="person", erase=("chris",), fresh=True)).release
    held = {pair.id for split in ("train", "validation", "calibration", "test") for pair in person.pairs(split)}
    assert "q05" not in held
    assert "chris" not in (person.directory / "README.md").read_text()
    assert "chris" not in (person.directory / "review.jsonl").read_text()
    source = make_release(place, Options(name="source", erase=("log-a",), fresh=True)).release
    held = {pair.id for split in ("train", "validation", "calibration", "test") for pair in source.pairs(split)}
    assert held == {"q00", "q04", "q06", "q08", "q10"}
    assert containing(place, ["chris"])["releases"] == ["before"]
    assert containing(place, ["log-a"])["releases"] == ["before", "person"]
    tainted = load_release(place.releases / "before").manifest.sha256
    for kind, name in (("run", "one"), ("export", "one-merged"), ("run", "a-second"), ("report", "last")):
        directory = place.root / f"{kind}s" / name
        directory.mkdir(parents=True)
        tainted = write_manifest(directory, kind, name, {"base": Input(path="x", sha256=tainted)}, {}).sha256
    reached = containing(place, ["chris"])
    assert (reached["runs"], reached["exports"], reached["reports"]) == (["a-second", "one"], ["one-merged"], ["last"])
    with pytest.raises(Exception, match="no reviewer, source or document"):
        make_release(place, Options(erase=("nobody",)))
    assert load_release(place.releases / "before").manifest.name == "before"


def test_erase_says_what_holds_a_name_even_where_too_little_is_left_for_a_release(place: Workspace) -> None:
    settle_all(place)
    make_release(place, Options(name="before"))
    done = CliRunner().invoke(tutelage.main, ["-C", str(place.root), "curate", "release", "--erase", "anna"])
    assert done.exit_code == 1
    assert "releases that hold something of anna: before" in done.stderr
    assert "none of the 12 pairs may be released" in done.stderr


def test_state_is_a_function_of_the_files(place: Workspace) -> None:
    settle_all(place)
    state = review_state(place)
    assert state == review_state(place)
    write_settled(place, state)
    settled = [json.loads(line) for line in (place.review / "settled.jsonl").read_text().splitlines()]
    assert [one["pair"] for one in settled] == sorted(state.settled())
    assert "2026" not in (place.review / "settled.jsonl").read_text(), "no times, so that the same answers hash alike"


def test_reviewed_pair_drops_accepted_answers_of_another_output() -> None:
    pair = PAIR.model_copy(update={"accepted": ("crimson",)})
    said = [entry("anna", fix("blue"), pair=pair), entry("ben", fix("blue"), pair=pair)]
    assert reviewed_pair(pair, settle(pair, said, 2, BEHAVIOUR)).accepted == ()
    same = [entry("anna", ACCEPT, pair=pair), entry("ben", ACCEPT, pair=pair)]
    assert reviewed_pair(pair, settle(pair, same, 2, BEHAVIOUR)).accepted == ("crimson",)


def test_unreviewed_pairs_are_released_only_when_that_is_said(tmp_path: Path) -> None:
    bare = make_workspace(tmp_path / "bare")
    release = ["-C", str(bare.root), "curate", "release"]
    refused = CliRunner().invoke(tutelage.main, release)
    assert refused.exit_code == 1
    assert "--unreviewed" in refused.stderr
    assert not bare.releases.exists()
    assert CliRunner().invoke(tutelage.main, [*release, "--unreviewed"]).exit_code == 0
    made = load_release(bare.releases / "r1")
    assert (made.manifest.details["reviewed"], made.manifest.details["unreviewed"]) == (0, 12)
    assert "Not reviewed by people" in (made.directory / "README.md").read_text()
