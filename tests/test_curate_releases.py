"""Releases one after another: what keeps its split, what cannot, and where splitting begins anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from release_cases import documents_of, make_workspace, pair, some_pairs, split_of

from curate.behaviour import load_behaviour
from curate.checks import check_pairs
from curate.errors import WorkspaceError
from curate.pairs import read_pairs, write_pairs
from curate.release import Options, make_release, next_splits
from curate.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "ws")


def test_pairs_and_documents_keep_their_split(workspace: Workspace) -> None:
    first = split_of(make_release(workspace).release.directory)
    kept = [one for one in some_pairs() if one.id != "pair-0007"]  # gone, but its document was seen
    added = [pair(100 + i, f"doc{i % 30}.md", answerable=i % 2 > 0) for i in range(60)]
    write_pairs(workspace.pairs, [*added, *kept])
    release = make_release(workspace).release
    second = split_of(release.directory)
    assert release.manifest.inputs["previous"].path == "../r1"
    assert all(second[one.id] == first[one.id] for one in kept)
    for one in added:
        (document,) = documents_of(one, release.behaviour)
        number = int(document.removeprefix("doc").removesuffix(".md"))
        if number < 20:
            assert second[one.id] == first[f"pair-{number:04d}"]


def test_reviewers_are_told_the_split_that_the_next_release_takes(workspace: Workspace) -> None:
    make_release(workspace, Options(fractions={"train": 0.5, "validation": 0.1, "calibration": 0.1, "test": 0.3}))
    pairs = [*some_pairs(), *(pair(100 + i, f"doc{i % 30}.md", answerable=i % 2 > 0) for i in range(60))]
    write_pairs(workspace.pairs, pairs)
    behaviour = load_behaviour(workspace.behaviour)
    told = next_splits(workspace, pairs, behaviour, check_pairs(pairs, behaviour))
    fractions = {"train": 0.5, "validation": 0.1, "calibration": 0.1, "test": 0.3}
    assert told == split_of(make_release(workspace, Options(fractions=fractions)).release.directory)


def test_a_document_whose_pairs_are_all_gone_keeps_its_split_over_three_releases(workspace: Workspace) -> None:
    first = split_of(make_release(workspace).release.directory)
    gone = next(one.id for one in some_pairs() if first[one.id] == "test")
    (document,) = {f"doc{int(gone[5:]) % 20}.md"}
    write_pairs(workspace.pairs, [one for one in some_pairs() if one.passages[0].document != document])
    make_release(workspace)
    write_pairs(workspace.pairs, [*read_pairs(workspace.pairs), pair(500, document)])
    assert split_of(make_release(workspace).release.directory)["pair-0500"] == "test"


def test_a_pair_between_two_splits_is_left_out_and_listed(workspace: Workspace) -> None:
    splits = split_of(make_release(workspace).release.directory)
    one, other = (next(name for name, split in splits.items() if split == which) for which in ("train", "test"))
    documents = [f"doc{int(name[5:]) % 20}.md" for name in (one, other)]
    passages = [{"id": f"p{i}", "text": f"Text {i}.", "source": name} for i, name in enumerate(documents)]
    output = {"status": "answered", "answer": "Text", "citations": ["p0", "p1"]}
    bridge = pair(700, "", passages=passages, output=output)
    write_pairs(workspace.pairs, [*some_pairs(), bridge, pair(701, "own.md")])
    release = make_release(workspace).release
    assert split_of(release.directory).keys() == splits.keys() | {"pair-0701"}
    (left,) = release.manifest.details["excluded"]
    assert (left["pair"], left["rule"]) == ("pair-0700", "split-bridge")
    assert "test and train" in left["message"]
    assert "split-bridge: 1" in (release.directory / "README.md").read_text()


def test_a_changed_pair_keeps_its_split_or_is_left_out(workspace: Workspace) -> None:
    splits = split_of(make_release(workspace).release.directory)
    trained = next(name for name, split in splits.items() if split == "train")
    tested = next(name for name, split in splits.items() if split == "test")
    number, other = int(trained[5:]), int(tested[5:])
    moved = pair(number, f"doc{other % 20}.md", question="Something else?")
    write_pairs(workspace.pairs, [moved if one.id == trained else one for one in some_pairs()])
    assert trained not in split_of(make_release(workspace).release.directory)
    edited = pair(number, f"doc{number % 20}.md", question="Something else?")
    write_pairs(workspace.pairs, [edited if one.id == trained else one for one in some_pairs()])
    assert split_of(make_release(workspace).release.directory)[trained] == "train"


def test_a_twin_goes_with_its_pair_even_when_that_was_a_second_copy(workspace: Workspace) -> None:
    copy = pair(0, "doc0.md").model_copy(update={"id": "pair-zz"})
    original = pair(0, "doc0.md")
    twin = pair(800, "elsewhere.md", answerable=False, meta={"twin_of": "pair-zz"})
    rest = [one for one in some_pairs() if one.id != "pair-0000"]
    write_pairs(workspace.pairs, [copy, original, twin, *rest])
    release = make_release(workspace).release
    splits = split_of(release.directory)
    assert splits["pair-0800"] == splits["pair-0000"]
    assert [(one["pair"], one["rule"]) for one in release.manifest.details["excluded"]] == [
        ("pair-zz", "exact-duplicate")
    ]


def test_fresh_splits_anew_and_later_releases_follow_it(workspace: Workspace) -> None:
    make_release(workspace)
    fractions = {"train": 0.3, "validation": 0.2, "calibration": 0.2, "test": 0.3}
    fresh = make_release(workspace, Options(fresh=True, fractions=fractions)).release  # type: ignore[arg-type]
    assert fresh.directory.name == "r2"
    assert "previous" not in fresh.manifest.inputs
    os.utime(workspace.releases / "r1" / "manifest.json", (1, 1))
    write_pairs(workspace.pairs, [*some_pairs(), pair(900, "new.md")])
    third = make_release(workspace).release
    assert third.manifest.inputs["previous"].path == "../r2"
    splits = split_of(fresh.directory)
    assert all(split_of(third.directory)[name] == split for name, split in splits.items())


def test_the_newest_release_is_found_by_the_chain_not_the_clock(workspace: Workspace) -> None:
    make_release(workspace)
    write_pairs(workspace.pairs, [*some_pairs(), pair(900, "new.md")])
    make_release(workspace)
    os.utime(workspace.releases / "r2" / "manifest.json", (1, 1))
    write_pairs(workspace.pairs, [*some_pairs(), pair(900, "new.md"), pair(901, "newer.md")])
    assert make_release(workspace).release.manifest.inputs["previous"].path == "../r2"


def test_documents_after_passages_need_a_fresh_split(workspace: Workspace) -> None:
    make_release(workspace, Options(group_by="passage"))
    with pytest.raises(WorkspaceError, match="r1 was grouped by passage"):
        make_release(workspace, Options(name="again"))
    assert make_release(workspace, Options(name="again", fresh=True)).created


def test_a_damaged_release_hides_the_planned_splits_and_stops_nothing_else(workspace: Workspace) -> None:
    release = make_release(workspace).release
    (release.directory / "train.parquet").unlink()
    pairs, behaviour = some_pairs(), load_behaviour(workspace.behaviour)
    assert next_splits(workspace, pairs, behaviour, check_pairs(pairs, behaviour)) == {}
