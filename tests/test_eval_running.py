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

import eval_cases
import httpx
import pytest
import yaml
from click.testing import CliRunner

from curate.behaviour import Behaviour
from curate.errors import EndpointError, WorkspaceError
from curate.files import read_json, write_json, write_text
from curate.manifest import Input, read_manifest, write_manifest
from curate.pairs import Pair, write_pairs
from curate.release import Options, load_release, make_release
from curate.verify import verify
from curate.workspace import Workspace
from eval.planning import Request
from eval.running import evaluate, open_report
from tutelage import main

FILES = {
    *("predictions.jsonl", "predictions-base.jsonl", "calibration-predictions.jsonl", "retention-base.jsonl"),
    *("retention-tuned.jsonl", "closed-book.jsonl", "scores.json", "failures.jsonl", "report.html", "report.md"),
    "junit.xml",
}


def write_behaviour(root: Path, behaviour: Behaviour) -> None:
    document = behaviour.model_dump(mode="json", by_alias=True, exclude={"schema_document"}, exclude_none=True)
    write_text(root / "behaviour.yaml", yaml.safe_dump(document))
    write_json(root / "schema.json", eval_cases.SCHEMA)


def make_run(root: Path, base: Path, name: str = "first") -> Path:
    """A run as `train run` leaves it, its adapter random and large enough to change every answer."""
    import torch

    from train.model import attach_lora, base_input, load_base, versions
    from train.recipe import load_recipe, relative_document
    from train.rendering import contract

    write_text(
        root / "recipe.yaml", f"base: {{model: {base}}}\nquantization: {{compute: float32}}\nlora: {{rank: 2}}\n"
    )
    recipe = load_recipe(root / "recipe.yaml")
    model, tokenizer = load_base(recipe.base, recipe.quantization, "cpu")
    tuned = attach_lora(model, recipe.lora, seed=1)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in tuned.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.5)
    run = root / "runs" / name
    tuned.save_pretrained(str(run / "adapter"), safe_serialization=True)
    items = [
        {"id": f"{kind}{i}", "set": kind, "prompt": f"{kind} {i}", "answer": str(i)}
        for kind in ("count", "copy")
        for i in range(6)
    ]
    write_text(run / "retention.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    shutil.copyfile(root / "recipe.yaml", run / "recipe.yaml")
    release = read_manifest(root / "releases/r", "release")
    curve = [
        {"scale": scale, "task": scale, "pairs": 9, "retention": {"all": 1 - scale / 2}} for scale in (0.0, 0.5, 1.0)
    ]
    details = {
        "recipe": relative_document(recipe, run),
        "contract": contract(tokenizer, [tokenizer.eos_token_id]),
        "scale": 0.5,
        "scaling": {"margin": 0.02, "kept": True, "note": "", "curve": curve},
        "versions": versions(),
    }
    inputs = {
        "release": Input(path="../../releases/r", sha256=release.sha256),
        "recipe": Input(path="recipe.yaml", sha256="0" * 64),
        "base": base_input(recipe.base, run),
    }
    write_manifest(run, "run", name, inputs, details)
    return run


def made_pairs() -> list[Pair]:
    return eval_cases.pairs(60)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A workspace with a release and a run; tests work on copies."""
    root = tmp_path_factory.mktemp("eval") / "w"
    root.mkdir()
    write_behaviour(root, eval_cases.behaviour())
    write_pairs(root / "pairs.jsonl", made_pairs())
    make_release(Workspace(root), Options(name="r"))
    shutil.copytree(tiny_base, root / "base")
    make_run(root, root / "base")
    return root


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "w"))


def ask(place: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    fields = {"model": "first", "max_new_tokens": 5, "batch_size": 8, "device": "cpu", **changes}
    return evaluate(Workspace(place), Request(**fields))


@pytest.fixture(scope="module")
def whole(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace with a finished report of the run."""
    root = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("whole") / "w"))
    ask(root)
    return root


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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


def test_interrupted_it_ends_at_the_same_numbers(place: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ask(place)
    assert not (place / "reports/first/manifest.json").exists(), "unfinished"
    with pytest.raises(WorkspaceError, match="there is no report"):
        Workspace(place).find("report", "first")
    left = place / "reports/first/.scores.json.abc.partial"
    left.write_text("what a killed write leaves")
    ask(place)
    assert not left.exists()
    assert timeless(place / "reports/first") == timeless(whole / "reports/first")
    assert not list((place / "reports").glob(".*.json"))


def test_a_name_that_is_taken_is_refused(place: Path) -> None:
    (place / "reports/mine").mkdir(parents=True)
    (place / "reports/mine/notes.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="no report stands there"):
        ask(place, name="mine")
    assert (place / "reports/mine/notes.txt").read_text() == "mine"
    with pytest.raises(WorkspaceError, match="cannot be a report's name"):
        ask(place, name="../up")
    inputs = {"run": Input(path="x", sha256="1" * 64)}
    with open_report(place / "reports/other", inputs):
        pass
    write_manifest(place / "reports/other", "report", "other", inputs, {})
    with pytest.raises(WorkspaceError, match="of other inputs"):
        ask(place, name="other")


def test_two_at_once_are_refused(place: Path) -> None:
    inputs = {"run": Input(path="x", sha256="1" * 64)}
    with (
        open_report(place / "reports/a", inputs),
        pytest.raises(WorkspaceError, match="another tutelage eval run"),
        open_report(place / "reports/a", inputs),
    ):
        pass


def test_a_changed_template_is_refused(place: Path) -> None:
    template = place / "base/chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|> "))
    with pytest.raises(WorkspaceError, match="template_sha256"):
        ask(place)


