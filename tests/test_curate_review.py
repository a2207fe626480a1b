"""The log of a review and what a release takes of it, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from review_cases import (
    ACCEPT,
    BEHAVIOUR,
    PAIR,
    REJECT,
    entry,
    fix,
    make_workspace,
    output,
    pair_of,
)

import tutelage
from curate.erasing import containing
from curate.errors import ReviewError
from curate.layout import editable
from curate.manifest import Input, write_manifest
from curate.pairs import read_pairs, write_pairs
from curate.release import Options, load_release, make_release
from curate.review import entries_of
from curate.review_log import Log, Terms, review_state, write_settled, write_terms
from curate.reviewed import audited_versions
from curate.splits import SPLITS
from curate.verify import verify
from curate.workspace import Workspace


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


def test_what_was_erased_and_deleted_for_good_may_still_be_named(place: Workspace) -> None:
    """The command itself says to delete it: a script that goes on to name it must not fail from then on."""
    settle_all(place)
    make_release(place, Options(name="before"))
    write_pairs(place.pairs, [pair for pair in read_pairs(place.pairs) if pair.source != "log-a"])
    made = make_release(place, Options(name="after", erase=("log-a",), fresh=True)).release
    assert not any(pair.source == "log-a" for split in SPLITS for pair in made.pairs(split))
    (place.review / "responses.jsonl").unlink()
    again = Options(name="last", erase=("chris", "log-a"), fresh=True, unreviewed=True)
    assert make_release(place, again).release.manifest.details["reviewed"] == 0


def test_state_is_a_function_of_the_files(place: Workspace) -> None:
    settle_all(place)
    state = review_state(place)
    assert state == review_state(place)
    write_settled(place, state)
    settled = [json.loads(line) for line in (place.review / "settled.jsonl").read_text().splitlines()]
    assert [one["pair"] for one in settled] == sorted(state.settled())
    assert "2026" not in (place.review / "settled.jsonl").read_text(), "no times, so that the same answers hash alike"


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
