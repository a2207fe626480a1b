"""`eval run` with a run made by hand from a tiny base: base beside tuned, resumed, repeated, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from evaluated_run import FILES, ask, lines, made_pairs

from curate.errors import TrainingError, WorkspaceError
from curate.files import read_json
from curate.manifest import Input, read_manifest, write_manifest
from curate.pairs import write_pairs
from curate.release import Options, load_release, make_release
from curate.verify import verify
from curate.workspace import Workspace
from eval.planning import Request
from eval.running import open_report
from tutelage import main


@pytest.fixture(scope="module")
def whole(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace with a finished report of the run."""
    root = Path(shutil.copytree(prepared_run, tmp_path_factory.mktemp("whole") / "w"))
    ask(root)
    return root


def timeless(report: Path) -> dict[str, Any]:
    """A report's scores less what a clock said, which no second run repeats."""
    return {key: value for key, value in read_json(report / "scores.json").items() if key != "latency"}


def test_a_run_is_answered_beside_its_base(whole: Path) -> None:
    report = whole / "reports/first"
    manifest = read_manifest(report, "report")
    assert set(manifest.files) == FILES
    assert set(manifest.inputs) == {"run", "release"}
    release = load_release(whole / "releases/r")
    test = [pair.id for pair in release.pairs("test")]
    for name in ("predictions.jsonl", "predictions-base.jsonl"):
        assert [line["id"] for line in lines(report / name)] == test
    calibration = [pair.id for pair in release.pairs("calibration")]
    assert [line["id"] for line in lines(report / "calibration-predictions.jsonl")] == calibration
    tuned, base = (lines(report / name) for name in ("predictions.jsonl", "predictions-base.jsonl"))
    assert [one["output"] for one in tuned] != [one["output"] for one in base], "the adapter is on for one of them"
    scores = read_json(report / "scores.json")
    assert scores["n"] == len(test)
    assert scores["baseline"]["schema"]["adherence"]["n"] == len(test)
    assert set(scores["retention"]["sets"]) == {"count", "copy"}
    assert {one["role"] for one in scores["sources"]["chain"]} >= {"report", "run", "base", "release", "pairs"}
    assert scores["sources"]["scales"]["chosen"] == 0.5
    assert str(whole) not in (report / "scores.json").read_text(), "no path of this machine in a result"
    assert str(whole) not in (report / "report.html").read_text()


def test_the_base_of_a_run_is_the_base_itself(whole: Path) -> None:
    from eval.subject import Subject
    from train.model import load_base
    from train.recipe import load_recipe
    from train.rendering import render_prompt

    recipe = load_recipe(whole / "recipe.yaml")
    subject = Subject("base", recipe.base, None, "cpu")
    subject.__dict__["_model"] = load_base(recipe.base, recipe.quantization, "cpu")[0]
    release = load_release(whole / "releases/r")
    prompts = [render_prompt(subject.tokenizer, release.behaviour.render(pair)) for pair in release.pairs("test")]
    said = [one.text for one in subject.answer("tuned", prompts, 5)]
    assert said == [line["output"] for line in lines(whole / "reports/first/predictions-base.jsonl")]


def test_the_chain_is_whole(whole: Path) -> None:
    found = verify(whole / "reports/first", whole)
    assert [one for one in found.findings if "reports" in one.where] == []


