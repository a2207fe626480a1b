"""Verify: a whole chain holds; a byte changed, a file gone or added anywhere in it is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import tutelage
from curate.files import sha256_file, sha256_tree, write_json
from curate.manifest import Input, read_manifest, write_manifest
from curate.pairs import make_pair, read_pairs, write_pairs
from curate.release import make_release
from curate.starting import start_workspace
from curate.verify import verify
from curate.workspace import Workspace


def pairs_of(count: int) -> list[object]:
    return [
        make_pair(
            {
                "id": f"q{i}",
                "question": f"What is number{i}?",
                "passages": [{"id": "p1", "text": f"It is word{i}.", "source": f"doc{i}.md"}],
                "output": {"status": "answered", "answer": f"word{i}", "citations": ["p1"]},
            },
            "test",
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the whole chain: pairs, release, run on a local base, report."""
    root = tmp_path_factory.mktemp("chain") / "ws"
    start_workspace(root, as_text=False, base=None)
    place = Workspace(root)
    write_pairs(place.pairs, pairs_of(12))  # type: ignore[arg-type]
    release = make_release(place).release
    (root / "base").mkdir()
    (root / "base" / "weights.bin").write_bytes(b"weights")
    run, report = root / "runs" / "first", root / "reports" / "first"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter.bin").write_bytes(b"adapter")
    (run / "log.jsonl").write_text("{}\n")
    inputs = {
        "release": Input(path="../../releases/r1", sha256=release.manifest.sha256),
        "recipe": Input(path="../../recipe.yaml", sha256=sha256_file(place.recipe)),
        "base": Input(path="../../base", sha256=sha256_tree(root / "base")),
    }
    made = write_manifest(run, "run", "first", inputs, {"scale": 0.75})
    (run / "checkpoints" / "step-1").mkdir(parents=True)
    (run / "checkpoints" / "step-1" / "state.bin").write_bytes(b"state")
    report.mkdir(parents=True)
    write_json(report / "scores.json", {"verdict": "GO"})
    inputs = {"run": Input(path="../../runs/first", sha256=made.sha256), "release": inputs["release"]}
    write_manifest(report, "report", "first", inputs, {})
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "ws")
    return tmp_path / "ws"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(tutelage.main, [str(one) for one in arguments])


def named(root: Path, start: str = "reports/first") -> dict[str, str]:
    """Relative path -> rule of every finding."""
    done = verify(root / start)
    return {os.path.relpath(Path(one.where).resolve(), root.resolve()): one.rule for one in done.findings}


def test_a_whole_chain_holds(root: Path) -> None:
    result = run("verify", root / "reports" / "first")
    assert result.exit_code == 0, result.output
    assert "All of it holds." in result.stdout
    lines = result.stdout.splitlines()
    assert [line.lstrip("├└│─ ").split()[0] for line in lines[:3]] == ["report", "run", "release"]
    for word in ("release", "pairs", "behaviour", "schema", "recipe", "base", "see above"):
        assert word in result.stdout
    document = json.loads(run("verify", root / "reports" / "first", "--json").stdout)
    assert (document["holds"], document["findings"], document["notes"]) == (True, [], [])
    assert document["chain"]["made_from"][0]["made_from"][0]["role"] == "release"


CHAIN = [
    *("behaviour.yaml", "schema.json", "recipe.yaml", "base/weights.bin", "reports/first/scores.json"),
    *("reports/first/manifest.json", "runs/first/manifest.json", "runs/first/log.jsonl"),
    *("runs/first/adapter/adapter.bin", "releases/r1/manifest.json", "releases/r1/README.md"),
    *("releases/r1/behaviour.yaml", "releases/r1/schema.json", "pairs.jsonl"),
    *(f"releases/r1/{split}.parquet" for split in ("train", "validation", "calibration", "test")),
]


def test_the_list_of_files_is_whole(original: Path) -> None:
    there = {path.relative_to(original).as_posix() for path in original.rglob("*") if path.is_file()}
    assert there - set(CHAIN) == {"examples.jsonl", ".gitignore", ".lock", "runs/first/checkpoints/step-1/state.bin"}