def test_a_release_the_run_has_learned_is_refused(place: Path) -> None:
    write_pairs(place / "pairs.jsonl", [pair.model_copy(update={"id": f"other-{pair.id}"}) for pair in made_pairs()])
    fractions: Any = {"train": 0.1, "validation": 0.1, "calibration": 0.3, "test": 0.5}
    make_release(Workspace(place), Options(name="renamed", fresh=True, fractions=fractions))
    with pytest.raises(WorkspaceError, match=r"was trained on \d+ of the pairs that would test it"):
        ask(place, release="renamed")


def test_a_plain_model_is_scored_alone(place: Path) -> None:
    report, scores = ask(place, model=str(place / "base"), name="plain", limit=3)
    assert scores["n"] == 3
    assert scores["baseline"] is None
    assert scores["retention"] is None
    assert scores["sources"]["partial"] is True
    assert set(read_manifest(report, "report").inputs) == {"model", "release"}
    assert not (report / "predictions-base.jsonl").exists()
    assert "There is no base model" in (report / "report.html").read_text()


def test_an_unknown_run_is_named(place: Path) -> None:
    with pytest.raises(WorkspaceError, match="there is no run 'nobody'"):
        ask(place, model="nobody")


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
def test_killed_at_any_moment_it_ends_at_the_same_numbers(place: Path, whole: Path) -> None:
    """The process is killed as soon as a further batch is on disk, again and again."""
    command = [sys.executable, "-m", "tutelage", "-C", str(place), "eval", "run", "first"]
    command += ["--max-new-tokens", "5", "--batch-size", "8", "--device", "cpu"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    report, kills = place / "reports/first", 0
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
    ask(place)
    assert timeless(report) == timeless(whole / "reports/first")


def test_more_ways_of_asking_stand_beside_the_plain_one(place: Path, whole: Path) -> None:
    report, scores = ask(place, samples=3, constrained=True, limit=6, max_new_tokens=40, name="more")
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
    assert all(load_release(place / "releases/r").behaviour.conforms(json.loads(line["output"])) for line in bound)
    facts = dict(scores["sources"]["facts"])
    assert facts["Confidence"] == "agreement of 3 answers drawn at temperature 1"
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    ask(place, samples=3, constrained=True, limit=6, max_new_tokens=40, name="more")
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before
    ask(place, limit=6, max_new_tokens=40, closed_book=False, name="more")
    assert set(read_manifest(report, "report").files) == FILES - {"closed-book.jsonl"}, "what is not asked for goes"


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


class Server:
    """A chat-completions server that knows two models; it can be made to fail."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fails_after = fails_after

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            return httpx.Response(400, text="enough")
        body = json.loads(request.content)
        self.asked.append(body)
        colour = "red" if body["model"] == "good" else "blue"
        text = json.dumps({"status": "answered", "answer": colour, "citations": ["p1"]})
        content = [{"token": one, "logprob": -0.1} for one in text]
        choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": content}}
        return httpx.Response(200, json={"choices": [choice], "usage": {"completion_tokens": 30}})


REAL = httpx.Client


def serve(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    def client(headers: dict[str, str], timeout: object, transport: object) -> httpx.Client:
        return REAL(headers=headers, transport=httpx.MockTransport(server))

    monkeypatch.setattr("eval.endpoint.httpx.Client", client)


def test_a_served_run_is_answered_beside_its_base(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.endpoint import Served

    def refuse(*_: object) -> None:
        raise AssertionError("a server answers: no weights, no tokenizer")

    monkeypatch.setattr("train.model.load_tuned", refuse)
    monkeypatch.setattr("train.model.load_tokenizer", refuse)
    monkeypatch.setenv("TUTELAGE_API_KEY", "secret-key")
    serve(monkeypatch, Server(fails_after=11))
    where = Served("http://server.test", "good", "plain")
    with pytest.raises(EndpointError, match="enough"):
        ask(place, served=where)
    report = place / "reports/first-served"
    kept = len(lines(report / "predictions.jsonl"))
    assert kept == 8
    rest = Server()
    serve(monkeypatch, rest)
    _, scores = ask(place, served=where)
    assert scores["baseline"]["schema"]["adherence"]["value"] == 1
    assert scores["calibration"]["reliability"]
    assert set(scores["retention"]["sets"]) == {"count", "copy"}
    total = sum(len(lines(report / name)) for name in read_manifest(report, "report").files if name.endswith("s.jsonl"))
    assert total > kept
    assert set(read_manifest(report, "report").inputs) == {"run", "release"}
    assert all(line["tokens"] == 30 for line in lines(report / "predictions.jsonl"))
    everything = b"".join(path.read_bytes() for path in report.iterdir())
    assert b"secret-key" not in everything
    assert b"server.test" not in everything
    again = Server()
    serve(monkeypatch, again)
    ask(place, served=where)
    assert again.asked == [], "finished, nothing is asked"
    assert [one for one in verify(report, place).findings if "reports" in one.where] == []


def test_a_served_name_needs_no_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.endpoint import Served

    serve(monkeypatch, Server())
    report, scores = ask(place, model="hosted", served=Served("http://server.test", "good"), limit=3, samples=2)
    assert report.name == "hosted-on-r"
    assert scores["baseline"] is None
    manifest = read_manifest(report, "report")
    assert manifest.inputs["model"].path == "endpoint:good"
    found = verify(report, place)
    assert [one for one in found.findings if "reports" in one.where] == []
    assert any("cannot be verified" in note for note in found.notes)


def test_options_of_an_endpoint_need_one(place: Path) -> None:
    result = CliRunner().invoke(main, ["-C", str(place), "eval", "run", "first", "--model", "x"])
    assert result.exit_code == 2
    assert "--endpoint" in result.output