def test_again_gives_the_same_numbers_without_a_model(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = whole / "reports/first"
    before = {path.name: path.read_bytes() for path in report.iterdir()}

    def refuse(*_: object) -> None:
        raise AssertionError("all answers are there; no weights are needed")

    monkeypatch.setattr("train.model.load_tuned", refuse)
    ask(whole)
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_interrupted_it_ends_at_the_same_numbers(run_root: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import eval.subject

    answer = eval.subject.Subject.answer
    calls = 0

    def fail_at_the_third(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return answer(self, *arguments)

    monkeypatch.setattr(eval.subject.Subject, "answer", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ask(run_root)
    assert not (run_root / "reports/first/manifest.json").exists(), "unfinished"
    with pytest.raises(WorkspaceError, match="was begun and is not finished"):
        Workspace(run_root).find("report", "first")
    left = run_root / "reports/first/.scores.json.abc.partial"
    left.write_text("what a killed write leaves")
    ask(run_root)
    assert not left.exists()
    assert timeless(run_root / "reports/first") == timeless(whole / "reports/first")
    assert not list((run_root / "reports").glob(".*.json"))


def test_a_name_that_is_taken_is_refused(run_root: Path) -> None:
    (run_root / "reports/mine").mkdir(parents=True)
    (run_root / "reports/mine/notes.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="no report stands there"):
        ask(run_root, name="mine")
    assert (run_root / "reports/mine/notes.txt").read_text() == "mine"
    with pytest.raises(WorkspaceError, match="cannot be a report's name"):
        ask(run_root, name="../up")
    inputs = {"run": Input(path="x", sha256="1" * 64)}
    with open_report(run_root / "reports/other", inputs):
        pass
    write_manifest(run_root / "reports/other", "report", "other", inputs, {})
    with pytest.raises(WorkspaceError, match="of other inputs"):
        ask(run_root, name="other")


def test_two_at_once_are_refused(run_root: Path) -> None:
    inputs = {"run": Input(path="x", sha256="1" * 64)}
    with (
        open_report(run_root / "reports/a", inputs),
        pytest.raises(WorkspaceError, match="another tutelage command is writing here"),
        open_report(run_root / "reports/a", inputs),
    ):
        pass


def test_a_changed_template_is_refused(run_root: Path) -> None:
    template = run_root / "base/chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|> "))
    with pytest.raises(WorkspaceError, match="template_sha256"):
        ask(run_root)


def test_a_release_the_run_has_learned_is_refused(run_root: Path) -> None:
    write_pairs(run_root / "pairs.jsonl", [pair.model_copy(update={"id": f"other-{pair.id}"}) for pair in made_pairs()])
    fractions: Any = {"train": 0.1, "validation": 0.1, "calibration": 0.3, "test": 0.5}
    make_release(Workspace(run_root), Options(name="renamed", fresh=True, fractions=fractions))
    with pytest.raises(WorkspaceError, match=r"was trained on \d+ of the pairs that would test it"):
        ask(run_root, release="renamed")


def test_a_plain_model_is_scored_alone(run_root: Path) -> None:
    report, scores = ask(run_root, model=str(run_root / "base"), name="plain", limit=3)
    assert scores["n"] == 3
    assert scores["baseline"] is None
    assert scores["retention"] is None
    assert scores["sources"]["partial"] is True
    assert set(read_manifest(report, "report").inputs) == {"model", "release"}
    assert not (report / "predictions-base.jsonl").exists()
    assert "There is no base model" in (report / "report.html").read_text()


def test_what_is_not_finished_is_named_with_how_it_goes_on(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    for kind, parent, on in (("run", place.runs, "--resume --name begun"), ("report", place.reports, "once more")):
        (parent / "begun").mkdir(parents=True)
        with pytest.raises(WorkspaceError, match="was begun and is not finished") as caught:
            place.find(kind, "begun")
        assert on in str(caught.value)
        with pytest.raises(WorkspaceError, match=f"there is no {kind} 'other'"):
            place.find(kind, "other")


def test_an_unknown_run_is_named(run_root: Path) -> None:
    with pytest.raises(WorkspaceError, match="there is no run 'nobody'"):
        ask(run_root, model="nobody")


def test_the_command_prints_the_verdict_and_exits_with_it(whole: Path) -> None:
    arguments = [
        "-C",
        str(whole),
        "eval",
        "run",
        "first",
        "--max-new-tokens",
        "5",
        "--batch-size",
        "8",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3, result.output
    assert "NO-GO" in result.stdout
    assert "schema_adherence" in result.stdout
    assert "report.html" in result.stderr
    shown = CliRunner().invoke(main, [*arguments, "--json"])
    assert json.loads(shown.stdout) == read_json(whole / "reports/first/scores.json")
    page = CliRunner().invoke(main, ["-C", str(whole), "eval", "report", "first", "--json"])
    assert page.exit_code == 0
    assert (whole / json.loads(page.stdout)["report"]).is_file()


def test_inputs_name_run_and_release_relative_to_the_report(whole: Path) -> None:
    inputs = read_manifest(whole / "reports/first", "report").inputs
    assert {role: one.path for role, one in inputs.items()} == {
        "run": "../../runs/first",
        "release": "../../releases/r",
    }


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_at_the_same_numbers(run_root: Path, whole: Path) -> None:
    """The process is killed as soon as a further batch is on disk, again and again."""
    command = [sys.executable, "-m", "tutelage", "-C", str(run_root), "eval", "run", "first"]
    command += ["--max-new-tokens", "5", "--batch-size", "8", "--device", "cpu"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    report, kills = run_root / "reports/first", 0
    for _ in range(10):
        before = sum(len(path.read_bytes().splitlines()) for path in report.glob("*.jsonl"))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        while process.poll() is None:
            if sum(len(path.read_bytes().splitlines()) for path in report.glob("*.jsonl")) > before:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        _, errors = process.communicate(timeout=300)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 3, errors.decode()
            break
        kills += 1
    assert kills >= 2
    ask(run_root)
    assert timeless(report) == timeless(whole / "reports/first")


def test_more_ways_of_asking_stand_beside_the_plain_one(run_root: Path, whole: Path) -> None:
    report, scores = ask(run_root, samples=3, constrained=True, limit=6, max_new_tokens=40, name="more")
    files = set(read_manifest(report, "report").files)
    assert files == FILES | {"predictions-constrained.jsonl", "predictions-base-constrained.jsonl"}
    test = {line["id"]: line for line in lines(report / "predictions.jsonl")}
    assert all(len(line["samples"]) == 3 for line in test.values())
    assert scores["constrained"]["engine"].startswith("llguidance ")
    assert scores["constrained"]["ignored"] == []
    for side in ("tuned", "base"):
        assert scores["constrained"][side]["n"] == 6
        assert scores["constrained"][side]["schema"]["adherence"]["n"] == 6
    bound = [line for line in lines(report / "predictions-base-constrained.jsonl") if line["finish"] == "stop"]
    assert all(load_release(run_root / "releases/r").behaviour.conforms(json.loads(line["output"])) for line in bound)
    facts = dict(scores["sources"]["facts"])
    assert facts["Confidence"] == "agreement of 3 answers drawn at temperature 1"
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    ask(run_root, samples=3, constrained=True, limit=6, max_new_tokens=40, name="more")
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before
    with pytest.raises(WorkspaceError, match="6 of the answers there were given otherwise"):
        ask(run_root, limit=6, max_new_tokens=40, name="more")
    with pytest.raises(WorkspaceError, match="would not be asked for now"):
        ask(run_root, samples=3, limit=6, max_new_tokens=40, name="more")
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_a_finished_report_outlives_a_command_that_fails_or_asks_for_less(whole: Path) -> None:
    report = whole / "reports/first"
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    with pytest.raises(TrainingError, match="no GPU"):
        ask(whole, device="cuda")
    with pytest.raises(WorkspaceError, match="of the answers there"):
        ask(whole, limit=3, name="first")
    with pytest.raises(WorkspaceError, match="of the answers there"):
        ask(whole, batch_size=4)
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before
    assert [one for one in verify(report, whole).findings if "reports" in one.where] == []


def test_a_first_look_at_a_few_pairs_stands_in_the_way_of_nothing(run_root: Path, whole: Path) -> None:
    assert ask(run_root, limit=4)[0].name == "first-limit-4"
    ask(run_root)
    assert timeless(run_root / "reports/first") == timeless(whole / "reports/first")


def test_closed_book_asks_the_answerable_ones_without_passages(whole: Path) -> None:
    from eval.planning import CLOSED_BOOK, Setting, plan
    from eval.subject import choose_pairs, find_subject

    workspace = Workspace(whole)
    release = load_release(whole / "releases/r")
    subject = find_subject(workspace, "first", "cpu")
    asked = choose_pairs(release, subject.run, None)
    jobs = plan(Setting(subject, release, asked, [], Request("first"), whole / "reports/first"))
    closed = next(job for job in jobs if job.path.name == CLOSED_BOOK)
    wanted = [pair for pair in asked.test if pair.answerable]
    assert [one.id for one in closed.questions] == [pair.id for pair in wanted]
    for one, pair in zip(closed.questions, wanted, strict=True):
        assert pair.question in one.prompt
        assert pair.passages[0].text not in one.prompt
    scores = read_json(whole / "reports/first/scores.json")
    assert scores["grounding"]["closed_book"]["n"] == len(wanted)


def test_scoring_a_file_never_replaces_a_report_of_answers(whole: Path) -> None:
    report = whole / "reports/first"
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    score = ["eval", "score", str(report / "predictions.jsonl"), "--release", "r", "--out", str(report)]
    result = CliRunner().invoke(main, ["-C", str(whole), *score])
    assert result.exit_code == 1
    assert "its answers would be lost" in result.output
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before