def flipped(data: bytes) -> Iterator[bytes]:
    """The data with one byte changed, at moments spread over all of it."""
    for place in sorted(
        {0, len(data) // 3, len(data) // 2, len(data) - 1, *range(7, len(data), max(1, len(data) // 8))}
    ):
        yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("name", CHAIN)
def test_a_byte_changed_anywhere_is_named(root: Path, name: str) -> None:
    for data in flipped((root / name).read_bytes()):
        (root / name).write_bytes(data)
        found = {path for path in named(root) if path == name or (path == "base" and name.startswith("base/"))}
        assert found, data[:80]


def test_every_byte_of_a_manifest_counts(root: Path) -> None:
    path = root / "runs" / "first" / "manifest.json"
    data = path.read_bytes()
    shutil.rmtree(root / "releases")  # missing ever after, which makes a walk quick
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert "runs/first/manifest.json" in named(root, "runs/first"), place
    path.write_bytes(data.replace(b"\n", b"\r\n"))
    assert named(root, "runs/first")["runs/first/manifest.json"] == "manifest-changed"


@pytest.mark.parametrize("name", CHAIN)
def test_a_file_gone_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    if name == "reports/first/manifest.json":
        result = run("verify", root / "reports" / "first")
        assert (result.exit_code, "no finished" in result.output) == (1, True)
        return
    found = named(root)
    assert name in found or (name, "base") == ("base/weights.bin", *found)
    assert run("verify", root / "reports" / "first").exit_code == 3


@pytest.mark.parametrize("name", ["releases/r1/extra.txt", "runs/first/adapter/more.bin", "reports/first/.hidden"])
def test_a_file_added_is_named(root: Path, name: str) -> None:
    (root / name).write_text("x")
    assert named(root) == {name: "file-unlisted"}


def test_checkpoints_are_exempt(root: Path) -> None:
    (root / "runs/first/checkpoints/step-2").mkdir()
    (root / "runs/first/checkpoints/step-2/x").write_text("x")
    shutil.rmtree(root / "runs/first/checkpoints/step-1")
    assert named(root) == {}


@pytest.mark.parametrize("name", ["releases/r1", "runs/first", "base"])
def test_a_directory_gone_is_named(root: Path, name: str) -> None:
    shutil.rmtree(root / name)
    assert named(root) == {name: "input-missing"}


def test_pairs_may_grow(root: Path) -> None:
    write_pairs(root / "pairs.jsonl", pairs_of(15))  # type: ignore[arg-type]
    done = verify(root / "releases" / "r1")
    assert done.findings == []
    assert "holds 3 pairs that" in done.notes[0]


def test_a_released_pair_changed_or_gone_is_named_by_id(root: Path) -> None:
    pairs = read_pairs(root / "pairs.jsonl")
    pairs[3] = pairs[3].model_copy(update={"question": "Other?"})
    write_pairs(root / "pairs.jsonl", [*pairs[:7], *pairs[8:]])
    result = run("verify", root / "releases" / "r1", "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert {one["pair"]: one["rule"] for one in document["findings"]} == {"q3": "pair-changed", "q7": "pair-gone"}
    assert document["counts"] == {"pair-changed": 1, "pair-gone": 1}


def test_a_mended_pair_does_not_break_the_release_after_it(root: Path) -> None:
    pairs = read_pairs(root / "pairs.jsonl")
    pairs[3] = pairs[3].model_copy(update={"question": "Other?"})
    write_pairs(root / "pairs.jsonl", pairs)
    make_release(Workspace(root))
    assert named(root, "releases/r2") == {}
    (root / "releases/r1/README.md").write_text("x")
    assert named(root, "releases/r2") == {"releases/r1/README.md": "file-changed"}


def test_another_release_in_the_place_of_the_first_is_named(root: Path) -> None:
    pairs = read_pairs(root / "pairs.jsonl")
    shutil.rmtree(root / "releases" / "r1")
    write_pairs(root / "pairs.jsonl", pairs[:-1])
    make_release(Workspace(root))
    assert named(root, "runs/first") == {"releases/r1/manifest.json": "input-changed"}


def test_a_manifest_written_again_by_hand_does_not_hide_a_changed_row(root: Path) -> None:
    """Parquet, listed hash and manifest hashes all forged: the rows still know what they were."""
    import pyarrow.parquet as pq

    release = root / "releases" / "r1"
    file = release / "test.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0]["output"] = rows[0]["output"].replace("word", "lie")
    pq.write_table(table.from_pylist(rows, schema=table.schema), file)
    old = read_manifest(release)
    (release / "manifest.json").unlink()
    write_manifest(release, "release", old.name, old.inputs, old.details)
    done = verify(release)
    assert [(one.rule, one.pair) for one in done.findings] == [("pair-damaged", rows[0]["id"])]


def test_a_workspace_may_be_moved_and_a_directory_renamed(root: Path, tmp_path: Path) -> None:
    shutil.move(root, tmp_path / "else")
    assert named(tmp_path / "else") == {}
    (tmp_path / "else" / "reports" / "first").rename(tmp_path / "else" / "reports" / "best")
    done = verify(tmp_path / "else" / "reports" / "best")
    assert (done.findings, len(done.notes)) == ([], 1)
    assert "was called first" in done.notes[0]


def test_a_run_copied_out_finds_its_inputs_in_the_workspace(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "runs" / "first", tmp_path / "copied" / "first")
    assert run("verify", tmp_path / "copied" / "first").exit_code == 3
    assert run("-C", root, "verify", tmp_path / "copied" / "first").exit_code == 0


def test_a_base_on_a_hub_is_a_note(root: Path) -> None:
    path = root / "runs" / "first"
    old = read_manifest(path)
    (path / "manifest.json").unlink()
    inputs = {**old.inputs, "base": Input(path="Qwen/Qwen3-4B@abc123", sha256="0" * 64)}
    write_manifest(path, "run", "first", inputs, old.details, old.files)
    done = verify(path)
    assert done.findings == []
    assert "cannot be verified here" in done.notes[0]


def test_paths_are_taken_from_the_workspace_too(root: Path) -> None:
    assert run("-C", root, "verify", "reports/first").exit_code == 0
    result = run("-C", root, "verify", "reports/none")
    assert (result.exit_code, "no such directory" in result.output) == (1, True)
    assert "reports/first, runs/first, releases/r1" in result.output
    result = run("verify", root)
    assert (result.exit_code, "has no manifest.json" in result.output) == (1, True)


def test_a_bare_name_is_a_report_else_a_run_else_a_release(root: Path) -> None:
    for name, kind in (("first", "report"), ("r1", "release")):
        result = run("-C", root, "verify", name)
        assert (result.exit_code, result.stdout.split()[0]) == (0, kind), result.output
    shutil.rmtree(root / "reports" / "first")
    assert run("-C", root, "verify", "first").stdout.startswith("run ")
