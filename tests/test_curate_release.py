"""A release: what goes in, the same bytes on any machine, what `datasets` reads."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from release_cases import documents_of, make_workspace, pair, run, some_pairs, split_of

from curate.errors import TutelageError, WorkspaceError
from curate.pairs import write_pairs
from curate.parquet import read_parquet, read_rows
from curate.release import Options, load_release, make_release
from curate.splits import SPLITS
from curate.starting import start_workspace
from curate.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "ws")


def test_a_release_holds_every_pair_once_and_gives_it_back(workspace: Workspace) -> None:
    made = make_release(workspace)
    assert made.created
    assert made.release.directory == workspace.releases / "r1"
    pairs = {one.id: one for split in SPLITS for one in made.release.pairs(split)}
    assert pairs == {one.id: one for one in some_pairs()}
    assert all(made.release.pairs(split) for split in SPLITS)
    with pytest.raises(ValueError, match="there is no split"):
        made.release.pairs("dev")


def test_no_document_is_on_two_sides(workspace: Workspace) -> None:
    release = make_release(workspace).release
    found: dict[str, set[str]] = {}
    for split in SPLITS:
        for one in release.pairs(split):
            for document in documents_of(one, release.behaviour):
                found.setdefault(document, set()).add(split)
    assert len(found) == 20
    assert all(len(splits) == 1 for splits in found.values())


def test_near_duplicates_of_different_documents_are_on_one_side(workspace: Workspace) -> None:
    text = "The return period is thirty days from delivery, and the item must not have been used."
    twins = [
        pair(
            100 + i,
            f"copy{i}.md",
            question=question,
            passages=[{"id": "p1", "text": text, "source": f"copy{i}.md"}],
            output={"status": "answered", "answer": "thirty days", "citations": ["p1"]},
        )
        for i, question in enumerate(["How long is the return period?", "How long is the return period!"])
    ]
    write_pairs(workspace.pairs, [*some_pairs(), *twins])
    splits = split_of(make_release(workspace).release.directory)
    assert splits["pair-0100"] == splits["pair-0101"]


def test_same_pairs_in_any_order_give_the_same_bytes(workspace: Workspace, tmp_path: Path) -> None:
    start_workspace(tmp_path / "other", as_text=False, base=None)
    other = Workspace(tmp_path / "other")
    write_pairs(other.pairs, random.Random(1).sample(some_pairs(), 60))
    command = [
        sys.executable,
        "-m",
        "tutelage",
        "-C",
        str(other.root),
        "curate",
        "release",
        "--unreviewed",
        "--name",
        "x",
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    first, second = make_release(workspace).release, load_release(other.releases / "x")
    assert first.manifest.files == second.manifest.files
    assert first.manifest.details["data_sha256"] == second.manifest.details["data_sha256"]


def test_same_file_gives_the_same_manifest_hash_under_any_name(workspace: Workspace, tmp_path: Path) -> None:
    start_workspace(tmp_path / "other", as_text=False, base=None)
    other = Workspace(tmp_path / "other")
    other.pairs.write_bytes(workspace.pairs.read_bytes())
    first = make_release(workspace).release.manifest
    second = make_release(other, Options(name="else")).release.manifest
    assert first.sha256 == second.sha256
    assert first.seal != second.seal, "the seal covers the name"


def test_golden_content_hash(workspace: Workspace) -> None:
    """Fails when anything that decides a release's content changes: then every user's hashes change too."""
    workspace.behaviour.write_text(
        'name: golden\nprompt: "{{ question }}"\noutput: {format: json}\ncitations: {at: /citations}\n'
    )
    assert make_release(workspace).release.manifest.details["data_sha256"] == GOLDEN


GOLDEN = "efa3919e856ad700092b3e03657060e982f3cddb7883b475e246eca038ec8662"


def test_releasing_again_changes_nothing(workspace: Workspace) -> None:
    first = run(workspace, "--json")
    assert first.exit_code == 0, first.output
    before = {path: path.stat().st_mtime_ns for path in workspace.releases.rglob("*")}
    again = run(workspace, "--json")
    assert json.loads(again.stdout)["created"] is False
    assert json.loads(again.stdout)["name"] == "r1"
    assert before == {path: path.stat().st_mtime_ns for path in workspace.releases.rglob("*")}
    assert "nothing was written" in run(workspace).stdout
    assert "nothing was written" in run(workspace, "--name", "r1").stdout


def test_a_name_is_never_given_to_other_content(workspace: Workspace) -> None:
    make_release(workspace, Options(name="first"))
    write_pairs(workspace.pairs, [*some_pairs(), pair(900, "new.md")])
    result = run(workspace, "--name", "first")
    assert result.exit_code == 1
    assert "choose another --name" in result.output
    assert json.loads(run(workspace, "--json").stdout)["name"] == "r1"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 200])
def test_names_that_are_no_names(workspace: Workspace, name: str) -> None:
    result = run(workspace, "--name", name)
    assert result.exit_code == 1
    assert "cannot be a release's name" in result.output
    assert not workspace.releases.exists()


def test_wrong_pairs_are_left_out_and_listed_with_the_rule(workspace: Workspace) -> None:
    broken = pair(800, "a.md", output={"status": "answered"})
    surrogate = pair(801, "b.md", question="half \ud800 of one")
    contradicting = pair(1, "doc1.md", output={"status": "answered", "answer": "other", "citations": ["p1"]})
    contradicting = contradicting.model_copy(update={"id": "pair-0802"})
    lines = [one.record() for one in [*some_pairs(), broken, surrogate, contradicting]]
    workspace.pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run(workspace, "--json")
    assert result.exit_code == 0, result.output
    found = {one["pair"]: one["rule"] for one in json.loads(result.stdout)["excluded"]}
    assert found == {
        "pair-0800": "schema",
        "pair-0801": "not-unicode",
        "pair-0001": "contradiction",
        "pair-0802": "contradiction",
    }
    assert not split_of(workspace.releases / "r1").keys() & found.keys()


def test_too_little_is_refused_with_what_is_needed(workspace: Workspace) -> None:
    write_pairs(workspace.pairs, [])
    assert "at least four are needed" in run(workspace).output
    write_pairs(workspace.pairs, [pair(1, "a.md", output={})])
    assert "schema 1" in run(workspace).output
    write_pairs(workspace.pairs, [pair(i, "one.md") for i in range(30)])
    result = run(workspace)
    assert result.exit_code == 1
    assert "--group-by passage" in result.output
    assert not list(workspace.releases.glob("*"))


def test_group_by_passage_splits_one_document(workspace: Workspace) -> None:
    passages = [{"id": "p1", "text": "", "source": ""}]
    pairs = [
        pair(i, "", passages=[{**passages[0], "text": f"subject{i}", "source": f"one.md#{i % 9}"}]) for i in range(30)
    ]
    write_pairs(workspace.pairs, pairs)
    assert run(workspace, "--group-by", "passage").exit_code == 0
    later = run(workspace)
    assert later.exit_code == 1
    assert "--fresh" in later.output


def test_a_killed_release_leaves_nothing_that_counts(workspace: Workspace) -> None:
    partial = workspace.releases / ".r1.partial"
    partial.mkdir(parents=True)
    (partial / "train.parquet").write_bytes(b"half")
    made = make_release(workspace)
    assert made.release.directory.name == "r1"
    assert not partial.exists()


def test_datasets_reads_it(workspace: Workspace, tmp_path: Path) -> None:
    release = make_release(workspace).release
    code = (
        "import json, sys; from datasets import load_dataset\n"
        "d = load_dataset(sys.argv[1], cache_dir=sys.argv[2])\n"
        "print(json.dumps({s: [row['id'] for row in d[s]] for s in d}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(release.directory), str(tmp_path / "cache")],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {split: [one.id for one in release.pairs(split)] for split in SPLITS}


def test_card_and_manifest_say_nothing_about_this_machine(workspace: Workspace) -> None:
    release = make_release(workspace).release
    text = (release.directory / "README.md").read_text() + (release.directory / "manifest.json").read_text()
    assert str(workspace.root) not in text
    assert "Not reviewed by people." in text
    assert f"| test | {len(release.pairs('test'))} |" in text
    assert "to show schema_adherence ≥ 0.98 takes 149 even without a failure" in text


def test_a_behaviours_name_stays_on_the_line_of_the_cards_heading(workspace: Workspace) -> None:
    written = workspace.behaviour.read_text(encoding="utf-8").splitlines()
    named = ['name: "an `odd`\\n# name"' if line.startswith("name:") else line for line in written]
    workspace.behaviour.write_text("\n".join(named), encoding="utf-8")
    card = (make_release(workspace).release.directory / "README.md").read_text(encoding="utf-8")
    headings = [line for line in card.splitlines() if line.startswith("# ")]
    assert headings == ["# Pairs for the behaviour `an 'odd' # name`"]


def test_any_text_comes_back_as_it_was(workspace: Workspace) -> None:
    strange = ["\x00", "\r\n\t", "\u2028", "𝔘🙂‍↔️", "e\u0301", "a" * 100_000, '"\\', "\ufeff"]
    pairs = some_pairs()
    for i, text in enumerate(strange):
        output = {"status": "answered", "answer": text, "citations": ["p1"]}
        pairs.append(
            pair(
                900 + i,
                f"s{i}.md",
                output=output,
                accepted=[1.0, None, {"answer": text}],
                history=[{"role": "user", "content": text}],
                meta={"b": [1e-7, 2**70], "a": text},
            )
        )
    write_pairs(workspace.pairs, pairs)
    release = make_release(workspace).release
    back = {one.id: one for split in SPLITS for one in release.pairs(split)}
    assert {one.id: one.record() for one in pairs} == {name: one.record() for name, one in back.items()}
    assert list(back["pair-0900"].output) == ["status", "answer", "citations"], "the order of keys is learned"


def test_the_order_of_an_outputs_keys_makes_another_release(workspace: Workspace) -> None:
    first = make_release(workspace).release
    pairs = some_pairs()
    turned = {"citations": ["p1"], "answer": "word1", "status": "answered"}
    write_pairs(
        workspace.pairs, [one.model_copy(update={"output": turned}) if one.id == "pair-0001" else one for one in pairs]
    )
    second = make_release(workspace)
    assert second.created
    assert split_of(second.release.directory) == split_of(first.directory)


def test_what_an_older_release_held_is_released_anew(workspace: Workspace) -> None:
    """Later commands take the newest release: it must not be the one with what was taken out since."""
    first = make_release(workspace).release
    before = workspace.pairs.read_bytes()
    write_pairs(workspace.pairs, some_pairs()[:-1])
    assert make_release(workspace).created
    workspace.pairs.write_bytes(before)
    again = make_release(workspace)
    assert again.created
    assert again.release.manifest.details["data_sha256"] == first.manifest.details["data_sha256"]
    assert not make_release(workspace).created


def test_whether_it_is_answerable_is_said(workspace: Workspace) -> None:
    write_pairs(workspace.pairs, [one.model_copy(update={"answerable": None}) for one in some_pairs()])
    release = make_release(workspace).release
    rows = [row for split in SPLITS for row in read_rows(release.directory / f"{split}.parquet")]
    assert {row["id"]: row["answerable"] for row in rows} == {one.id: one.answerable for one in some_pairs()}


def test_text_behaviour_and_a_schema_under_another_name(tmp_path: Path, workspace: Workspace) -> None:
    start_workspace(tmp_path / "text", as_text=True, base=None)
    place = Workspace(tmp_path / "text")
    texts = [pair(i, f"d{i}.md").model_copy(update={"output": f"word{i}"}) for i in range(12)]
    write_pairs(place.pairs, texts)
    release = make_release(place).release
    assert not (release.directory / "schema.json").exists()
    assert {one.output for split in SPLITS for one in release.pairs(split)} == {f"word{i}" for i in range(12)}

    (workspace.root / "forms").mkdir()
    (workspace.root / "schema.json").rename(workspace.root / "forms" / "answer.json")
    text = workspace.behaviour.read_text().replace("schema: schema.json", "schema: forms/answer.json")
    workspace.behaviour.write_text(text)
    release = make_release(workspace).release
    assert release.behaviour.output.schema_file == "schema.json"
    assert release.behaviour.schema_document is not None
    assert not make_release(workspace).created


def test_damage_is_one_message(workspace: Workspace) -> None:
    release = make_release(workspace).release
    (release.directory / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(WorkspaceError, match=r"test\.parquet"):
        release.pairs("test")
    result = run(workspace)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    with pytest.raises(TutelageError, match="no finished release"):
        load_release(workspace.root)
    with pytest.raises(TutelageError, match="no such file"):
        read_parquet(workspace.root / "none.parquet")
